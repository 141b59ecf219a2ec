"""Extending a finished run: more steps from where it ended, with the learning rate stated, as a run of its own.

The recipe of the new run says which schedule holds after which step, so that a run of it from the start takes the same
steps. Optimizer, random states and the position in the data come with the checkpoint; the old run stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...foundation.errors import TunewrightError, explain_os_error
from ...recipes.model import Extension, Recipe, validate_recipe
from ..hub.needs import require_here
from ..plan import Plan
from ..schedule import Choice, choices, rate_parts
from .checkpoint import MANIFEST, SavedCheckpoint, saved_checkpoints, verify
from .circumstances import OtherCircumstances, differences, remember
from .command import commanding
from .directory import RunDirectory, create_run, standing
from .events import Best, Eval, EventLog, Notice, Step, read_events
from .launch import start
from .lineage import Lineage, changes_between, plain_name, write_lineage
from .pinned import commits_of, pin
from .terms import Terms, write_terms


@dataclass(frozen=True, slots=True)
class Extensible:
    """A finished run, and what is to be known before it is extended."""

    run: RunDirectory
    recipe: Recipe
    plan: Plan
    after: int
    """The step at which it ended."""
    steps_an_epoch: float
    rate: float
    """The learning rate that its last step had."""
    step_seconds: float

    def steps_of(self, steps: int | None, epochs: float | None) -> int:
        """Return how many steps are meant; raises TunewrightError unless exactly one is given and above 0."""
        if (steps is None) == (epochs is None):
            raise TunewrightError("How much more?", "Give either steps or epochs.", "Such as --epochs 1.")
        wished = steps if steps is not None else round((epochs or 0.0) * self.steps_an_epoch)
        if not 1 <= wished <= 10_000_000:
            raise TunewrightError("How much more?", f"{wished:,} steps cannot be added.", "Give one step or more.")
        return wished

    def choices(self, steps: int, peak: float | None = None, warmup: int | None = None) -> tuple[Choice, ...]:
        """Return the ways in which the learning rate can go on; raises TunewrightError for a peak that is none."""
        if (peak is not None and not 0 < peak <= 1) or (warmup is not None and warmup < 0):
            raise TunewrightError(
                "Not a schedule", "A peak is above 0 and at most 1, a warm-up 0 or more.", "Change it."
            )
        return choices(self.recipe, self.after, self.plan.total_steps, steps, peak, warmup)

    def extended(self, extension: Extension) -> tuple[Recipe, Plan]:
        """Return the recipe and the plan of the extended run: what the longer run from the start would have."""
        values = self.recipe.model_dump(mode="json", exclude_none=True)
        values["training"].setdefault("extensions", []).append(extension.model_dump(mode="json"))
        total = extension.after + extension.steps
        return validate_recipe(values, "the extended recipe"), replace(
            self.plan, total_steps=total, prediction=self._prediction(extension.steps, total)
        )

    def _prediction(self, steps: int, total: int):
        before = self.plan.prediction
        if before is None:
            return None
        training = steps * self.step_seconds
        seconds = before.seconds_to_first_step + training
        return replace(
            before,
            tokens=round(before.tokens * total / self.plan.total_steps),
            training_seconds=training,
            total_seconds=seconds,
            total_seconds_range=(0.8 * seconds, 1.3 * seconds),
        )


def look_at(run: RunDirectory) -> Extensible:
    """Return what is to be known of `run` before it is extended; raises TunewrightError for one that cannot be."""
    now = standing(run)
    if now != "finished":
        raise TunewrightError(
            "Run is not finished",
            f"{run.id} is {now}; only what has come to its end is extended.",
            f"`tunewright resume {run.id}` goes on with one that was ended before.",
        )
    recipe, plan = run.recipe(), run.plan()
    last: Step | None = None
    for event in _events(run):
        if isinstance(event, Step):
            last = event
    if last is None:
        raise TunewrightError("Nothing to extend", f"{run.id} has no step on record.", "Start a new run of its recipe.")
    rate = recipe.training.learning_rate * rate_parts(recipe.training, plan.total_steps)(last.step - 1)
    pace = last.seconds or (plan.prediction.step_seconds if plan.prediction else 0.0)
    return Extensible(run, recipe, plan, last.step, last.step / last.epoch if last.epoch else 1.0, rate, pace)


def extend(found: Extensible, choice: Choice, agreed: bool = False, terms: Terms | None = None) -> RunDirectory:
    """Start the run that goes on where a finished one ended, at once or as `terms` say, and return it; raises TunewrightError.

    Where circumstances are not what they were, somebody has to have `agreed`: raises OtherCircumstances.
    """
    parent = found.run
    with commanding(parent, "extend"):
        changed = differences(parent)
        if changed and not agreed:
            added = choice.extension
            raise OtherCircumstances(
                parent,
                changed,
                f"extend {parent.id} --steps {added.steps} --schedule {choice.name} --peak {added.peak:g} "
                f"--warmup-steps {added.warmup_steps}",
            )
        recipe, plan = found.extended(choice.extension)
        require_here(recipe)
        kept = _checkpoints(parent, found.after)
        staged = parent.path.with_name(f".extending-{os.getpid()}")
        try:
            for each in kept:
                shutil.copytree(each.path, staged / each.path.name, copy_function=_link)
            run = create_run(recipe, plan, plain_name(parent))
            run.checkpoints.rmdir()
            staged.rename(run.checkpoints)
        except OSError as error:
            raise explain_os_error(error, staged, "Taking over the checkpoint in") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    pin(run, recipe, commits_of(parent))
    step = kept[0].step
    write_lineage(run, Lineage(parent.id, "extend", changes_between(found.recipe, recipe), step))
    remember(run)
    log = EventLog(run.events_file)
    for event in _events(parent):  # what was measured on held-out rows before is measured no more
        if isinstance(event, Eval | Best) and event.step <= found.after:
            log.append(event)
    message = f"It goes on after step {step:,} of {parent.id} with its optimizer, random states and place in the data. "
    message += f"The learning rate: {choice.said}."
    if changed:
        message += " Agreed to: " + "; ".join(map(str, changed)) + "."
    log.append(Notice(level="info", title="Extended", message=message))
    log.close()
    if terms is not None:
        write_terms(run, terms)
    start(run)
    return run


def _checkpoints(run: RunDirectory, after: int) -> list[SavedCheckpoint]:
    """Return the newest good checkpoint of `run` up to step `after`, and the others that it may end with."""
    good = [each for each in saved_checkpoints(run.checkpoints) if each.step <= after and verify(each) is None]
    if not good:
        raise TunewrightError(
            "Nothing to go on from",
            f"{run.id} has no checkpoint any more that is whole.",
            f"`tunewright clone {run.id} --set training.steps=…` makes a longer run from the start.",
        )
    return good


def _events(run: RunDirectory) -> Iterator[object]:
    offset = 0
    while True:
        events, onward = read_events(run.events_file, offset, all_samples=False)
        if onward == offset:
            return
        offset = onward
        yield from events


def _link(source: str, target: str) -> None:
    """Give a file of a checkpoint, which nobody ever changes, a second name; copy it where that cannot be."""
    if Path(source).name != MANIFEST:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
