"""A file as a stream of UTF-8 text, however it was compressed and encoded."""

from __future__ import annotations

import bz2
import codecs
import importlib
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from ....foundation.text import one_line
from .batches import LONGEST_ROW_BYTES

BLOCK_BYTES = 2**20
_COMPRESSED_BLOCK_BYTES = 2**16
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MOST_XZ_MEMORY_BYTES = 2**28
"""`xz -9` needs 65 MiB; a file may ask for much more."""


class Stream:
    """The bytes of one file, unpacked and decoded block by block; never more than a few MiB of it are in memory.

    Compression and encoding are told from the content. UTF-16 and UTF-32 come as UTF-8, CRLF and lone CR as LF.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path` and read its first block; raises OSError."""
        self.path = path
        self.read_bytes = 0
        """How much of the file was read from the disk."""
        self.broken = ""
        """Why the file could not be read to its end; empty when it could, or as far as it was read."""
        self._file = path.open("rb", buffering=0)
        try:
            magic = self._file.read(8)
            self._file.seek(0)
            self.compression = next((name for start, name in _MAGIC.items() if magic.startswith(start)), "")
            """`gzip`, `zstd`, `bzip2`, `xz`, or empty."""
            self._unpacked = self._unpack()
            raw = next(self._unpacked, b"")
            while raw[:1] == b"\0" and not raw.strip(b"\0"):
                raw = next(self._unpacked, b"")  # Preallocated and never written.
            self.encoding, mark = _encoding_of(raw)
            """`utf-8`, or which UTF-16 or UTF-32 it is."""
            self.mark_bytes = mark
            """The length of the byte-order mark."""
            self._decoder: Callable[[bytes, bool], bytes] | None = None
            if self.encoding != "utf-8":
                self._decoder = _decoder(self.encoding)
            self._lone_returns = False
            self.is_binary = raw.startswith((b"PAR1", b"PARE", b"ARROW1", b"FEA1", b"\xff\xff\xff\xff"))
            """Whether it is a table that is no text at all, which `read` gives as it stands."""
            head = raw if self.is_binary else self._decode(raw[mark:])
            self._lone_returns = not self.is_binary and b"\n" not in head and b"\r" in head[:-1]
            self.head = head.replace(b"\r", b"\n") if self._lone_returns else head
            """The first block; `read` gives it again."""
        except BaseException:
            self.close()
            raise
        self._head_is_next = True

    def read(self) -> bytes:
        """Return the next block, empty at the end; sets `broken` instead of raising an error."""
        if self._head_is_next:
            self._head_is_next = False
            if self.head:
                return self.head
        for raw in self._unpacked:
            block = raw if self.is_binary else self._decode(raw)
            if block:
                return block
            if self.broken:
                return b""
        if self._decoder is not None:
            decoder, self._decoder = self._decoder, None
            try:
                return decoder(b"", True)
            except UnicodeDecodeError:
                self.broken = self.broken or "the last character is incomplete"
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, block: bytes) -> bytes:
        if self._decoder is not None:
            try:
                block = self._decoder(block, False)
            except UnicodeDecodeError:
                self.broken = self.broken or f"it is not {self.encoding.upper()} throughout"
                return b""
        if b"\r" in block:
            block = block.replace(b"\r", b"\n") if self._lone_returns else block.replace(b"\r\n", b"\n")
        return block

    def _unpack(self) -> Iterator[bytes]:
        """Yield blocks of unpacked bytes; sets `broken` where the file is damaged."""
        match self.compression:
            case "":
                blocks = iter(lambda: self._read_raw(BLOCK_BYTES), b"")
            case "zstd":
                blocks = self._unpack_zstd()
            case _:
                blocks = self._unpack_members()
        try:
            yield from blocks
        except EOFError:
            self.broken = f"the {self.compression} data end in the middle"
        except (zlib.error, lzma.LZMAError) as error:
            self.broken = one_line(f"the {self.compression} data are damaged ({error})", 200)
        except OSError as error:
            self.broken = one_line(f"it could not be read on ({error.strerror or error})", 200)

    def _read_raw(self, size: int) -> bytes:
        block = self._file.read(size)
        self.read_bytes += len(block)
        return block

    def _unpack_members(self) -> Iterator[bytes]:
        """Yield what is packed in gzip, bzip2 or xz, in one member or several; raises EOFError when one has no end."""
        packed = self._read_raw(_COMPRESSED_BLOCK_BYTES)
        while packed:
            member = _member(self.compression)
            while not member.eof:
                block: bytes = member.decompress(packed, BLOCK_BYTES)
                if block:
                    yield block
                # zlib hands back what it did not take; the others keep it and are asked again with nothing.
                packed = member.unconsumed_tail if self.compression == "gzip" else b""
                wants_more = not packed if self.compression == "gzip" else member.needs_input
                if wants_more and not member.eof:
                    packed = self._read_raw(_COMPRESSED_BLOCK_BYTES)
                    if not packed:
                        if self.compression == "gzip" and (rest := member.flush()):
                            yield rest
                        raise EOFError
            packed = member.unused_data
            # Zeros may pad the end; whatever else follows a member is another one.
            while not (packed := packed.lstrip(b"\0")):
                packed = self._read_raw(_COMPRESSED_BLOCK_BYTES)
                if not packed:
                    return

    def _unpack_zstd(self) -> Iterator[bytes]:
        """Yield what is packed in zstd; raises EOFError when it has no end."""
        given = 0
        with self.path.open("rb", buffering=0) as file:
            unpacked = _open_zstd(file)
            while True:
                try:
                    block: bytes = unpacked.read(BLOCK_BYTES)
                except OSError:
                    break
                if not block:
                    return
                given += len(block)
                self.read_bytes = file.tell()
                yield block
        # The block with the break in it is lost to that stream: a second one gives it byte by byte.
        with self.path.open("rb", buffering=0) as file:
            unpacked = _open_zstd(file)
            while given:
                given -= len(unpacked.read(min(given, BLOCK_BYTES)))
            rest = bytearray()
            try:
                while byte := unpacked.read(1):
                    rest += byte
            except OSError as error:
                if rest:
                    yield bytes(rest)
                raise (EOFError() if "Truncated" in str(error) else error) from error


