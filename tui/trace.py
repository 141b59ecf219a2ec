"""A curve that grows: its points, and the least and greatest of every block of them, so that a million draw at once."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left

BLOCK = 64
"""Points in a block."""


class Trace:
    """Points with rising x; a value that is not finite is counted and left out of the curve."""

    __slots__ = ("highs", "lows", "unfinite", "xs", "ys")

    def __init__(self) -> None:
        self.xs = array("d")
        self.ys = array("d")
        self.lows = array("d")
        self.highs = array("d")
        self.unfinite = array("d")
        """Where a value was not finite."""

    def __len__(self) -> int:
        return len(self.xs)

    @property
    def last(self) -> float | None:
        """The newest value, None before the first."""
        return self.ys[-1] if self.ys else None

    def append(self, x: float, y: float) -> None:
        """Add a point; one that stands at or after `x` already is taken again, as a resumed run does."""
        if (self.xs and x <= self.xs[-1]) or (self.unfinite and x <= self.unfinite[-1]):
            self.rewind(x)
        if not math.isfinite(y):
            self.unfinite.append(x)
            return
        if len(self.ys) % BLOCK == 0:
            self.lows.append(y)
            self.highs.append(y)
        elif y < self.lows[-1]:
            self.lows[-1] = y
        elif y > self.highs[-1]:
            self.highs[-1] = y
        self.xs.append(x)
        self.ys.append(y)

    def rewind(self, x: float) -> None:
        """Forget every point at or after `x`."""
        del self.unfinite[bisect_left(self.unfinite, x) :]
        kept = bisect_left(self.xs, x)
        del self.xs[kept:], self.ys[kept:]
        whole = kept // BLOCK
        del self.lows[whole:], self.highs[whole:]
        if rest := self.ys[whole * BLOCK :]:
            self.lows.append(min(rest))
            self.highs.append(max(rest))

    def extent(self, start: int, end: int) -> tuple[float, float]:
        """Return the least and the greatest of the values from `start` up to `end`, which holds at least one."""
        first, last = -(-start // BLOCK), end // BLOCK
        if last <= first:
            part = self.ys[start:end]
            return min(part), max(part)
        low, high = min(self.lows[first:last]), max(self.highs[first:last])
        for part in (self.ys[start : first * BLOCK], self.ys[last * BLOCK : end]):
            if part:
                low, high = min(low, min(part)), max(high, max(part))
        return low, high

    def columns(self, start: float, end: float, width: int) -> list[tuple[float, float, float, float] | None]:
        """Return (first, least, greatest, last) of the points in each of `width` equal parts of start to end."""
        found: list[tuple[float, float, float, float] | None] = []
        step = (end - start) / width
        index = bisect_left(self.xs, start)
        for column in range(width):
            border = bisect_left(self.xs, start + (column + 1) * step, index) if column < width - 1 else len(self.xs)
            if border > index:
                found.append((self.ys[index], *self.extent(index, border), self.ys[border - 1]))
            else:
                found.append(None)
            index = border
        return found
