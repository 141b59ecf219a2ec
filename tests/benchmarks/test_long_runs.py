"""The harness of long runs, in short: a run of thirty thousand steps opens, and following it costs little (`make bench-runs`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.runs.fold import read_history

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STEPS = 30_000


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import long_runs  # pyright: ignore[reportMissingImports]

    return long_runs  # pyright: ignore[reportUnknownVariableType]


def test_a_long_run_opens_from_its_kept_fold(harness: Any) -> None:
    run = harness.make_run(STEPS)
    anew = harness.timed(lambda: harness.fold_up(run), 1)
    before = read_history(run)
    harness.write(run, harness.events_between(before.step, STEPS, STEPS))
    kept = harness.timed(lambda: harness.fold_up(run), 3)
    assert read_history(run).step == STEPS
    assert kept[1] < anew[1] / 4
    shown, printed = harness.call("runs", "show", run.id), harness.call("attach", run.id, "--plain", until=b"step ")
    assert max(shown[1], printed[1]) < 1.5  # seconds of a core, the start of Python among them


def test_following_costs_little(harness: Any) -> None:
    found = harness.following(harness.make_run(2000), 2000, 2.0)
    assert found["attach_share_of_a_core"] < 0.03
    assert found["monitor_share_of_a_core"] < 0.15  # on a machine that is busy with other tests