def split_lines(stream: Stream) -> Iterator[list[bytes] | int]:
    """Yield the lines of `stream` without their ends, many at a time; of a line over the limit only its length.

    A last line that was cut off in the middle is left out.
    """
    carried = b""
    dropped = 0
    while block := stream.read():
        if block[0] == 0 and not block.strip(b"\0"):
            continue  # Preallocated and never written.
        lines = block.split(b"\n")
        if dropped:
            dropped += len(lines[0])
            if len(lines) == 1:
                continue
            yield dropped
            dropped = 0
            del lines[0]
        elif carried:
            lines[0] = carried + lines[0]
        carried = lines.pop()
        if lines:
            if len(lines[0]) > LONGEST_ROW_BYTES:
                yield len(lines.pop(0))
            yield lines
        if len(carried) > LONGEST_ROW_BYTES:
            dropped, carried = len(carried), b""
    if dropped:
        yield dropped
    elif carried and not (stream.broken and not _is_json(carried)):
        yield [carried]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _open_zstd(file: FileIO) -> Any:
    arrow: Any = importlib.import_module("pyarrow")
    return arrow.CompressedInputStream(arrow.PythonFile(file, mode="r"), "zstd")


def _member(compression: str) -> Any:
    match compression:
        case "gzip":
            return zlib.decompressobj(wbits=31)
        case "bzip2":
            return bz2.BZ2Decompressor()
        case _:
            return lzma.LZMADecompressor(memlimit=_MOST_XZ_MEMORY_BYTES)


def _decoder(encoding: str) -> Callable[[bytes, bool], bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    # What is no character becomes bytes that are not UTF-8, so that its row is named.
    return lambda block, final: decoder.decode(block, final).encode("utf-8", "surrogatepass")


def _encoding_of(start: bytes) -> tuple[str, int]:
    """Return the encoding of a text that begins with `start`, and how long its byte-order mark is."""
    if start.startswith(b"\xff\xff\xff\xff"):
        return "utf-8", 0
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    # Rows begin with ASCII in every language ({", [{, a column's name), and every second byte of that is zero in UTF-16.
    first = tuple(start[:4])
    if len(first) == 4 and max(first) < 128:
        if all(first[0::2]) and not any(first[1::2]):
            return "utf-16-le", 0
        if all(first[1::2]) and not any(first[0::2]):
            return "utf-16-be", 0
    return "utf-8", 0
