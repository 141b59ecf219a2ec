"""Plain lines and paragraphs: the rows of JSON Lines and of text files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..examples import Fault, Place
from .batches import BATCH_BYTES, BATCH_ROWS, LONGEST_ROW_BYTES, Batch, Unit
from .streams import Stream, split_lines


def read_lines(stream: Stream, name: str, read_before: int, is_text: bool) -> Iterator[Batch]:
    """Yield lines as they stand; to parse them is left to who gets the batches."""
    syntax = "text" if is_text else "json"
    first = 1
    for lines in split_lines(stream):
        read_bytes = read_before + stream.read_bytes
        if isinstance(lines, int):
            fault = Fault(Place(first, "line", name), "row_too_long", f"{lines / 2**20:.0f} MiB")
            yield Batch(name, first, "line", values=(fault,), read_bytes=read_bytes)
            first += 1
            continue
        if len(lines) <= BATCH_ROWS:
            yield Batch(name, first, "line", tuple(lines), (), (), read_bytes, syntax)
        else:
            for start in range(0, len(lines), BATCH_ROWS):
                some = tuple(lines[start : start + BATCH_ROWS])
                yield Batch(name, first + start, "line", some, (), (), read_bytes, syntax)
        first += len(lines)
    if stream.broken:
        words = f"{stream.broken}; readable up to line {first - 1}"
        yield fault_batch("truncated_file", words, name, read_before + stream.read_bytes, first - 1)


def is_in_paragraphs(head: bytes) -> bool:
    """Return whether a plain text has its rows in paragraphs between blank lines, rather than one on each line.

    It has when most of them are more than one line, unless most lines are long: those were not broken by hand.
    """
    lines = [line.strip() for line in head.split(b"\n")]
    filled = [line for line in lines if line]
    paragraphs = sum(bool(line) and not before for before, line in zip([b"", *lines], lines, strict=False))
    if paragraphs < 2 or len(filled) <= 1.5 * paragraphs:
        return False
    return sum(len(line) > 200 for line in filled) * 2 < len(filled)


def read_paragraphs(stream: Stream, name: str, read_before: int) -> Iterator[Batch]:
    """Yield paragraphs as rows."""
    values: list[dict[str, Any] | Fault] = []
    paragraph: list[bytes] = []
    first, size, length = 1, 0, 0

    def finish() -> None:
        nonlocal length
        if paragraph:
            place = Place(first + len(values), "row", name)
            if length > LONGEST_ROW_BYTES:
                values.append(Fault(place, "row_too_long", f"{length / 2**20:.0f} MiB"))
            else:
                text = b"\n".join(paragraph).replace(b"\0", b"")
                try:
                    values.append({"text": text.decode().strip("\n")})
                except UnicodeDecodeError:
                    values.append(Fault(place, "not_utf8", "bytes that are not UTF-8"))
        paragraph.clear()
        length = 0

    for lines in split_lines(stream):
        if isinstance(lines, int):
            paragraph.append(b"")
            length += lines
            continue
        for line in lines:
            if line and line.strip(b" \t\r\0"):
                length += len(line) + 1
                paragraph.append(line if length <= LONGEST_ROW_BYTES else b"")
            elif paragraph:
                size += length
                finish()
                if len(values) >= BATCH_ROWS or size >= BATCH_BYTES:
                    yield Batch(name, first, "row", values=tuple(values), read_bytes=read_before + stream.read_bytes)
                    first += len(values)
                    values.clear()
                    size = 0
    finish()
    if values:
        yield Batch(name, first, "row", values=tuple(values), read_bytes=read_before + stream.read_bytes)
    if stream.broken:
        last = first + len(values) - 1
        words = f"{stream.broken}; readable up to row {last}"
        yield fault_batch("truncated_file", words, name, read_before + stream.read_bytes, last, "row")


def fault_batch(code: str, words: str, name: str, read_bytes: int, number: int = 0, unit: Unit = "line") -> Batch:
    """Return a batch without rows that carries one fault of the file."""
    fault = Fault(Place(number, unit, name), code, words)
    return Batch(name, number + 1, unit, faults=(fault,), read_bytes=read_bytes)
