"""Counting: how many rows a data set holds, about how many tokens, and of what kind, without a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from .detection import detect
from .examples import Example, Record
from .formats import convert
from .reading import count_rows as count_in
from .reading import open_source, sample_records

BYTES_A_TOKEN = 4
"""About so many bytes of text are one token of a usual vocabulary; exact counts need the model's tokenizer."""
TURN_TOKENS = 4
"""About so many tokens a chat template puts around a turn."""
SAMPLED_ROWS = 2_000
COUNTING_SECONDS = 2.0
KINDS = {"preference": "pairs", "kto": "labels", "text": "text"}
"""The answers to `data_kind` that a format gives."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a data set holds."""

    rows: int
    tokens: int
    """Estimated from the bytes of a sample's texts, or of the file where no row can be read."""
    kind: str | None
    """The answer to `data_kind` that the format gives; None where it gives none."""


def count_rows(source: str, split: str = "train") -> Counted:
    """Return the rows of a data set, about how many tokens they hold, and what is in them; raises TunewrightError."""
    opened = open_source(source, split)
    rows, _ = count_in(opened, COUNTING_SECONDS)
    sample = sample_records(opened, SAMPLED_ROWS)
    if not rows or not sample:
        raise TunewrightError(
            "Empty data", f"{one_line(source, 300)} holds no rows.", "Give a file with a row on each line."
        )
    shape = detect(sample).shape
    records = [each for each in sample if isinstance(each, Record)]
    examples = [each for record in records if shape and isinstance(each := convert(record, shape), Example)]
    if shape is None or not examples:
        return Counted(rows, max(1, opened.total_bytes // BYTES_A_TOKEN), None)
    tokens = round(rows * sum(map(_size, examples)) / len(examples))
    return Counted(rows, max(1, tokens), KINDS.get(shape.format))


def _size(example: Example) -> float:
    """Return about how many tokens an example has."""
    texts = [example.text, *(each.content for each in (*example.messages, *example.rejected))]
    return sum(len(text.encode("utf-8", "replace")) for text in texts) / BYTES_A_TOKEN + TURN_TOKENS * len(
        example.messages
    )
