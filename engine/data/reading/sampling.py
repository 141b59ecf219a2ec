"""A sample of the rows of a data set and how many there are, without reading all of it."""

from __future__ import annotations

import time
from pathlib import Path

from ..examples import Fault, Record
from .batches import Batch, parse_batch
from .columns import Columns
from .files import Source, empty_fault, read_file, read_stream, size_of
from .plain import is_in_paragraphs
from .sniffing import sniff
from .streams import BLOCK_BYTES, Stream

_SAMPLED_FILES = 8
_SAMPLED_PLACES = 8
_SAMPLED_BYTES = 2**19
_NUMBERED_BYTES = 64 * 2**20
"""Up to this size the lines before a sampled one are counted, so that its number is known."""


def sample_records(source: Source, rows: int = 1000, seconds: float = 0.5) -> list[Record | Fault]:
    """Return about `rows` rows, and their faults, from the beginning and, where that is possible, from farther on.

    Of several files some are looked into, of a large one of JSON lines also the middle and the end; what is found there
    has the line number 0 where counting the lines before it would take too long. It stops after `seconds`.
    """
    deadline = time.perf_counter() + seconds
    count = min(_SAMPLED_FILES, len(source.files))
    chosen = sorted({index * (len(source.files) - 1) // max(1, count - 1) for index in range(count)})
    found: list[Record | Fault] = []
    for nth, index in enumerate(chosen):
        share = (rows - len(found)) // (len(chosen) - nth)
        found += _sample_file(source.files[index], source.place_names[index], share, deadline)
        if time.perf_counter() > deadline:
            break
    for index in range(len(source.files)):
        if found or time.perf_counter() > deadline:
            return found
        if index not in chosen:
            found += _sample_file(source.files[index], source.place_names[index], rows, deadline)
    return found or [empty_fault(source)]


def count_rows(source: Source, seconds: float = 0.7) -> tuple[int, bool]:
    """Return how many rows there are, faulty ones too, and whether that is exact.

    After `seconds` the rest is estimated from the bytes. Parquet tells it at once.
    """
    deadline = time.perf_counter() + seconds
    rows = done_bytes = 0
    for file in source.files:
        size = size_of(file)
        counted, share = _count_file(file, deadline)
        rows += counted
        done_bytes += int(size * share)
        if share < 1 or (time.perf_counter() > deadline and file != source.files[-1]):
            return int(rows * source.total_bytes / max(1, done_bytes)), False
    return rows, True


def _sample_file(path: Path, name: str, rows: int, deadline: float) -> list[Record | Fault]:
    """Return rows from the head of one file and, when it is large and of JSON lines, from places all over it."""
    places = _seekable_lines(path)
    head = rows // 2 if places else rows
    found: list[Record | Fault] = []
    for batch in read_file(path, name, 0):
        found += batch.faults
        for row in parse_batch(batch):
            if head <= 0:
                break
            found.append(row)
            head -= 1
        if head <= 0 or time.perf_counter() > deadline:
            break
    for nth, start in enumerate(places):
        is_last = nth == len(places) - 1
        if is_last or time.perf_counter() <= deadline:  # the end is looked at in any case: it takes no time
            found += _sample_at(path, name, start, rows // 2 // len(places), is_last)
    return found


def _seekable_lines(path: Path) -> list[int]:
    """Return where to look into a large file of plain JSON lines; nothing for any other."""
    size = size_of(path)
    if size <= 4 * BLOCK_BYTES:
        return []
    try:
        with Stream(path) as stream:
            is_plain = not stream.compression and stream.encoding == "utf-8"
            if not is_plain or sniff(stream.head, path.name)[0] != "lines":
                return []
    except OSError:
        return []
    begin, end = BLOCK_BYTES, size - _SAMPLED_BYTES
    return [begin + (end - begin) * nth // (_SAMPLED_PLACES - 1) for nth in range(_SAMPLED_PLACES)]


def _sample_at(path: Path, name: str, start: int, rows: int, is_last: bool) -> list[Record | Fault]:
    """Return the rows that begin after the byte `start`, those in half a MiB at most."""
    with path.open("rb") as file:
        first = 0
        if size_of(path) <= _NUMBERED_BYTES:
            left = start
            while block := file.read(min(left, BLOCK_BYTES)):
                first += block.count(b"\n")
                left -= len(block)
        file.seek(start)
        block = file.read(_SAMPLED_BYTES)
    lines = block.split(b"\n")
    # The first is the rest of a line that began before, the last one may go on.
    lines = lines[1 : None if is_last else -1]
    # The line in whose middle `start` lies has the number first + 1.
    kept = tuple(lines[-rows:] if is_last else lines[:rows])
    number = first + 2 + (len(lines) - len(kept) if is_last else 0)
    if first:
        return list(parse_batch(Batch(name, number, "line", kept)))
    return [row for line in kept for row in parse_batch(Batch(name, 0, "line", (line,)))]


def _count_file(path: Path, deadline: float) -> tuple[int, float]:
    """Return the rows of one file and the share of it in which they were counted."""
    size = max(1, size_of(path))
    rows, share = 0, 1.0
    try:
        with Stream(path) as stream:
            kind, _ = sniff(stream.head, path.name)
            is_text = kind == "text" and not is_in_paragraphs(stream.head)
            if kind in ("parquet", "arrow") and not stream.compression:
                for counted in Columns(path, kind, "", 0).count():
                    rows, share = counted
                    if time.perf_counter() > deadline:
                        break
                return rows, share
            if kind in ("lines", "empty") or is_text:
                return _count_lines(stream, size, deadline)
            whole = (0, 0)
            read_bytes = 0
            for batch in read_stream(stream, "", 0):
                if stream.read_bytes != read_bytes:
                    # All rows of what was read before were counted.
                    whole, read_bytes = (rows, read_bytes), stream.read_bytes
                    if whole[1] and time.perf_counter() > deadline:
                        return whole[0], min(1.0, whole[1] / size)
                rows += len(batch.values)
    except OSError:
        return rows, 1.0
    return rows, 1.0


def _count_lines(stream: Stream, size: int, deadline: float) -> tuple[int, float]:
    """Return how many lines are not blank, and the share of the file in which they were counted."""
    import numpy

    rows = 0
    is_blank_so_far = True
    while block := stream.read():
        # A line is counted where it begins; one that begins with white space may be blank and is looked at.
        characters = numpy.frombuffer(block, numpy.uint8)
        ends = numpy.flatnonzero(characters[:-1] == 10)
        begins = characters[ends + 1]
        filled = int(numpy.count_nonzero(begins > 32))
        rows += filled
        if filled != len(begins):
            rows += sum(_is_filled(block, start) for start in (ends[begins <= 32] + 1).tolist())
        if is_blank_so_far:
            rows += _is_filled(block, 0)
        last = block.rfind(b"\n")
        is_blank_so_far = (last >= 0 or is_blank_so_far) and not block[last + 1 :].strip(b" \t\r\0")
        if time.perf_counter() > deadline:
            share = stream.read_bytes / size
            return rows, min(1.0, share) if stream.read() else 1.0
    return rows, 1.0


def _is_filled(block: bytes, start: int) -> bool:
    end = block.find(b"\n", start)
    return bool(block[start : end if end >= 0 else len(block)].strip(b" \t\r\0"))
