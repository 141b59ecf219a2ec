"""CSV and its relatives: rows of cells under a header, with the physical line of every row that is not one."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from ..examples import Fault, Place
from .batches import BATCH_BYTES, BATCH_ROWS, LONGEST_ROW_BYTES, Batch
from .sniffing import plain_suffix
from .streams import Stream, split_lines

_DELIMITERS = ",;\t|"
_SAMPLE_BYTES = 2**16
_SAMPLE_ROWS = 200
_LONGEST_HEADING = 200


class _Lines:
    """The physical lines of a table, which can be handed out again after an error."""

    def __init__(self, chunks: Iterable[list[bytes] | int]) -> None:
        self._chunks = iter(chunks)
        self._waiting: list[str] = []
        """Lines to hand out, the next one last."""
        self._handed: list[str] = []
        self._handed_size = 0
        self.number = 0
        """The number of the last line that was handed out."""
        self.too_long: list[int] = []
        """The numbers of lines that were passed over because they are too long."""
        self.doubtful = False
        """Whether there were bytes that are not UTF-8; they stand in the lines as lone surrogates."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._waiting:
            self._fill(next(self._chunks))
        if self._handed_size > LONGEST_ROW_BYTES:
            raise csv.Error("a quotation mark is never closed")
        line = self._waiting.pop()
        self._handed.append(line)
        self._handed_size += len(line)
        self.number += 1
        return line

    def mark(self) -> None:
        """Remember this place as the beginning of a row."""
        self._handed.clear()
        self._handed_size = 0

    def rewind(self) -> None:
        """Go back to the line after the first one of the row, which is given up."""
        again = self._handed[1:]
        self._waiting.extend(reversed(again))
        self.number -= len(again)
        self.mark()

    @property
    def row_lines(self) -> list[str]:
        """The lines of the row so far."""
        return self._handed

    def _fill(self, chunk: list[bytes] | int) -> None:
        if isinstance(chunk, int):
            self.number += 1
            self.too_long.append(self.number)
            return
        joined = b"\n".join(chunk)
        try:
            text = joined.decode()
        except UnicodeDecodeError:
            text = joined.decode("utf-8", "surrogateescape")
            self.doubtful = True
        if "\0" in text:
            text = text.replace("\0", "")
        self._waiting = [line + "\n" for line in text.split("\n")]
        self._waiting.reverse()


def read_table(stream: Stream, name: str, read_before: int) -> Iterator[Batch]:
    """Yield the rows of a table with a header, in batches; all cells are text.

    Rows are counted without the header and without blank lines; a fault gives the physical line.
    """
    csv.field_size_limit(2 * LONGEST_ROW_BYTES)
    lines = _Lines(split_lines(stream))
    dialect = find_dialect(stream.head, stream.path.name)
    values: list[dict[str, Any] | Fault] = []
    faults: list[Fault] = []
    first, size, last_line = 1, 0, 0
    header: list[str] = []
    width = 0
    for row, line in _read_rows(lines, dialect, stream, name):
        last_line = lines.number
        if not width:
            if isinstance(row, Fault):
                values.append(row)
                continue
            width = len(row)
            header = _headings(row)
            if _is_heading(row):
                continue
            header = [f"column {number}" for number in range(1, width + 1)]
            faults.append(
                Fault(
                    Place(line, "line", name), "unknown_format", "the first line is no header: name the columns in it"
                )
            )
        if isinstance(row, Fault):
            values.append(row)
        elif lines.doubtful and not _is_clean(row):
            values.append(Fault(Place(line, "line", name), "not_utf8", "bytes that are not UTF-8"))
        elif (len(row) != width and any(row[width:])) or len(row) < width:
            values.append(_ragged(row, line, width, lines, name))
        else:
            values.append(dict(zip(header, row, strict=False)))
            size += sum(map(len, row))
        if len(values) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield Batch(name, first, "row", (), tuple(values), tuple(faults), read_before + stream.read_bytes)
            first += len(values)
            values.clear()
            faults.clear()
            size = 0
    if stream.broken:
        words = f"{stream.broken}; readable up to line {last_line}"
        faults.append(Fault(Place(last_line, "line", name), "truncated_file", words))
    if values or faults:
        yield Batch(name, first, "row", (), tuple(values), tuple(faults), read_before + stream.read_bytes)


