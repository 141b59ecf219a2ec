"""The growing curve: decimation, gaps and rewinding."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st
from tunewright.tui.trace import Trace


def trace_of(values: list[float]) -> Trace:
    trace = Trace()
    for step, value in enumerate(values):
        trace.append(step, value)
    return trace


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), st.data())
def test_an_extent_is_that_of_the_plain_values(values: list[float], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values) - 1))
    end = data.draw(st.integers(start + 1, len(values)))
    assert trace_of(values).extent(start, end) == (min(values[start:end]), max(values[start:end]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(1, 60))
def test_columns_lose_no_peak(values: list[float], width: int) -> None:
    found = [each for each in trace_of(values).columns(0, len(values), width) if each is not None]
    assert min(low for _, low, _, _ in found) == min(values)
    assert max(high for _, _, high, _ in found) == max(values)
    assert found[0][0] == values[0]
    assert found[-1][3] == values[-1]


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    trace = trace_of([1.0, math.nan, math.inf, -math.inf, 2.0])
    assert list(trace.ys) == [1.0, 2.0]
    assert list(trace.unfinite) == [1, 2, 3]


def test_a_step_taken_again_replaces_what_came_after_it() -> None:
    rng = random.Random(3)
    trace = trace_of([rng.random() for _ in range(300)])
    trace.append(150, 9.0)
    assert len(trace) == 151
    assert trace.last == 9.0
    assert trace.extent(0, 151)[1] == 9.0
    assert trace.extent(0, 150)[1] < 1
