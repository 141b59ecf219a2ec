"""Changing a recipe's text: single values are set, and every comment stays where it is; and keeping what came of it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ..foundation.errors import TunewrightError
from ..foundation.text import clean, one_line
from .model import PREFERENCE_OBJECTIVES, Problem, Recipe, check_recipe, parse_recipe
from .schema import METHODS, Slot, slot_at, slots

if TYPE_CHECKING:
    from .records import Entry
    from .registry import Registry

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
        for name in list(_displaced(change, table)):
            del table[name]


def _displaced(change: Change, table: Iterable[str]) -> Iterator[str]:
    """Yield the keys beside the one that is set which mean nothing, or something else, from then on."""
    if change.value is None:
        return
    if other := _EITHER.get(cast("tuple[str, str]", change.path)):
        yield from (name for name in table if name == other[-1])
    elif change.path == ("method", "kind") and change.value in METHODS:
        yield from (name for name in table if name not in METHODS[change.value].model_fields and _of_a_method(name))
    elif change.path == ("training", "objective") and change.value not in PREFERENCE_OBJECTIVES:
        yield from (name for name in table if name == "preference")


def _of_a_method(name: str) -> bool:
    return any(name in section.model_fields for section in METHODS.values())


def change_text(toml: str, changes: Iterable[Change], origin: str) -> str:
    """Return the text of a recipe with `changes` set and its comments kept.

    Raises TunewrightError when the text is no TOML, or is no recipe afterwards.
    """
    document = _document(toml, origin)
    for change in changes:
        _apply(document, change)
    text = tomlkit.dumps(document)
    parse_recipe(text, origin)
    return text


def _document(toml: str, origin: str) -> Any:
    try:
        return tomlkit.parse(toml)
    except (TOMLKitError, RecursionError) as error:
        raise TunewrightError(
            "Recipe is not TOML", f"{origin}: {one_line(str(error), 300)}.", "Mend that line first."
        ) from error


def _apply(document: Any, change: Change) -> None:
    table = document
    for name in change.path[:-1]:
        if name not in table:
            table[name] = tomlkit.table()
        table = _inner(table[name], name)
    _set(table, change.path[-1], change.value)
    for name in list(_displaced(change, table)):
        _remove(table, name)


@dataclass(frozen=True, slots=True)
class Edited:
    """What a recipe's text becomes with what was typed into its fields."""

    text: str
    recipe: Recipe | None
    """None where it is none."""
    problems: tuple[Problem, ...]

    def problems_at(self, path: str) -> list[str]:
        """Return what is wrong with the field at `path`."""
        # An unknown kind is told of the method as a whole.
        paths = (path, "method") if path == "method.kind" else (path,)
        return [each.fault for each in self.problems if each.path in paths]


def edit_text(toml: str, typed: Mapping[str, str]) -> Edited:
    """Return what the recipe's text `toml` becomes with what was `typed` into fields, by their paths, the latest last.

    Fields that the typed method or objective has not are passed over, so that its choice can be taken back. Raises
    TunewrightError when `toml` is no TOML.
    """
    document = _document(toml, "The recipe")
    problems: list[Problem] = []
    first = ("method.kind", "training.objective")
    method = ""
    for path in [*(path for path in first if path in typed), *(path for path in typed if path not in first)]:
        slot = slot_at(path)
        if slot is None or (method and all(path != each.path for each in slots(method))):
            continue
        try:
            value = read_typed(slot, typed[path])
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            continue
        if path == "method.kind" and value in METHODS:
            method = value
        preferring = typed.get("training.objective", "dpo") in PREFERENCE_OBJECTIVES
        if path.startswith("training.preference.") and not preferring:
            continue
        written = _inline(value) if slot.kind == "table" else value
        change = Change(tuple(path.split(".")), written)
        if _holds(document, change):
            continue  # it stays as it is written
        _apply(document, change)
        if value is None:
            _remove_if_empty(document, path)
    text = tomlkit.dumps(document)
    found = check_recipe(tomllib.loads(text), text)
    if isinstance(found, tuple):
        problems += found
    return Edited(text, found if isinstance(found, Recipe) and not problems else None, tuple(problems))


