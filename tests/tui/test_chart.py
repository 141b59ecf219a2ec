"""The braille chart: every kind of curve is drawn within its place, fast."""

from __future__ import annotations

import math
import time

import pytest
from textual.app import App, ComposeResult
from tunewright.engine.runs.trace import Trace
from tunewright.tui.theme import DARK
from tunewright.tui.widgets.chart import Chart, Line


class ChartApp(App[None]):
    """One chart alone."""

    def __init__(self, chart: Chart) -> None:
        super().__init__()
        self.chart = chart
        self.register_theme(DARK)
        self.theme = DARK.name

    def compose(self) -> ComposeResult:
        yield self.chart


def lines_of(chart: Chart) -> list[str]:
    return ["".join(segment.text for segment in chart.render_line(y)) for y in range(chart.size.height)]


def trace_of(values: list[float]) -> Trace:
    trace = Trace()
    for step, value in enumerate(values, start=1):
        trace.append(step, value)
    return trace


CASES = {
    "one point": [1.5],
    "flat": [0.25] * 40,
    "zero": [0.0] * 5,
    "falling": [3 * math.exp(-step / 50) for step in range(200)],
    "negative": [-float(step) for step in range(30)],
    "tiny": [1e-9, 2e-9, 1.5e-9],
    "huge": [1e30, 5e30],
    "holes": [1.0, math.nan, 2.0, math.inf, 0.5],
    "only holes": [math.nan, math.inf],
}


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("name", CASES)
async def test_any_curve_is_drawn_within_its_place(name: str, logarithmic: bool) -> None:
    chart = Chart("Loss", [Line("", trace_of(CASES[name]), "accent"), Line("eval", trace_of([1.0]), "warning", "◆")])
    async with ChartApp(chart).run_test(size=(60, 14)) as pilot:
        chart.logarithmic = logarithmic
        await pilot.pause()
        drawn = lines_of(chart)
        assert all(len(line) == chart.size.width for line in drawn)
        assert any("◆" in line for line in drawn)
        holes = sum(not math.isfinite(value) for value in CASES[name])
        assert ("not finite" in str(chart.border_title)) == bool(holes)


async def test_without_points_it_says_so() -> None:
    chart = Chart("Loss", [Line("", Trace(), "accent")])
    async with ChartApp(chart).run_test(size=(60, 14)):
        assert any("nothing to draw yet" in line for line in lines_of(chart))


async def test_its_axes_have_round_numbers() -> None:
    chart = Chart("Loss", [Line("", trace_of([float(step) for step in range(101)]), "accent")], x_end=400)
    async with ChartApp(chart).run_test(size=(80, 20)):
        drawn = lines_of(chart)
        assert {"0", "100", "200", "300", "400"} <= set(drawn[-1].split())
        assert any(line.startswith("100┤") for line in drawn)


async def test_a_hundred_thousand_points_are_drawn_in_20_milliseconds() -> None:
    trace = trace_of([2 + math.sin(step / 900) for step in range(100_000)])
    chart = Chart("Loss", [Line("", trace, "accent")])
    async with ChartApp(chart).run_test(size=(120, 40)):
        seconds: list[float] = []
        for step in range(15):
            trace.append(100_001 + step, 2.0)
            start = time.process_time()
            lines_of(chart)
            seconds.append(time.process_time() - start)
        assert sorted(seconds)[len(seconds) // 2] < 0.020
