"""Continuity: the first losses of a resumed run against those that it had recorded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import Continuity, EventLog, Step, read_events
from tunewright.engine.training.continuity import COMPARED_STEPS, ContinuityProof, losses_after


def recorded(folder: Path, losses: dict[int, float]) -> RunDirectory:
    run = RunDirectory(folder)
    log = EventLog(run.events_file)
    for step, loss in losses.items():
        log.append(
            Step(step=step, total_steps=99, epoch=0, loss=loss, learning_rate=0, grad_norm=0, tokens=1, seconds=1, peak_gib=1)
        )  # fmt: skip
    log.close()
    return run


def told(run: RunDirectory) -> list[Continuity]:
    return [each for each in read_events(run.events_file)[0] if isinstance(each, Continuity)]


def go_on(run: RunDirectory, step: int, losses: dict[int, float]) -> list[Continuity]:
    proof: Any = ContinuityProof(EventLog(run.events_file), losses_after(run, step))
    for number, loss in losses.items():
        proof.on_log(None, SimpleNamespace(global_step=number), None, {"loss": loss})
        proof.on_log(None, SimpleNamespace(global_step=number), None, {"eval_loss": 1.0})
    return told(run)


def test_equal_losses_are_told_once(tmp_path: Path) -> None:
    run = recorded(tmp_path, {4: 0.1, 5: 1 / 3, 6: 2 / 3})
    (found,) = go_on(run, 4, {5: 1 / 3, 6: 2 / 3, 7: 9.0})
    assert (found.step, found.compared, found.largest_difference) == (4, 2, 0)


@pytest.mark.parametrize("other", [0.5000000001, 0.6])
def test_the_largest_difference_is_told(tmp_path: Path, other: float) -> None:
    run = recorded(tmp_path, {1: 0.5, 2: 0.5, 3: 0.5})
    (found,) = go_on(run, 0, {1: 0.5, 2: other, 3: 0.5})
    assert found.largest_difference == pytest.approx((other - 0.5) / 0.5)
    assert "differ" in found.said


def test_steps_taken_again_twice_are_compared_with_the_later_time(tmp_path: Path) -> None:
    run = recorded(tmp_path, {1: 0.5, 2: 0.25})
    recorded(tmp_path, {2: 0.75})
    assert losses_after(run, 1) == {2: 0.75}


def test_at_most_so_many_are_compared(tmp_path: Path) -> None:
    losses = {step: 1.0 / step for step in range(1, 40)}
    (found,) = go_on(recorded(tmp_path, losses), 3, {step: losses[step] for step in range(4, 40)})
    assert found.compared == COMPARED_STEPS


def test_nothing_is_told_where_nothing_was_taken_again(tmp_path: Path) -> None:
    assert go_on(recorded(tmp_path, {1: 0.5}), 1, {2: 0.5}) == []


def test_nothing_is_compared_with_another_step(tmp_path: Path) -> None:
    assert go_on(recorded(tmp_path, {3: 0.5, 4: 0.4}), 2, {9: 0.5, 3: 0.5}) == []
