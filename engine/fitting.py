"""Whether a recipe fits a machine, and what it costs there, told from its shape alone: no file of its data is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from ..recipes.migrations import size_billions
from ..recipes.model import Recipe
from .anatomy import Anatomy, read_anatomy
from .calibration import read_calibration
from .machine import Machine
from .planner import make_plan
from .shapes import SIZES, find_shape, published
from .sources import find_model

ROWS = 512
"""The rows that are imagined, each as long as the recipe allows: the most that its memory can be asked for."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The planner's word on a recipe and a machine."""

    verdict: Literal["fits", "no", "unknown"]
    because: str
    peak_gib: float | None = None
    step_seconds: float | None = None
    """One optimizer step on rows of full length."""
    total_seconds: float | None = None
    """All steps, over `ROWS` such rows."""


def fit(recipe: Recipe, machine: Machine) -> Fit:
    """Return whether `recipe` fits `machine` with rows of its full length; never raises for a model that is unknown."""
    try:
        anatomy, said = _anatomy(recipe)
    except (TunewrightError, OSError, RuntimeError) as error:
        told = error.message if isinstance(error, TunewrightError) else str(error)
        return Fit("unknown", f"The shape of its model is not known here: {one_line(told, 200)}")
    length = min(recipe.data.max_length, anatomy.context)
    try:
        plan = make_plan(recipe, machine, anatomy, [length] * ROWS, [length] * 8, [length // 2], read_calibration())
    except TunewrightError as error:
        return Fit("no" if error.title == "Does not fit this machine" else "unknown", f"{error.message} {error.remedy}")
    prediction = plan.prediction
    assert prediction is not None, "the planner predicts what it chooses"
    return Fit(
        "fits",
        f"{prediction.peak_gib:.1f} GiB for rows of {length:,} tokens in micro-batches of {plan.micro_batch}. {said}".strip(),
        prediction.peak_gib,
        prediction.step_seconds,
        prediction.total_seconds,
    )


def _anatomy(recipe: Recipe) -> tuple[Anatomy, str]:
    """Return the anatomy of the recipe's model where it is here, or else of the published shape nearest to its name's."""
    name = recipe.base.model
    try:
        return read_anatomy(find_model(name, recipe.base.revision)), ""
    except TunewrightError:
        if shape := find_shape(name):
            return published(shape).anatomy, f"The shape is {shape}'s published one."
        size = size_billions(name)
        if size is None:
            raise
    shapes = {shape: published(shape).anatomy for shape in SIZES.values()}
    # A little too large rather than too small: what is said to fit has to.
    larger = [shape for shape, each in shapes.items() if each.total_parameters >= 0.93 * size * 1e9]
    if not larger:
        raise TunewrightError("Model not known", f"{size:g} billion parameters are beyond all known shapes.", "")
    chosen = min(larger, key=lambda shape: shapes[shape].total_parameters)
    return shapes[chosen], f"The shape is that of {chosen}, for want of the model's own."
