"""What kind of file it is, told from its content first and from its name second."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

FileKind = Literal["empty", "lines", "values", "list", "table", "text", "parquet", "arrow", "unknown"]
"""Of JSON: one object a line, objects one after the other, or a list of them; `table` is CSV or TSV."""

_PACKED = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".lzma")
_READ_LINES = 50
_STRANGERS = (
    (b"PK\x03\x04", "a ZIP archive (or an Excel file): unpack it, or save the table as CSV"),
    (b"%PDF", "a PDF: extract its text first"),
    (b"SQLite format 3", "an SQLite database: export the table as CSV"),
    (b"\x89HDF", "an HDF5 file: save it as Parquet"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x93NUMPY", "a NumPy array"),
    *(
        (bytes((128, version)), "a Python pickle, which can run code and is never loaded: save it as JSONL or Parquet")
        for version in range(2, 6)
    ),
    (b"FEA1", "a Feather file of version 1: save it as version 2 or Parquet"),
    (b"PARE", "an encrypted Parquet file: decrypt it first"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the data: run `git lfs pull`"),
)
_MARKUP = re.compile(rb"\s*<(?:!doctype\s+html|html|\?xml)", re.IGNORECASE)
_TURN_KEYS = frozenset({"role", "from", "speaker", "author"})
_TOOL_KEYS = frozenset({"function", "parameters", "arguments"})
_ROW_KEYS = frozenset(
    ("messages", "conversations", "prompt", "completion", "instruction", "output", "question", "answer")
) | {"text", "query", "response", "chosen", "rejected"}
"""With one of these an object is a row, whatever lists it has besides."""
_spaces = re.compile(r"[ \t\r\n\0\ufeff]*")
_read_value = json.JSONDecoder().raw_decode


def plain_suffix(name: str) -> str:
    """Return the ending of a file's name in lower case, without that of its compression: `.jsonl` of `a.jsonl.gz`."""
    path = Path(name.lower())
    while path.suffix in _PACKED:
        path = path.with_suffix("")
    return path.suffix


def sniff(head: bytes, name: str) -> tuple[FileKind, str]:
    """Return what a file is that begins with `head`, and of an unknown one what it seems to be."""
    if head.startswith(b"PAR1"):
        return "parquet", ""
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow", ""
    for start, words in _STRANGERS:
        if head.startswith(start):
            return "unknown", words
    if head[257:262] == b"ustar":
        return "unknown", "a tar archive: unpack it first"
    if not head.strip(b" \t\r\n\0"):
        return "empty", ""
    if _MARKUP.match(head):
        return "unknown", "a page of HTML or XML, perhaps the error message of a download"
    text = head.decode("utf-8", "replace")
    start = _skip_spaces(text, 0)
    suffix = plain_suffix(name)
    if _is_noise(text):
        return "unknown", "not text"
    if text[start] == "{":
        return _kind_of_objects(text, start, suffix), ""
    if text[start] == "[" and (suffix == ".json" or re.match(r"\[\s*[\[{\"\]]", text[start : start + 1000])):
        return _kind_of_list(text, start), ""
    if suffix in (".csv", ".tsv", ".tab"):
        return "table", ""
    lines = [line for line in text.split("\n", _READ_LINES)[:_READ_LINES] if line.strip(" \t\r\0")]
    objects = sum(_object_in(line) is not None for line in lines)
    if suffix in (".jsonl", ".ndjson", ".json") or objects * 2 > len(lines):
        return "lines", ""
    if suffix in (".txt", ".text", ".md") or not _looks_like_table(lines):
        return "text", ""
    return "table", ""


