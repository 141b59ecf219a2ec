"""Changing a recipe's text: single values are set, and every comment stays where it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from .model import Recipe, parse_recipe

_EITHER = {("training", "steps"): ("training", "epochs"), ("training", "epochs"): ("training", "steps")}
"""Where one key is set, the other goes: a recipe has either."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value to be set, or a whole section."""

    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} = {json.dumps(self.value, ensure_ascii=False)}"


def read_change(text: str) -> Change:
    """Return the change that `KEY=VALUE` asks for, the value read as JSON or else as text; raises TunewrightError."""
    key, equals, written = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path) or (len(path) == 1 and path[0] not in Recipe.model_fields):
        raise TunewrightError(
            "Change not understood", f"{one_line(text, 100)!r} is not KEY=VALUE.", "Such as training.epochs=3."
        )
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        value = written
    return Change(path, value)


def apply_to_values(values: dict[str, Any], changes: Iterable[Change]) -> None:
    """Set `changes` in a recipe's plain `values`; raises TunewrightError where a key leads through a value."""
    for change in changes:
        table = values
        for name in change.path[:-1]:
            table = _inner(table.setdefault(name, {}), name)
        table[change.path[-1]] = change.value
        if other := _EITHER.get(cast("tuple[str, str]", change.path)):
            table.pop(other[-1], None)


def change_text(toml: str, changes: Iterable[Change], origin: str) -> str:
    """Return the text of a recipe with `changes` set and its comments kept.

    Raises TunewrightError when the text is no TOML, or is no recipe afterwards.
    """
    try:
        document = tomlkit.parse(toml)
    except (TOMLKitError, RecursionError) as error:
        raise TunewrightError(
            "Recipe is not TOML", f"{origin}: {one_line(str(error), 300)}.", "Mend that line first."
        ) from error
    for change in changes:
        table: Any = document
        for name in change.path[:-1]:
            if name not in table:
                table[name] = tomlkit.table()
            table = _inner(table[name], name)
        _set(table, change.path[-1], change.value)
        if (other := _EITHER.get(cast("tuple[str, str]", change.path))) and other[-1] in table:
            _remove(table, other[-1])
    text = tomlkit.dumps(document)
    parse_recipe(text, origin)
    return text


def _set(table: Any, name: str, value: object) -> None:
    """Set a value in the place of the old one, whose comment at the end of its line stays."""
    if value is None:
        if name in table:
            _remove(table, name)
        return
    new = cast("Any", tomlkit.item(cast("Any", value)))
    old: Any = table.get(name)
    if old is not None and not isinstance(old, dict) and hasattr(old, "trivia") and not isinstance(value, dict):
        new.trivia.comment_ws, new.trivia.comment = old.trivia.comment_ws, old.trivia.comment
    table[name] = new


def _remove(table: Any, name: str) -> None:
    """Take a key away; the comment above it stays, for it may say why there is another."""
    del table[name]


def _inner(value: object, name: str) -> Any:
    if not isinstance(value, dict):
        raise TunewrightError(
            "Change not understood", f"{one_line(name, 60)} holds no other keys.", "See `tunewright recipes show`."
        )
    return cast("Any", value)
