"""The harness of the first screens, in short: each is drawn in a terminal of its own, and what it costs is told (`make bench-start`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "first_screen.py"), "--json", "--times", "1",
         "--recipes", "200", "--evidence", "1000", "--steps", "3000"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_every_screen_is_drawn(report: dict[str, Any]) -> None:
    seconds = report["seconds"]
    assert {"library_from_start", "library_from_key", "monitor_from_start", "monitor_from_key"} < seconds.keys()
    assert min(seconds.values()) > 0


def test_the_library_costs_little_more_than_a_bare_app(report: dict[str, Any]) -> None:
    """Work of a core, which other tests beside this one change less than the clock; what is not imported is tested elsewhere."""
    core = report["core_seconds"]
    assert core["library_from_start"] < 4 * core["floor_bare_textual_app"]
    assert core["library_from_key"] < 2 * core["floor_bare_textual_app"]


def test_what_was_measured_reaches_the_docs() -> None:
    found = json.loads((BENCHMARKS / "first_screen.json").read_text(encoding="utf-8"))
    assert (found["recipes"], found["evidence_rows"], found["steps"]) == (10_000, 100_000, 1_000_000)
    assert found["seconds"].keys() == found["core_seconds"].keys() == found["least_seconds"].keys()
