"""The containers that rows are written into: JSON lines, tables, Parquet, Arrow, text, and their compressed forms."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .rows import Line

Write = Callable[[Path], Path]
"""Writes a file into a folder and returns what the audit is given."""


def as_lines(rows: Iterable[Line], end: bytes = b"\n") -> bytes:
    """Return the rows as JSON lines."""
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + end for row in rows
    )


def as_list(rows: Iterable[Line], indent: int | None = None) -> bytes:
    """Return the rows as one JSON array."""
    return json.dumps(list(rows), ensure_ascii=False, indent=indent).encode()


def as_table(rows: Sequence[Line], comma: str = ",", end: str = "\n") -> bytes:
    """Return the rows as CSV under a header; lists and objects in a cell become JSON."""
    buffer = io.StringIO(newline="")
    columns = list(next(row for row in rows if isinstance(row, dict)))
    writer = csv.writer(buffer, delimiter=comma, lineterminator=end)
    writer.writerow(columns)
    written = buffer.getvalue().encode()
    for row in rows:
        if isinstance(row, bytes):
            written += row + end.encode()
            continue
        buffer.seek(0)
        buffer.truncate()
        cells = (row.get(column, "") for column in columns)
        writer.writerow(json.dumps(cell) if isinstance(cell, list | dict | bool) else cell for cell in cells)
        written += buffer.getvalue().encode()
    return written


def as_parquet(rows: Sequence[Line], compression: str = "snappy") -> bytes:
    """Return the rows as a Parquet file in row groups of 20."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(_arrow_table(rows), sink, compression=compression, row_group_size=20)
    return sink.getvalue().to_pybytes()


def as_arrow(rows: Sequence[Line], stream: bool = False) -> bytes:
    """Return the rows as an Arrow file, or as the stream that the library datasets writes."""
    import pyarrow

    sink, table = pyarrow.BufferOutputStream(), _arrow_table(rows)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)
    return sink.getvalue().to_pybytes()


def _arrow_table(rows: Sequence[Line]) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)])


def as_zstd(content: bytes) -> bytes:
    """Return the content compressed with Zstandard."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def as_paragraphs(rows: Sequence[Line]) -> bytes:
    """Return plain text with a row a line."""
    return b"".join(row["text"].encode() + b"\n" for row in rows if isinstance(row, dict))


BOM = b"\xef\xbb\xbf"
CONTAINERS: dict[str, tuple[str, Callable[[Sequence[Line]], bytes]]] = {
    "jsonl": ("jsonl", as_lines),
    "jsonl with BOM": ("jsonl", lambda rows: BOM + as_lines(rows)),
    "jsonl with CRLF": ("jsonl", lambda rows: as_lines(rows, b"\r\n")),
    "jsonl with blank lines": ("jsonl", lambda rows: as_lines([part for row in rows for part in (row, b"", b"  ")])),
    "jsonl without last newline": ("jsonl", lambda rows: as_lines(rows).rstrip(b"\n")),
    "jsonl in ASCII": ("jsonl", lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()),
    "jsonl in UTF-16": ("jsonl", lambda rows: as_lines(rows).decode().encode("utf-16")),
    "jsonl.gz": ("jsonl.gz", lambda rows: gzip.compress(as_lines(rows), mtime=0)),
    "jsonl.gz of two parts": (
        "jsonl.gz",
        lambda rows: gzip.compress(as_lines(rows[:20]), mtime=0) + gzip.compress(as_lines(rows[20:]), mtime=0),
    ),
    "jsonl.zst": ("jsonl.zst", lambda rows: as_zstd(as_lines(rows))),
    "json": ("json", as_list),
    "json, indented": ("json", lambda rows: as_list(rows, 2)),
    "json.gz": ("json.gz", lambda rows: gzip.compress(as_list(rows), mtime=0)),
    "csv": ("csv", as_table),
    "csv with BOM and CRLF": ("csv", lambda rows: BOM + as_table(rows, end="\r\n")),
    "csv with semicolons": ("csv", lambda rows: as_table(rows, ";")),
    "csv in UTF-16": ("csv", lambda rows: as_table(rows).decode().encode("utf-16")),
    "csv.gz": ("csv.gz", lambda rows: gzip.compress(as_table(rows), mtime=0)),
    "tsv": ("tsv", lambda rows: as_table(rows, "\t")),
    "parquet": ("parquet", as_parquet),
    "parquet with zstd": ("parquet", lambda rows: as_parquet(rows, "zstd")),
    "arrow": ("arrow", as_arrow),
    "arrow stream": ("arrow", lambda rows: as_arrow(rows, stream=True)),
    "txt": ("txt", as_paragraphs),
}


def file_of(container: str, rows: Callable[[], Sequence[Line]], spoil: Callable[[bytes], bytes] | None = None) -> Write:
    """Return what writes the rows into a file of the container, its bytes spoilt afterwards."""
    ending, pack = CONTAINERS[container]

    def write(folder: Path) -> Path:
        path = folder / f"data.{ending}"
        content = pack(rows())
        path.write_bytes(spoil(content) if spoil else content)
        return path

    return write
