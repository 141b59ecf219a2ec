"""Values of a recipe as they are typed into a form."""

from __future__ import annotations

from ..recipes.editing import Change, apply_to_values, as_typed, read_typed, value_at
from ..recipes.model import Recipe, check_recipe
from ..recipes.schema import slot_at


def raw_value(recipe: Recipe, path: str) -> str | None:
    """Return the value at `path`, such as `training.seed`, as it is typed; None when this recipe has none there."""
    value = value_at(recipe, path)
    return None if value is None else as_typed(value)


def changed(recipe: Recipe, path: str, typed: str) -> Recipe | str:
    """Return `recipe` with what was `typed` at `path`, or what is wrong with it in a few words."""
    slot = slot_at(path)
    assert slot is not None, "only fields of the schema are open to change"
    tables = recipe.model_dump(mode="json", exclude_none=True)
    try:
        apply_to_values(tables, [Change(tuple(path.split(".")), read_typed(slot, typed))])
    except ValueError as error:
        return str(error)
    found = check_recipe(tables)
    return found if isinstance(found, Recipe) else found[0].fault
