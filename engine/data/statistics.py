"""What an audit is asked and what it tells: the figures of lengths, tokens and packing, and the report that holds them."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...recipes.model import Data
from ..batches import Lengths
from .examples import Fault
from .findings import Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 32
"""Bars of the histogram of lengths."""
MAXIMUM_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""The maximum lengths that a report compares, beside the recipe's own."""
KEPT_SHARE = 0.99
"""The share of rows that `length_for_99` keeps whole."""
UNPACKED_BATCH = 8
"""Rows in the batches whose padding packing is compared with."""
NEVER = 2**32 - 1
"""Where the first learned token stands in a row that has none."""


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """What is to be audited."""

    source: str
    data: Data
    """The recipe's section; its `source` is not looked at."""
    model: str | None = None
    """The model whose tokenizer and template are used; None counts tokens roughly, with ChatML around the turns."""
    against: tuple[str, ...] = ()
    """Evaluation files of which no row may stand in the data."""
    workers: int | None = None
    """Processes that read and render; 0 does all in this one, None takes one a processor."""


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """How long the rows are, in tokens, before any cut."""

    total: int
    mean: float
    least: int
    p50: int
    p90: int
    p95: int
    p99: int
    most: int
    histogram: tuple[int, ...]
    """Rows in 32 equal bins from the shortest row to the longest."""
    by_role: dict[str, int]
    """Tokens of system, user, assistant, tool, text and template."""
    exact: bool
    """False where no model's tokenizer was there to count with."""


@dataclass(frozen=True, slots=True)
class LengthFigures:
    """What a maximum length costs."""

    max_length: int
    cut_rows: int
    lost_rows: int
    """Rows in which nothing is left to learn."""
    kept_tokens_share: float


@dataclass(frozen=True, slots=True)
class PackingFigures:
    """What packing would save."""

    sequences: int
    """Sequences of the maximum length that the rows fill when they are packed."""
    padded_share: float
    """The share of padding in batches of 8 random rows."""
    packed_share: float
    """The share of padding that best-fit packing leaves."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found."""

    source: str
    model: str | None
    format: str
    dialect: str
    rows: int
    """All rows, faulty ones too."""
    converted: int
    """The rows that could be read as the format."""
    tokens: TokenFigures | None
    """None where no row could be rendered."""
    supervised_tokens: int
    """The tokens that are learned, counted after the cut."""
    supervised_share: float
    """Their share of all tokens that are left after the cut, 0 to 1."""
    findings: tuple[Finding, ...]
    """Errors first, then by count."""
    lengths: tuple[LengthFigures, ...]
    length_for_99: int
    """The smallest maximum length that keeps 99 % of the rows whole."""
    packing: PackingFigures | None
    languages: dict[str, float]
    """The share of rows of each language, the most frequent first."""
    longest: tuple[int, ...]
    """Indexes of rows, the longest first."""
    worst: tuple[int, ...]
    """Indexes of rows: those with the gravest findings, of them the ones that teach the least."""
    advice: tuple[str, ...]
    seconds: float
    complete: bool
    """False in the snapshots sent while the audit goes on, and after it was cancelled."""

    def to_json(self) -> dict[str, Any]:
        """Return what `tunewright data audit --json` prints."""
        return {**asdict(self), "findings": [each.to_json() for each in self.findings]}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an audit is."""

    done_bytes: int
    total_bytes: int
    rows: int
    seconds: float
    report: Report | None = None
    """A snapshot with the findings so far, sent at most once a second."""


@dataclass(frozen=True, slots=True)
class FixReport:
    """What was written with findings mended."""

    rows_read: int
    """All rows, faulty ones too."""
    rows_written: int
    changed: dict[str, int]
    """Rows changed or left out, by the code of the finding."""
    faults: tuple[Fault, ...] = ()
    """The first of the rows that could not be read, and are left out for that."""

    def to_json(self) -> dict[str, Any]:
        """Return what `tunewright data convert --json` prints."""
        faults = [{"place": str(each.place), "code": each.code, "problem": each.problem} for each in self.faults]
        return {**asdict(self), "faults": faults}


def percent(share: float) -> str:
    """Return a share as text, never as 0 or 100 % where it is not."""
    if 0 < share < 0.001:
        return "less than 0.1 %"
    if 0.999 < share < 1:
        return "more than 99.9 %"
    return f"{share * 100:.1f} %"


def figures_of_tokens(lengths: NDArray[np.uint32], by_role: Mapping[str, int], exact: bool) -> TokenFigures:
    """Return the figures of the rows' whole `lengths`, which may not be empty."""
    import numpy as np

    ordered = np.sort(lengths)
    least, most = int(ordered[0]), int(ordered[-1])
    counts, _ = np.histogram(ordered, bins=BINS, range=(least, most if most > least else least + 1))
    p50, p90, p95, p99 = (share_of(ordered, share) for share in (0.5, 0.9, 0.95, 0.99))
    total = int(ordered.sum(dtype=np.uint64))
    histogram = tuple(int(each) for each in counts)
    return TokenFigures(total, total / len(ordered), least, p50, p90, p95, p99, most, histogram, dict(by_role), exact)


