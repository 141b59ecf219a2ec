"""A recipe as an argument: a name in the registry or a TOML file, with values changed on the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..foundation.errors import TunewrightError
from ..recipes.editing import apply_to_values, read_change
from ..recipes.model import Recipe, read_recipe, validate_recipe
from ..recipes.registry import open_registry


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and what may be changed in it."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name in the registry, or a TOML file")
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Add what may be changed in a recipe."""
    parser.add_argument("--data", metavar="FILE", help="train on this file, folder or data set instead of the recipe's")
    parser.add_argument("--model", metavar="MODEL", help="start from this model instead of the recipe's")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="changes",
        help="change a value, such as training.epochs=3; may be given several times",
    )  # fmt: skip


def find_recipe(arguments: argparse.Namespace) -> tuple[str, Recipe]:
    """Return the name and the recipe that `arguments` ask for; raises TunewrightError."""
    if arguments.recipe.endswith(".toml"):
        path = Path(arguments.recipe).expanduser()
        name, recipe = path.stem, read_recipe(path)
    else:
        with open_registry() as registry:
            entry = registry.get(arguments.recipe)
        entry.require_accepted()
        name, recipe = entry.name, entry.recipe
    return name, changed_by(arguments, recipe)


def changed_by(arguments: argparse.Namespace, recipe: Recipe) -> Recipe:
    """Return `recipe` with the changes that `arguments` ask for; raises TunewrightError."""
    changes = list(arguments.changes)
    if arguments.data:
        # Held-out rows of the recipe's own data say nothing about other data.
        recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
        changes.append(f"data.source={json.dumps(absolute_source(arguments.data))}")
    if arguments.model:
        changes.append(f"base.model={json.dumps(arguments.model)}")
    return change_recipe(recipe, changes)


def is_recipe(name: str) -> bool:
    """Tell whether the registry has a recipe called `name`."""
    try:
        with open_registry() as registry:
            return bool(registry.get(name))
    except TunewrightError:
        return False


def absolute_source(source: str) -> str:
    """Return the name of a data set as a run keeps it: of what is on this disk the whole path."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() or "*" in source or path.is_absolute() else source


def change_recipe(recipe: Recipe, changes: list[str]) -> Recipe:
    """Return `recipe` with each `key=value` of `changes` set; raises TunewrightError for a key or value that it refuses.

    A value is read as JSON, or else as text. A key is one of a section, or a whole section.
    """
    values: dict[str, Any] = recipe.model_dump(mode="json", exclude_none=True)
    apply_to_values(values, map(read_change, changes))
    return validate_recipe(values, origin="the changed recipe")