def rows_list(text: str, start: int) -> tuple[int, str] | None:
    """Return where in the object at `start` the list of its rows begins, and its key; None when it is a row itself.

    A list of turns or of tools is no list of rows.
    """
    at = _skip_spaces(text, start + 1)
    while at < len(text) and text[at] == '"':
        try:
            key, at = _read_value(text, at)
            at = _skip_spaces(text, at)
            if text[at : at + 1] != ":":
                return None
            at = _skip_spaces(text, at + 1)
            if key in _ROW_KEYS:
                return None
            if text[at : at + 1] == "[" and _holds_rows(text, at):
                return None if _is_followed_by_row_key(text, at) else (at, str(key))
            _, at = _read_value(text, at)
        except (ValueError, RecursionError):
            return None
        at = _skip_spaces(text, at)
        if text[at : at + 1] != ",":
            return None
        at = _skip_spaces(text, at + 1)
    return None


def _is_followed_by_row_key(text: str, at: int) -> bool:
    """Return whether the object goes on, after the list at `at`, with a key that only a row has."""
    try:
        _, at = _read_value(text, at)
    except (ValueError, RecursionError):
        return False
    return bool(re.match(rf'\s*,\s*"(?:{"|".join(sorted(_ROW_KEYS))})"\s*:', text[at : at + 200]))


def _holds_rows(text: str, at: int) -> bool:
    """Return whether the list at `at` has objects in it that are neither turns nor tools."""
    first = _skip_spaces(text, at + 1)
    if text[first : first + 1] != "{":
        return False
    try:
        element: Any = _read_value(text, first)[0]
    except (ValueError, RecursionError):
        # The first element is longer than what was read.
        return not re.search(r'"(?:role|from|speaker|function|parameters)"\s*:', text[first : first + 1000])
    keys = frozenset(cast("Mapping[str, Any]", element))
    return not keys & _TURN_KEYS and not keys & _TOOL_KEYS


def _kind_of_objects(text: str, start: int, suffix: str) -> FileKind:
    """Return what a text is that begins with an object: one a line, several lines an object, or an object of rows."""
    first, _, rest = text[start:].partition("\n")
    whole = _object_in(first)
    following = [line for line in rest.split("\n", _READ_LINES)[:_READ_LINES] if line.strip(" \t\r\0")]
    if whole is not None:
        if following or rows_list(text, start) is None:
            return "lines"
        return "list"
    has_list = rows_list(text, start) is not None and not any(_object_in(line) for line in following)
    try:
        _, end = _read_value(text, start)
    except json.JSONDecodeError as error:
        if has_list:
            return "list"
        ends_early = error.pos >= len(text.rstrip()) - 8 or error.msg.startswith("Unterminated string")
        if not rest:
            return "lines"  # One line that is longer than what was read, or damaged.
        if ends_early and not any(_object_in(line) for line in following):
            return "values"
    except (ValueError, RecursionError):
        return "lines"
    else:
        return "list" if has_list and _skip_spaces(text, end) == len(text) else "values"
    if any(_object_in(line) for line in following):
        return "lines"
    return "values" if suffix == ".json" or not first.strip("{ \t\r") else "lines"


def _kind_of_list(text: str, start: int) -> FileKind:
    first, _, rest = text[start:].partition("\n")
    following = _skip_spaces(rest, 0)
    if rest[following : following + 1] in ("[", "{"):
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return "list"
        return "list" if _holds_rows(first, 0) else "lines"
    return "list"


def _object_in(line: str) -> dict[str, Any] | None:
    line = line.strip(" \t\r\0\ufeff")
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _looks_like_table(lines: list[str]) -> bool:
    """Return whether the same separator divides the first lines into as many cells as the header has."""
    for separator in ",;\t|":
        cells = lines[0].count(separator)
        if (
            cells
            and len(lines[0]) < 500
            and sum(line.count(separator) >= cells for line in lines) * 10 >= len(lines) * 9
        ):
            return separator != "," or cells > 1 or " " not in lines[0].strip()
    return False


def _is_noise(text: str) -> bool:
    """Return whether it is no text at all: more than one in twenty characters are controls."""
    sample = text[:4096].strip("\0")
    return sum(each < " " and each not in "\t\n\r\f\x1b" for each in sample) * 20 > len(sample)


def _skip_spaces(text: str, at: int) -> int:
    match = _spaces.match(text, at)
    return match.end() if match else at
