"""JSON that is not one object a line: lists, objects that hold a list, objects one after the other; read piece by piece."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from ..examples import Fault, Place
from .batches import BATCH_BYTES, BATCH_ROWS, LONGEST_ROW_BYTES, Batch, checked, explain
from .sniffing import FileKind, rows_list
from .streams import Stream

_NEARLY_AT_END = 16
"""An error so near the end of what was read may only mean that there is more to read."""
_spaces = re.compile(r"[ \t\r\n\0\ufeff]*")
_outside = re.compile(r'["\[\]{}]')
_inside = re.compile(r'["\\]')
_stop = re.compile(r"[,{\]]")
_read_value = json.JSONDecoder().raw_decode


class _Text:
    """The text of a stream from the place reached on, as much of it as was asked for."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.buffer = ""
        self.at = 0
        self.doubtful = False
        """Whether there were bytes that are not UTF-8; they stand in the buffer as lone surrogates."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def more(self, least: int = 1) -> bool:
        """Read on by at least `least` characters; returns False at the end."""
        # The beginning of the line is kept, for its indentation tells where the next row begins.
        line = self.buffer.rfind("\n", max(0, self.at - 200), self.at)
        kept = line if line >= 0 and not self.buffer[line : self.at].strip() else self.at
        pieces = [self.buffer[kept:]]
        self.at -= kept
        grown = 0
        while grown < least and (block := self.stream.read()):
            piece = self._decoder.decode(block)
            if not self.doubtful and not _is_clean(piece):
                self.doubtful = True
            pieces.append(piece)
            grown += len(piece)
        self.buffer = "".join(pieces)
        return grown > 0

    def peek(self) -> str:
        """Pass over white space and return the next character; empty at the end."""
        while True:
            match = _spaces.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def skip_value(self) -> int | None:
        """Pass over the value that begins here and return its length in characters; None at the end.

        Only brackets and quotation marks are looked at, so it may be of any length, and damaged.
        """
        depth = length = 0
        in_string = False
        while True:
            match = (_inside if in_string else _outside).search(self.buffer, self.at)
            end = match.end() if match else len(self.buffer)
            length += end - self.at
            self.at = end
            if match is None:
                if not self.more():
                    return None
                continue
            found = match.group()
            if in_string and found == "\\":
                if self.at == len(self.buffer) and not self.more():
                    return None
                self.at += 1
                length += 1
            elif found == '"':
                in_string = not in_string
            elif found in "[{":
                depth += 1
            else:
                depth -= 1
            if depth <= 0 and not in_string:
                return length


class _Rows:
    """The rows of one document in their order, each parsed or with what is wrong with it."""

    def __init__(self, text: _Text, name: str) -> None:
        self.text = text
        self.name = name
        self.number = 0
        self.end = ""
        """Why the rows end before the document does; empty when they do not."""

    def read(self, in_list: bool, only_list: bool) -> Iterator[tuple[dict[str, Any] | Fault, int]]:
        """Yield rows and their lengths; `in_list` says whether a list was begun, `only_list` to stop where it ends."""
        text = self.text
        while next_one := text.peek():
            if next_one == ",":
                text.at += 1
            elif next_one == "]" and in_list:
                text.at += 1
                in_list = False
                if only_list:
                    return
            elif next_one == "[" and not in_list:
                text.at += 1
                in_list = True
            else:
                self.number += 1
                row = self._row()
                if row is None:
                    self.number -= 1
                    return
                yield row
        if in_list:
            self.end = "the list has no end"

    def _row(self) -> tuple[dict[str, Any] | Fault, int] | None:
        """Return the value that begins here; None when it cannot be told where it ends."""
        text = self.text
        place = Place(self.number, "row", self.name)
        while True:
            try:
                value, end = _read_value(text.buffer, text.at)
            except json.JSONDecodeError as error:
                left = len(text.buffer) - text.at
                is_cut = error.pos >= len(text.buffer) - _NEARLY_AT_END or error.msg.startswith("Unterminated string")
                if is_cut and left > LONGEST_ROW_BYTES:
                    return self._pass_over(Fault(place, "row_too_long", "more than 16 MiB"))
                if is_cut and text.more(left):
                    continue
                is_end = is_cut and error.pos >= len(text.buffer.rstrip()) - 1
                if is_end or error.msg.startswith("Unterminated string"):
                    self.end = "it ends in the middle of a row"
                    return None
                _, words = explain(error, text.buffer[text.at : text.at + 2])
                words = f"{words.partition(' at column')[0]}, {error.pos - text.at + 1} characters into the row"
                return self._pass_over(Fault(place, "not_json", words))
            except (ValueError, RecursionError) as error:
                return self._pass_over(Fault(place, *explain(error, "")))
            if end == len(text.buffer) and not isinstance(value, dict | list | str) and text.more():
                continue  # A number may go on.
            source = text.buffer[text.at : end]
            text.at = end
            if len(source) > LONGEST_ROW_BYTES:
                return Fault(place, "row_too_long", f"{len(source) / 2**20:.0f} MiB"), 0
            if text.doubtful and not _is_clean(source):
                return Fault(place, "not_utf8", "bytes that are not UTF-8"), 0
            record = checked(value, source, place)
            return (record, 0) if isinstance(record, Fault) else (record.value, len(source))

    def _pass_over(self, fault: Fault) -> tuple[Fault, int] | None:
        """Go to the end of the damaged or overlong value that begins here, and return its fault."""
        text = self.text
        if text.buffer[text.at] not in '[{"':
            match = _stop.search(text.buffer, text.at + 1)
            text.at = match.start() if match else len(text.buffer)
            return fault, 0
        line = text.buffer.rfind("\n", 0, text.at)
        indent = text.buffer[line + 1 : text.at]
        if fault.code != "row_too_long" and line >= 0 and not indent.strip():
            # Where rows begin on lines of their own, the next one has the same indentation.
            begin = f"\n{indent}{{"
            found = text.buffer.find(begin, text.at)
            while found < 0 and len(text.buffer) - text.at < LONGEST_ROW_BYTES and text.more(len(text.buffer)):
                found = text.buffer.find(begin, text.at)
            if found >= 0:
                text.at = found
                return fault, 0
        if text.skip_value() is None:
            self.end = f"row {fault.place.number} has no end ({fault.problem})"
            return (fault, 0) if fault.code != "not_json" else None
        return fault, 0


def read_document(stream: Stream, kind: FileKind, name: str, read_before: int) -> Iterator[Batch]:
    """Yield the rows of JSON that is not one object a line, in batches.

    `kind` is `list` (also of an object that holds the list of rows under some key) or `values`.
    """
    text = _Text(stream)
    first_character = text.peek()
    found = rows_list(text.buffer, text.at) if kind == "list" and first_character == "{" else None
    if found is not None:
        text.at = found[0] + 1
    rows = _Rows(text, name)
    values: list[dict[str, Any] | Fault] = []
    first, size = 1, 0
    for row, length in rows.read(in_list=found is not None, only_list=found is not None):
        values.append(row)
        size += length
        if len(values) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield Batch(name, first, "row", values=tuple(values), read_bytes=read_before + stream.read_bytes)
            first += len(values)
            values.clear()
            size = 0
    faults: list[Fault] = []
    place = Place(rows.number, "row", name)
    if stream.broken or rows.end:
        reason = stream.broken or rows.end
        faults.append(Fault(place, "truncated_file", f"{reason}; readable up to row {rows.number}"))
    elif found is not None and (other := _other_list(text)):
        words = f"the rows under “{found[1]}” were read, another list of rows under “{other}” was not"
        faults.append(Fault(place, "unknown_format", words))
    if values or faults:
        yield Batch(name, first, "row", (), tuple(values), tuple(faults), read_before + stream.read_bytes)


def _other_list(text: _Text) -> str:
    """Return the key of a second list of rows in the object whose first one was read; empty when there is none near."""
    if text.peek() != ",":
        return ""
    text.at += 1
    text.peek()
    text.more()
    found = rows_list("{" + text.buffer[text.at :], 0)
    return found[1] if found else ""


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
