"""Modules that are trained whole: their names and counts are those of transformers' own classes, for every family."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tunewright.engine.anatomy import Anatomy, parse_anatomy, read_anatomy
from tunewright.engine.architectures import FAMILIES
from tunewright.engine.memory import predict_memory, predict_moments
from tunewright.engine.saved_modules import known_modules, saved_modules
from tunewright.engine.setting import Setting, Tuning
from tunewright.foundation.errors import TunewrightError
from tunewright.foundation.units import GIB
from tunewright.starter import MODEL

SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 96, "vocab_size": 257, "pad_token_id": 0, "attention_bias": True, "mlp_bias": True,
    "tie_word_embeddings": False,
}  # fmt: skip
MIXED = {
    "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 48, "mlp_only_layers": [0],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_counts_are_those_of_the_modelling_code(family: str) -> None:
    pytest.importorskip("torch")
    from tunewright.engine.training.counting import build

    values = SMALL | {"model_type": family} | (MIXED if FAMILIES[family].mixture else {})
    model = build(values)
    anatomy = parse_anatomy(values, family)
    paths = {each.name: each.path for each in anatomy.projections}
    for name, module in known_modules(anatomy).items():
        path = paths.get(name, module.path)  # PEFT is given names; a projection's path tells it from others
        matched = [(key, each) for key, each in model.named_modules() if f".{key}".endswith(f".{path}")]
        assert sum(parameter.numel() for _, each in matched for parameter in each.parameters()) == module.parameters, (
            name
        )
        by_letters = {key for key, _ in model.named_modules() if key.endswith(module.path)}  # as PEFT matches
        assert by_letters == {key for key, _ in matched}, name


@pytest.fixture
def starter() -> Anatomy:
    return read_anatomy(MODEL)


def test_one_matrix_for_words_in_and_out_is_counted_once(starter: Anatomy) -> None:
    both = saved_modules(starter, ("embed_tokens", "lm_head"))
    assert both == saved_modules(starter, ("lm_head",)) == saved_modules(starter, ("model.embed_tokens",))
    untied = dataclasses.replace(starter, tied_embeddings=False)
    assert [each.name for each in saved_modules(untied, ("lm_head", "embed_tokens"))] == ["lm_head", "embed_tokens"]
    tuning = Tuning("lora", 16, saved=("embed_tokens", "lm_head"))
    alone = Tuning("lora", 16).trainable_parameters(starter)
    assert tuning.trainable_parameters(starter) == alone + 2048 * 256
    assert tuning.trainable_parameters(untied) == alone + 2 * 2048 * 256
    assert tuning.multiplied_parameters(starter) == tuning.trainable_parameters(starter)
    assert tuning.multiplied_parameters(untied) == alone + 2048 * 256


def test_a_projection_that_is_trained_whole_gets_no_adapter(starter: Anatomy) -> None:
    tuning = Tuning("lora", 16, saved=("down_proj",))
    assert "down_proj" not in tuning.adapted(starter)
    without = starter.lora_parameters(16, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"))
    assert tuning.trainable_parameters(starter) == without + 4 * 256 * 512
    with pytest.raises(TunewrightError, match="4 bits"):
        dataclasses.replace(tuning, kind="qlora").trainable_parameters(starter)


def test_memory_grows_by_a_copy_its_gradient_and_its_states(starter: Anatomy) -> None:
    setting = Setting("cuda", "transformers", "bf16", 1, 64, "off", accumulation=2)
    parameters = 2048 * 256
    untied = dataclasses.replace(starter, tied_embeddings=False)
    for optimizer, state_bytes in (("adamw", 8), ("adamw_8bit", 8), ("paged_adamw", 0)):
        chosen = dataclasses.replace(setting, optimizer=optimizer)
        alone = predict_memory(untied, Tuning("lora", 16), chosen)
        saved = predict_memory(untied, Tuning("lora", 16, saved=("embed_tokens",)), chosen)
        grown = {
            term: saved[term] - alone.get(term, 0.0) for term in ("adapters", "gradients", "optimizer") if term in saved
        }
        assert grown["adapters"] == pytest.approx(4 * parameters / GIB)
        assert grown["gradients"] == pytest.approx(4 * parameters / GIB)
        assert grown.get("optimizer", 0) == pytest.approx(state_bytes * parameters / GIB)
    # Of the output layer, which is no embedding to bitsandbytes, the states have 8 bits.
    chosen = dataclasses.replace(setting, optimizer="adamw_8bit")
    alone, saved = (predict_memory(untied, Tuning("lora", 16, saved=names), chosen) for names in ((), ("lm_head",)))
    assert saved["optimizer"] - alone["optimizer"] == pytest.approx(2 * (1 + 4 / 256) * parameters / GIB)


def test_dora_expands_the_largest_adapted_weight() -> None:
    anatomy = read_anatomy(MODEL)
    setting = Setting("cuda", "transformers", "bf16", 4, 64, "on")

    def layer(*targets: str, dora: bool) -> float:
        moments = predict_moments(anatomy, Tuning("lora", 8, targets, dora=dora), setting)
        return next(each.terms["layer"] for each in moments if each.name == "the first layer's backward pass")

    small, large = (layer(name, dora=True) - layer(name, dora=False) for name in ("k_proj", "down_proj"))
    assert small == pytest.approx((18 * 128 * 256 + 4 * 256**2) / GIB, rel=0.2)
    assert large == pytest.approx((18 * 256 * 512 + 4 * 512**2) / GIB, rel=0.2)


def test_dora_with_dropout_copies_what_it_adapts() -> None:
    anatomy = read_anatomy(MODEL)
    for checkpointing, copied in (("off", 2 * 4 * 512 * 256), ("on", 0)):
        setting = Setting("cuda", "transformers", "bf16", 4, 64, checkpointing)
        kept = [
            predict_moments(anatomy, Tuning("lora", 8, ("down_proj",), dora=True, dropout=dropout), setting)[0]
            for dropout in (0.1, 0.0)
        ]
        assert kept[0].gib - kept[1].gib == pytest.approx(copied / GIB)
