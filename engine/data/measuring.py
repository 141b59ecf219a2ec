"""Measuring: how long the rows of a recipe are, counted in the child and kept for the next plan."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from ...foundation.errors import TunewrightError
from ...foundation.files import write_atomically
from ...foundation.home import home
from ...recipes.model import Recipe
from ..sources import find_model

KEPT_MEASUREMENTS = 50
"""The most that are kept; the oldest go first."""
VERSION = 1
"""Counted up whenever the same data is rendered into other tokens than before."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json", "special_tokens_map.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """The lengths of the rows that are trained on and kept out, in tokens after the cut."""

    training: tuple[int, ...]
    validation: tuple[int, ...]
    supervised: tuple[int, ...]
    """Of each training row, the tokens on which a loss is taken."""
    cut: int
    dropped: int
    faulty: int


def measure_rows(recipe: Recipe, cancelled: Callable[[], bool] = lambda: False) -> Measured | None:
    """Return the lengths of the rows of `recipe`, None when `cancelled`; raises TunewrightError as preparing them does.

    What was measured before is read again as long as data, tokenizer, template and the recipe's data section are the same.
    """
    from .child import DataProcess

    place = home() / "cache" / "lengths" / f"{_key(recipe)}.json"
    known = _read(place)
    if known is not None:
        return known
    with DataProcess() as process:
        measured = process.measure(recipe, cancelled)
    if measured is not None:
        with contextlib.suppress(TunewrightError, OSError):  # it only costs time the next time
            write_atomically(place, TypeAdapter(Measured).dump_json(measured))
            _forget_oldest(place.parent)
    return measured


def measure_here(recipe: Recipe) -> Measured:
    """Return the lengths of the rows of `recipe`, rendered in this process and its workers."""
    from .preparing import prepare

    prepared = prepare(recipe)
    return Measured(
        tuple(prepared.training.lengths),
        tuple(prepared.validation.lengths),
        tuple(prepared.training.supervised),
        prepared.cut,
        prepared.dropped,
        prepared.faulty,
    )


def _key(recipe: Recipe) -> str:
    """Return what tells these rows from any others: the files as they stand, the tokenizer's, and the data section."""
    from .reading import open_source

    model = find_model(recipe.base.model, recipe.base.revision)
    sources = [open_source(recipe.data.source, recipe.data.split).stamp()]
    if recipe.data.validation.source is not None:
        sources.append(open_source(recipe.data.validation.source, recipe.data.split).stamp())
    stamps = [(name, *_stamp(model / name)) for name in TOKENIZER_FILES]
    section = recipe.data.model_dump(mode="json")
    meaning = [VERSION, sources, str(model), stamps, section, recipe.training.seed]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _read(place: Path) -> Measured | None:
    try:
        return TypeAdapter(Measured).validate_json(place.read_bytes())
    except (OSError, ValueError):
        return None


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda each: each.stat().st_mtime)
    for each in files[:-KEPT_MEASUREMENTS]:
        each.unlink(missing_ok=True)
