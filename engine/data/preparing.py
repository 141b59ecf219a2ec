"""Preparing: the rows of a recipe, rendered and split, as the trainer takes them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import Data, Objective, Recipe
from ..sources import find_model
from .detection import shape_of
from .examples import IGNORED, Example, Fault, Record
from .formats import Shape, convert
from .objectives import TrainedRow, make_rows, require_fitting
from .reading import HARMLESS_CODES, Batch, Source, open_source, parse_batch, read_batches, read_records
from .rendering import Renderer, Row
from .splits import choose_share, choose_validation, value_of
from .workers import Lost, Workers, count_workers

SHOWN_FAULTS = 5
PARALLEL_BYTES = 4 * 2**20
"""Smaller files are rendered in this process: it takes no longer than to start others."""
KEPT_EXAMPLES = 5_000
"""So many examples are kept beside their rows: enough to sample from, however large the data is."""


class Rows(Sequence[Row]):
    """Many rows in flat arrays: a million of them take gigabytes less than lists would."""

    def __init__(
        self,
        tokens: NDArray[np.int32],
        learned: NDArray[np.bool_],
        ends: NDArray[np.int64],
        whole: NDArray[np.int32],
        rejected: Rows | None = None,
        desirable: NDArray[np.bool_] | None = None,
    ) -> None:
        self.tokens = tokens
        """All rows' token ids, one row after the other."""
        self.learned = learned
        """Whether the loss is taken on each."""
        self.ends = ends
        """Where each row ends in the two."""
        self.whole = whole
        """Each row's tokens before it was cut."""
        self.rejected = rejected
        """Of pairs: each row's prompt with the worse answer; the rows themselves have the better one."""
        self.desirable = desirable
        """Of marked answers: whether each is a good one."""

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(len(self))[index])
        place = range(len(self))[index]
        begin, end = int(self.ends[place - 1]) if place else 0, int(self.ends[place])
        ids = self.tokens[begin:end]
        labels = np.where(self.learned[begin:end], ids, IGNORED)
        return Row(ids.tolist(), labels.tolist(), int(self.whole[place]))

    @property
    def labels(self) -> NDArray[np.int32]:
        """All rows' labels, one row after the other."""
        return np.where(self.learned, self.tokens, np.int32(IGNORED))

    @property
    def lengths(self) -> list[int]:
        """Each row's tokens; of a pair twice those of its longer answer, to which the other is padded."""
        own = np.diff(self.ends, prepend=0)
        if self.rejected is not None:
            own = 2 * np.maximum(own, np.diff(self.rejected.ends, prepend=0))
        return own.tolist()

    @property
    def supervised(self) -> list[int]:
        """Each row's tokens on which the loss is taken, of a pair those of both answers."""
        sums = np.concatenate(([0], np.cumsum(self.learned, dtype=np.int64)))[self.ends]
        own = np.diff(sums, prepend=0)
        if self.rejected is not None:
            own = own + np.asarray(self.rejected.supervised, np.int64)
        return own.tolist()

    def take(self, indexes: Sequence[int]) -> Rows:
        """Return the rows at `indexes`, in their order, with what belongs to them."""
        begins = np.concatenate(([0], self.ends[:-1]))
        chosen = np.asarray(indexes, np.int64)
        lengths = self.ends[chosen] - begins[chosen]
        places = np.repeat(begins[chosen] - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
        places = places + np.arange(int(lengths.sum()))
        return Rows(
            self.tokens[places],
            self.learned[places],
            np.cumsum(lengths),
            self.whole[chosen],
            None if self.rejected is None else self.rejected.take(indexes),
            None if self.desirable is None else self.desirable[chosen],
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """All rows of a recipe, split into those trained on and those kept out."""

    training: Rows
    validation: Rows
    kept_out: tuple[Example, ...]
    """The examples of the first validation rows, in their order: of those among the first KEPT_EXAMPLES rows."""
    cut: int
    """Examples longer than the maximum length, cut there."""
    dropped: int
    """Examples left out: nothing was left to learn in them, they were too long, or their answer is marked as a bad one."""
    faulty: int
    """Rows that could not be read, and are left out because the recipe says so."""
    chosen: tuple[int, ...] = ()
    """The validation examples' numbers among those that are left; empty when they come from another file."""
    divided: int = 0
    """Documents longer than the maximum length, divided into several rows."""


@dataclass(slots=True)
class _Flat:
    """Rows as they come, one behind the other."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    labels: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    whole: array[int] = field(default_factory=lambda: array("i"))

    def append(self, row: Row) -> None:
        self.tokens.extend(row.input_ids)
        self.labels.extend(row.labels)
        self.ends.append(len(self.tokens))
        self.whole.append(row.whole_length)

    def add(self, part: _Flat) -> None:
        before = len(self.tokens)
        self.tokens.extend(part.tokens)
        self.labels.extend(part.labels)
        self.ends.extend(before + end for end in part.ends)
        self.whole.extend(part.whole)

    def rows(self, rejected: Rows | None = None, desirable: NDArray[np.bool_] | None = None) -> Rows:
        return Rows(
            np.frombuffer(self.tokens, np.int32),
            np.frombuffer(self.labels, np.int32) != IGNORED,
            np.frombuffer(self.ends, np.int64),
            np.frombuffer(self.whole, np.int32),
            rejected,
            desirable,
        )


@dataclass(slots=True)
class _Rendered:
    """The rows of one source, or of a part of it, that are trained, before any split."""

    answers: _Flat = field(default_factory=_Flat)
    rejected: _Flat = field(default_factory=_Flat)
    """Empty where the objective compares no answers."""
    desirable: array[int] = field(default_factory=lambda: array("b"))
    """Empty where answers are not marked."""
    counts: array[int] = field(default_factory=lambda: array("i"))
    """How many rows each example makes; one of several stays with the others in any split."""
    examples: list[Example] = field(default_factory=list[Example])
    """The first KEPT_EXAMPLES."""
    values: list[str] = field(default_factory=list[str])
    """Each example's value of the column that the split groups or stratifies by; empty without one."""
    faults: list[Fault] = field(default_factory=list[Fault])
    """The first that were met."""
    faulty: int = 0
    cut: int = 0
    divided: int = 0
    dropped: int = 0

    def append(self, rows: Sequence[TrainedRow]) -> None:
        """Put the rows of one example behind these."""
        self.counts.append(len(rows))
        for each in rows:
            self.answers.append(each.row)
            if each.rejected is not None:
                self.rejected.append(each.rejected)
            if each.desirable is not None:
                self.desirable.append(each.desirable)

    def add(self, part: _Rendered) -> None:
        """Put the rows of `part` behind these."""
        if len(self.examples) == len(self.counts):  # none before these is without its example
            self.examples += part.examples[: KEPT_EXAMPLES - len(self.examples)]
        self.answers.add(part.answers)
        self.rejected.add(part.rejected)
        self.desirable.extend(part.desirable)
        self.counts.extend(part.counts)
        self.values += part.values
        self.faults += part.faults[: SHOWN_FAULTS - len(self.faults)]
        self.faulty += part.faulty
        self.cut += part.cut
        self.divided += part.divided
        self.dropped += part.dropped

    def note(self, fault: Fault) -> None:
        """Count a row that could not be read."""
        self.faulty += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(fault)

    def take(self, indexes: Sequence[int]) -> Rows:
        """Return the rows of the examples at `indexes`, in their order."""
        rejected = self.rejected.rows() if self.rejected.ends else None
        desirable = np.frombuffer(self.desirable, np.int8).astype(np.bool_) if self.desirable else None
        counts = np.frombuffer(self.counts, np.int32).astype(np.int64)
        chosen = np.asarray(indexes, np.int64)
        begins, wanted = (np.cumsum(counts) - counts)[chosen], counts[chosen]
        places = np.repeat(begins - (np.cumsum(wanted) - wanted), wanted) + np.arange(int(wanted.sum()))
        return self.answers.rows(rejected, desirable).take(places.tolist())


def prepare(recipe: Recipe, model: Path | None = None, told: Callable[[int], None] = lambda rows: None) -> Prepared:
    """Return the rows of `recipe`, rendered and split; raises TunewrightError when there is nothing to learn.

    The validation rows are drawn with the recipe's seed, so every process that prepares it gets the same split. `told`
    is called with the examples rendered so far.
    """
    data, objective = recipe.data, recipe.training.objective
    renderer = Renderer(model or find_model(recipe.base.model, recipe.base.revision), data)
    rule = data.validation
    found = _render(data.source, data, objective, renderer, rule.key or rule.stratify, told)
    if rule.kind == "file":
        assert rule.source is not None, "the recipe's schema asks for it"
        kept_out = _render(rule.source, data, objective, renderer)
        taken = int(rule.value) or len(kept_out.counts)
        return Prepared(
            training=found.take(choose_share(range(len(found.counts)), data.share, recipe.training.seed)),
            validation=kept_out.take(range(min(taken, len(kept_out.counts)))),
            kept_out=tuple(kept_out.examples[:taken]),
            cut=found.cut + kept_out.cut,
            dropped=found.dropped + kept_out.dropped,
            faulty=found.faulty + kept_out.faulty,
            divided=found.divided + kept_out.divided,
        )
    chosen = choose_validation(len(found.counts), rule, recipe.training.seed, found.values or None)
    left = [index for index in range(len(found.counts)) if index not in chosen]
    return Prepared(
        training=found.take(choose_share(left, data.share, recipe.training.seed)),
        validation=found.take(sorted(chosen)),
        kept_out=tuple(found.examples[index] for index in sorted(chosen) if index < len(found.examples)),
        cut=found.cut,
        dropped=found.dropped,
        faulty=found.faulty,
        chosen=tuple(sorted(chosen)),
        divided=found.divided,
    )


def read_examples(source: str, data: Data, limit: int | None = None) -> tuple[Example, ...]:
    """Return the examples in `source`, at most `limit`; raises TunewrightError when a row cannot be read."""
    opened = open_source(source, data.split)
    shape = require_shape(opened, data)
    found = _Rendered()
    for record in read_records(opened):
        if limit is not None and len(found.examples) >= limit:
            break
        example = record if isinstance(record, Fault) else convert(record, shape)
        if isinstance(example, Example):
            found.examples.append(example)
        elif example.code not in HARMLESS_CODES:
            found.note(example)
    _require(source, data, found, len(found.examples))
    return tuple(found.examples)


def _render(
    source: str, data: Data, objective: Objective, renderer: Renderer, column: str | None = None,
    told: Callable[[int], None] = lambda rows: None,
) -> _Rendered:  # fmt: skip
    """Return the rows of one source that are trained; raises TunewrightError when there are none, or faults are refused.

    Large sources are rendered by a process a processor.
    """
    opened = open_source(source, data.split)
    shape = require_shape(opened, data)
    require_fitting(opened.name, shape.format, objective)

    def render(batch: Batch) -> _Rendered:
        return _render_batch(batch, shape, data, objective, renderer, column)

    found = _Rendered()
    number = count_workers(opened.total_bytes) if opened.total_bytes > PARALLEL_BYTES else 0
    with Workers(number, render, lambda: False) as workers:
        for _, parts in workers.examine(read_batches(opened)):
            for part in parts:
                if isinstance(part, Lost):
                    found.note(Fault(part.place, "template_too_slow", part.problem))
                else:
                    found.add(part)
            told(len(found.counts))
            if data.faulty == "refuse" and found.faulty > SHOWN_FAULTS:
                break
    _require(source, data, found, len(found.counts) + found.dropped)
    if not found.counts:
        raise TunewrightError(
            "Nothing to learn",
            f"Not one of {found.dropped} rows has a token on which a loss is taken.",
            "Raise max_length, or check loss_on and that the rows hold turns of the assistant.",
        )
    return found


def _render_batch(
    batch: Batch, shape: Shape, data: Data, objective: Objective, renderer: Renderer, column: str | None
) -> _Rendered:
    """Return the rows of one batch; it runs in a worker."""
    found = _Rendered()
    for fault in batch.faults:
        if fault.code not in HARMLESS_CODES:
            found.note(fault)
    for record in parse_batch(batch):
        example = record if isinstance(record, Fault) else convert(record, shape)
        if isinstance(example, Fault):
            found.note(example)
            continue
        made = make_rows(example, objective, data, renderer)
        if not made.rows:
            found.dropped += 1
            continue
        found.cut += made.cut
        found.divided += made.divided
        found.append(made.rows)
        if batch.first <= KEPT_EXAMPLES:
            found.examples.append(example)
        if column is not None:
            assert isinstance(record, Record)
            found.values.append(value_of(record, column))
    return found


def require_shape(opened: Source, data: Data) -> Shape:
    """Return how the rows of a source are read; raises TunewrightError when no format fits them."""
    found = shape_of(opened, data)
    if found.shape is None:
        raise TunewrightError(
            "The format was not recognised",
            f"{one_line(opened.name, 300)}: {' '.join(found.evidence)}",
            "Name the format in data.format, and columns that have other names in data.columns.",
        )
    return found.shape


def _require(source: str, data: Data, found: _Rendered, rows: int) -> None:
    """Raise TunewrightError when rows are at fault and the recipe refuses that, or when there are no rows at all."""
    if found.faults and data.faulty == "refuse":
        shown = "\n".join(f"  {fault.place}: {fault.problem}" for fault in found.faults)
        more = "\n  and more" if found.faulty > len(found.faults) else ""
        raise TunewrightError(
            "Data not readable",
            f"{one_line(source, 300)}:\n{shown}{more}",
            '`tunewright data audit` names every such row; mend them, or set data.faulty = "drop" to go on without them.',
        )
    if not rows:
        raise TunewrightError(
            "No data",
            f"{one_line(source, 300)} holds no row that can be trained.",
            "Give a file with a row on each line.",
        )
