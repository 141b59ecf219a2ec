"""The defaults: every value with its evidence, both sides where tables and evidence disagree, and the right numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.defaults import default_recipe
from tunewright.engine.methods import METHODS
from tunewright.recipes.model import LoraMethod, QloraMethod, parse_recipe

LLAMA_8B = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "dtype": "bfloat16",
        "max_position_embeddings": 131072,
    },
    "8b",
)  # fmt: skip
SHOWN_CHARACTERS = 300
"""The recipe's screen cuts a reason there."""
EVIDENCE = (
    "arXiv", "Zephyr", "Guanaco", "PEFT", "Tulu", "SmolLM2", "Tinker", "LoRA Land", "Unsloth", "LoRA Without Regret", "LIMO",
)  # fmt: skip


def deep(layers: int) -> Anatomy:
    return replace(
        LLAMA_8B, layers=layers, projections=tuple(replace(each, count=layers) for each in LLAMA_8B.projections)
    )


SIZES = {
    "0.9b": replace(deep(1), vocabulary=80_000),
    "2.8b": deep(8),
    "8b": LLAMA_8B,
    "33b": deep(145),
    "70b": deep(316),
}


def test_the_sizes_are_what_they_are_called() -> None:
    for name, anatomy in SIZES.items():
        assert anatomy.total_parameters == pytest.approx(float(name.removesuffix("b")) * 1e9, rel=0.06)


@given(
    method=st.sampled_from(METHODS),
    rows=st.integers(1, 10**6),
    size=st.sampled_from(list(SIZES)),
    purpose=st.sampled_from(["examples", "text"]),
)
def test_every_default_has_a_reason_and_survives_its_file(method: Any, rows: int, size: str, purpose: Any) -> None:
    recipe, reasons = default_recipe(method, "some/model", "rows.jsonl", rows, SIZES[size], purpose=purpose)
    assert parse_recipe(recipe.to_toml(), "here") == recipe
    explained = {reason.choice: reason for reason in reasons}
    wanted = {"learning_rate", "epochs", "global_batch", "warmup", "schedule", "optimizer", "max_length", "validation"}
    wanted |= set() if method == "full" else {"rank", "alpha", "targets", "dropout"}
    assert set(explained) == wanted
    training = recipe.training
    assert float(explained["learning_rate"].value) == pytest.approx(training.learning_rate)
    assert float(explained["epochs"].value) == training.epochs
    assert int(explained["global_batch"].value) == training.global_batch
    assert float(explained["warmup"].value) == training.warmup.value
    if isinstance(recipe.method, LoraMethod):
        assert int(explained["rank"].value) == recipe.method.rank
        assert float(explained["alpha"].value) == recipe.method.alpha
        assert float(explained["dropout"].value) == recipe.method.dropout
        assert isinstance(recipe.method, QloraMethod) == (method == "qlora")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [50, 1000, 10_000, 100_000])
def test_reasons_name_their_evidence_and_what_tables_say_instead(method: Any, rows: int, size: str) -> None:
    reasons = {reason.choice: reason.because for reason in default_recipe(method, "m", "d", rows, SIZES[size])[1]}
    assert all(len(because) <= SHOWN_CHARACTERS for because in reasons.values()), reasons
    disputed = ["learning_rate", "epochs", "global_batch"] + ([] if method == "full" else ["rank"])
    for choice in disputed:
        assert "ables" in reasons[choice], (choice, reasons[choice])  # "Tables say", "most tables copy"
    if method != "full":
        assert "Guanaco 16" in reasons["alpha"]
        assert "TRL 32" in reasons["alpha"]
        assert "q and v only" in reasons["targets"]
        assert "use 0" in reasons["dropout"]
    cited = set(reasons) - {"max_length", "validation"}
    assert all(any(name in reasons[choice] for name in EVIDENCE) for choice in cited), reasons


@pytest.mark.parametrize(
    ("size", "adapters", "full"),
    [("0.9b", 5e-4, 3e-4), ("2.8b", 2e-4, 5e-5), ("8b", 2e-4, 1e-5), ("33b", 1e-4, 5e-6), ("70b", 1e-4, 2e-6)],
)
def test_rates_fall_with_size_and_adapters_take_more(size: str, adapters: float, full: float) -> None:
    rates = {
        method: default_recipe(method, "m", "d", 1000, SIZES[size])[0].training.learning_rate for method in METHODS
    }
    assert rates == {"lora": adapters, "qlora": adapters, "full": full}
    assert adapters < 3e-3  # where 72 of 80 runs of Tinker's sweep diverged


@pytest.mark.parametrize(
    ("rows", "epochs", "rank", "adapter_batch", "full_batch", "dropout", "warmup"),
    [
        (100, 5, 8, 8, 8, 0.05, 0.1),
        (1000, 3, 16, 16, 16, 0.05, 0.1),
        (5000, 2, 16, 16, 32, 0.0, 0.03),
        (200_000, 1, 32, 16, 128, 0.0, 0.03),
    ],
)
def test_more_rows_are_seen_less_often_by_more_parameters(
    rows: int, epochs: float, rank: int, adapter_batch: int, full_batch: int, dropout: float, warmup: float
) -> None:
    lora, _ = default_recipe("lora", "m", "d", rows, LLAMA_8B)
    full, _ = default_recipe("full", "m", "d", rows, LLAMA_8B)
    assert isinstance(lora.method, LoraMethod)
    assert (lora.method.rank, lora.method.alpha, lora.method.dropout) == (rank, 2 * rank, dropout)
    assert lora.method.targets == "all-linear"
    assert lora.training.epochs == full.training.epochs == epochs
    assert (lora.training.global_batch, full.training.global_batch) == (adapter_batch, full_batch)
    assert lora.training.global_batch < 32
    assert lora.training.warmup.value == warmup


def test_text_is_read_once_with_a_high_rank() -> None:
    recipe, reasons = default_recipe("qlora", "m", "d", 500, LLAMA_8B, purpose="text")
    assert isinstance(recipe.method, LoraMethod)
    assert (recipe.method.rank, recipe.training.epochs, recipe.training.learning_rate) == (256, 1, 5e-5)
    assert "0.224" in next(reason.because for reason in reasons if reason.choice == "rank")


def test_full_tuning_of_large_models_takes_8_bit_states_and_the_rest_32() -> None:
    optimizers = {
        (method, size): default_recipe(method, "m", "d", 1000, SIZES[size])[0].training.optimizer
        for method in METHODS
        for size in SIZES
    }
    assert {key for key, optimizer in optimizers.items() if optimizer == "adamw_8bit"} == {
        ("full", size) for size in SIZES if size != "0.9b"
    }


def test_the_longest_row_is_the_maximum_length() -> None:
    assert default_recipe("lora", "m", "d", 3, LLAMA_8B, [12, 700, 30])[0].data.max_length == 700
    assert default_recipe("lora", "m", "d", 3, replace(LLAMA_8B, context=512), [12, 700])[0].data.max_length == 512
    assert default_recipe("lora", "m", "d", 3, LLAMA_8B)[0].data.max_length == 2048