def find_dialect(head: bytes, name: str) -> dict[str, Any]:
    """Return how the table that begins with `head` is written, as options of `csv.reader`.

    The separator under which most of the first rows are as wide as the header wins; backslashes before quotation marks,
    and tables by tabs without any quoting, are taken for such only where that makes more rows whole.
    """
    cut = head[:_SAMPLE_BYTES]
    sample = (cut[: cut.rfind(b"\n")] if len(head) > _SAMPLE_BYTES and b"\n" in cut else cut).split(b"\n")
    preferred = "\t" if plain_suffix(name) in (".tsv", ".tab") else ","
    best: dict[str, Any] = {"delimiter": preferred}
    best_share, best_whole = 0.0, 0
    for delimiter in dict.fromkeys(preferred + _DELIMITERS):
        manners: list[dict[str, Any]] = [{}, {"escapechar": "\\", "doublequote": False}]
        if delimiter == "\t":
            manners.append({"quoting": csv.QUOTE_NONE})
        for manner in manners:
            dialect = {"delimiter": delimiter, **manner}
            share, whole = _judge(sample, dialect)
            is_same = best["delimiter"] == delimiter and share >= best_share
            if share > best_share + 0.1 or (is_same and whole > best_whole * 1.1 > 0):
                best, best_share, best_whole = dialect, share, whole
    return best


def _judge(sample: list[bytes], dialect: dict[str, Any]) -> tuple[float, int]:
    """Return the share of rows that are as wide as the header, and how many; 0 where that has one cell only."""
    lines = _Lines([sample])
    width = whole = rows = 0
    for row, _ in _read_rows(lines, dialect, None, ""):
        if not width:
            width = 0 if isinstance(row, Fault) else len(row)
            if width < 2:
                return 0.0, 0
            continue
        rows += 1
        whole += not isinstance(row, Fault) and (len(row) == width or (len(row) > width and not any(row[width:])))
        if rows >= _SAMPLE_ROWS:
            break
    return (whole / rows, whole) if rows else (0.5, 0)


def _read_rows(
    lines: _Lines, dialect: dict[str, Any], stream: Stream | None, name: str
) -> Iterator[tuple[list[str] | Fault, int]]:
    """Yield rows of cells, or faults, and the physical line that each begins on."""
    while True:
        reader = csv.reader(lines, strict=True, **dialect)
        line = lines.number + 1
        try:
            lines.mark()
            for row in reader:
                for number in lines.too_long:
                    yield Fault(Place(number, "line", name), "row_too_long", "more than 16 MiB"), number
                if lines.too_long:
                    line = lines.number - len(lines.row_lines) + 1
                    lines.too_long.clear()
                if row:
                    yield row, line
                line = lines.number + 1
                lines.mark()
        except csv.Error as error:
            is_end = "unexpected end" in str(error)
            if is_end and stream is not None and stream.broken:
                return
            words = "a quotation mark out of place: the cell goes on after it was closed"
            if is_end or "never closed" in str(error) or "field limit" in str(error):
                words = "a quotation mark that is never closed"
            elif len(lines.row_lines) > 1:
                words += f" on line {lines.number}"
            yield Fault(Place(line, "line", name), "ragged_row", words), line
            lines.rewind()
            continue
        for number in lines.too_long:
            yield Fault(Place(number, "line", name), "row_too_long", "more than 16 MiB"), number
        return


def _ragged(row: list[str], line: int, width: int, lines: _Lines, name: str) -> Fault:
    """Return the fault of a row that is not as wide as the header, and read it again from its second line if need be."""
    place = Place(line, "line", name)
    if len(lines.row_lines) > 1:
        alone: list[str] | None = next(csv.reader(lines.row_lines[:1]), None)
        if alone and len(alone) == width:
            # The line would have been whole: a quotation mark in it swallowed those after it.
            lines.rewind()
            return Fault(place, "ragged_row", "a quotation mark out of place, which takes the next line in")
        last = lines.number
        return Fault(place, "ragged_row", f"{len(row)} cells on lines {line} to {last} where the header has {width}")
    cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
    return Fault(place, "ragged_row", f"{cells} where the header has {width}")


def _headings(cells: list[str]) -> list[str]:
    """Return names for the columns that differ from each other, whatever the header has."""
    names: list[str] = []
    for number, cell in enumerate(cells, start=1):
        cell = cell.strip().encode("utf-8", "replace").decode()
        name = cell or f"column {number}"
        again = 2
        while name in names:
            name = f"{cell or 'column'} {again}"
            again += 1
        names.append(name)
    return names


def _is_heading(cells: list[str]) -> bool:
    if any(len(cell) > _LONGEST_HEADING or "\n" in cell for cell in cells):
        return False
    return not all(cell.strip().replace(".", "", 1).lstrip("-").isdigit() for cell in cells)


def _is_clean(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True
