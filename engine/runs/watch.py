"""The watch over a run: what in its events is worth calling people for, each thing once.

A pure fold, so that a supervisor that comes after another reads the same things out of the same events, and the alerts
among them say which were given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...foundation.units import GIB
from .events import About, Alert, Checkpoint, Eval, Event, Gpu, Notice, Status, Step

DIVERGED = frozenset(
    {
        "Not a number",
        "The gradient explodes",
        "The training has diverged",
        "The validation loss is not a number",
        "fp16 overflows",
    }
)
"""The guard's words for numbers that went wrong."""
LEAST_FALL = 1e-3
"""A validation loss that falls by a smaller part of itself than this has not fallen."""
PATIENT_EVALUATIONS = 3
"""So many evaluations in a row without a fall, over a tenth of the run, are a plateau."""
FLAT_FALL = 5e-3
"""Without validation: the mean loss of a tenth of the run falls by a smaller part of itself than this."""
LEAST_BLOCK = 50
"""Steps over which a mean is taken at least."""
LATE_SHARE = 0.9
"""After this share of the steps a plateau is no news: schedules end there."""
HOT_SECONDS = 30.0
HOT_CELSIUS = 90.0
"""Where the driver does not tell what slows a card down."""
LEAST_FREE_GIB = 1.0
KEPT_SAVES = 2
"""The disk is low when fewer further checkpoints than this fit."""


@dataclass(slots=True)
class _Plateau:
    """What is known of whether the loss still falls."""

    best: float = math.inf
    best_step: int = 0
    evaluated: int = 0
    """The step of the last evaluation that was counted."""
    waited: int = 0
    step: int = 0
    """The last step that was counted; a resumed run takes steps again."""
    sum: float = 0.0
    counted: int = 0
    mean: float | None = None
    """Of the last block of steps."""
    blocks: int = 0


