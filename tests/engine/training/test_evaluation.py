"""Evaluation and judging in as much memory as there is: smaller batches give the same loss and the same answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tunewright.engine.plan import Plan
from tunewright.engine.runs.events import Eval, EventLog, Notice, Phase, read_events
from tunewright.engine.sources import find_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(trainings: Any) -> Any:
    """The starter model with a trainer of its own, as a run builds it."""
    pytest.importorskip("torch")
    from tunewright.engine.data.preparing import prepare
    from tunewright.engine.training import trainer
    from tunewright.engine.training.telemetry import Telemetry

    run = trainings.new("lora", [])
    recipe, plan = run.recipe(), run.plan()
    folder = find_model(recipe.base.model, recipe.base.revision)
    model, tokenizer = trainer.load(recipe, plan, folder)
    log = EventLog(run.events_file)
    telemetry = Telemetry(run, log, plan, (), lambda prompts: [])
    made = trainer.build_trainer(run, recipe, plan, model, tokenizer, prepare(recipe, folder), telemetry)
    made.remove_callback(telemetry)
    return SimpleNamespace(run=run, plan=plan, trainer=made, model=model, tokenizer=tokenizer)


@contextlib.contextmanager
def short_of_memory(model: Any, rows: int) -> Iterator[list[int]]:
    """Let no more than `rows` rows pass through `model` at once; yields the sizes that were tried."""
    import torch

    tried: list[int] = []

    def refuse(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        tokens = named.get("input_ids", arguments[0] if arguments else None)
        tried.append(len(tokens))
        if len(tokens) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = model.get_base_model().model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield tried
    finally:
        handle.remove()


def evaluate(built: Any, tokens: int | None) -> float:
    built.trainer.evaluated_tokens = tokens
    return built.trainer.evaluate()["eval_loss"]


def test_the_loss_is_the_same_whatever_fits_into_a_batch(built: Any) -> None:
    alone = evaluate(built, 1)
    assert evaluate(built, None) == pytest.approx(alone, rel=1e-6)
    together = evaluate(built, 100_000)
    assert together == pytest.approx(alone, rel=1e-6)
    with short_of_memory(built.model, 2) as tried:
        assert evaluate(built, 100_000) == pytest.approx(alone, rel=1e-6)
    assert tried[:2] == [8, 4]
    assert built.trainer.evaluated_tokens < 100_000, "the next evaluation does not try again"
    notices = [event for event in read_events(built.run.events_file)[0] if isinstance(event, Notice)]
    assert notices[-1].title == "Evaluation in smaller batches"


def test_an_evaluation_batch_holds_no_more_than_a_training_batch(built: Any) -> None:
    evaluate(built, None)
    longest = max(len(row["input_ids"]) for row in built.trainer.train_dataset)
    plan: Plan = built.plan
    assert built.trainer.evaluated_tokens == plan.micro_batch * longest
    with short_of_memory(built.model, 1000) as tried:
        evaluate(built, None)
    assert sum(tried) == 8
    assert max(tried) <= plan.micro_batch * longest


def test_memory_that_one_row_alone_takes_is_not_there(built: Any) -> None:
    torch = pytest.importorskip("torch")
    with short_of_memory(built.model, 0), pytest.raises(torch.OutOfMemoryError):
        evaluate(built, None)


def test_logits_are_never_kept(built: Any) -> None:
    """TRL's chunked loss computes no logits at all, in evaluation neither."""
    batch = built.trainer.data_collator([built.trainer.eval_dataset[0]])
    built.model.eval()
    labels = batch["labels"]
    output = built.model(**batch)
    assert output.logits is None
    assert output.loss is not None and labels is not None


def test_answers_are_the_same_in_halves(built: Any) -> None:
    from tunewright.engine.results.evaluate import answer

    prompts = [f"Order {number} red mugs for Mira." for number in range(1, 8)]
    never = [built.tokenizer.vocab_size - 1]  # so that every answer has some words
    whole = answer(built.model, built.tokenizer, prompts, 8, never)
    with short_of_memory(built.model, 2) as tried:
        halves = answer(built.model, built.tokenizer, prompts, 8, never)
    assert halves == whole
    assert all(whole)
    assert tried[:2] == [7, 3]
    assert answer(built.model, built.tokenizer, [], 8, never) == []


def test_evaluating_is_told_with_how_far_it_is(built: Any) -> None:
    evaluate(built, None)
    events, _ = read_events(built.run.events_file)
    phases = [event for event in events if isinstance(event, Phase)]
    assert phases[-1].name == "training"
    begun = next(phase for phase in reversed(phases) if phase.name == "evaluating")
    assert (begun.done, begun.total) == (0, 8)
    assert not [event for event in events if isinstance(event, Eval)], "the telemetry tells them"


@pytest.mark.parametrize(
    ("lengths", "tokens", "padded", "batches"),
    [
        ([1, 2, 3, 4], 4, True, [[3], [2], [1, 0]]),
        ([1, 2, 3, 4], 8, True, [[3, 2], [1, 0]]),
        ([1, 2, 3, 4], 6, False, [[3], [2, 1, 0]]),
        ([9, 1], 4, True, [[0], [1]]),
        ([], 4, True, []),
    ],
)
def test_batches_hold_so_many_tokens(lengths: list[int], tokens: int, padded: bool, batches: list[list[int]]) -> None:
    pytest.importorskip("torch")
    from tunewright.engine.training.evaluation import batches_of

    assert batches_of(lengths, tokens, padded) == batches


def test_prompts_together_hold_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tunewright.engine.results import evaluate

    monkeypatch.setattr(evaluate, "TOKENS_AT_ONCE", 10)
    assert evaluate.batches_of([0, 1, 2, 3], [2, 3, 4, 20]) == [[0, 1], [2], [3]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1.00 GiB is "
            "free. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=…",
            "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1.00 GiB is free.",
        ),
        (
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
            "err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes. "
            "Error code 12 (Cannot allocate memory)",
        ),
    ],
)
def test_what_ran_out_is_told_in_one_line(text: str, said: str) -> None:
    pytest.importorskip("torch")
    from tunewright.engine.training.memory import ran_out_of_memory, shortage_text

    error = RuntimeError(text)
    assert ran_out_of_memory(error)
    assert shortage_text(error) == said


def test_memory_that_runs_out_is_known_by_its_cause_too() -> None:
    torch = pytest.importorskip("torch")
    from tunewright.engine.training.memory import ran_out_of_memory, shortage_text

    try:
        try:
            torch.empty(2**55)  # the allocator's own words
        except RuntimeError as cause:
            raise ValueError("the compiler gave up") from cause
    except ValueError as error:
        assert ran_out_of_memory(error)
    assert not ran_out_of_memory(RuntimeError("out of resource: shared memory, Required: 147456"))
    assert not ran_out_of_memory(ValueError("memory of a kind"))
    assert shortage_text(ValueError()) == ""
