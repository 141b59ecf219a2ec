"""The memory terms against peaks that were measured on an H200, and what must hold for any model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine import gpu_memory, memory, states
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.setting import Setting, Tuning
from tunewright.foundation.units import GIB

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},
}
MODELS: dict[str, Anatomy] = {name: parse_anatomy(LLAMA | shape, name) for name, shape in SHAPES.items()}
MEASURED = [
    json.loads(line) for line in (Path(__file__).parent / "measured" / "h200_fixed_length.jsonl").open(encoding="utf-8")
]


def describe(row: dict[str, Any]) -> str:
    recomputing = "recomputing" if row["checkpointing"] else "keeping"
    liger = "-liger" if row["liger"] else ""
    return f"{row['model']}-{row['backend']}-{row['method']}-{recomputing}{liger}"


def setting_of(row: dict[str, Any]) -> Setting:
    recomputing = "offloaded" if row["backend"] == "unsloth" else "on"
    return Setting(
        device="cuda",
        backend=row["backend"],
        precision="bf16",
        rows=row["micro_batch"],
        tokens_per_row=row["sequence"],
        checkpointing=recomputing if row["checkpointing"] else "off",
        optimizer=row["optimizer"],
        liger=row["liger"],
        padded=row["backend"] == "unsloth",
        adapters="library",
    )


@pytest.mark.parametrize("row", MEASURED, ids=describe)
def test_predicts_the_measured_peaks(row: dict[str, Any]) -> None:
    """None of these rows was fitted to: the formulas were counted from other runs."""
    anatomy, tuning, setting = MODELS[row["model"]], Tuning(row["method"], row["rank"] or 0), setting_of(row)
    terms = memory.predict_memory(anatomy, tuning, setting)
    assert tuning.trainable_parameters(anatomy) == row["trainable"]
    assert memory.peak_gib(terms) == pytest.approx(row["peak_allocated_gib"], rel=0.015)
    assert memory.reserved_gib(terms, setting.backend) == pytest.approx(row["peak_reserved_gib"], rel=0.06)
    assert memory.needed_gib(terms, setting) >= row["peak_reserved_gib"]


@pytest.mark.parametrize("row", MEASURED, ids=describe)
def test_predicts_what_stands_before_the_first_step(row: dict[str, Any]) -> None:
    anatomy, tuning, setting = MODELS[row["model"]], Tuning(row["method"], row["rank"] or 0), setting_of(row)
    standing = states.weights_gib(anatomy, tuning, setting) + states.adapters_gib(anatomy, tuning, setting)
    tables = gpu_memory.UNSLOTH_TABLES_BYTES / GIB if row["backend"] == "unsloth" else 0.0
    assert standing + tables == pytest.approx(row["start_allocated_gib"], abs=0.011)


@pytest.mark.parametrize(
    ("method", "documents", "tokens", "checkpointing", "peak_gib"),
    [
        ("lora", 18, 8163, "offloaded", 16.84),
        ("lora", 18, 8163, "off", 46.32),
        ("lora", 53, 16329, "off", 76.43),
        ("qlora", 18, 8163, "off", 36.78),
    ],
)
def test_predicts_packed_rows(method: Any, documents: int, tokens: int, checkpointing: Any, peak_gib: float) -> None:
    setting = Setting(
        "cuda", "unsloth", "bf16", 1, tokens, checkpointing, "adamw_8bit", packed=True, documents=documents
    )
    terms = memory.predict_memory(MODELS["llama-3.1-8b"], Tuning(method, 16), setting)
    assert memory.peak_gib(terms) == pytest.approx(peak_gib, rel=0.025)


def test_ddp_copies_the_gradients_and_fsdp2_splits_the_weights() -> None:
    """The DDP figure was measured on two GPUs: 20.04 GiB of each for an 8B LoRA on 4 rows of 2,048 tokens."""
    anatomy = MODELS["llama-3.1-8b"]
    one = Setting("cuda", "transformers", "bf16", 4, 2048, "on", "adamw_8bit", adapters="library")
    two = replace(one, gpus=2, parallelism="ddp")
    assert memory.peak_gib(memory.predict_memory(anatomy, Tuning("lora", 16), two)) == pytest.approx(20.044, rel=0.01)
    full, split = Tuning("full"), replace(one, gpus=4, parallelism="fsdp2")
    whole, share = (memory.predict_memory(anatomy, full, each) for each in (one, split))
    assert share["weights"] == pytest.approx(whole["weights"] / 4)
    assert memory.peak_gib(share) < 0.6 * memory.peak_gib(whole)


def test_recomputing_fewer_layers_lies_between_all_and_none() -> None:
    anatomy, tuning = MODELS["llama-3.1-8b"], Tuning("lora", 16)
    every = [
        memory.peak_gib(memory.predict_memory(anatomy, tuning, setting))
        for setting in (
            Setting("cuda", "transformers", "bf16", 4, 2048, "on", recompute_every=1),
            Setting("cuda", "transformers", "bf16", 4, 2048, "on", recompute_every=2),
            Setting("cuda", "transformers", "bf16", 4, 2048, "on", recompute_every=4),
            Setting("cuda", "transformers", "bf16", 4, 2048, "off"),
        )
    ]
    assert every == sorted(every)


def test_an_evaluation_never_takes_more_than_a_step() -> None:
    for kind in ("full", "lora", "qlora"):
        for checkpointing in ("off", "on"):
            tuning, anatomy = Tuning(kind, 16), MODELS["llama-3.1-8b"]
            setting = Setting("cuda", "transformers", "bf16", 4, 2048, checkpointing)
            step = memory.peak_gib(memory.predict_memory(anatomy, tuning, setting))
            assert memory.saving_gib(anatomy, tuning, setting) < memory.evaluation_gib(anatomy, tuning, setting) < step


settings = st.builds(
    Setting,
    device=st.just("cuda"),
    backend=st.sampled_from(["unsloth", "transformers"]),
    precision=st.sampled_from(["bf16", "fp16"]),
    rows=st.integers(1, 64),
    tokens_per_row=st.integers(1, 4096),
    checkpointing=st.sampled_from(["off", "on"]),
    optimizer=st.sampled_from(["adamw", "adamw_8bit"]),
    packed=st.booleans(),
    liger=st.booleans(),
) | st.builds(
    Setting,
    device=st.just("cpu"),
    backend=st.just("transformers"),
    precision=st.just("fp32"),
    rows=st.integers(1, 64),
    tokens_per_row=st.integers(1, 4096),
    checkpointing=st.sampled_from(["off", "on"]),
    libraries_gib=st.floats(0.1, 2),
)
tunings = st.just(Tuning("full")) | st.builds(
    Tuning,
    kind=st.sampled_from(["lora", "qlora"]),
    rank=st.integers(1, 256),
    targets=st.sampled_from(["all-linear", "attention", "qv"]),
    dora=st.booleans(),
    double_quantisation=st.booleans(),
)


@given(setting=settings, tuning=tunings, model=st.sampled_from(sorted(MODELS)))
def test_terms_are_positive_and_add_up(setting: Setting, tuning: Tuning, model: str) -> None:
    terms = memory.predict_memory(MODELS[model], tuning, setting)
    assert all(gib > 0 for gib in terms.values())
    assert memory.peak_gib(terms) == sum(terms.values())
    assert memory.needed_gib(terms, setting) >= memory.peak_gib(terms)


@given(setting=settings, tuning=tunings, model=st.sampled_from(sorted(MODELS)), more=st.integers(1, 64))
def test_more_rows_never_take_less(setting: Setting, tuning: Tuning, model: str, more: int) -> None:
    larger = replace(setting, rows=setting.rows + more)
    fewer, many = (memory.predict_memory(MODELS[model], tuning, each) for each in (setting, larger))
    assert memory.peak_gib(many) >= memory.peak_gib(fewer)


@given(setting=settings, model=st.sampled_from(sorted(MODELS)), rank=st.integers(1, 64))
def test_4_bit_weights_take_less_than_16_bit_ones(setting: Setting, model: str, rank: int) -> None:
    weights = [states.weights_gib(MODELS[model], Tuning(kind, rank), setting) for kind in ("qlora", "lora")]
    assert weights[0] < weights[1]


def test_sums_in_one_order_take_memory_for_every_part_of_the_card_that_makes_them() -> None:
    anatomy = MODELS["llama-3.1-8b"]

    def sums(rows: int, tokens: int) -> float:
        setting = Setting(
            "cuda", "transformers", "bf16", rows, tokens, "off", "adamw_8bit", compiled=True, padded=False
        )
        return gpu_memory.ordered_gradient_bytes(anatomy, setting) / (4 * rows * tokens * anatomy.attention_width)

    assert [sums(rows, 4096) for rows in (1, 2, 4, 5, 16)] == [5, 3, 2, 1, 1]


def test_they_count_where_rows_are_long_and_few() -> None:
    anatomy, tuning = MODELS["llama-3.1-8b"], Tuning("lora", 16)

    def loss(rows: int, tokens: int) -> float:
        setting = Setting(
            "cuda", "transformers", "bf16", rows, tokens, "off", "adamw_8bit", compiled=True, padded=False
        )
        return gpu_memory.loss_bytes(anatomy, tuning, setting)

    assert loss(1, 65536) == 5 * 4 * 65536 * anatomy.attention_width
    assert loss(16, 512) < 1.2 * gpu_memory.ACCELERATED_LOGIT_BYTES
