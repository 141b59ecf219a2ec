"""A batch of rows on its way from a file to a worker, and the parsing of its lines there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from ....foundation.text import one_line
from ..examples import Fault, Place, Record

LONGEST_ROW_BYTES = 16 * 2**20
BATCH_BYTES = 2**20
BATCH_ROWS = 512
DEEPEST = 64
"""So many lists and objects may stand in each other; what walks through a row by recursion is safe with that."""
FILE_CODES = frozenset({"empty_file", "unknown_format", "truncated_file", "file_changed", "utf16"})
"""The codes of faults that concern a file rather than a row."""
HARMLESS_CODES = frozenset({"utf16"})
"""Of these, what is said of a file that could be read all the same."""

Unit = Literal["line", "row"]
_read_value = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one file that follow each other: lines still to be parsed, or values."""

    file: str
    """The file's name, where the data has more than one; else empty."""
    first: int
    """The number of the first line or row; the others follow without a gap."""
    unit: Unit
    lines: tuple[bytes, ...] = ()
    """Raw lines; blank ones too, so that the numbers stay right."""
    values: tuple[dict[str, Any] | Fault, ...] = ()
    """Rows that came parsed, of tables and JSON lists; the faults among them are faults of rows."""
    faults: tuple[Fault, ...] = ()
    """Faults that concern the file; met after the rows of this batch."""
    read_bytes: int = 0
    """Bytes read from the disk up to here, over all files; of compressed files the compressed ones."""
    syntax: Literal["json", "text"] = "json"
    """What the lines are: JSON objects, or plain text."""


def parse_batch(batch: Batch) -> Iterator[Record | Fault]:
    """Yield each row of `batch`, or what is wrong with it; blank lines are passed over.

    The batch's own faults are not among them: they are no rows.
    """
    for number, value in enumerate(batch.values, start=batch.first):
        if isinstance(value, Fault):
            yield value
        else:
            yield Record(Place(number, batch.unit, batch.file), value)
    file, unit, is_text = batch.file, batch.unit, batch.syntax == "text"
    for number, line in enumerate(batch.lines, start=batch.first):
        if not line:
            continue
        place = Place(number, unit, file)
        if is_text:
            row = _text_row(line, place)
            if row is not None:
                yield row
            continue
        try:
            text = line.decode()
            value, end = _read_value(text)
        except (ValueError, RecursionError):
            row = _parse_with_care(line, place)
            if row is not None:
                yield row
            continue
        if end != len(text) and text[end:].strip(" \t\r\n\0"):
            yield Fault(place, "not_json", f"more text after the object, at column {end + 1}")
        else:
            yield checked(value, text, place)


def checked(value: Any, text: str, place: Place) -> Record | Fault:
    """Return the record of a parsed JSON value that stands as `text` in the file, or what is wrong with it."""
    if value.__class__ is not dict:
        return Fault(place, "not_object", f"{_kind(value)} instead of an object")
    if text.count("{") + text.count("[") > DEEPEST and is_deeper(value, DEEPEST):
        return Fault(place, "nested_too_deeply", f"more than {DEEPEST} lists and objects in each other")
    if ("\\ud" in text or "\\uD" in text) and not is_unicode(value):
        return Fault(place, "not_utf8", "half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    return Record(place, value)


def is_deeper(value: Any, depth: int) -> bool:
    """Return whether more than `depth` lists and objects stand in each other in `value`."""
    level: list[Any] = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below.extend(cast("dict[str, Any]", each).values())
            elif isinstance(each, list):
                below.extend(cast("list[Any]", each))
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def is_unicode(value: Any) -> bool:
    """Return whether all text in `value` can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def explain(error: ValueError | RecursionError, text: str) -> tuple[str, str]:
    """Return the code and the words for what the JSON parser said about `text`."""
    if isinstance(error, RecursionError):
        return "nested_too_deeply", f"more than {DEEPEST} lists and objects in each other"
    if not isinstance(error, json.JSONDecodeError):
        return "not_json", one_line(f"not JSON: {error}", 200)
    reason = f"not JSON: {one_line(error.msg, 100)} at column {error.colno}"
    if text.startswith(("{'", "[{'")):
        reason += "; single quotation marks are Python's way of writing, not JSON's"
    return "not_json", reason


def _parse_with_care(line: bytes, place: Place) -> Record | Fault | None:
    """Return what is in a line that could not be parsed as it stands; None when it is blank."""
    line = line.strip(b" \t\r\n\0")
    if not line:
        return None
    try:
        text = line.decode().removeprefix("\ufeff").lstrip(" \t\0")
    except UnicodeDecodeError as error:
        return Fault(place, "not_utf8", f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8")
    if not text:
        return None
    try:
        value, end = _read_value(text)
    except (ValueError, RecursionError) as error:
        return Fault(place, *explain(error, text))
    if text[end:].strip():
        return Fault(place, "not_json", f"more text after the object, at column {end + 1}")
    return checked(value, text, place)


def _text_row(line: bytes, place: Place) -> Record | Fault | None:
    line = line.strip(b"\0")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Fault(place, "not_utf8", f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8")
    return Record(place, {"text": text.rstrip()}) if text.strip() else None


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return "null" if value is None else "true or false" if isinstance(value, bool) else "a number"
