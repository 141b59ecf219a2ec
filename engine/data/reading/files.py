"""The files of a data set, and the reading of any one of them, whatever it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..examples import Fault, Place
from .batches import Batch
from .columns import Columns
from .documents import read_document
from .plain import fault_batch, is_in_paragraphs, read_lines, read_paragraphs
from .sniffing import sniff
from .streams import BLOCK_BYTES, Stream
from .tables import read_table

_HASHED_WHOLE_BYTES = 64 * 2**20
_HASHED_PIECES = 64


@dataclass(frozen=True, slots=True)
class Source:
    """The files that a name in a recipe leads to."""

    name: str
    files: tuple[Path, ...]
    total_bytes: int
    """On the disk, compressed where they are."""

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names, relative to the folder that they share."""
        if len(self.files) == 1:
            return (self.files[0].name,)
        shared = os.path.commonpath([file.parent for file in self.files])
        return tuple(os.path.relpath(file, shared) for file in self.files)

    @property
    def place_names(self) -> tuple[str, ...]:
        """What the places of rows call the files: nothing when there is only one."""
        return self.names if len(self.files) > 1 else ("",)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the relative names, the sizes and the content.

        Of more than 64 MiB only 64 pieces of 1 MiB are read: the first, the last, and others at equal distances over
        all files as if they were one.
        """
        digest = hashlib.sha256()
        sizes = [file.stat().st_size for file in self.files]
        for name, size in zip(self.names, sizes, strict=True):
            digest.update(f"{size} {name}\n".encode("utf-8", "surrogateescape"))
        total = sum(sizes)
        if total <= _HASHED_WHOLE_BYTES:
            for file in self.files:
                with file.open("rb") as opened:
                    while block := opened.read(BLOCK_BYTES):
                        digest.update(block)
            return digest.hexdigest()
        starts = [(total - BLOCK_BYTES) * piece // (_HASHED_PIECES - 1) for piece in range(_HASHED_PIECES)]
        for start in starts:
            left, before = BLOCK_BYTES, 0
            for file, size in zip(self.files, sizes, strict=True):
                if left and start < before + size:
                    with file.open("rb") as opened:
                        opened.seek(max(0, start - before))
                        piece = opened.read(left)
                    digest.update(piece)
                    left -= len(piece)
                before += size
        return digest.hexdigest()

    def stamp(self) -> str:
        """Return what changes whenever a file is written or replaced, at no more cost than a look at each."""
        digest = hashlib.sha256()
        for name, file in zip(self.names, self.files, strict=True):
            digest.update(f"{state_of(file)} {name}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def empty_fault(source: Source) -> Fault:
    """Return the fault of a data set without rows."""
    where = "it" if len(source.files) == 1 else f"its {len(source.files)} files"
    return Fault(Place(0), "empty_file", f"there is not one row in {where}")


def read_file(path: Path, name: str, read_before: int) -> Iterator[Batch]:
    """Yield the batches of one file, and faults where it cannot be read whole or changes meanwhile."""
    before = state_of(path)
    try:
        with Stream(path) as stream:
            for batch in read_stream(stream, name, read_before):
                yield batch
                if batch.read_bytes - read_before > before[0] + BLOCK_BYTES:
                    break  # it grows as fast as it is read
    except OSError as error:
        words = f"it cannot be read: {error.strerror or error}"
        yield fault_batch("truncated_file", words, name, read_before)
    if state_of(path) != before:
        words = "its size or time of change is another than when reading began"
        yield fault_batch("file_changed", words, name, read_before + size_of(path))


def read_stream(stream: Stream, name: str, read_before: int) -> Iterator[Batch]:
    """Yield the batches of an opened file."""
    kind, words = sniff(stream.head, stream.path.name)
    if stream.encoding != "utf-8":
        mark = "with" if stream.mark_bytes else "without"
        yield fault_batch("utf16", f"{stream.encoding.upper()} {mark} a byte-order mark", name, read_before)
    match kind:
        case "parquet" | "arrow" if stream.compression:
            words = f"{kind} inside {stream.compression}: unpack it first"
            yield fault_batch("unknown_format", words, name, read_before)
        case "parquet" | "arrow":
            stream.close()
            yield from Columns(stream.path, kind, name, read_before).read()
        case "list" | "values":
            yield from read_document(stream, kind, name, read_before)
        case "table":
            yield from read_table(stream, name, read_before)
        case "text" if is_in_paragraphs(stream.head):
            yield from read_paragraphs(stream, name, read_before)
        case "unknown":
            yield fault_batch("unknown_format", words, name, read_before)
        case _:
            yield from read_lines(stream, name, read_before, kind == "text")


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 when it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def state_of(path: Path) -> tuple[int, int, int]:
    """Return what tells whether a file was changed or replaced: size, time of change in nanoseconds, and inode."""
    try:
        facts = path.stat()
    except OSError:
        return (0, 0, 0)
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
