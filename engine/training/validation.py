"""Validation: which step's weights were best so far, when to stop because they no longer get better, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from ...recipes.model import EarlyStopping, Recipe
from ..runs.checkpoint import SavedCheckpoint, checkpoint_name, prune, verify
from ..runs.directory import RunDirectory
from ..runs.events import Best, Ending, EventLog, Notice
from . import parallel


class Progress:
    """The fold over a run's validation losses; the same losses give the same progress, whoever resumes the run."""

    def __init__(self, stopping: EarlyStopping | None, extended_after: int = 0) -> None:
        self._stopping = stopping
        self._extended_after = extended_after
        """The run's last step before it was extended: up to there nothing counts as waiting."""
        self.step: int | None = None
        """Of the lowest loss so far; None before the first evaluation."""
        self.loss = math.inf
        self.waited = 0
        """Evaluations since the loss last fell by as much as counts."""
        self._reference = math.inf

    def add(self, step: int, loss: float) -> bool:
        """Take the loss at `step`, and tell whether it is the lowest so far."""
        least = self._stopping.min_delta if self._stopping else 0.0
        if loss < self._reference - least or (self._reference == math.inf and loss < math.inf):
            self._reference, self.waited = loss, 0
        else:
            self.waited = self.waited + 1 if step > self._extended_after else 0
        if not loss < self.loss:  # a loss that is not a number is none
            return False
        self.step, self.loss = step, loss
        return True

    @property
    def why_stop(self) -> str | None:
        """Why the run should stop now, None while it should go on."""
        stopping = self._stopping
        if stopping is None or self.waited < stopping.patience:
            return None
        times = "once" if self.waited == 1 else f"{self.waited} times"
        least = f" by more than {stopping.min_delta:g}" if stopping.min_delta else ""
        lowest = "" if self.step is None else f"; the lowest, {self.loss:.4f}, was at step {self.step}"
        return f"the validation loss did not fall{least}, evaluated {times}{lowest}"

    @classmethod
    def over(
        cls, log_history: Iterable[dict[str, Any]], stopping: EarlyStopping | None, extended_after: int = 0
    ) -> Progress:
        """Return the progress of a run whose trainer logged `log_history`, which every checkpoint holds."""
        progress = cls(stopping, extended_after)
        for entry in log_history:
            if "eval_loss" in entry:
                progress.add(int(entry["step"]), float(entry["eval_loss"]))
        return progress


class Validation(TrainerCallback):
    """Follows the validation loss: asks for a save of the best weights, stops early, and concludes with the right ones."""

    def __init__(self, run: RunDirectory, log: EventLog, recipe: Recipe) -> None:
        self.run = run
        self.log = log
        self.stopping = recipe.training.early_stopping
        self.keeps_best = recipe.training.finish_with == "best"
        extensions = recipe.training.extensions
        self.extended_after = extensions[-1].after if extensions else 0
        self.progress = Progress(self.stopping, self.extended_after)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress = Progress.over(state.log_history, self.stopping, self.extended_after)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        loss = metrics["eval_loss"]
        if self.progress.add(state.global_step, loss):
            self.log.append(Best(step=state.global_step, loss=loss))
            control.should_save |= self.keeps_best
        if self.progress.why_stop:
            control.should_save = control.should_training_stop = True

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint the run may end with, None where it ends with the last."""
        return self.progress.step if self.keeps_best else None

    def is_over(self, checkpoint: Path, total_steps: int) -> bool:
        """Tell whether the training in `checkpoint` has come to its end: there, only what follows it is left to do.

        An extended run has more steps than the one that wrote its first checkpoint.
        """
        state = _state_in(checkpoint)
        self.progress = Progress.over(state.log_history, self.stopping, self.extended_after)
        state.max_steps = total_steps
        return self.has_finished(state)

    def has_finished(self, state: Any) -> bool:
        """Tell whether a trainer in `state` has taken all its steps, or has stopped early."""
        return state.global_step >= state.max_steps or self.progress.why_stop is not None

    def conclude(self, trainer: Any) -> Ending:
        """Return how the training ended, with the weights in place that the recipe ends with."""
        step, total = trainer.state.global_step, trainer.state.max_steps
        why = self.progress.why_stop if step < total else None
        reason = f"stopped early at step {step} of {total} because {why}" if why else "all steps were taken"
        best = self.kept_step
        if best is None or best == step:
            return Ending(step=step, weights_step=step, reason=reason)
        checkpoint = SavedCheckpoint(self.run.checkpoints / checkpoint_name(best), best)
        fault = verify(checkpoint)
        if fault is not None:
            self.log.append(
                Notice(
                    level="warning",
                    title="The best weights are damaged",
                    message=f"{checkpoint.path.name}: {fault}. The run ends with those of step {step}.",
                    remedy="Check the disk; a new run of the same recipe finds the same weights again.",
                )
            )
            return Ending(step=step, weights_step=step, reason=reason)
        load_weights(trainer, checkpoint.path)
        return Ending(step=step, weights_step=best, reason=f"{reason}; the weights are those of step {best}, the best")


class Keeping(TrainerCallback):
    """Removes the checkpoints that are no longer needed, after the telemetry has put a new one in its place."""

    def __init__(self, run: RunDirectory, validation: Validation) -> None:
        self.run = run
        self.validation = validation

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        saved = SavedCheckpoint(self.run.checkpoints / checkpoint_name(step), step)
        if parallel.is_first():
            prune(self.run.checkpoints, saved, self.validation.kept_step)


def take_up(trainer: Any, checkpoint: Path) -> None:
    """Bring the trainer to where a verified checkpoint is, without a step to follow."""
    load_weights(trainer, checkpoint)
    trainer.state = _state_in(checkpoint)


def load_weights(trainer: Any, checkpoint: Path) -> None:
    """Put the weights of a verified checkpoint into the trainer's model, as a resume would."""
    trainer._load_from_checkpoint(str(checkpoint))


def _state_in(checkpoint: Path) -> TrainerState:
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
