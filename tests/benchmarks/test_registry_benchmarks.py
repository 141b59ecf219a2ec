"""The registry's harnesses in short: writers are killed and nothing is lost, and what is sought is found at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_killed_writers_lose_nothing_that_they_acknowledged() -> None:
    found = run("registry_kills.py", "--kills", "20")
    assert found["kills"] >= 20 and found["acknowledged_writes"] > 0
    assert (found["lost_writes"], found["integrity_faults"], found["faults"]) == (0, 0, [])


def test_finding_does_not_slow_down_with_the_registry() -> None:
    found = run("registry_speed.py", "--recipes", "1000", "--evidence", "5000", "--json")
    assert found["queries"]["everything"]["matches"] >= 1000
    assert found["queries"]["nothing"]["matches"] == 0
    assert 0 < found["queries"]["proven on this card"]["matches"] < 1000
    assert found["slowest_median_ms"] < 500  # the figure itself is measured on a quiet machine


def test_what_was_measured_reaches_the_figures() -> None:
    kills = json.loads((BENCHMARKS / "registry_kills.json").read_text(encoding="utf-8"))
    assert kills["kills"] >= 1000 and kills["lost_writes"] == kills["integrity_faults"] == 0
    speed = json.loads((BENCHMARKS / "registry_speed.json").read_text(encoding="utf-8"))
    assert (speed["recipes"], speed["evidence_rows"]) == (10_000, 100_000)
    assert speed["slowest_median_ms"] <= 50
