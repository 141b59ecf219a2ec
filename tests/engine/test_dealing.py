"""What micro-batches hold, as the plan prices them, held against runs that are dealt out step by step."""

from __future__ import annotations

import random
import statistics
import time
from bisect import bisect_left, insort
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright import starter
from tunewright.engine.anatomy import read_anatomy
from tunewright.engine.batches import pack
from tunewright.engine.data.preparing import prepare
from tunewright.engine.dealing import How, look_ahead, pack_rows
from tunewright.engine.search import largest_of, load_of
from tunewright.engine.work import Work
from tunewright.recipes.model import Recipe, validate_recipe


def recipe(global_batch: int = 16, **training: Any) -> Recipe:
    length = {"steps": training["steps"]} if "steps" in training else {"epochs": 2.0}
    return validate_recipe(
        {
            "base": {"model": "tunewright/starter"},
            "data": {"source": "tunewright/starter-orders"},
            "method": {"kind": "lora"},
            "training": {"learning_rate": 1e-3, "global_batch": global_batch, **length},
        },
        "test",
    )


@cache
def lengths_of(name: str) -> tuple[int, ...]:
    """Rows of chats, of documents that are mostly cut, of two kinds, and those of the built-in data."""
    chance = random.Random(5)
    if name == "orders":
        return tuple(prepare(recipe()).training.lengths)
    if name == "chats":
        return tuple(min(2048, max(10, round(chance.lognormvariate(6, 0.9)))) for _ in range(20_000))
    if name == "documents":
        return tuple(min(1024, chance.randint(200, 4000)) for _ in range(6_000))
    return tuple(chance.choice((chance.randint(20, 60), chance.randint(900, 1100))) for _ in range(6_000))


DISTRIBUTIONS = ("orders", "chats", "documents", "two kinds")


def work_of(name: str, global_batch: int = 16, **training: Any) -> Work:
    lengths = lengths_of(name)
    return Work(recipe(global_batch, **training), read_anatomy(starter.MODEL), lengths, (), 20.0, 20, 0)


def simulate(lengths: Sequence[int], global_batch: int, micro_batch: int, how: How) -> list[list[list[int]]]:
    """Return the lengths in the micro-batches of steps that are drawn by another generator, and dealt out one by one."""
    chance = random.Random(11)
    steps: list[list[list[int]]] = []
    while len(steps) < 1500:
        order = list(lengths)
        chance.shuffle(order)
        for start in range(0, len(order) // global_batch * global_batch, global_batch):
            step = sorted(order[start : start + global_batch], reverse=True)
            if how == "sorted":
                parts = [step[first : first + micro_batch] for first in range(0, global_batch, micro_batch)]
            else:
                number = global_batch // micro_batch
                parts = [[] for _ in range(number)]
                for first in range(0, global_batch, number):
                    parts.sort(key=sum)
                    for part, length in zip(parts, step[first : first + number], strict=True):
                        part.append(length)
            steps.append(parts)
    return steps


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("micro_batch", [2, 4, 8, 16])
def test_padded_micro_batches_are_priced_as_they_are_dealt(name: str, micro_batch: int) -> None:
    load = load_of(work_of(name), micro_batch, "padded")
    parts = [part for step in simulate(lengths_of(name), 16, micro_batch, "sorted") for part in step]
    padded = [len(part) * max(part) for part in parts]
    squares = [len(part) * max(part) ** 2 for part in parts]
    assert load.tokens == pytest.approx(statistics.mean(padded), rel=0.02)
    assert load.attended == pytest.approx(sum(squares) / sum(padded), rel=0.02)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("micro_batch", [2, 4, 8, 16])
def test_balanced_micro_batches_are_given_the_room_that_they_need(name: str, micro_batch: int) -> None:
    """As much as any of a long run's takes, and not much more."""
    work = work_of(name, steps=1500)
    room = largest_of(work, micro_batch, 1)
    sums = [sum(part) for step in simulate(lengths_of(name), 16, micro_batch, "balanced") for part in step]
    assert 0.97 * max(sums) <= room <= 1.25 * max(sums)
    load = load_of(work, micro_batch, "padding-free")
    assert load.tokens == pytest.approx(statistics.mean(sums), rel=0.02)


@pytest.mark.parametrize("name", ["chats", "two kinds"])
@pytest.mark.parametrize("how", ["sorted", "balanced"])
def test_ranks_are_priced_by_the_one_with_the_most_to_do(name: str, how: How) -> None:
    lengths = np.array(lengths_of(name))
    dealt = look_ahead(lengths, 3, 10**9, 4, 4, 4, how)
    assert 1.0 < dealt.unevenness < (1.15 if how == "sorted" else 1.05)
    assert look_ahead(lengths, 3, 10**9, 4, 16, 1, how).unevenness == 1.0


def test_a_run_that_is_looked_through_is_known_exactly() -> None:
    lengths = np.array(lengths_of("documents"))
    part, whole = (look_ahead(lengths, 1, 750, 4, 4, 1, "balanced", most) for most in (5_000, 50_000))
    assert (part.complete, whole.complete) == (False, True)
    assert part.largest <= whole.largest


def best_fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """Best-fit-decreasing packing, one row after the other."""
    spaces: list[int] = []
    filled: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = bisect_left(spaces, length)
        left = (spaces.pop(place) if place < len(spaces) else capacity) - length
        insort(spaces, left) if left else filled.append(capacity)
    return sorted(filled + [capacity - space for space in spaces])


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200),
    capacity=st.integers(60, 150),
    seed=st.integers(0, 9),
)
def test_packing_is_best_fit_and_each_row_is_in_one_sequence(lengths: list[int], capacity: int, seed: int) -> None:
    packs = pack_rows(np.array(lengths), capacity, seed)
    assert sorted(packs.order.tolist()) == list(range(len(lengths)))
    sums = [sum(lengths[row] for row in rows) for rows in np.split(packs.order, packs.ends[:-1])]
    assert sums == packs.lengths.tolist()
    assert sorted(sums) == best_fit(lengths, capacity) == sorted(pack(lengths, capacity, seed))


def test_a_million_rows_are_packed_in_seconds() -> None:
    lengths = np.clip(np.random.RandomState(1).lognormal(6, 0.9, 1_000_000), 10, 2048).astype(np.int32)
    began = time.process_time()
    packs = pack_rows(lengths, 2048, 3)
    assert time.process_time() - began < 5
    assert packs.lengths.mean() > 0.99 * 2048
