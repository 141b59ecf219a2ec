"""`tunewright recipes`: list the recipes in the registry, and show one of them or one in a file."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ..foundation.files import read_text
from ..foundation.text import clean, one_line
from ..recipes.model import parse_recipe
from ..recipes.registry import Entry, open_registry
from .parser import add_json, print_json

NARROWEST_TITLE = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    listing = verbs.add_parser("list", help="list the recipes", description="List the recipes in the registry.")
    listing.add_argument("--search", metavar="TEXT", help="only recipes that hold every word of TEXT, best match first")
    add_json(listing)
    showing = verbs.add_parser(
        "show", help="show one recipe", description="Show a recipe of the registry, or check and show one in a file."
    )
    showing.add_argument("recipe", metavar="NAME|FILE.toml", help="a recipe's name, a part of its hash, or a file")
    add_json(showing)


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` ask and return the exit status."""
    if arguments.verb == "list":
        _list(arguments.search, arguments.json)
    else:
        _show(arguments.recipe, arguments.json)
    return 0


def _list(search: str | None, as_json: bool) -> None:
    with open_registry() as registry:
        entries = registry.list(search=search)
    if as_json:
        print_json({"recipes": [_summary(entry) for entry in entries]})
    elif entries:
        print(_table(entries, shutil.get_terminal_size((80, 24)).columns))
    else:
        print(f"No recipe matches {one_line(search or '', 60)!r}. `tunewright recipes list` shows them all.")


def _summary(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "title": entry.title,
        "summary": entry.summary,
        "method": entry.method,
        "model": entry.model,
        "data": entry.data,
        "tags": entry.tags,
        "origin": entry.origin,
        "hash": entry.hash,
    }


def _table(entries: list[Entry], width: int) -> str:
    """Lay `entries` out in columns that fit `width`; the model and the title give way when it is narrow."""
    rows = [("NAME", "METHOD", "MODEL", "TITLE")]
    rows += [(one_line(e.name, 32), e.method, one_line(e.model, 40), e.title) for e in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    gaps = 2 * 3
    spare = width - sum(widths) - gaps
    if spare < NARROWEST_TITLE:
        widths[2] = max(len("MODEL"), widths[2] - (NARROWEST_TITLE - spare))
        spare = max(NARROWEST_TITLE, width - sum(widths) - gaps)
    lines: list[str] = []
    for name, method, model, title in rows:
        cells = (f"{name:{widths[0]}}", f"{method:{widths[1]}}", f"{one_line(model, widths[2]):{widths[2]}}")
        lines.append("  ".join((*cells, one_line(title, spare))).rstrip())
    return "\n".join(lines)


def _show(name: str, as_json: bool) -> None:
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        toml = read_text(path)
        recipe = parse_recipe(toml, origin=str(path))
        hash_, origin, name = recipe.hash(), str(path), path.stem
    else:
        with open_registry() as registry:
            entry = registry.get(name)
        recipe, hash_, origin, toml, name = entry.recipe, entry.hash, entry.origin, entry.toml, entry.name
    if as_json:
        body = recipe.model_dump(mode="json", exclude_none=True)
        print_json({"name": name, "hash": hash_, "origin": origin, "recipe": body})
    else:
        print(f"# {one_line(name, 100)} ({one_line(origin, 200)})\n# hash {hash_}\n\n{clean(toml).rstrip()}")
