"""`tunewright recipes show` and `history`: a recipe for reading, and what became of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...foundation.files import read_text
from ...foundation.text import clean, one_line
from ...recipes.model import LARGEST_RECIPE_BYTES, Recipe, parse_recipe
from ...recipes.reading import Field, card_facts, card_remarks, fields
from ...recipes.records import Edition, Entry, Evidence
from ...recipes.registry import Registry, open_registry
from ..parser import add_json, print_json
from ..table import gib_text, paragraph, render_table, seconds_text

SHOWN_EVIDENCE = 8


def configure_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `show`."""
    parser.add_argument("recipe", metavar="NAME|FILE.toml", help="a recipe's name, a part of its hash, or a file")
    parser.add_argument("--toml", action="store_true", help="print its text as it is written, with its comments")
    add_json(parser)


def configure_history(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `history`."""
    parser.add_argument("recipe", metavar="NAME", help="a recipe's name, or a part of its hash")
    add_json(parser)


def read_named(name: str) -> tuple[str, Recipe, str, Entry | None]:
    """Return the name, recipe, text and entry of a recipe in the registry, or in a file without an entry."""
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        toml = read_text(path, LARGEST_RECIPE_BYTES)
        return path.stem, parse_recipe(toml, origin=str(path)), toml, None
    with open_registry() as registry:
        entry = registry.get(name)
    return entry.name, entry.recipe, entry.toml, entry


def run_show(arguments: argparse.Namespace) -> int:
    """Print the recipe and return the exit status."""
    name, recipe, toml, entry = read_named(arguments.recipe)
    origin = entry.origin if entry else str(Path(arguments.recipe).expanduser())
    if arguments.json:
        print_json(_values(name, recipe, toml, entry, origin))
    elif arguments.toml:
        print(f"# {one_line(name, 100)} ({one_line(origin, 200)})\n# hash {recipe.hash()}\n\n{clean(toml).rstrip()}")
    else:
        print(_text(name, recipe, toml, entry, origin))
    return 0


def _values(name: str, recipe: Recipe, toml: str, entry: Entry | None, origin: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": name,
        "hash": recipe.hash(),
        "origin": origin,
        "accepted": entry.accepted if entry else True,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "toml": toml,
        "fields": [
            {
                "path": each.path,
                "value": each.value,
                "default": each.default,
                "differs": each.differs,
                "source": each.source,
                "meaning": each.meaning,
                "allowed": each.allowed,
                "reason": each.reason,
            }
            for each in fields(recipe, toml)
        ],
    }
    if entry is None:
        return values
    with open_registry() as registry:
        place = registry.place_of(entry)
        return values | {
            "aliases": registry.aliases(entry.edition_id),
            "parents": _parents(registry, registry.parents(entry.hash)),
            "place": None if place is None else asdict(place),
            "evidence": [asdict(each) for each in registry.evidence(entry.hash)],
        }


def _parents(registry: Registry, parents: Any) -> list[dict[str, Any]]:
    return [{"hash": parent, "kind": kind, "name": registry.name_of(parent)} for parent, kind in parents]


def _text(name: str, recipe: Recipe, toml: str, entry: Entry | None, origin: str) -> str:
    card = recipe.card
    head = [f"{one_line(name, 100)} ({one_line(origin, 200)})", one_line(card.title, 200)]
    if entry and not entry.accepted:
        head.append(paragraph(f"A stranger's: read it, then `tunewright recipes accept {name}` lets it be run."))
    head += [paragraph(clean(card.summary, 4000)) if card.summary else "", f"hash     {recipe.hash()}"]
    head += [f"{label:8} {text}" for label, text in card_facts(card)]
    parts = ["\n".join(filter(None, head))]
    for said, items in card_remarks(card):
        parts.append("\n".join([paragraph(said), *(paragraph(each, "  - ", "  ") for each in items)]))
    if entry:
        with open_registry() as registry:
            parts += filter(None, (_lineage(registry, entry), _evidence(registry.evidence(entry.hash))))
    section, lines = "", list[str]()
    for field in fields(recipe, toml):
        if field.section != section:
            section = field.section
            lines.append(f"\n[{section}]" if lines else f"[{section}]")
        lines += _field(field)
    return "\n\n".join([*parts, "\n".join(lines)])


def _field(field: Field) -> Iterator[str]:
    """Yield a field's value and how it differs from the default, then its meaning and the reason below."""
    yield f"  {field.name} = {field.value}   ({field.standing})"
    yield paragraph(field.meaning, "      ")
    if field.reason:
        yield paragraph(f"here: {field.reason}", "      ", "  ")


def _lineage(registry: Registry, entry: Entry) -> str:
    lines: list[str] = []
    for parent, kind in registry.parents(entry.hash):
        lines.append(f"{kind} of {registry.name_of(parent) or 'a recipe that is not here'} ({parent[:12]})")
    if place := registry.place_of(entry):
        lines.append(f"at {one_line(place.place, 200)}, commit {one_line(place.commit_id, 12)}")
        if place.gone:
            lines.append("which is no longer there; this copy stays")
        if place.moved_to:
            lines.append(f"which is called {one_line(place.moved_to, 200)} there now")
    if aliases := registry.aliases(entry.edition_id):
        lines.append(f"also called {', '.join(aliases)}")
    return "\n".join(lines)


def _evidence(evidence: list[Evidence]) -> str:
    if not evidence:
        return "Nothing is known yet of a run of it."
    rows = [
        (
            each.kind if each.claimed_by is None else "claimed",
            each.status,
            one_line(each.hardware, 28),
            f"{gib_text(each.predicted_peak_gib)} → {gib_text(each.measured_peak_gib)}"
            if each.measured_peak_gib
            else "",
            seconds_text(each.measured_seconds) if each.measured_seconds else "",
            f"{one_line(each.metric or '', 24)} {each.value:.4g}"
            if each.metric and each.value is not None
            else _loss(each),
        )
        for each in evidence[:SHOWN_EVIDENCE]
    ]
    table = render_table(("EVIDENCE", "", "ON", "PEAK", "TIME", "RESULT"), rows, right=(4,))
    more = len(evidence) - SHOWN_EVIDENCE
    return table if more <= 0 else f"{table}\n{more} more: `--json` has them all"


def _loss(evidence: Evidence) -> str:
    if evidence.first_loss is None or evidence.last_loss is None:
        return one_line(evidence.reason, 30)
    return f"loss {evidence.first_loss:.3g} → {evidence.last_loss:.3g}"


def run_history(arguments: argparse.Namespace) -> int:
    """Print every edition of a recipe and return the exit status."""
    with open_registry() as registry:
        entry = registry.get(arguments.recipe)
        editions = registry.history(arguments.recipe)
        if arguments.json:
            print_json(
                {
                    "name": entry.name,
                    "origin": entry.origin,
                    "editions": [
                        {
                            "hash": each.hash,
                            "title": each.title,
                            "note": each.note,
                            "created": each.created,
                            "current": each.current,
                            "evidence": each.evidence,
                            "parents": _parents(registry, each.parents),
                        }
                        for each in editions
                    ],
                }
            )
            return 0
        print(f"{one_line(entry.name, 100)} ({entry.origin})")
        for each in editions:
            print("\n".join(_edition(registry, each)))
    return 0


def _edition(registry: Registry, edition: Edition) -> Iterator[str]:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(edition.created))
    yield f"\n{edition.hash[:12]}  {made}{'  the present one' if edition.current else ''}"
    if edition.note:
        yield paragraph(one_line(edition.note, 2000), "  ")
    for parent, kind in edition.parents:
        yield f"  {kind} of {registry.name_of(parent) or 'a recipe that is not here'} ({parent[:12]})"
    counts = ", ".join(f"{number} {status}" for status, number in edition.evidence.items())
    yield f"  evidence: {counts or 'none'}"
