"""The anatomy: counts by formula, exactly those of the modelling code, and refusals in place of guesses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine.anatomy import FAMILIES, parse_anatomy, read_anatomy
from tunewright.foundation.errors import TunewrightError

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
}
LLAMA_1B: dict[str, Any] = LLAMA_8B | {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "intermediate_size": 8192,
    "tie_word_embeddings": True,
}
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 257,
    "pad_token_id": 0,
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"head_dim": 24},
    {"attention_bias": True, "mlp_bias": True},
    {"num_key_value_heads": 8},
)


@pytest.mark.parametrize(
    ("config", "total", "linear", "lora_16"),
    [
        (LLAMA_8B, 8_030_261_248, 6_979_321_856, 41_943_040),
        (LLAMA_1B, 1_235_814_400, 973_078_528, 11_272_192),
    ],
)
def test_counts_of_published_models(config: dict[str, Any], total: int, linear: int, lora_16: int) -> None:
    anatomy = parse_anatomy(config, "here")
    assert anatomy.total_parameters == total
    assert anatomy.linear_parameters == linear
    assert anatomy.lora_parameters(16, "all-linear") == lora_16
    assert sum(anatomy.parameters_by_kind().values()) == total


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_those_of_transformers(family: str, variant: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = SMALL | variant
    anatomy = parse_anatomy(config | {"model_type": family}, "here")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    assert anatomy.total_parameters == sum(p.numel() for p in model.parameters())
    shapes = {
        name.rsplit(".", 1)[1]: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers.0." in name
    }
    assert {each.name: each.shape for each in anatomy.projections} == shapes
    for targets in ("all-linear", "attention", "qv"):
        names = list(anatomy.target_names(targets))
        for dora in (False, True):
            with torch.device("meta"):
                base = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
            tuned = get_peft_model(base, LoraConfig(r=4, target_modules=names, use_dora=dora), low_cpu_mem_usage=True)
            trainable = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
            assert anatomy.lora_parameters(4, targets, dora) == trainable


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_equal_those_of_transformers(family: str) -> None:
    """A config.json keeps only what differs from the class's defaults, so these must be the same."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    required = {"hidden_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 32, "intermediate_size": 512}
    required |= {"vocab_size": 500, "pad_token_id": 0}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **required))
    counted = parse_anatomy(required | {"model_type": family}, "here").total_parameters
    assert counted == sum(p.numel() for p in model.parameters())


@given(rank=st.integers(1, 256), family=st.sampled_from(sorted(FAMILIES)))
def test_more_targets_and_ranks_train_more(rank: int, family: str) -> None:
    anatomy = parse_anatomy(SMALL | {"model_type": family}, "here")
    counts = [anatomy.lora_parameters(rank, targets) for targets in ("qv", "attention", "all-linear")]
    assert 0 < counts[0] <= counts[1] < counts[2]
    assert anatomy.lora_parameters(2 * rank, "all-linear") == 2 * counts[2]


def test_targets_by_name_follow_the_forward_pass() -> None:
    anatomy = parse_anatomy(LLAMA_8B, "here")
    assert anatomy.target_names(("mlp.up_proj", "q_proj")) == ("q_proj", "up_proj")
    with pytest.raises(TunewrightError, match="Did you mean q_proj"):
        anatomy.target_names(("q_prj",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt_neox"}, "gpt_neox"),
        ({"model_type": "\x1b]0;owned\x07llama2"}, "llama2"),
        ({"model_type": None}, "architecture"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"vision_config": {}}, "images"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "writes text"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "4096"}, "not a whole number"),
        ({"hidden_size": True}, "not a whole number"),
        ({"num_hidden_layers": 0}, "not a whole number"),
        ({"vocab_size": 10**12}, "not a whole number"),
        ({"num_key_value_heads": 5}, "multiple"),
        ({"dtype": "float8_e4m3fn"}, "float8"),
    ],
)
def test_refuses_what_it_would_have_to_guess(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TunewrightError, match=said) as caught:
        parse_anatomy(LLAMA_8B | change, "here")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000])
def test_refuses_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TunewrightError):
        read_anatomy(tmp_path)


def test_reads_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    assert read_anatomy(tmp_path) == read_anatomy(tmp_path / "config.json") == parse_anatomy(LLAMA_8B, "here")
