"""`tunewright recipes show`: one recipe of the registry, or one in a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...foundation.files import read_text
from ...foundation.text import clean, one_line
from ...recipes.model import parse_recipe
from ...recipes.registry import open_registry
from ..parser import add_json, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("recipe", metavar="NAME|FILE.toml", help="a recipe's name, a part of its hash, or a file")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the recipe and return the exit status."""
    name = arguments.recipe
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        toml = read_text(path)
        recipe = parse_recipe(toml, origin=str(path))
        hash_, origin, name = recipe.hash(), str(path), path.stem
    else:
        with open_registry() as registry:
            entry = registry.get(name)
        recipe, hash_, origin, toml, name = entry.recipe, entry.hash, entry.origin, entry.toml, entry.name
    if arguments.json:
        body = recipe.model_dump(mode="json", exclude_none=True)
        print_json({"name": name, "hash": hash_, "origin": origin, "recipe": body})
    else:
        print(f"# {one_line(name, 100)} ({one_line(origin, 200)})\n# hash {hash_}\n\n{clean(toml).rstrip()}")
    return 0
