"""The harnesses that mistreat runs, in short: full disks, damaged checkpoints, dropped terminals (`make torture` has the long forms)."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ...mounting import can_mount

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def harnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.skipif(not can_mount(), reason="needs a file system of its own (unshare -rm, mount)")
def test_a_disk_that_fills_at_any_page_tears_nothing(tmp_path: Path) -> None:
    out = tmp_path / "full.json"
    command = [sys.executable, str(BENCHMARKS / "full_disk.py"), "--runs", "0", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"full_disks_while_writing": 0' not in out.read_text()


@pytest.mark.slow
def test_every_damaged_file_of_a_checkpoint_is_found_and_the_one_before_is_taken() -> None:
    from torture import damage_all  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    found = damage_all("lora", each_way=False)
    assert len(found) > 8
    assert [each for each in found if not each["found"]] == []


@pytest.mark.slow
def test_dropped_terminals_change_nothing() -> None:
    from dropped import WAYS, drop_all  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    report = drop_all(len(WAYS), random.Random(2), steps=60)
    assert (report["drops"], report["runs_ended_early"], report["restarted"], report["other_losses"]) == (
        len(WAYS),
        0,
        0,
        0,
    )


def test_an_interface_whose_terminal_is_gone_ends_even_where_hangups_are_ignored() -> None:
    from dropped import Terminal, wait  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    terminal = Terminal(["bash", "-c", f"trap '' HUP; exec {sys.executable} -m tunewright"])
    wait(terminal.shows_something)
    terminal.drop()  # waits until it has ended
    assert terminal.child.returncode == 128 + signal.SIGHUP
