"""Measuring: how long the rows of a recipe are, counted in the child and kept for the next plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...recipes.model import Recipe
from ..sources import find_model
from .entries import entry_of, read_manifest, require_whole

if TYPE_CHECKING:
    from .preparing import Prepared

FACTS = "facts.json"
LENGTHS = ("training", "validation", "supervised")
"""The figures of `Measured` that each have a file of their own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The lengths of the rows that are trained on and kept out, in tokens after the cut; of a pair both answers'."""

    training: tuple[int, ...]
    validation: tuple[int, ...]
    supervised: tuple[int, ...]
    """Of each training row, the tokens on which a loss is taken."""
    cut: int
    dropped: int
    faulty: int
    divided: int = 0


def measure_rows(recipe: Recipe, cancelled: Callable[[], bool] = lambda: False) -> Measured | None:
    """Return the lengths of the rows of `recipe`, None when `cancelled`; raises TunewrightError as preparing them does.

    What was measured before, or trained on, is read again from the cache of rendered rows.
    """
    from .child import DataProcess

    known = read_lengths(entry_of(recipe, find_model(recipe.base.model, recipe.base.revision)))
    if known is not None:
        return known
    with DataProcess() as process:
        return process.measure(recipe, cancelled)


def measure_here(recipe: Recipe) -> Measured:
    """Return the lengths of the rows of `recipe`, rendered in this process and its workers, and kept for the trainer."""
    from .cache import prepare_once

    return measured(prepare_once(recipe).prepared)


def measured(prepared: Prepared) -> Measured:
    """Return the lengths of rows."""
    return Measured(
        tuple(prepared.training.lengths),
        tuple(prepared.validation.lengths),
        tuple(prepared.training.supervised),
        prepared.cut,
        prepared.dropped,
        prepared.faulty,
        prepared.divided,
    )


def write_lengths(folder: Path, measured: Measured) -> None:
    """Write the lengths of rows into an entry of the cache."""
    import numpy as np

    values = asdict(measured)
    for name in LENGTHS:
        np.save(_file(folder, name), np.array(values.pop(name), np.int32))
    (folder / FACTS).write_text(json.dumps(values))


def read_lengths(entry: Path) -> Measured | None:
    """Return the lengths of the rows in an entry of the cache, None where they are not there as they were written."""
    import numpy as np

    try:
        files = [_file(entry, name) for name in LENGTHS]
        require_whole(entry, read_manifest(entry), [FACTS, *(file.name for file in files)])
        training, validation, supervised = (tuple(np.load(file).tolist()) for file in files)
        facts: dict[str, Any] = json.loads((entry / FACTS).read_bytes())
        return Measured(
            training, validation, supervised, facts["cut"], facts["dropped"], facts["faulty"], facts["divided"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(folder: Path, name: str) -> Path:
    return folder / f"lengths.{name}.npy"
