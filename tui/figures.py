"""Figures in words: the same quantity is written the same way on every screen."""

from __future__ import annotations

import math
import time

LARGEST = 1e15
"""What is larger is no figure of ours, and has not the room that all its digits take."""


def duration(seconds: float | None) -> str:
    """Return a time span: 0.8 s, 42 s, 3:05, 2 h 05, 3 d 4 h."""
    if seconds is None or not abs(seconds) < LARGEST:
        return "—"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02}"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def count(value: float | None) -> str:
    """Return a number with separators, shortened from ten thousand on: 0.25, 9,412, 13.4 k, 8.03 B."""
    if value is None or not math.isfinite(value):
        return "—"
    if abs(value) >= LARGEST:
        return f"{value:.1e}"
    for limit, divisor, unit in ((1e4, 1, ""), (1e6, 1e3, " k"), (1e9, 1e6, " M"), (1e12, 1e9, " B")):
        if abs(value) < limit:
            if not unit and 0 < abs(value) < 9.5 and value != round(value):
                return f"{value:.2g}"
            return f"{value:,.0f}" if not unit else f"{_three(value / divisor)}{unit}"
    return f"{_three(value / 1e12)} T"


def _three(value: float) -> str:
    """Return three significant digits."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def share(value: float | None, digits: int = 0) -> str:
    """Return a share of one as a percentage."""
    return "—" if value is None or not abs(value) < LARGEST else f"{value * 100:.{digits}f} %"


def number(value: float | None) -> str:
    """Return a measured number with four significant digits, in scientific form only when it has to be."""
    if value is None:
        return "—"
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if 1e3 <= abs(value) < 1e5:
        return f"{value:,.0f}"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


def clock(moment: float | None) -> str:
    """Return a moment as its time today, or its day and time."""
    if moment is None:
        return "—"
    then, now = time.localtime(moment), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%d %b %H:%M" if then[0] == now[0] else "%d %b %Y", then)


def plural(value: int, noun: str) -> str:
    """Return `1 row` or `1,000 rows`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"
