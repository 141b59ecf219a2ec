"""Figures in words, bars, and text that hangs."""

from __future__ import annotations

import math

import pytest
from textual.content import Content
from tunewright.foundation.units import gib
from tunewright.tui.figures import count, duration, number, share
from tunewright.tui.widgets.bar import bar, row_bar
from tunewright.tui.widgets.row_list import Column, fit
from tunewright.tui.wrapping import hanging


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "—"), (0.0, "0 KiB"), (1 / 2048, "512 KiB"), (1 / 1024, "1 MiB"), (0.5, "0.50 GiB"), (139.8, "139.8 GiB")],
)
def test_memory(value: float | None, said: str) -> None:
    assert gib(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "—"),
        (0.84, "0.8 s"),
        (59.6, "1:00"),
        (185, "3:05"),
        (7500, "2 h 05"),
        (273_600, "3 d 4 h"),
        (math.inf, "—"),
    ],
)
def test_durations(value: float | None, said: str) -> None:
    assert duration(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(9412, "9,412"), (13_400, "13.4 k"), (8_030_261_248, "8.03 B"), (None, "—"), (2.6e12, "2.60 T")]
)
def test_counts(value: float | None, said: str) -> None:
    assert count(value) == said


def test_other_numbers() -> None:
    assert [number(value) for value in (0, 0.1853, 2e-4, 10_330.2, math.nan)] == [
        "0", "0.1853", "2.00e-4", "10,330", "not finite",
    ]  # fmt: skip
    assert share(0.0567, 2) == "5.67 %"


@pytest.mark.parametrize("used", [-1.0, 0.0, 0.001, 0.5, 1.0, 7.0])
def test_bars_keep_their_width(used: float) -> None:
    assert bar(used, 20).cell_length == bar(used, 20, mark=0.9).cell_length == row_bar(used, 20).cell_length == 20
    assert ("━" in bar(used, 20).plain or "╸" in bar(used, 20).plain) == (used > 0)


def test_wrapped_lines_begin_below_the_text() -> None:
    lines = hanging(Content("! "), Content("one two three four five six"), 16).plain.split("\n")
    assert lines[0].startswith("! one")
    assert all(line.startswith("  ") and len(line) <= 16 for line in lines[1:])


def test_the_least_important_column_goes_first() -> None:
    columns = (Column("a", 10), Column("b", 10, rank=2), Column("c", 10, rank=1, weight=1))
    assert list(fit(columns, 40)) == [0, 1, 2]
    assert fit(columns, 40)[2] == 16
    assert list(fit(columns, 30)) == [0, 2]
    assert list(fit(columns, 12)) == [0]
