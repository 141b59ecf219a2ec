"""Every field of a recipe with its value and its meaning, for reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from ..foundation.text import one_line
from ..recipes.model import Recipe


@dataclass(frozen=True, slots=True)
class FieldLine:
    """One field: where it stands, what it holds, what that means."""

    section: str
    name: str
    value: str
    meaning: str


def field_lines(recipe: Recipe) -> Iterator[FieldLine]:
    """Yield the fields of `recipe` in the order of its schema, those of the card left out."""
    for section in ("base", "data", "method", "training", "evaluation"):
        yield from _lines(section, "", getattr(recipe, section))


def _lines(section: str, prefix: str, model: BaseModel) -> Iterator[FieldLine]:
    for name, field in type(model).model_fields.items():
        value: Any = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _lines(section, f"{prefix}{name}.", value)
        else:
            meaning = one_line((field.description or "").replace("`", ""))
            yield FieldLine(section, f"{prefix}{name}", written(value), meaning)


def written(value: object) -> str:
    """Return a value as people write it."""
    match value:
        case None:
            return "—"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-2 else f"{value:g}"
        case tuple():
            return ", ".join(one_line(str(item), 60) for item in cast("tuple[object, ...]", value))
        case int():
            return f"{value:,}" if value >= 10_000 else str(value)
        case _:
            return one_line(str(value), 200)


def raw_value(recipe: Recipe, path: str) -> str | None:
    """Return the value at `path`, such as `training.seed`, as it is typed; None when this recipe has none there."""
    section, name = path.split(".")
    value = getattr(getattr(recipe, section), name, None)
    if value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def changed(recipe: Recipe, path: str, typed: str) -> Recipe | str:
    """Return `recipe` with what was `typed` at `path`, or what is wrong with it in a few words."""
    section, name = path.split(".")
    values = recipe.model_dump()
    values[section][name] = typed
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        return one_line(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, "), 80).lower()
