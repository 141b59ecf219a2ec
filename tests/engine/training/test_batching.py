"""Batching: the rows of every step are those that the seed draws, however they are dealt to micro-batches and ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright import starter
from tunewright.engine.dealing import How, draw, micro_batches
from tunewright.engine.plan import Batching, Plan
from tunewright.recipes.model import Recipe, validate_recipe

GLOBAL_BATCH = 8
ROWS = 21
"""Two whole steps an epoch and a short one, whose rows no micro-batch but the largest holds evenly."""
STEPS = 4

torch = pytest.importorskip("torch")

PLAN = Plan(
    machine="test",
    backend="transformers",
    device="cpu",
    precision="fp32",
    micro_batch=GLOBAL_BATCH,
    accumulation=1,
    gradient_checkpointing="off",
    batching="padded",
    attention="sdpa",
    threads=1,
    total_steps=STEPS,
    training_rows=ROWS,
    validation_rows=0,
    evaluate_every_steps=STEPS,
    checkpoint_every_steps=STEPS,
    sample_every_steps=STEPS,
    merge=False,
)


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=120),
    shape=st.sampled_from([(1, 8, 1), (2, 4, 1), (8, 1, 1), (2, 2, 2), (1, 2, 4), (1, 1, 4), (3, 2, 3)]),
    how=st.sampled_from(["sorted", "balanced", "drawn"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_step_holds_the_rows_that_were_drawn_for_it(
    lengths: list[int], shape: tuple[int, int, int], how: How, seed: int
) -> None:
    micro_batch, accumulation, ranks = shape
    order = draw(len(lengths), seed)
    dealt = micro_batches(order, np.array(lengths), micro_batch, accumulation, ranks, how)
    step = micro_batch * accumulation * ranks
    taken = 0
    for start in range(0, len(lengths), step):
        drawn = order[start : start + step]
        turns = math.ceil(len(drawn) / (micro_batch * ranks))
        parts = [part for group in dealt[taken : taken + turns] for part in group]
        taken += turns
        assert sorted(np.concatenate(parts)) == sorted(drawn)
        assert len(parts) == turns * ranks
        sizes = [len(part) for part in parts]
        assert max(sizes) <= micro_batch
        assert max(sizes) - min(sizes) <= 1  # evenly, in a short step too
        if how == "sorted" and ranks == 1:
            bounds = [(max(lengths[row] for row in part), min(lengths[row] for row in part)) for part in parts]
            assert all(one[1] >= other[0] for one, other in pairwise(bounds)) or len(drawn) < step
    assert taken == len(dealt)


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**33 + 5])
def test_rows_are_drawn_as_torch_and_accelerate_draw_them(rows: int, seed: int) -> None:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(range(rows), data_seed=seed)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert list(sampler) == draw(rows, seed, epoch).tolist()


def test_rows_of_like_length_are_padded_less_and_sums_alike_hold_less_at_most() -> None:
    lengths = np.clip(np.random.RandomState(0).lognormal(6, 0.9, 4096), 10, 2048).astype(np.int64)
    order = draw(len(lengths), 1)

    def figures(how: How, ranks: int = 1) -> tuple[float, int]:
        parts = [part for group in micro_batches(order, lengths, 8, 8 // ranks, ranks, how) for part in group]
        padded = sum(len(part) * lengths[part].max() for part in parts)
        return padded / lengths.sum(), max(int(lengths[part].sum()) for part in parts)

    assert figures("drawn")[0] > 2.0
    assert figures("sorted")[0] < 1.25
    assert figures("sorted", 2)[0] == figures("sorted")[0]
    mean = 8 * lengths.mean()
    assert figures("drawn")[1] > 2 * mean
    assert figures("balanced")[1] < 1.5 * mean


def test_ranks_that_work_together_get_micro_batches_alike_and_sums_alike() -> None:
    lengths = np.clip(np.random.RandomState(3).lognormal(6, 0.9, 2048), 10, 2048).astype(np.int64)
    together, alone = (
        np.array(
            [
                [lengths[part].max() * len(part) for part in group]
                for group in micro_batches(draw(len(lengths), 1), lengths, 4, 4, 4, how)
            ]
        )
        for how in ("sorted", "drawn")
    )

    def waiting(loads: Any) -> float:
        """Return the share of the ranks' time that is spent waiting for the one with the most to do."""
        return 1 - float(loads.sum() / (4 * loads.max(1).sum()))

    assert waiting(together) < waiting(alone) - 0.03  # at the end of every micro-batch
    assert waiting(together.reshape(-1, 4, 4).sum(1)) < 0.08 < waiting(alone.reshape(-1, 4, 4).sum(1))  # of every step


