"""Fixtures: a home of its own, a fixed machine, fixed plans and a clock that stands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from .recorded import (
    ADVICE,
    CATALOGUE,
    CPU_MACHINE,
    FINDINGS,
    GPU_MACHINE,
    INSTALLATION,
    NOON,
    make_data,
    make_model,
    make_plan,
)


@pytest.fixture(autouse=True)
def _one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs in a home of its own, with a fixed catalogue, a fixed model and fixed data."""
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEWRIGHT_QUEUE", str(tmp_path))  # no run of another test holds this machine
    monkeypatch.setattr("tunewright.recipes.registry.built_in", lambda: CATALOGUE)
    monkeypatch.setattr("tunewright.recipes.registry.fingerprint", lambda: "fixed")
    model, data = make_model(tmp_path / "model"), make_data(tmp_path / "orders.jsonl")
    monkeypatch.setattr("tunewright.engine.sources.BUILT_IN_MODELS", {"tunewright/starter": model})
    monkeypatch.setattr("tunewright.engine.sources.BUILT_IN_DATA", {"tunewright/starter-orders": data})
    monkeypatch.setattr("tunewright.engine.machine.inspect_machine", lambda runs: CPU_MACHINE)
    monkeypatch.setattr("tunewright.engine.installation.inspect_installation", lambda: INSTALLATION)
    monkeypatch.setattr("tunewright.engine.installation.examine", lambda machine, installation: FINDINGS)
    monkeypatch.setattr("tunewright.tui.follow.FOLLOWING_SHARE", 1e9)  # a test looks on as fast as it can
    folder = tmp_path / "home" / "runs"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def fixed_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the advice and the plan be the same whatever the formulas say."""
    monkeypatch.setattr("tunewright.engine.advice.advise", lambda *arguments: ADVICE)
    monkeypatch.setattr("tunewright.engine.planner.plan_recipe", lambda recipe, machine: make_plan())


@pytest.fixture
def frozen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be a minute after noon on every screen."""
    now = NOON + 60
    clock = SimpleNamespace(
        time=lambda: now,
        localtime=lambda moment=now: time.localtime(moment),
        strftime=time.strftime,
    )
    monkeypatch.setattr("tunewright.tui.figures.time", clock)
    monkeypatch.setattr("tunewright.tui.run_state.time", clock)


@pytest.fixture
def gpu_machine(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have two GPUs, one of them shared."""
    monkeypatch.setattr("tunewright.engine.machine.inspect_machine", lambda runs: GPU_MACHINE)
