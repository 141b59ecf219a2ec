"""The launcher: of several ranks that fail, the one that failed first is told, and its end is the launcher's."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tunewright.engine.runs import outcome
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.training.parallel import FAILURE
from tunewright.engine.training.parallel.launcher import conclude


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({0: -signal.SIGTERM, 1: outcome.OUT_OF_MEMORY}, outcome.OUT_OF_MEMORY),
        ({0: outcome.CRASHED, 1: outcome.REFUSED}, outcome.REFUSED),
        ({0: outcome.STOPPED, 1: outcome.STOPPED}, outcome.STOPPED),
        ({0: outcome.CRASHED, 1: -signal.SIGTERM}, outcome.CRASHED),
    ],
)
def test_a_rank_that_ended_of_its_own_accord_says_how(tmp_path: Path, codes: dict[int, int], code: int) -> None:
    assert conclude(RunDirectory(tmp_path), 2, codes) == code


def test_the_first_failure_is_printed_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FAILURE.format(0)).write_text("20.5\nConnection closed by peer\n")
    (tmp_path / FAILURE.format(1)).write_text("20.25\nTraceback …\nKeyError: 'spoon'\n")
    assert conclude(RunDirectory(tmp_path), 2, {0: 1, 1: 1}) == outcome.CRASHED
    printed = capsys.readouterr().err
    assert "Rank 1 of 2 failed first" in printed and "spoon" in printed and "Connection" not in printed


@pytest.mark.parametrize(
    ("codes", "number"),
    [
        ({0: 1, 1: -signal.SIGKILL}, signal.SIGKILL),
        ({0: -signal.SIGTERM, 1: -signal.SIGSEGV}, signal.SIGSEGV),
        ({0: -signal.SIGUSR1, 1: -signal.SIGTERM}, signal.SIGTERM),
    ],
)
def test_the_launcher_dies_as_the_rank_died(tmp_path: Path, codes: dict[int, int], number: int) -> None:
    program = (
        "import sys; from pathlib import Path; from tunewright.engine.training.parallel.launcher import conclude; "
        "from tunewright.engine.runs.directory import RunDirectory; "
        f"conclude(RunDirectory(Path({str(tmp_path)!r})), 2, { ({rank: int(code) for rank, code in codes.items()})!r})"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL).returncode == -number
