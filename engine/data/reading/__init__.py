"""Reading data of any kind: what a name leads to, its rows in batches, a sample of them, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator

from ...sources import find_data
from ..examples import Fault, Record
from .batches import FILE_CODES, HARMLESS_CODES, LONGEST_ROW_BYTES, Batch, parse_batch
from .files import Source, empty_fault, read_file, size_of
from .sampling import count_rows, sample_records

__all__ = [
    "FILE_CODES",
    "HARMLESS_CODES",
    "LONGEST_ROW_BYTES",
    "Batch",
    "Source",
    "count_rows",
    "open_source",
    "parse_batch",
    "read_batches",
    "read_records",
    "sample_records",
]


def open_source(source: str, split: str = "train") -> Source:
    """Return the files of the data set `source`; raises TunewrightError when there are none, or none that can be read.

    `source` is a file, a folder, a glob, the name of a data set in the Hub's cache, or of a built-in one.
    """
    files = find_data(source, split)
    return Source(source, files, sum(file.stat().st_size for file in files))


def read_batches(source: Source) -> Iterator[Batch]:
    """Yield the rows of all files in batches, and what is wrong with a file; nothing is raised for what stands in one.

    What is compressed is unpacked, and the kind of file is told from its content before its name.
    """
    read_before = 0
    has_rows = has_faults = False
    for file, name in zip(source.files, source.place_names, strict=True):
        for batch in read_file(file, name, read_before):
            has_faults = has_faults or any(fault.code not in HARMLESS_CODES for fault in batch.faults)
            has_rows = has_rows or _has_rows(batch)
            yield batch
        read_before += size_of(file)
    if not has_rows and not has_faults:
        yield Batch("", 1, "line", faults=(empty_fault(source),), read_bytes=read_before)


def read_records(source: Source, limit: int | None = None) -> Iterator[Record | Fault]:
    """Yield the rows of all files, at most `limit`, and what is wrong with rows and files.

    The codes of faults that concern a file are in FILE_CODES; they are not counted.
    """
    given = 0
    for batch in read_batches(source):
        for row in parse_batch(batch):
            if limit is not None and given >= limit:
                return
            given += 1
            yield row
        yield from batch.faults
        if limit is not None and given >= limit:
            return


def _has_rows(batch: Batch) -> bool:
    return bool(batch.values) or any(line.strip(b" \t\r\0") for line in batch.lines)