class Watch:
    """Folds a run's events into alerts."""

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self._pending: dict[str, tuple[Alert, str]] = {}
        self._given: set[str] = set()
        self._plateau = _Plateau()
        self._hot: dict[int, float] = {}
        self._failures = self._interruptions = 0
        self._save_bytes = 0
        self._step = 0
        self._wish = ""

    def add(self, events: Iterable[Event]) -> None:
        """Fold `events` in."""
        for event in events:
            match event:
                case Step():
                    self._step = event.step
                    self._watch_loss(event)
                case Eval() if event.loss is not None:
                    self._watch_validation(event.step, event.loss)
                case Gpu():
                    self._watch_heat(event)
                case Notice():
                    self._watch_notice(event)
                case Checkpoint():
                    self._save_bytes = event.size_bytes
                case Status():
                    self._watch_state(event)
                case Alert():
                    self._given.add(event.key)
                case _:
                    pass

    def add_free_space(self, free_bytes: float) -> None:
        """Take notice of the space that is free on the run's disk."""
        needed = max(LEAST_FREE_GIB * GIB, KEPT_SAVES * self._save_bytes)
        if free_bytes < needed:
            self._find(
                "disk",
                "disk",
                "The disk is nearly full",
                f"{free_bytes / GIB:.2f} GiB are free on the run's disk; a save takes {self._save_bytes / GIB:.2f} GiB.",
                "Free some space: a run that cannot save stops, with its last good checkpoint intact.",
            )

    def take(self) -> list[tuple[Alert, str]]:
        """Return the alerts that are due, each with what one can do about it, and count them as given."""
        due = [found for key, found in self._pending.items() if key not in self._given]
        self._given |= self._pending.keys()
        self._pending.clear()
        return due

    def forget_endings(self) -> None:
        """Count what ended earlier attempts as given: who took the run up again knows of it."""
        for alert, _ in list(self._pending.values()):
            if alert.key.partition("-")[0] in ("finished", "failed", "interrupted"):
                del self._pending[alert.key]

    def _find(self, about: About, key: str, title: str, message: str, remedy: str = "") -> None:
        if key not in self._given:
            self._pending.setdefault(key, (Alert(about=about, key=key, title=title, message=message), remedy))

    def _watch_state(self, status: Status) -> None:
        where = f"Step {self._step:,} of {self.total_steps:,}"
        match status.state:
            case "finished":
                self._find("finished", "finished", "The run has finished", f"{where}: {status.reason}.")
            case "failed":
                self._failures += 1
                about: About = "diverged" if status.reason in DIVERGED else "failed"
                self._find(about, f"failed-{self._failures}", "The run has failed", f"{where}: {status.reason}.")
            case "stopping":
                self._wish = status.reason
            case "stopped" if self._wish not in ("", "SIGINT"):
                self._interruptions += 1
                key = f"interrupted-{self._interruptions}"
                self._find("interrupted", key, "The run was interrupted", f"{where}: {status.reason}.")
            case "running":
                self._wish = ""
            case _:
                pass

    def _watch_notice(self, notice: Notice) -> None:
        if notice.level == "warning" and notice.title in DIVERGED:
            self._find("diverged", f"diverged-{notice.title}", notice.title, notice.message, "")

    def _watch_heat(self, gpu: Gpu) -> None:
        told = "heat" in gpu.throttled_by
        if not told and (gpu.throttled_by or (gpu.temperature_celsius or 0.0) < HOT_CELSIUS):
            self._hot.pop(gpu.index, None)
            return
        since = self._hot.setdefault(gpu.index, gpu.time)
        if gpu.time - since >= HOT_SECONDS:
            degrees = f" at {gpu.temperature_celsius:.0f} °C" if gpu.temperature_celsius is not None else ""
            self._find(
                "heat",
                f"heat-{gpu.index}",
                f"GPU {gpu.index} is too hot",
                f"It has been at its thermal limit for {gpu.time - since:.0f} s{degrees}, and computes more slowly.",
                "Look at its fans and at what else runs in that box; the result of the run does not change.",
            )

    def _watch_validation(self, step: int, loss: float) -> None:
        plateau = self._plateau
        if step <= plateau.evaluated or not math.isfinite(loss):
            return
        plateau.evaluated = step
        if not plateau.best_step or loss < plateau.best - LEAST_FALL * abs(plateau.best):
            plateau.best, plateau.best_step, plateau.waited = loss, step, 0
            return
        plateau.waited += 1
        enough = step - plateau.best_step >= self.total_steps / 10
        if plateau.waited >= PATIENT_EVALUATIONS and enough:
            self._find_plateau(
                step,
                f"The validation loss has not fallen in {plateau.waited} evaluations up to step {step:,}: "
                f"{plateau.best:.4f} at step {plateau.best_step:,} was the lowest.",
            )

    def _watch_loss(self, event: Step) -> None:
        plateau = self._plateau
        if event.step == 1:
            plateau = self._plateau = _Plateau()  # tried again from the start
        if event.step <= plateau.step or plateau.best_step:
            return
        plateau.step = event.step
        plateau.sum, plateau.counted = plateau.sum + event.loss, plateau.counted + 1
        if plateau.counted < max(LEAST_BLOCK, self.total_steps // 10):
            return
        mean, before = plateau.sum / plateau.counted, plateau.mean
        plateau.sum, plateau.counted, plateau.mean, plateau.blocks = 0.0, 0, mean, plateau.blocks + 1
        if before is not None and plateau.blocks > 2 and before - mean < FLAT_FALL * abs(before):
            self._find_plateau(
                event.step,
                f"The mean loss up to step {event.step:,} is {mean:.4f}; it was {before:.4f} in as many steps before.",
            )

    def _find_plateau(self, step: int, message: str) -> None:
        if step <= LATE_SHARE * self.total_steps:
            remedy = "`tunewright stop` keeps what it has learned; early stopping and the best weights are two keys of a recipe."
            self._find("plateau", "plateau", "The loss no longer falls", message, remedy)
