"""Batches: how many steps a data set makes, and what its real lengths cost in padding."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of the rows that are drawn, in tokens."""

    rows: int
    total: int
    longest: int
    squares: int
    """The sum of all lengths squared."""
    counts: tuple[tuple[int, int], ...]
    """(length, rows of this length), ascending."""

    @property
    def mean(self) -> float:
        return self.total / self.rows

    @property
    def attended(self) -> float:
        """The length of the row that an average token is in: what its attention reaches over."""
        return self.squares / self.total

    @property
    def deviation(self) -> float:
        """The standard deviation of the lengths."""
        return math.sqrt(max(0.0, self.squares / self.rows - self.mean**2))

    def padded_length(self, rows: int) -> float:
        """Return the expected length of the longest of `rows` rows drawn at random without replacement.

        E[max] = Σ l · (P(max ≤ l) − P(max < l)), where P(max ≤ l) = C(k, m) / C(n, m) for the k rows up to l.
        """
        if rows >= self.rows:
            return float(self.longest)
        if rows == 1:
            return self.mean
        expected, below, seen = 0.0, 0.0, 0
        choices = _log_choose(self.rows, rows)
        for length, count in self.counts:
            seen += count
            up_to = math.exp(_log_choose(seen, rows) - choices) if seen >= rows else 0.0
            expected += length * (up_to - below)
            below = up_to
        return expected


def measure_lengths(lengths: Sequence[int]) -> Lengths:
    """Return the figures of `lengths`, which may not be empty."""
    counts = Counter(lengths)
    squares = sum(count * length * length for length, count in counts.items())
    return Lengths(len(lengths), sum(lengths), max(counts), squares, tuple(sorted(counts.items())))


def pack(lengths: Sequence[int], capacity: int, seed: int = 0) -> list[int]:
    """Return the lengths of the sequences that packing makes of rows of these lengths, in the trainer's order."""
    from .dealing import pack_lengths

    return pack_lengths(lengths, capacity, seed)


def steps_of(rows: int, global_batch: int, epochs: float | None, steps: int | None) -> int:
    """Return the optimizer steps of a run: as given, or ⌈epochs · ⌈rows / batch⌉⌉ as transformers' trainer counts."""
    if steps is not None:
        return steps
    assert epochs is not None, "a recipe has either epochs or steps"
    return max(1, math.ceil(epochs * math.ceil(rows / global_batch)))


def rows_seen(rows: int, global_batch: int, steps: int) -> int:
    """Return how many rows `steps` steps draw: the last step of an epoch may be a short one."""
    steps_an_epoch = math.ceil(rows / global_batch)
    epochs, rest = divmod(steps, steps_an_epoch)
    return epochs * rows + min(rows, rest * global_batch)


def divisors(number: int) -> list[int]:
    """Return the divisors of `number`, ascending."""
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return small + [number // each for each in reversed(small) if each * each != number]


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
