"""The memory terms against peaks that were measured on an H200, and what must hold for any model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine import memory
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.memory import Setting, Tuning

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
    )


@pytest.mark.parametrize("row", MEASURED, ids=describe)
def test_predicts_the_measured_peaks(row: dict[str, Any]) -> None:
    anatomy, tuning, setting = MODELS[row["model"]], Tuning(row["method"], row["rank"] or 0), setting_of(row)
    terms = memory.predict_memory(anatomy, tuning, setting)
    assert tuning.trainable_parameters(anatomy) == row["trainable"]
    assert memory.peak_gib(terms) == pytest.approx(row["peak_allocated_gib"], rel=0.03)
    assert memory.reserved_gib(terms, setting.backend) == pytest.approx(row["peak_reserved_gib"], rel=0.06)


@pytest.mark.parametrize("row", MEASURED, ids=describe)
def test_predicts_what_stands_before_the_first_step(row: dict[str, Any]) -> None:
    terms = memory.predict_memory(MODELS[row["model"]], Tuning(row["method"], row["rank"] or 0), setting_of(row))
    standing = sum(terms.get(name, 0.0) for name in ("weights", "adapters", "buffers"))
    # TRL keeps adapters beside 4-bit weights in bf16; the trainer puts them back to fp32, which resuming needs.
    assert standing == pytest.approx(row["start_allocated_gib"], rel=0.02)


@pytest.mark.parametrize(
    ("backend", "method", "packed", "tokens", "checkpointing", "peak_gib"),
    [
        ("unsloth", "lora", True, 8163, "offloaded", 16.84),
        ("unsloth", "lora", True, 8163, "off", 46.32),
        ("unsloth", "lora", True, 16329, "off", 76.43),
        ("unsloth", "qlora", True, 8163, "off", 36.78),
        ("transformers", "lora", False, 8 * 2048, "on", 24.8),
    ],
)
def test_predicts_packed_and_padded_rows(
    backend: Any, method: Any, packed: bool, tokens: int, checkpointing: Any, peak_gib: float
) -> None:
    setting = Setting("cuda", backend, "bf16", 1, tokens, checkpointing, "adamw_8bit", packed=packed)
    terms = memory.predict_memory(MODELS["llama-3.1-8b"], Tuning(method, 16), setting)
    assert memory.peak_gib(terms) == pytest.approx(peak_gib, rel=0.03)


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
    from dataclasses import replace

    larger = replace(setting, rows=setting.rows + more)
    fewer, many = (memory.predict_memory(MODELS[model], tuning, each) for each in (setting, larger))
    assert memory.peak_gib(many) >= memory.peak_gib(fewer)


@given(setting=settings, model=st.sampled_from(sorted(MODELS)), rank=st.integers(1, 64))
def test_4_bit_weights_take_less_than_16_bit_ones(setting: Setting, model: str, rank: int) -> None:
    weights = [memory.weights_gib(MODELS[model], Tuning(kind, rank), setting) for kind in ("qlora", "lora")]
    assert weights[0] < weights[1]
