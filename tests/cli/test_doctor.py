"""`tunewright doctor`: one page for people, one object for programs, at once and without torch."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tunewright.__main__ import main
from tunewright.cli import doctor
from tunewright.engine.installation import Installation, inspect_installation
from tunewright.engine.machine import GpuDevice, GpuProcess, Machine, inspect_machine

HOLDER = GpuProcess(4711, "ada", "a-program-with-a-long-name", 60.0)
H200 = GpuDevice(0, "NVIDIA H200", 139.8, 79.1, (9, 0), 37, 34, 81, 700, (HOLDER,))
SILENT = GpuDevice(1, "GRID V100", 16, 16, (7, 0), None, None, None, None)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")


def pretend(monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], installation: dict[str, Any]) -> None:
    """Let doctor find this machine and installation, changed in these fields."""

    def changed_machine(runs: Path) -> Machine:
        return dataclasses.replace(inspect_machine(runs), **machine)

    def changed_installation() -> Installation:
        return dataclasses.replace(inspect_installation(), **installation)

    monkeypatch.setattr(doctor, "inspect_machine", changed_machine)
    monkeypatch.setattr(doctor, "inspect_installation", changed_installation)


def test_the_page_has_three_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) in {0, 1}
    page = capsys.readouterr().out
    assert [line for line in page.splitlines() if line and line[0] != " "] == ["Machine", "Installed", "Findings"]
    assert f"python {sys.version.split()[0]}" in page
    assert max(map(len, page.splitlines())) <= 80


def test_every_gpu_is_described(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, {"gpus": (H200, SILENT), "driver": "580.95.05"}, {})
    main(["doctor"])
    page = " ".join(capsys.readouterr().out.split())
    assert "NVIDIA H200, 139.8 GiB (79.1 GiB free), compute capability 9.0, driver 580.95.05, 37 % busy" in page
    assert "34 °C, 81 of 700 W" in page
    assert "pid 4711: a-program-with-a-long-name, ada, 60.0 GiB" in page
    assert "GPU 1 GRID V100, 16.0 GiB (16.0 GiB free), compute capability 7.0, driver 580.95.05 Installed" in page


def test_programs_get_the_same_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, {"gpus": (H200,), "driver": "580.95.05"}, {})
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"machine", "runs", "installation", "findings"}
    assert report["machine"]["gpus"][0]["processes"][0]["pid"] == 4711
    assert report["installation"]["packages"].keys() >= {"torch", "unsloth", "textual"}
    assert all(finding.keys() == {"severity", "title", "detail", "fix"} for finding in report["findings"])


def test_it_fails_only_when_training_is_impossible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine: dict[str, Any] = {"unmet": {}, "home_writable": True, "torchvision": None}
    pretend(monkeypatch, {"disk_free_gib": 5.0}, fine)
    assert main(["doctor"]) == 0
    pretend(monkeypatch, {"disk_free_gib": 0.1}, fine)
    assert main(["doctor"]) == 1
    assert "problem   The disk is nearly full." in capsys.readouterr().out


def test_a_fix_stands_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, {}, {"home_writable": False})
    assert main(["doctor"]) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "export TUNEWRIGHT_HOME=/a/folder/of/your/own" in lines


def test_it_takes_less_than_a_second_and_no_torch() -> None:
    script = "import sys; from tunewright.__main__ import main; main(['doctor']); assert 'torch' not in sys.modules"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.returncode == 0, done.stderr
    # A promise of one second, with room for a machine that does other things meanwhile.
    assert time.monotonic() - start < 5
