"""Reading a stranger's YAML or JSON as data: no tag builds an object, no alias multiplies, nothing is evaluated."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator
from typing import Any, cast

import yaml

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line

LARGEST_BYTES = 1 << 20
MOST_NODES = 20_000
"""Keys and values of a file, each alias counted as all that it stands for."""
DEEPEST = 40
LONGEST_TEXT = 20_000
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}


def read_values(text: str, origin: str) -> tuple[dict[str, Any], list[str]]:
    """Return the keys and values in `text`, and what a reader should know: keys that stand twice.

    Raises TunewrightError for anything that is no plain table of keys and values, or too large for one.
    """
    if len(text.encode("utf-8", "replace")) > LARGEST_BYTES:
        raise _refusal(origin, "is larger than 1 MiB", "A configuration is a page of text.")
    twice: list[str] = []
    try:
        values = _read_json(text, twice) if text.lstrip()[:1] == "{" else None
    except (ValueError, RecursionError):
        values = None  # flow style of YAML begins like JSON
    if values is None:
        values = _read_yaml(text, origin, twice)
    if not isinstance(values, dict):
        raise _refusal(origin, "holds no table of keys and values", "Give the tool's configuration file.")
    plain = cast("dict[str, Any]", _plain(cast("object", values), origin, [0], 0))
    return plain, [f"The key {one_line(key, 100)} stands twice; the last one holds." for key in twice]


def _read_json(text: str, twice: list[str]) -> object:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        twice.extend(_repeated([key for key, _ in items]))
        return dict(items)

    return json.loads(text, object_pairs_hook=pairs)


def _read_yaml(text: str, origin: str, twice: list[str]) -> object:
    """Return the one document in `text`; its shape is measured before anything is built from it."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            twice.extend(_repeated(keys))
            return super().construct_mapping(node, deep)

    try:
        _measure(text, origin)
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        problem = str(getattr(error, "problem", None) or error)
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _refusal(origin, f"is not YAML{where}: {one_line(problem, 200)}", "Mend that line.") from error
    except (ValueError, RecursionError, TypeError) as error:  # a date that is none, a key that is a list
        raise _refusal(origin, f"is not plain YAML: {one_line(str(error), 200)}", "Mend it.") from error


def _measure(text: str, origin: str) -> None:
    """Refuse tags of objects, several documents, depth, and aliases that multiply to more than `MOST_NODES`."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total, documents = 0, 0
    events = cast("Iterator[yaml.Event]", yaml.parse(text, Loader=yaml.CSafeLoader))  # pyright: ignore[reportUnknownMemberType]
    for event in events:
        size = 0
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refusal(origin, "holds several documents", "Give one configuration in one file.")
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _refusal(origin, "holds an alias of something that is not there", "Mend the alias.")
            size = sizes[event.anchor]
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            tag = cast("str | None", event.tag)
            if tag not in (None, "!") and tag not in _PLAIN_TAGS:
                raise _refusal(
                    origin,
                    f"asks to build an object ({one_line(str(tag), 80)}), and nothing of a stranger's is built or run",
                    "Take the tag out and write the value.",
                )
            size = 1
            if isinstance(event, yaml.ScalarEvent):
                if event.anchor:
                    sizes[event.anchor] = 1
            else:
                open_.append((event.anchor, total))
                if len(open_) > DEEPEST:
                    raise _refusal(origin, f"is nested more than {DEEPEST} deep", "No tool's configuration is.")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = total - before
        total += size
        if total > MOST_NODES:
            raise _refusal(
                origin,
                f"holds more than {MOST_NODES:,} values, each alias counted as all that it stands for",
                "No tool's configuration does.",
            )


def _plain(value: object, origin: str, count: list[int], depth: int) -> object:
    """Return `value` with clean text for keys, texts and dates, and without numbers that are none."""
    count[0] += 1
    if count[0] > MOST_NODES or depth > DEEPEST:
        raise _refusal(origin, "is larger or deeper than any configuration", "Give the tool's configuration file.")
    if isinstance(value, dict):
        table = cast("dict[object, object]", value)
        return {_key(key): _plain(inner, origin, count, depth + 1) for key, inner in table.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, origin, count, depth + 1) for inner in cast("list[object]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        raise _refusal(origin, "holds a number of more than 18 digits", "No setting is that large.")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if len(text) > LONGEST_TEXT:
        raise _refusal(origin, f"holds a text of more than {LONGEST_TEXT:,} characters", "No setting is that long.")
    return clean(text)


def _key(key: object) -> str:
    """Return a key as clean text; YAML 1.1 reads the words on and off as truth values."""
    words = {True: "true", False: "false", None: "null"}
    return words[key] if isinstance(key, bool | None) else clean(str(key))


def _repeated(keys: list[str]) -> list[str]:
    return sorted({str(key) for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []


def _refusal(origin: str, because: str, remedy: str) -> TunewrightError:
    return TunewrightError("Configuration not readable", f"{one_line(origin, 200)} {because}.", remedy)
