"""What is planted in a row: each change makes another row, or bytes in place of one, of a good row."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from .rows import Line, Row, good_rows

Change = Callable[[str, Row], Line]
"""Returns a row of the format with something else in it."""

ANSWERS: dict[str, tuple[str | int, ...]] = {
    "messages": ("messages", 1, "content"),
    "messages with system": ("messages", 2, "content"),
    "messages with thinking": ("messages", 1, "content"),
    "sharegpt": ("conversations", 1, "value"),
    "alpaca": ("output",),
    "orca": ("response",),
    "prompt-completion": ("completion",),
    "text": ("text",),
    "preference": ("chosen",),
    "preference of messages": ("chosen", 1, "content"),
    "kto": ("completion",),
    "tools": ("messages", 3, "content"),
}
PROMPTS: dict[str, tuple[str | int, ...]] = {
    "messages": ("messages", 0, "content"),
    "messages with system": ("messages", 1, "content"),
    "sharegpt": ("conversations", 0, "value"),
    "alpaca": ("instruction",),
    "orca": ("question",),
    "prompt-completion": ("prompt",),
    "preference": ("prompt",),
    "kto": ("prompt",),
    "tools": ("messages", 0, "content"),
}


def put(path: str | tuple[str | int, ...], value: object) -> Change:
    """Return the change that puts a value, or what a function makes of the old one, in a place.

    The place is a path, a column, or the "answer" or "prompt" of the shape.
    """
    places = {"answer": ANSWERS, "prompt": PROMPTS}

    def change(shape: str, row: Row) -> Row:
        keys = path if isinstance(path, tuple) else places[path][shape] if path in places else (path,)
        where: Any = row
        for key in keys[:-1]:
            where = where[key]
        where[keys[-1]] = value(where.get(keys[-1])) if callable(value) else value
        return row

    return change


def append(text: str) -> Callable[[str], str]:
    """Return the function that appends a text."""
    return lambda old: old + text


def raw(line: bytes) -> Change:
    """Return the change that puts bytes in place of the row."""
    return lambda shape, row: line


def turns(rearrange: Callable[[list[Row]], list[Any]]) -> Change:
    """Return the change that rearranges the turns of a conversation."""

    def change(shape: str, row: Row) -> Row:
        key = "conversations" if "conversations" in row else "messages"
        return row | {key: rearrange(row[key])}

    return change


def without(*keys: str) -> Change:
    """Return the change that takes columns away."""
    return lambda shape, row: {key: value for key, value in row.items() if key not in keys}


def instead(shape: str) -> Change:
    """Return the change that puts a row of another shape in place."""
    return lambda _, row: good_rows(shape, json.dumps(row), 1)[0]


def copy_of(number: int, seed: str, alter: Callable[[str, Row], Line] = lambda shape, row: row) -> Change:
    """Return the change that puts a copy of the row `number` of the file in place."""
    return lambda shape, row: alter(shape, copy.deepcopy(good_rows(shape, seed, number)[-1]))
