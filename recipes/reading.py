"""Reading a recipe: every field with its value, its meaning, where the value comes from, and the default beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..foundation.text import clean, one_line
from .model import TIERS, Card, Recipe
from .schema import meaning_of, slot_at

SECTIONS = ("base", "data", "method", "training", "evaluation")
"""What a recipe's fields are read from; its card is read as text."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: where it stands, what it holds, what that means, and where it comes from."""

    section: str
    name: str
    value: str
    meaning: str
    allowed: str
    """What it may hold; empty for a whole table."""
    default: str | None
    """What it would be if nobody wrote it; None where it has to be written."""
    differs: bool
    """Whether it is another value than the default."""
    source: Literal["written", "default", "required"]
    """Whether the text has it, leaves it to the default, or had to have it."""
    reason: str
    """The comment above it in the text; empty without one."""

    @property
    def path(self) -> str:
        """Where the field stands, such as `training.warmup.value`."""
        return f"{self.section}.{self.name}"

    @property
    def standing(self) -> str:
        """Say how it stands to the default."""
        if self.default is None:
            return "has to be given"
        if self.differs:
            return f"default {self.default}"
        return "the default" if self.source == "default" else "as the default"


def fields(recipe: Recipe, toml: str = "") -> Iterator[Field]:
    """Yield the fields of `recipe` in the order of its schema; `toml` is its text, where it has one.

    Without a text, what is not as by default counts as written.
    """
    reasons = comments(toml)
    stated = set(written_paths(toml)) if toml else None
    for section in SECTIONS:
        for name, info, value in _walk(getattr(recipe, section), ""):
            path = f"{section}.{name}"
            required = info.is_required()
            default: Any = None if required else info.get_default(call_default_factory=True)
            yield Field(
                section=section,
                name=name,
                value=written(value),
                meaning=meaning_of(info),
                allowed=slot.allowed if (slot := slot_at(path)) else "",
                default=None if required else written(default),
                differs=required or value != default,
                source="required"
                if required
                else "written"
                if (value != default if stated is None else path in stated)
                else "default",
                reason=reasons.get(path, ""),
            )


def _walk(section: BaseModel, prefix: str) -> Iterator[tuple[str, FieldInfo, object]]:
    for name, info in type(section).model_fields.items():
        value: object = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info, value


def card_facts(card: Card) -> Iterator[tuple[str, str]]:
    """Yield what a card says in a word or two, each with its label; the second and later sources have none."""
    facts = {
        "tags": " ".join(card.tags),
        "tier": f"{card.tier}: {TIERS[card.tier]}" if card.tier else "",
        "licence": card.licence,
        "of model": card.model_licence,
        "of data": card.data_licence,
        "ran on": card.hardware,
    }
    yield from ((label, one_line(value, 300)) for label, value in facts.items() if value)
    for place, source in enumerate(card.sources):
        yield "" if place else "from", one_line(source, 300)


def card_remarks(card: Card) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a card says of its source, each a beginning and what belongs to it: one text, or several."""
    if card.evidence:
        yield f"Its source says: {one_line(card.evidence, 4000)}", ()
    if card.differs:
        yield "Its source does otherwise:", tuple(one_line(each, 500) for each in card.differs)
    if card.unknown:
        yield f"Its source leaves open, so that the values are ours: {', '.join(card.unknown)}.", ()


def written(value: object) -> str:
    """Return a value as people write it."""
    match value:
        case None:
            return "—"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-2 else f"{value:g}"
        case tuple() | list():
            return ", ".join(one_line(str(item), 60) for item in cast("tuple[object, ...]", value)) or "—"
        case int():
            return f"{value:,}" if value >= 10_000 else str(value)
        case _:
            return one_line(str(value), 200)


def comments(toml: str) -> dict[str, str]:
    """Return the comment above each key of the text, by the key's path."""
    found: dict[str, str] = {}
    table, above = "", list[str]()
    for line in toml.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# ").strip())
            continue
        if header := re.match(r"\s*\[([\w.\-]+)\]\s*(?:#.*)?$", line):
            table = header[1]
        elif (key := re.match(r"\s*([\w.\-]+)\s*=", line)) and above:
            found.setdefault(f"{table}.{key[1]}" if table else key[1], one_line(" ".join(above), 500))
        above = []
    return found


def written_paths(toml: str) -> Iterator[str]:
    """Yield the path of every value that the text states."""

    def walk(table: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, value in table.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from walk(cast("dict[str, Any]", value), f"{prefix}{name}.")

    yield from walk(tomllib.loads(clean(toml)), "")
