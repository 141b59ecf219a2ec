"""Values of a recipe as they are typed into a form."""

from __future__ import annotations

from pydantic import ValidationError

from ..foundation.text import one_line
from ..recipes.model import Recipe


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