def share_of(ordered: NDArray[np.uint32], share: float) -> int:
    """Return the smallest of the ascending lengths that `share` of them do not exceed."""
    return int(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def figures_of_lengths(
    lengths: NDArray[np.uint32], first_learned: NDArray[np.uint32], chosen: int
) -> tuple[LengthFigures, ...]:
    """Return what the usual maximum lengths and the `chosen` one cost; `first_learned` may hold NEVER."""
    import numpy as np

    total = max(1, int(lengths.sum(dtype=np.uint64)))
    return tuple(
        LengthFigures(
            limit,
            cut_rows=int(np.count_nonzero(lengths > limit)),
            lost_rows=int(np.count_nonzero(first_learned >= limit)),
            kept_tokens_share=int(np.minimum(lengths, limit).sum(dtype=np.uint64)) / total,
        )
        for limit in sorted({*MAXIMUM_LENGTHS, chosen})
    )


def figures_of_packing(lengths: NDArray[np.uint32], capacity: int) -> PackingFigures:
    """Return what packing into sequences of `capacity` tokens saves on rows cut to as many; there has to be a row."""
    import numpy as np

    values, counts = np.unique(np.clip(lengths, 1, capacity), return_counts=True)
    rows_of = list(zip(map(int, values), map(int, counts), strict=True))
    total = sum(length * rows for length, rows in rows_of)
    squares = sum(length * length * rows for length, rows in rows_of)
    kept = Lengths(sum(rows for _, rows in rows_of), total, rows_of[-1][0], squares, tuple(rows_of))
    sequences = pack_counted(rows_of, capacity)
    return PackingFigures(
        sequences,
        padded_share=max(0.0, 1 - kept.mean / kept.padded_length(UNPACKED_BATCH)),
        packed_share=1 - total / (sequences * capacity),
    )


def pack_counted(rows_of: Sequence[tuple[int, int]], capacity: int) -> int:
    """Return how many sequences best-fit-decreasing packing fills with rows given as (length, rows of it).

    The same as `batches.pack` on every row, but rows of one length are placed together: a million rows take
    milliseconds.
    """
    sizes: list[int] = []
    spaces: dict[int, int] = {}
    sequences = 0

    def leave(space: int, number: int) -> None:
        if space and number:
            if space not in spaces:
                insort(sizes, space)
            spaces[space] = spaces.get(space, 0) + number

    for length, rows in sorted(rows_of, reverse=True):
        while rows:
            place = bisect_left(sizes, length)
            if place < len(sizes):
                space = sizes.pop(place)
                open_ones = spaces.pop(space)
            else:
                space, open_ones = capacity, math.ceil(rows / (capacity // length))
                sequences += open_ones
            # A sequence that took one row is the best fit for the next until no more of them fit.
            fitting = space // length
            placed = min(rows, open_ones * fitting)
            filled, rest = divmod(placed, fitting)
            leave(space - fitting * length, filled)
            if rest:
                leave(space - rest * length, 1)
            leave(space, open_ones - filled - bool(rest))
            rows -= placed
    return sequences
