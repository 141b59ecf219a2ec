"""The cache of rendered rows: data is made tokens once, for the plan, the trainer and all its ranks.

An entry (`entries`) holds the flat arrays as .npy files, which are mapped and not read, what else belongs to the rows as
JSON, and their lengths in files of their own, for the plan. Nothing that goes wrong with it fails a run: it costs time.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ...foundation.errors import TunewrightError
from ...recipes.model import Recipe
from ..sources import find_model
from .entries import LARGEST_BYTES, entry_of, in_turn, new_entry, read_manifest, require_whole
from .examples import Example
from .measuring import FACTS, measured, write_lengths
from .preparing import Prepared, Rows, prepare

SHARE_OF_FREE = 0.1
"""The most of the free disk that one entry takes; of rows that need more, only the lengths are kept."""
MAPPED_BYTES = 2**20
"""Smaller arrays are read."""
EXAMPLES = "examples.json"
"""The examples kept out of training; not there where only the lengths are kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows of a recipe."""

    prepared: Prepared
    from_cache: bool
    """Whether they had been made before."""


def prepare_once(recipe: Recipe, model: Path | None = None, told: Callable[[int], None] = lambda rows: None) -> Kept:
    """Return the rows of `recipe` as `prepare` makes them, from the cache where they are there.

    Of several processes that want the same rows at once, one makes them. `told` is called as by `prepare`, and raises
    TunewrightError as that does.
    """
    model = model or find_model(recipe.base.model, recipe.base.revision)
    entry = entry_of(recipe, model)
    found = read_rows(entry)
    if found is not None:
        return Kept(found, True)
    with contextlib.nullcontext() if _is_without_rows(entry) else in_turn(entry):
        found = read_rows(entry)
        if found is not None:
            return Kept(found, True)
        prepared = prepare(recipe, model, told)
        with contextlib.suppress(OSError, ValueError, TunewrightError):  # it only costs time the next time
            if entry_of(recipe, model) == entry:  # else the data was changed meanwhile
                keep_rows(entry, prepared)
                if not _is_without_rows(entry):
                    return Kept(_load(entry, read_manifest(entry)), False)  # mapped: it leaves the memory to others
        return Kept(prepared, False)


def _is_without_rows(entry: Path) -> bool:
    """Tell whether the rows took too much when they were made, so that waiting for another process is of no use."""
    try:
        return EXAMPLES not in read_manifest(entry)
    except (OSError, ValueError):
        return False


def read_rows(entry: Path) -> Prepared | None:
    """Return the rows in `entry`, None where there are none or they are not as they were written."""
    try:
        manifest = read_manifest(entry)
        if EXAMPLES not in manifest:
            return None
        require_whole(entry, manifest, manifest)
        return _load(entry, manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_rows(entry: Path, prepared: Prepared) -> None:
    """Put rows into `entry`, in one step; raises OSError where the disk does not take them."""
    arrays = dict(_arrays("training", prepared.training)) | dict(_arrays("validation", prepared.validation))
    needed = sum(array.nbytes for array in arrays.values())
    with new_entry(entry) as folder:
        write_lengths(folder, measured(prepared))
        if needed > min(LARGEST_BYTES, SHARE_OF_FREE * shutil.disk_usage(folder).free):
            return
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        own = [each.name for each in fields(Prepared) if each.name not in ("training", "validation", "kept_out")]
        (folder / FACTS).write_text(json.dumps({name: getattr(prepared, name) for name in own}))
        kept_out = TypeAdapter(tuple[Example, ...]).dump_python(prepared.kept_out)
        (folder / EXAMPLES).write_text(json.dumps(kept_out))


def _arrays(prefix: str, rows: Rows) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of rows, and those of the rows that belong to them, with their names."""
    for name in inspect.signature(Rows).parameters:
        value = getattr(rows, name)
        if isinstance(value, Rows):
            yield from _arrays(f"{prefix}.{name}", value)
        elif value is not None:
            yield f"{prefix}.{name}", value


def _rows(entry: Path, prefix: str, names: Iterable[str]) -> Rows:
    """Return the rows whose arrays begin with `prefix`."""
    members: dict[str, Any] = {}
    for name in inspect.signature(Rows).parameters:
        path = f"{prefix}.{name}"
        if f"{path}.npy" in names:
            members[name] = _array(entry / f"{path}.npy")
        elif any(each.startswith(f"{path}.") for each in names):
            members[name] = _rows(entry, path, names)
    return Rows(**members)


def _array(file: Path) -> NDArray[Any]:
    return np.load(file, mmap_mode="r" if file.stat().st_size > MAPPED_BYTES else None, allow_pickle=False)


def _load(entry: Path, files: Iterable[str]) -> Prepared:
    facts: dict[str, Any] = json.loads((entry / FACTS).read_bytes())
    facts["chosen"] = tuple(facts["chosen"])
    return Prepared(
        training=_rows(entry, "training", files),
        validation=_rows(entry, "validation", files),
        kept_out=TypeAdapter(tuple[Example, ...]).validate_python(json.loads((entry / EXAMPLES).read_bytes())),
        **facts,
    )
