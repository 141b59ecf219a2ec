"""The growing curve: wider places, gaps and rewinding, and nothing lost of what is extreme."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine.runs.trace import PLACES, Trace


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
    assert list(trace.lasts) == [1.0, 2.0]
    assert list(trace.unfinite) == [1, 2, 3]
    assert trace.lost == 3
    for step in range(5, 3 * PLACES):
        trace.append(step, math.nan)
    assert trace.lost == 3 * PLACES - 2
    assert len(trace.unfinite) <= PLACES


def test_a_step_taken_again_replaces_what_came_after_it() -> None:
    rng = random.Random(3)
    trace = trace_of([rng.random() for _ in range(300)])
    trace.append(150, 9.0)
    assert len(trace) == 151
    assert trace.last == 9.0
    assert trace.extent(0, 151)[1] == 9.0
    assert trace.extent(0, 150)[1] < 1


@pytest.mark.parametrize("count", [PLACES - 1, PLACES, PLACES + 1, 3 * PLACES, 50_000])
def test_a_long_curve_keeps_every_peak_in_few_places(count: int) -> None:
    rng = random.Random(count)
    values = [rng.random() for _ in range(count)]
    values[count // 3], values[count // 2] = 40.0, -40.0
    trace = trace_of(values)
    assert len(trace) <= PLACES
    whole = trace.columns(0, count, 100)
    border = [math.ceil(count / 100 * column) for column in range(101)]
    for column, found in enumerate(whole):
        assert found is not None
        margin = int(trace.width)  # a place that begins in a column belongs to it
        inner = values[border[column] + margin : border[column + 1] - margin]
        near = values[max(0, border[column] - margin) : border[column + 1] + margin]
        assert min(near) <= found[1] <= found[2] <= max(near)
        assert not inner or (found[1] <= min(inner) and max(inner) <= found[2])
    assert trace.extent(0, len(trace)) == (-40.0, 40.0)
    assert (trace.firsts[0], trace.last, trace.end) == (values[0], values[-1], count - 1)


@given(st.lists(st.tuples(st.integers(1, 6000), st.integers(1, 3000)), min_size=1, max_size=6))
def test_steps_taken_again_replace_those_before_in_a_long_curve(parts: list[tuple[int, int]]) -> None:
    trace, plain = Trace(), dict[int, float]()
    value = 0.0
    for begin, count in parts:
        begin = min(begin, max(plain, default=0) + 1)
        plain = {step: y for step, y in plain.items() if step < begin}
        for step in range(begin, begin + count):
            value += 1.0
            plain[step] = value
            trace.append(step, value)
    assert (trace.last, trace.end) == (value, max(plain))
    assert list(trace.xs) == sorted(trace.xs)
    for index, x in enumerate(trace.xs):
        until = trace.xs[index + 1] if index + 1 < len(trace) else math.inf
        inside = [y for step, y in plain.items() if x <= step < until]
        assert trace.lows[index] <= min(inside) and max(inside) <= trace.highs[index]
        if trace.width == 1:
            assert [trace.lows[index], trace.highs[index]] == [*inside, *inside]


@given(st.lists(st.tuples(st.floats(-1e15, 1e15), st.floats(allow_nan=False)), max_size=200))
def test_any_points_leave_a_sound_curve_that_comes_back_as_it_was(points: list[tuple[float, float]]) -> None:
    trace = Trace()
    for x, y in points:
        trace.append(x, y)
    again = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    for name in ("width", "end", "dropped", "xs", "firsts", "lows", "highs", "lasts", "unfinite"):
        assert getattr(again, name) == getattr(trace, name)


def test_sparse_points_of_a_hand_edited_run_end_in_few_places_too() -> None:
    trace = Trace()
    for number in range(PLACES + 1):
        trace.append(number * 1e12, float(number))
    assert PLACES // 4 <= len(trace) <= PLACES
    assert trace.last == PLACES


@pytest.mark.parametrize(
    "change",
    [{"width": 0.5}, {"width": math.nan}, {"xs": ""}, {"xs": "AA=="}, {"lows": "é"}, {"order": "middle"}, {"end": -5}],
    ids=str,
)
def test_a_curve_that_is_none_is_refused(change: dict[str, object]) -> None:
    plain = trace_of([3.0, 1.0, 2.0]).to_json()
    with pytest.raises(ValueError):
        Trace.from_json(plain | change)
