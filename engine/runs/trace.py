"""A curve that grows: exact while it is short, then the least and greatest of ever wider places, so that a million draw at once."""

from __future__ import annotations

import base64
import itertools
import math
import sys
from array import array
from bisect import bisect_left
from typing import Any

PLACES = 2048
"""At most; when they are full, every two become one. A terminal shows some hundred."""
_COLUMNS = ("xs", "firsts", "lows", "highs", "lasts", "unfinite")


class Trace:
    """Points with rising x, gathered in places of one `width`: each has its first x, and the first, least, greatest and last y.

    No peak is ever lost. A value that is not finite is counted and left out of the curve.
    """

    __slots__ = ("changes", "dropped", "end", "width", *_COLUMNS)

    def __init__(self) -> None:
        self.width = 1.0
        """What x a place spans; as long as it is 1, a place is a step."""
        self.end = -math.inf
        """The last x."""
        self.xs = array("d")
        self.firsts = array("d")
        self.lows = array("d")
        self.highs = array("d")
        self.lasts = array("d")
        self.unfinite = array("d")
        """Where a value was not finite; the newest places of these."""
        self.dropped = 0
        """Places of the older ones that are only counted."""
        self.changes = 0
        """Grows with every change."""

    def __len__(self) -> int:
        return len(self.xs)

    @property
    def last(self) -> float | None:
        """The newest value, None before the first."""
        return self.lasts[-1] if self.lasts else None

    @property
    def lost(self) -> int:
        """How many values were not finite."""
        return self.dropped + len(self.unfinite)

    def append(self, x: float, y: float) -> None:
        """Add a point; one that stands at or after `x` already is taken again, as a resumed run does."""
        if x <= self.end:
            self.rewind(x)
        self.end = x
        self.changes += 1
        if not math.isfinite(y):
            self._lose(x)
        elif self.xs and x // self.width == self.xs[-1] // self.width:
            if y < self.lows[-1]:
                self.lows[-1] = y
            elif y > self.highs[-1]:
                self.highs[-1] = y
            self.lasts[-1] = y
        else:
            if len(self.xs) == PLACES:
                self._widen()
                return self.append(x, y)
            self.xs.append(x)
            for column in (self.firsts, self.lows, self.highs, self.lasts):
                column.append(y)
        return None

    def rewind(self, x: float) -> None:
        """Forget every point at or after `x`.

        Where that is in the middle of a place, its least and greatest stay: what is shown may be a place too much, but
        nothing that is true is hidden.
        """
        del self.unfinite[bisect_left(self.unfinite, x) :]
        kept = bisect_left(self.xs, x)
        for column in (self.xs, self.firsts, self.lows, self.highs, self.lasts):
            del column[kept:]
        if self.xs and x // self.width == self.xs[-1] // self.width:
            self.lasts[-1] = self.firsts[-1]
        self.end = self.xs[-1] if self.xs else -math.inf
        self.changes += 1

    def _lose(self, x: float) -> None:
        if len(self.unfinite) == PLACES:
            del self.unfinite[: PLACES // 2]
            self.dropped += PLACES // 2
        self.unfinite.append(x)

    def _widen(self) -> None:
        """Make two neighbouring places one, again and again until half of them are free."""
        while len(self.xs) > PLACES // 2:
            self.width *= 2
            places = list(zip(self.xs, self.firsts, self.lows, self.highs, self.lasts, strict=True))
            for column in (self.xs, self.firsts, self.lows, self.highs, self.lasts):
                del column[:]
            for x, first, low, high, last in places:
                if self.xs and x // self.width == self.xs[-1] // self.width:
                    self.lows[-1] = min(self.lows[-1], low)
                    self.highs[-1] = max(self.highs[-1], high)
                    self.lasts[-1] = last
                else:
                    self.xs.append(x)
                    self.firsts.append(first)
                    self.lows.append(low)
                    self.highs.append(high)
                    self.lasts.append(last)

    def extent(self, start: int, end: int) -> tuple[float, float]:
        """Return the least and the greatest of the values in the places from `start` up to `end`, at least one."""
        return min(self.lows[start:end]), max(self.highs[start:end])

    def least_positive(self) -> float | None:
        """Return the least value above 0 that a place tells of, None where there is none."""
        columns = (self.lows, self.firsts, self.lasts, self.highs)
        return min((y for column in columns for y in column if y > 0), default=None)

    def columns(self, start: float, end: float, width: int) -> list[tuple[float, float, float, float] | None]:
        """Return (first, least, greatest, last) of the points in each of `width` equal parts of start to end."""
        found: list[tuple[float, float, float, float] | None] = []
        step = (end - start) / width
        index = bisect_left(self.xs, start)
        for column in range(width):
            border = bisect_left(self.xs, start + (column + 1) * step, index) if column < width - 1 else len(self.xs)
            if border > index:
                found.append((self.firsts[index], *self.extent(index, border), self.lasts[border - 1]))
            else:
                found.append(None)
            index = border
        return found

    def become(self, other: Trace) -> None:
        """Take over the points of `other`, which is not to be used any more."""
        changes = self.changes + 1
        for name in Trace.__slots__:
            setattr(self, name, getattr(other, name))
        self.changes = changes

    def to_json(self) -> dict[str, Any]:
        """Return the curve as plain data, its columns as base64 of doubles in this machine's order of bytes."""
        plain = {name: base64.b64encode(getattr(self, name).tobytes()).decode() for name in _COLUMNS}
        end = self.end if math.isfinite(self.end) else None
        return {"order": sys.byteorder, "width": self.width, "end": end, "dropped": self.dropped, **plain}

    @classmethod
    def from_json(cls, values: Any) -> Trace:
        """Return the curve in what `to_json` returned; raises ValueError, KeyError or TypeError for all else."""
        trace = cls()
        if values["order"] != sys.byteorder:
            raise ValueError("written by a machine with another order of bytes")
        for name in _COLUMNS:
            column = array("d", base64.b64decode(values[name], validate=True))
            if len(column) > PLACES or not all(map(math.isfinite, column)):
                raise ValueError(f"{name} is no column of a curve")
            setattr(trace, name, column)
        if len({len(getattr(trace, name)) for name in _COLUMNS[:-1]}) != 1:
            raise ValueError("the columns of a curve are of one length")
        trace.width, trace.dropped = float(values["width"]), int(values["dropped"])
        trace.end = -math.inf if values["end"] is None else float(values["end"])
        rising = all(a < b for a, b in itertools.pairwise(trace.xs))
        if not (1 <= trace.width < math.inf and rising and (not trace.xs or trace.xs[-1] <= trace.end)):
            raise ValueError("the places of a curve rise")
        return trace