def test_the_plan_knows_the_micro_batches_of_a_run() -> None:
    from tunewright.engine.dealing import look_ahead
    from tunewright.engine.training.batching import DealtBatches

    lengths = np.clip(np.random.RandomState(0).lognormal(6, 0.9, 300), 10, 2048).astype(np.int64)
    hows: tuple[How, ...] = ("sorted", "balanced")
    for how in hows:
        sampler = DealtBatches(lengths, 5, 4, 4, how)
        held: list[int] = []
        padded: list[int] = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            batches = list(sampler)
            assert len(batches) == len(sampler) == 75  # 18 steps of 16 rows, and one of 12
            held += [int(lengths[rows].sum()) for rows in batches]
            padded += [len(rows) * int(lengths[rows].max()) for rows in batches]
        dealt = look_ahead(lengths, 5, 2 * 19, 4, 4, 1, how)
        assert (dealt.complete, dealt.largest) == (True, max(held))
        assert dealt.padded == pytest.approx(sum(padded) / len(padded))


def recipe(method: str, training: dict[str, Any] | None = None, **data: Any) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": "tunewright/starter"},
            "data": {"source": "tunewright/starter-orders", "validation": {"kind": "none"}, **data},
            "method": {"kind": method, **({"rank": 4, "alpha": 8} if method == "lora" else {})},
            "training": {
                "learning_rate": 1e-3,
                "steps": STEPS,
                "global_batch": GLOBAL_BATCH,
                "weight_decay": 0.01,
                "schedule": "linear",
                **(training or {}),
            },
        },
        "test",
    )


