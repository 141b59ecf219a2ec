"""What a recipe takes here: memory, time, energy and money, by the planner's word, from its shape alone or from its own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..engine import cost, fitting, planner
from ..engine.machine import Machine
from ..engine.plan import Plan
from ..engine.prices import Price
from ..engine.sources import find_data, find_model
from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from ..recipes.model import Recipe
from .figures import plural

LARGEST_COUNTED_BYTES = 64 << 20
"""Larger data are not rendered and counted while one edits: their rows are taken as full."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The figures of one recipe on one machine; None for those that are not known."""

    verdict: Literal["fits", "no", "unknown"]
    because: str
    """Where the figures come from, or why there are none."""
    exact: bool
    """Whether its own rows were counted; otherwise rows of full length are taken."""
    peak_gib: float | None = None
    step_seconds: float | None = None
    total_seconds: float | None = None
    steps: int | None = None
    kwh: float | None = None
    money: float | None = None


def rough_outlook(recipe: Recipe, machine: Machine, price: Price | None) -> Outlook:
    """Return what `recipe` takes with rows of its full length, by the shape of its model alone."""
    found = fitting.fit(recipe, machine)
    seconds = found.total_seconds
    said = f"For {fitting.ROWS} rows of full length. " if found.verdict == "fits" else ""
    return Outlook(
        verdict=found.verdict,
        because=said + one_line(found.because, 600),
        exact=False,
        peak_gib=found.peak_gib,
        step_seconds=found.step_seconds,
        total_seconds=seconds,
        kwh=None if seconds is None else cost.energy_kwh(seconds, machine),
        money=None if seconds is None or price is None else cost.money(seconds, price.typical),
    )


def exact_outlook(
    recipe: Recipe, machine: Machine, price: Price | None, cancelled: Callable[[], bool]
) -> Outlook | None:
    """Return what `recipe` takes with its own rows; None when `cancelled`, and where its model or data are not here or large.

    Why its rows cannot be trained on is told as the outlook's reason.
    """
    from ..engine.data.measuring import measure_rows

    if not _is_here(recipe):
        return None
    try:
        if measure_rows(recipe, cancelled) is None:
            return None
        plan = planner.plan_recipe(recipe, machine, None if price is None else price.typical)
    except TunewrightError as error:
        verdict = "no" if error.title == "Does not fit this machine" else "unknown"
        return Outlook(verdict, one_line(f"{error.message} {error.remedy}", 600), exact=True)
    prediction = plan.prediction
    assert prediction is not None, "the planner predicts what it chooses"
    return Outlook(
        verdict="fits",
        because=f"For its own {plural(plan.training_rows, 'row')}: {_laid_out(plan)}.",
        exact=True,
        peak_gib=prediction.peak_gib,
        step_seconds=prediction.step_seconds,
        total_seconds=prediction.total_seconds,
        steps=plan.total_steps,
        kwh=cost.energy_kwh(prediction.total_seconds, machine, plan.gpus),
        money=prediction.cost,
    )


def _laid_out(plan: Plan) -> str:
    rows = f"micro-batches of {plan.micro_batch}"
    recomputing = "" if plan.gradient_checkpointing == "off" else ", recomputing"
    return f"{rows} × {plan.accumulation}, {plan.batching}{recomputing}"


def _is_here(recipe: Recipe) -> bool:
    """Tell whether model and data are on this disk, the data small enough to be counted again and again."""
    try:
        find_model(recipe.base.model, recipe.base.revision)
        files = find_data(recipe.data.source, recipe.data.split)
        return sum(Path(file).stat().st_size for file in files) <= LARGEST_COUNTED_BYTES
    except (TunewrightError, OSError):
        return False
