"""`tunewright recipes list`: the recipes of the registry in a table."""

from __future__ import annotations

import argparse
import shutil

from ...foundation.text import one_line
from ...recipes.registry import Entry, open_registry
from ..parser import add_json, print_json

NARROWEST_TITLE = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--search", metavar="TEXT", help="only recipes that hold every word of TEXT, best match first")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the recipes that `arguments` ask for and return the exit status."""
    with open_registry() as registry:
        entries = registry.list(search=arguments.search)
    if arguments.json:
        print_json({"recipes": [_summary(entry) for entry in entries]})
    elif entries:
        print(_table(entries, shutil.get_terminal_size((80, 24)).columns))
    else:
        print(f"No recipe matches {one_line(arguments.search or '', 60)!r}. `tunewright recipes list` shows them all.")
    return 0


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