@pytest.fixture(scope="module")
def rows() -> Any:
    """Rows of very different lengths, with very different numbers of learned tokens."""
    from tunewright.engine.data.preparing import Rows, prepare

    found = prepare(recipe("full")).training.take(range(ROWS))
    kept = [max(12, length * (index % 7 + 1) // 14) for index, length in enumerate(found.lengths)]
    begins = [0, *found.ends.tolist()]
    places = np.concatenate([np.arange(begins[index], begins[index] + length) for index, length in enumerate(kept)])
    learned = found.learned[places]
    learned[np.cumsum(kept) - 1] = True  # no row is without
    return Rows(found.tokens[places], learned, np.cumsum(kept), np.array(kept, np.int32))


def train(
    folder: Path, method: str, plan: Plan, how: How, rows: Any, stop_at: int | None = None, resume: bool = False,
    training: dict[str, Any] | None = None, **data: Any,
) -> tuple[list[float], dict[str, Any]]:  # fmt: skip
    """Return the losses and the tuned weights of a run on the starter model."""
    from transformers import AutoTokenizer, TrainerCallback
    from tunewright.engine.data.preparing import Prepared
    from tunewright.engine.training.objectives import trainer_of
    from tunewright.engine.training.trainer import load
    from tunewright.engine.training.utilisation import Tally

    class Watching(TrainerCallback):
        log: list[Any] = []  # noqa: RUF012  what telemetry's log takes

        def __init__(self) -> None:
            self.losses: list[float] = []
            self.tally = Tally(None)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **ignored: Any) -> None:
            if "loss" in logs:
                self.losses.append(logs["loss"])

        def on_step_end(self, args: Any, state: Any, control: Any, **ignored: Any) -> None:
            if state.global_step == stop_at:
                control.should_save = control.should_training_stop = True

    wanted = recipe(method, training, **data)
    model, _ = load(wanted, plan, starter.MODEL)
    tokenizer = AutoTokenizer.from_pretrained(starter.MODEL)
    prepared = Prepared(rows, rows.take([]), (), 0, 0, 0)
    watching = Watching()
    trainer = trainer_of(wanted, plan, folder, model, tokenizer, prepared, watching)
    trainer.how = how
    checkpoint = next(folder.glob("checkpoint-*")) if resume else None
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return watching.losses, {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_micro_batches_do_not_change_the_result(tmp_path: Path, rows: Any, method: str) -> None:
    """The reference is one micro-batch a step, as it was drawn: its loss is the mean over the step's learned tokens."""
    expected, weights = train(tmp_path / "reference", method, PLAN, "drawn", rows)
    assert len(expected) == STEPS
    sizes = (1, 2, 4, 8) if method == "full" else (2,)
    ways: list[tuple[Batching, How, int]] = [("padded", "sorted", micro_batch) for micro_batch in sizes]
    ways.append(("padding-free", "balanced", 4))
    for batching, how, micro_batch in ways:
        plan = replace(PLAN, micro_batch=micro_batch, accumulation=GLOBAL_BATCH // micro_batch, batching=batching)
        losses, tuned = train(tmp_path / "other", method, plan, how, rows)
        assert losses == pytest.approx(expected, abs=1e-5), (batching, how, micro_batch)
        assert apart(weights, tuned) <= 1e-4, (batching, how, micro_batch)


@pytest.mark.slow
def test_micro_batches_of_packed_rows_do_not_change_the_result(tmp_path: Path, rows: Any) -> None:
    from tunewright.engine.training.batching import pack

    packed = {"packing": True, "max_length": int(np.diff(rows.ends, prepend=0).max())}
    sequences = pack(rows, packed["max_length"], 0).sequences
    assert GLOBAL_BATCH < len(sequences) < ROWS  # a short step, and some sequences of several rows
    results = [
        train(
            tmp_path / "packed", "full",
            replace(PLAN, micro_batch=micro_batch, accumulation=GLOBAL_BATCH // micro_batch, batching="packed"),
            "balanced", rows, **packed,
        )
        for micro_batch in (1, 4)
    ]  # fmt: skip
    (one, weights), (other, tuned) = results
    assert one == pytest.approx(other, abs=1e-5)
    assert apart(weights, tuned) <= 1e-4


@pytest.mark.slow
def test_a_short_step_of_pairs_weighs_each_alike(tmp_path: Path, rows: Any) -> None:
    """Seven pairs in steps of four: the second step holds three, which two micro-batches cannot share evenly."""
    from tunewright.engine.data.preparing import Rows

    pairs = rows.take(range(7))
    worse = rows.take(range(7, 14))
    marked = Rows(pairs.tokens, pairs.learned, pairs.ends, pairs.whole, rejected=worse)
    results = [
        train(
            tmp_path / "pairs", "lora",
            replace(PLAN, micro_batch=micro_batch, accumulation=4 // micro_batch, total_steps=2),
            "sorted", marked, training={"objective": "dpo", "global_batch": 4, "steps": 2},
        )
        for micro_batch in (4, 2)
    ]  # fmt: skip
    (one, weights), (other, tuned) = results
    assert one == pytest.approx(other, abs=1e-5)
    assert apart(weights, tuned) <= 1e-4


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_rows_that_were_next(tmp_path: Path, rows: Any) -> None:
    """Stopped in the middle of an epoch, before its short step and the next epoch, whose order is another."""
    plan = replace(PLAN, micro_batch=2, accumulation=4)
    losses, weights = train(tmp_path / "whole", "lora", plan, "sorted", rows)
    before, _ = train(tmp_path / "halves", "lora", plan, "sorted", rows, stop_at=2)
    after, resumed = train(tmp_path / "halves", "lora", plan, "sorted", rows, resume=True)
    assert (len(before), len(after)) == (2, 2)
    assert [*before, *after] == losses
    assert apart(weights, resumed) == 0


def test_a_pack_holds_each_row_once_and_nothing_over_its_capacity(rows: Any) -> None:
    from tunewright.engine.training.batching import pack

    packed = pack(rows, 300, 7)
    documents = [length for lengths in packed.seq_lengths.to_pylist() for length in lengths]
    assert sorted(documents) == sorted(rows.lengths)
    assert max(packed.sequences.lengths) <= 300
    assert [sum(lengths) for lengths in packed.seq_lengths.to_pylist()] == packed.sequences.lengths
    taken = np.split(packed.sequences.tokens, np.cumsum(documents)[:-1])
    assert sorted(map(bytes, taken)) == sorted(map(bytes, np.split(rows.tokens, rows.ends[:-1])))
    again = pack(rows, 300, 7)
    assert np.array_equal(again.sequences.tokens, packed.sequences.tokens)
    assert not np.array_equal(pack(rows, 300, 8).sequences.tokens, packed.sequences.tokens)
