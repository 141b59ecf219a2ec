"""The advice: data that hangs together, decisions with reasons, figures for every method, ways out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewright.engine.advice import METHODS, QUESTIONS, RULES, advise, decide
from tunewright.engine.anatomy import parse_anatomy
from tunewright.engine.defaults import default_recipe
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import parse_recipe

LLAMA_8B = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "dtype": "bfloat16",
        "max_position_embeddings": 131072,
    },
    "8b",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def machine(name: str | None = "NVIDIA H200", gib: float = 139.8, free: float | None = None) -> Machine:
    gpu = GpuDevice(0, name or "", gib, free or gib, (9, 0), None, None, None, None)
    return Machine("Linux", "EPYC", 8, 64.0, 60.0, 500.0, (gpu,) if name else (), None, "No GPU.")


def test_questions_and_rules_hang_together() -> None:
    assert len(QUESTIONS) <= 12
    options = {question.key: {option.key for option in question.options} for question in QUESTIONS}
    assert all(len(question.options) == len(options[question.key]) for question in QUESTIONS)
    for rule in RULES:
        assert rule.because.endswith(".")
        for key, wanted in rule.when.items():
            assert set(wanted) <= options[key]


@pytest.mark.parametrize(
    ("answers", "rows", "outcome"),
    [
        ({}, None, "lora"),
        ({"goal": "style"}, 150, "lora"),
        ({"goal": "behaviour"}, 10, "few-shot"),
        ({"goal": "behaviour", "prompted": "no"}, 10, "prompting"),
        ({"goal": "knowledge", "facts": "changing"}, 10_000, "prompting"),
        ({"goal": "language", "money": "result"}, 200_000, "full"),
        ({"goal": "language", "serving": "many"}, 200_000, "lora"),
    ],
)
def test_decides_as_the_evidence_says(answers: dict[str, str], rows: int | None, outcome: str) -> None:
    advice = advise({"time": "any", **answers}, machine(), LLAMA_8B, rows)
    assert advice.outcome == outcome
    assert advice.reasons
    assert advice.headline


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=st.fixed_dictionaries(
        {question.key: st.sampled_from([option.key for option in question.options]) for question in QUESTIONS}
    ),
    gib=st.sampled_from([4.0, 14.6, 23.6, 79.0, 139.8]),
)
def test_never_recommends_what_does_not_fit(answers: dict[str, str], gib: float) -> None:
    advice = advise(answers, machine("NVIDIA H200", gib), LLAMA_8B)
    assert [each.method for each in advice.figures] == list(METHODS)
    fitting = {each.method for each in advice.figures if each.fits}
    assert advice.outcome in fitting | {"prompting", "few-shot", "not here"}
    assert advice.reasons or advice.outcome == "not here"
    assert decide(advice.answers, advice.figures)[0] == advice.outcome


def test_qlora_stands_in_where_lora_does_not_fit() -> None:
    advice = advise({"time": "any"}, machine("Tesla T4", 14.6), LLAMA_8B, 1000)
    assert advice.outcome == "qlora"
    assert any("lora needs" in reason.because for reason in advice.reasons)


def test_a_machine_that_is_too_small_is_told_the_smallest_change() -> None:
    small = advise({}, machine("NVIDIA GeForce RTX 3060", 4.0), LLAMA_8B, 1000)
    assert small.outcome == "not here"
    assert "%" in small.headline
    busy = advise({}, machine("NVIDIA H200", 139.8, free=4.0), LLAMA_8B, 1000)
    assert "free the" in busy.headline


def test_says_what_would_change_the_answer() -> None:
    advice = advise({"time": "any"}, machine(), LLAMA_8B, None)
    assert any("fewer than 20" in change for change in advice.would_change)
    assert all("lead to LoRA." not in change for change in advice.would_change)


def test_counts_override_what_was_said() -> None:
    assert advise({"rows": "many"}, machine(), LLAMA_8B, rows=30).answers["rows"] == "tens"


@pytest.mark.parametrize("answers", [{"gaol": "style"}, {"goal": "stile"}])
def test_unknown_answers_name_the_nearest(answers: dict[str, str]) -> None:
    with pytest.raises(TunewrightError, match="Did you mean"):
        advise(answers, machine(), LLAMA_8B)


@given(
    method=st.sampled_from(METHODS),
    rows=st.integers(1, 10**6),
    size=st.sampled_from([(256, 2), (2048, 16), (4096, 32), (8192, 80)]),
)
def test_every_default_has_a_reason_and_survives_its_file(method: Any, rows: int, size: tuple[int, int]) -> None:
    anatomy = replace(LLAMA_8B, hidden=size[0], layers=size[1])
    recipe, reasons = default_recipe(method, "some/model", "rows.jsonl", rows, anatomy)
    assert parse_recipe(recipe.to_toml(), "here") == recipe
    explained = {reason.choice for reason in reasons}
    wanted = {"learning_rate", "epochs", "global_batch", "warmup", "schedule", "optimizer", "max_length"}
    assert explained >= wanted | (set() if method == "full" else {"rank", "alpha", "targets", "dropout"})
    assert all(reason.because for reason in reasons)


def test_adapters_learn_at_a_higher_rate_than_everything() -> None:
    rates = {method: default_recipe(method, "m", "d", 1000, LLAMA_8B)[0].training.learning_rate for method in METHODS}
    assert rates["lora"] == rates["qlora"] == 2e-4
    assert rates["full"] == 1e-5
