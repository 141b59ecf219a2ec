"""What a data file looks like to the model: rows, token lengths, the share that is learned, and some rows in full.

Rows go through the very renderer that feeds the trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.anatomy import Anatomy, read_anatomy
from ..engine.data.formats import Conversations, Fault, read_conversations
from ..engine.data.rendering import IGNORED, LossOn, Renderer, Row
from ..engine.sources import find_data, find_model
from ..foundation.errors import TunewrightError
from ..foundation.text import clean

MEASURED_ROWS = 5_000
"""The most rows whose tokens are counted while one chooses; the plan counts them all."""
SHOWN_ROWS = 5
SHOWN_CHARACTERS = 1500
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of a row as the model sees it, and whether the loss is taken on it."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row in full."""

    number: int
    tokens: int
    trained_tokens: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The token lengths of the measured rows, before any cut."""

    rows: int
    total: int
    least: int
    median: int
    p95: int
    most: int
    supervised_share: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataReport:
    """What is known of a data file and a model together; a problem says what stands in the way."""

    source: str
    model: str
    rows: int = 0
    faults: tuple[Fault, ...] = ()
    anatomy: Anatomy | None = None
    lengths: Lengths | None = None
    shown: tuple[ShownRow, ...] = ()
    data_problem: TunewrightError | None = None
    model_problem: TunewrightError | None = None


def report_data(
    source: str,
    model: str,
    cancelled: Callable[[], bool],
    loss_on: LossOn = "assistant",
    max_length: int | None = None,
) -> DataReport | None:
    """Return the report on `source` read with the tokenizer of `model`; None when `cancelled` before the end."""
    data_problem: TunewrightError | None = None
    model_problem: TunewrightError | None = None
    conversations = Conversations(Path(), (), ())
    anatomy: Anatomy | None = None
    renderer: Renderer | None = None
    try:
        conversations = read_conversations(find_data(source))
        if not conversations.faults:
            conversations.require_whole()
    except TunewrightError as error:
        data_problem = error
    if cancelled():
        return None
    try:
        folder = find_model(model)
        anatomy, renderer = read_anatomy(folder), Renderer(folder)
    except TunewrightError as error:
        model_problem = error
    rows: list[Row] = []
    if renderer is not None:
        try:
            for conversation in conversations.rows[:MEASURED_ROWS]:
                if cancelled():
                    return None
                rows.append(renderer.render(conversation, loss_on, max_length))
        except TunewrightError as error:
            data_problem = error
    return DataReport(
        source=source,
        model=model,
        rows=len(conversations.rows),
        faults=conversations.faults,
        anatomy=anatomy,
        lengths=measure(rows) if rows else None,
        shown=tuple(_show(renderer, number, row) for number, row in enumerate(rows[:SHOWN_ROWS], 1))
        if renderer
        else (),
        data_problem=data_problem,
        model_problem=model_problem,
    )


def measure(rows: Sequence[Row], bins: int = 32) -> Lengths:
    """Return the lengths of `rows`, of which there is at least one."""
    lengths = sorted(row.whole_length for row in rows)
    least, most, total = lengths[0], lengths[-1], sum(lengths)
    histogram = [0] * bins
    for length in lengths:
        histogram[min(bins - 1, (length - least) * bins // (most - least + 1))] += 1
    return Lengths(
        rows=len(rows),
        total=total,
        least=least,
        median=lengths[len(lengths) // 2],
        p95=lengths[min(len(lengths) - 1, math.ceil(len(lengths) * 0.95) - 1)],
        most=most,
        supervised_share=sum(row.supervised for row in rows) / max(1, sum(row.length for row in rows)),
        histogram=tuple(histogram),
    )


def bars(counts: Sequence[int]) -> str:
    """Return a histogram in one line; a bin that holds anything is seen."""
    most = max(counts, default=0) or 1
    return "".join(" " if not each else BARS[min(7, each * 8 // (most + 1))] for each in counts)


def _show(renderer: Renderer, number: int, row: Row) -> ShownRow:
    """Decode neighbouring tokens of one kind together, so that characters of several tokens stay whole."""
    pieces: list[Piece] = []
    start, shown = 0, 0
    for end in range(1, row.length + 1):
        trained = row.labels[start] != IGNORED
        if end < row.length and (row.labels[end] != IGNORED) == trained:
            continue
        text = clean(renderer.tokenizer.decode(row.input_ids[start:end], skip_special_tokens=False))
        pieces.append(Piece(text[: max(0, SHOWN_CHARACTERS - shown)], trained))
        shown += len(text)
        start = end
    return ShownRow(number, row.length, row.supervised, tuple(pieces))