def _holds(document: Any, change: Change) -> bool:
    """Tell whether the text says this already."""
    found: Any = document.unwrap()
    for name in change.path:
        found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
    return found == change.value and type(found) is type(change.value)


def _remove_if_empty(document: Any, path: str) -> None:
    """Take away the table around `path` where it says nothing any more: an empty one may mean something."""
    section, *inner, _ = path.split(".")
    if inner and section in document and inner[0] in document[section] and not document[section][inner[0]]:
        _remove(document[section], inner[0])


def value_at(recipe: Recipe, path: str) -> Any:
    """Return the value at `path`, None where the recipe has none there."""
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def as_typed(value: object) -> str:
    """Return a value as it is typed into a field; empty for one that is left out."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            short = f"{value:g}"
            return (short if float(short) == value else repr(value)).replace("e-0", "e-").replace("e+0", "e")
        case str() if value == one_line(value) and value[:1] not in ("'", '"'):
            return value
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return (
                f"{{ {', '.join(f'{json.dumps(key, ensure_ascii=False)} = {_in_toml(each)}' for key, each in pairs)} }}"
            )
        case list() | tuple():
            return f"[{', '.join(map(_in_toml, cast('list[object]', value)))}]"
        case _:
            return str(value)


def _in_toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else as_typed(value)


def read_typed(slot: Slot, text: str) -> Any:
    """Return the value that was typed as `text`: words as they are, all else as TOML; None for nothing.

    What is no number where one belongs stays a text, for the schema to refuse. Raises ValueError for what is not TOML.
    """
    text = clean(text).strip()
    if not text:
        return None
    if slot.kind == "yes or no" and text.casefold() in ("yes", "no"):
        return text.casefold() == "yes"
    if text in slot.choices or slot.kind == "choice" or (slot.kind == "text" and text[:1] not in ("'", '"')):
        return text
    try:
        tables = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if slot.kind in ("list", "table", "text"):
            form = "text in quotation marks" if slot.kind == "text" else slot.allowed
            raise ValueError(f"is not TOML; it is {form}") from None
        return text
    return tables["value"] if list(tables) == ["value"] else text


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


def _inline(value: object) -> Any:
    """Return a table as it stands in one line; another value is left for the schema to refuse."""
    if not isinstance(value, dict):
        return value
    table = cast("dict[str, Any]", tomlkit.inline_table())
    table.update(cast("dict[str, Any]", value))
    return table


def is_own(entry: Entry) -> bool:
    """Tell whether `entry` is the user's to change."""
    return entry.origin not in ("built-in", "hub")


def require_own(entry: Entry) -> None:
    """Raise TunewrightError where `entry` belongs to somebody else."""
    if not is_own(entry):
        whose = "is built in" if entry.origin == "built-in" else "belongs to somebody else"
        short = entry.name.rpartition("/")[2]
        raise TunewrightError(
            "Not yours to change",
            f"{one_line(entry.name, 100)} {whose}.",
            f"Make one of your own from it: `tunewright recipes fork {one_line(entry.name, 100)} my-{one_line(short, 60)}`.",
        )


def keep_edition(registry: Registry, entry: Entry, text: str, note: str = "") -> Entry:
    """Keep `text` as the present edition of the user's own recipe `entry`, made from the one before.

    Raises TunewrightError where it is somebody else's, has become another meanwhile, or `text` is no recipe.
    """
    require_own(entry)
    if registry.get(entry.name).edition_id != entry.edition_id:
        raise TunewrightError(
            "Changed meanwhile",
            f"{one_line(entry.name, 100)} has another edition since this one was opened.",
            "Keep yours under another name, and compare the two.",
        )
    slug = entry.name.rpartition("/")[2]
    return registry.add(text, slug, origin=entry.origin, parents=[entry.hash], note=note)


def keep_fork(registry: Registry, entry: Entry, text: str, name: str, note: str = "") -> Entry:
    """Keep `text` as a recipe of the user's own called `name`, made from `entry`; raises TunewrightError for a taken name."""
    note = note or f"Forked from {entry.name}"
    return registry.add(text, name, origin="fork", parents=[entry.hash], note=note, new=True)
