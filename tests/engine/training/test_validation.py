"""Validation: the best weights are kept and ended with, a run stops early at the same step however often it is resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.runs import outcome
from tunewright.engine.runs.checkpoint import saved_checkpoints
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import Best, read_events
from tunewright.engine.runs.supervise import Supervisor
from tunewright.recipes.model import EarlyStopping

pytestmark = pytest.mark.slow

WORSE_FROM_SOME_STEP_ON = [
    "training.learning_rate=0.03",
    "training.warmup.value=0",
    "training.schedule=constant",
    "method.dropout=0.1",
    'training.finish_with="best"',
    "training.early_stopping.patience=3",
]


@pytest.fixture(scope="module")
def early(trainings: Any) -> Any:
    """A run that evaluates, samples and saves at every step, and stops early."""
    every = {"evaluate_every_steps": 1, "sample_every_steps": 1, "checkpoint_every_steps": 1}
    return trainings.train(trainings.new("lora", WORSE_FROM_SOME_STEP_ON, **every))


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def again(early: Any, tmp_path: Path, step: int) -> tuple[RunDirectory, Path]:
    """Return the run as it stood after the checkpoint of `step`, with that checkpoint."""
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(early.run.path, run.path)
    run.events_file.write_bytes(b"")
    shutil.rmtree(run.exports)
    run.exports.mkdir()
    for checkpoint in saved_checkpoints(run.checkpoints):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)
    return run, run.checkpoints / f"step-{step:06d}"


def test_a_run_stops_early_and_ends_with_its_best_weights(early: Any) -> None:
    assert early.outcome == outcome.FINISHED
    losses = {each.step: each.loss for each in early.history.evals}
    best = min(losses, key=lambda step: losses[step])
    ending = early.history.ending
    assert ending.weights_step == best
    assert ending.step == best + 3 < 12
    assert f"stopped early at step {ending.step} of 12 because the validation loss did not fall" in ending.reason
    assert f"the weights are those of step {best}" in ending.reason
    events, _ = read_events(early.run.events_file)
    told = [(event.step, event.loss) for event in events if isinstance(event, Best)]
    assert told[-1] == (best, losses[best])
    assert [loss for _, loss in told] == sorted((loss for _, loss in told), reverse=True)


def test_stopping_early_counts_as_finishing(early: Any, tmp_path: Path) -> None:
    run, _ = again(early, tmp_path, early.history.ending.step)
    run.events_file.write_bytes(early.run.events_file.read_bytes())
    assert Supervisor(run, "by a test")._conclude(outcome.FINISHED) == 0  # pyright: ignore[reportPrivateUsage]
    result = run.result()
    assert result is not None
    assert (result["state"], result["step"]) == ("finished", early.history.ending.step)
    assert (result["reason"], result["weights_step"]) == (
        early.history.ending.reason,
        early.history.ending.weights_step,
    )


def test_the_best_checkpoint_and_the_two_newest_are_kept(early: Any) -> None:
    ending = early.history.ending
    kept = [each.step for each in saved_checkpoints(early.run.checkpoints)]
    assert kept == [ending.step, ending.step - 1, ending.weights_step]
    assert weights(early.run.adapter) == weights(early.run.checkpoints / f"step-{ending.weights_step:06d}")
    assert weights(early.run.adapter) != weights(early.run.checkpoints / f"step-{ending.step:06d}")


def test_a_resumed_run_stops_at_the_same_step(early: Any, trainings: Any, tmp_path: Path) -> None:
    """It was stopped while it already waited: what it waited for is in the checkpoint."""
    ending = early.history.ending
    resumed = trainings.train(*_as_arguments(again(early, tmp_path, ending.step - 1)))
    assert [step.step for step in resumed.history.steps] == [ending.step]
    assert resumed.losses == early.losses[-1:]
    assert (resumed.history.ending.step, resumed.history.ending.weights_step) == (ending.step, ending.weights_step)
    assert resumed.history.ending.reason == ending.reason
    assert weights(resumed.run.adapter) == weights(early.run.adapter)


def test_a_run_that_was_interrupted_after_its_last_step_takes_no_other(
    early: Any, trainings: Any, tmp_path: Path
) -> None:
    resumed = trainings.train(*_as_arguments(again(early, tmp_path, early.history.ending.step)))
    assert resumed.outcome == outcome.FINISHED
    assert resumed.history.steps == []
    assert resumed.history.ending.reason == early.history.ending.reason
    assert weights(resumed.run.adapter) == weights(early.run.adapter)


def test_damaged_best_weights_are_told_and_the_last_ones_taken(early: Any, trainings: Any, tmp_path: Path) -> None:
    ending = early.history.ending
    run, checkpoint = again(early, tmp_path, ending.step)
    (run.checkpoints / f"step-{ending.weights_step:06d}" / "adapter_model.safetensors").write_bytes(b"")
    resumed = trainings.train(run, 0, checkpoint)
    assert resumed.history.ending.weights_step == ending.step
    assert [notice.title for notice in resumed.history.notices] == ["The best weights are damaged"]
    assert weights(run.adapter) == weights(checkpoint)


def test_looking_at_a_training_does_not_change_it(early: Any, trainings: Any) -> None:
    """With dropout, any draw from a random state would show in the next loss."""
    never = {"evaluate_every_steps": 100, "checkpoint_every_steps": 100}
    unseen = trainings.train(trainings.new("lora", [*WORSE_FROM_SOME_STEP_ON, "training.steps=4"], **never))
    assert [each.step for each in unseen.history.evals] == [4]
    assert not unseen.history.samples
    assert [each.step for each in early.history.evals][:4] == [1, 2, 3, 4]
    assert {1, 2, 3, 4} <= {sample.step for sample in early.history.samples}
    assert unseen.losses == early.losses[:4]


def _as_arguments(prepared: tuple[RunDirectory, Path]) -> tuple[RunDirectory, int, Path]:
    return prepared[0], 0, prepared[1]


@pytest.mark.parametrize(
    ("losses", "least", "stopped", "best"),
    [
        ([3, 2, 1, 1, 1], 0.0, True, 3),
        ([3, 2, 2, 1.5, 1.5], 0.0, False, 4),
        ([3, 2.95, 2.9], 0.2, True, 3),
        ([3, 2.9, 2.75, 2.7], 0.2, False, 4),
        ([3, float("nan"), float("nan")], 0.0, True, 1),
        ([float("nan"), float("nan")], 0.0, True, None),
    ],
)
def test_what_counts_as_progress(losses: list[float], least: float, stopped: bool, best: int | None) -> None:
    pytest.importorskip("transformers")
    from tunewright.engine.training.validation import Progress

    logged: list[dict[str, Any]] = [{"step": 1, "loss": 9.0}]
    logged += [{"step": step, "eval_loss": loss} for step, loss in enumerate(losses, 1)]
    progress = Progress.over(json.loads(json.dumps(logged)), EarlyStopping(patience=2, min_delta=least))
    assert (progress.why_stop is not None) == stopped
    assert progress.step == best
    assert Progress.over(logged, None).why_stop is None
