"""The learning rate over a run's steps: the recipe's schedule, and those of the steps that were added to it.

The same figures whoever asks: the trainer that follows them, and the screens that show them before it starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..recipes.model import Extension, Recipe, Training

CONSTANT_SHARE = 0.1
"""What part of the recipe's rate `constant` goes on with where the schedule had let it fall."""
USUAL_WARMUP = 0.03


def warmup_steps(training: Training, steps: int) -> int:
    """Return the number of steps over which the learning rate rises in a schedule over `steps`."""
    warmup = training.warmup
    return math.ceil(warmup.value * steps) if warmup.kind == "ratio" else int(warmup.value)


def shape(schedule: str, warmup: int, steps: int, floor: float | None = None) -> Callable[[int], float]:
    """Return which part of the peak a schedule has after so many steps, exactly as transformers computes it.

    Source: transformers 5.17, optimization.py, `_get_*_schedule_with_warmup_lr_lambda`.
    """

    def part(taken: int) -> float:
        if taken < warmup:
            return float(taken) / float(max(1, warmup))
        if schedule == "constant":
            return 1.0
        if schedule == "linear":
            return max(0.0, float(steps - taken) / float(max(1, steps - warmup)))
        progress = float(taken - warmup) / float(max(1, steps - warmup))
        factor = 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress))
        return max(0.0, factor if floor is None else factor * (1 - floor) + floor)

    return part


def rate_parts(training: Training, total_steps: int) -> Callable[[int], float]:
    """Return which part of the recipe's learning rate step n + 1 of a run has, as a function of n.

    `total_steps` are those of the whole run. An extension begins with what the schedule before it had come to, rises to
    its own peak in its warm-up, and falls from there over the steps that it adds, a cosine to the recipe's floor.
    """
    extensions = training.extensions or ()
    planned = extensions[0].planned if extensions else total_steps
    part = shape(training.schedule, warmup_steps(training, planned), planned, training.floor)
    for extension in extensions:
        part = _extended(part, extension, training)
    return part


def _extended(before: Callable[[int], float], extension: Extension, training: Training) -> Callable[[int], float]:
    peak, start = extension.peak / training.learning_rate, before(extension.after)
    falling = shape(extension.schedule, 0, extension.steps - extension.warmup_steps, training.floor)

    def part(taken: int) -> float:
        since = taken - extension.after
        if since < 0:
            return before(taken)
        if since < extension.warmup_steps:
            return start + (peak - start) * (since + 1) / extension.warmup_steps
        return peak * falling(since - extension.warmup_steps)

    return part


@dataclass(frozen=True, slots=True)
class Choice:
    """One way in which the learning rate can go on over added steps."""

    name: str
    extension: Extension
    said: str
    """What the rate does, with its figures."""
    first: float
    """The learning rate of the first added step."""
    last: float
    """And of the last one."""


def choices(
    recipe: Recipe, after: int, planned: int, steps: int, peak: float | None = None, warmup: int | None = None
) -> tuple[Choice, ...]:
    """Return the ways in which a run of `planned` steps that ended at step `after` can take `steps` more.

    `peak` and `warmup` (in steps) stand for each way's own.
    """
    training = recipe.training
    rate = training.learning_rate
    flat = training.schedule == "constant"
    longer = shape(training.schedule, warmup_steps(training, planned + steps), planned + steps, training.floor)
    ratio = training.warmup.value if training.warmup.kind == "ratio" else USUAL_WARMUP
    risen = min(steps, max(1, math.ceil(ratio * steps)))
    given = {
        "continue": (training.schedule, longer(after) * rate, 0),
        "constant": ("constant", rate if flat else rate * CONSTANT_SHARE, 0),
        "rewarm": (training.schedule, rate, risen),
    }
    found: list[Choice] = []
    for name, (schedule, own_peak, own_warmup) in given.items():
        extension = Extension.model_validate(
            {
                "after": after, "planned": planned, "steps": steps, "schedule": schedule,
                "peak": own_peak if peak is None else peak,
                "warmup_steps": min(steps, own_warmup if warmup is None else warmup),
            }
        )  # fmt: skip
        extended = training.model_copy(update={"extensions": (*(training.extensions or ()), extension)})
        part = rate_parts(extended, after + steps)
        first, last = rate * part(after), rate * part(after + steps - 1)
        found.append(Choice(name, extension, _said(extension, first, last), first, last))
    return tuple(found)


def _said(extension: Extension, first: float, last: float) -> str:
    rising = "no warm-up"
    if extension.warmup_steps:
        rising = f"up to {extension.peak:.3g} in {extension.warmup_steps:,} steps"
    if extension.schedule == "constant":
        return f"{first:.3g}, {rising}, then the same to the end"
    return f"{first:.3g}, {rising}, then {extension.schedule} down to {last:.3g} at the last step"
