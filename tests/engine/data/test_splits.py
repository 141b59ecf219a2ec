"""Rows are kept out by a seed, in whole groups or even shares, and never so many that nothing is left."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine.data.splits import choose_share, choose_validation
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Validation


def rule(**values: object) -> Validation:
    return Validation.model_validate(values)


def test_the_same_seed_keeps_out_the_same_rows_and_another_seed_others() -> None:
    tenth = rule(kind="fraction", value=0.1)
    chosen = choose_validation(100, tenth, 42)
    assert len(chosen) == 10
    assert chosen == choose_validation(100, tenth, 42)
    assert chosen != choose_validation(100, tenth, 7)


def test_none_and_a_file_keep_nothing_out() -> None:
    assert choose_validation(10, rule(kind="none"), 1) == set()
    assert choose_validation(10, rule(kind="file", value=0, source="b.jsonl"), 1) == set()


@given(st.lists(st.sampled_from("abcdefgh"), min_size=20, max_size=200), st.integers(0, 5), st.floats(0.1, 0.5))
def test_no_group_is_on_both_sides(values: list[str], seed: int, fraction: float) -> None:
    grouped = rule(kind="fraction", value=fraction, key="user")
    try:
        chosen = choose_validation(len(values), grouped, seed, values)
    except TunewrightError:
        return
    inside = {values[index] for index in chosen}
    outside = {value for index, value in enumerate(values) if index not in chosen}
    assert not inside & outside
    assert outside


@given(st.lists(st.sampled_from("aaaabbc"), min_size=50, max_size=300), st.integers(0, 5))
def test_every_stratum_has_its_share(values: list[str], seed: int) -> None:
    even = rule(kind="fraction", value=0.2, stratify="topic")
    chosen = choose_validation(len(values), even, seed, values)
    assert len(chosen) == round(0.2 * len(values))
    whole, kept_out = Counter(values), Counter(values[index] for index in chosen)
    assert all(abs(kept_out[name] - 0.2 * count) <= 1 for name, count in whole.items())


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(TunewrightError, match="No rows left"):
        choose_validation(50, rule(kind="rows", value=50), 1)
    with pytest.raises(TunewrightError, match="One group only"):
        choose_validation(50, rule(kind="rows", value=5, key="user"), 1, ["same"] * 50)
    with pytest.raises(TunewrightError, match="Groups too large"):
        choose_validation(50, rule(kind="rows", value=2, key="user"), 1, ["a"] * 25 + ["b"] * 25)


def test_a_smaller_share_is_part_of_a_larger() -> None:
    rows = list(range(0, 200, 2))
    tenth, quarter = choose_share(rows, 0.1, 42), choose_share(rows, 0.25, 42)
    assert (len(tenth), len(quarter)) == (10, 25)
    assert set(tenth) < set(quarter) < set(rows)
    assert choose_share(rows, 1.0, 42) == rows
    assert len(choose_share([3, 5], 0.01, 42)) == 1
