"""Counting: how many rows a file holds, about how many tokens, and of what kind, without a tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ..sources import find_data

BYTES_A_TOKEN = 4
"""About so many bytes of text are one token of a usual vocabulary; exact counts need the model's tokenizer."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a file of rows holds."""

    rows: int
    tokens: int
    """Estimated from the bytes of the rows, their keys and quotation marks included."""
    kind: str | None
    """The answer to `data_kind` that the first row's keys give; None where they give none."""


def count_rows(source: str) -> Counted:
    """Return the rows of a data set, about how many tokens they hold, and what is in them; raises TunewrightError."""
    first = b""
    rows = size = 0
    with find_data(source).open("rb") as file:
        for line in file:
            if line.strip():
                first = first or line
                rows, size = rows + 1, size + len(line)
    if not rows:
        raise TunewrightError(
            "Empty data", f"{one_line(source, 300)} holds no rows.", "Give a JSONL file with a row on each line."
        )
    return Counted(rows, max(1, size // BYTES_A_TOKEN), _kind_of(first))


def _kind_of(line: bytes) -> str | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    keys = set(cast("dict[str, Any]", row)) if isinstance(row, dict) else set[str]()
    if {"chosen", "rejected"} <= keys:
        return "pairs"
    if {"completion", "label"} <= keys:
        return "labels"
    return "text" if keys and keys <= {"text", "id", "url", "source", "meta", "metadata"} and "text" in keys else None
