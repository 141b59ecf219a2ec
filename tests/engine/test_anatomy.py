"""The anatomy: counts by formula, exactly those of the modelling code, and refusals in place of guesses."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine import counted
from tunewright.engine.anatomy import Anatomy, parse_anatomy, read_anatomy
from tunewright.engine.architectures import FAMILIES
from tunewright.engine.configuration import Configuration
from tunewright.engine.counted import count_on_meta
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
MIXTURES = sorted(family for family, each in FAMILIES.items() if each.mixture)
BIASES = ("attention_bias", "mlp_bias", "use_bias", "use_qkv_bias", "qkv_bias", "attention_out_bias")
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"head_dim": 24},
    {"head_dim": None},
    {"num_key_value_heads": 8},
    {"num_key_value_heads": None},
    dict.fromkeys(BIASES, True),
    dict.fromkeys(BIASES, False),
    {"use_qk_norm": True, "qk_layernorm": True},
    {"hidden_size": 68, "head_dim": 16},
    {"hidden_act": "gelu", "hidden_activation": "gelu"},
    {"tie_word_embeddings": None},
    {"attention_bias": None},
)
MIXED_VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"mlp_only_layers": [0]},
    {"decoder_sparse_step": 2},
    {"mlp_only_layers": [0, 1, 2]},
    {"num_experts_per_tok": 4},
)

QWEN_7B = LLAMA_8B | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN_7B |= {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
QWEN_7B |= {"num_key_value_heads": 4, "vocab_size": 152064, "use_sliding_window": False, "sliding_window": 131072}
QWEN_30B: dict[str, Any] = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "head_dim": 128,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936,
    "mlp_only_layers": [], "decoder_sparse_step": 1, "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
GPT_OSS_20B: dict[str, Any] = {
    "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "hidden_size": 2880, "head_dim": 64,
    "intermediate_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8,
    "num_local_experts": 32, "num_experts_per_tok": 4, "experts_per_token": 4, "vocab_size": 201088,
    "attention_bias": True, "sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 12,
    "tie_word_embeddings": False, "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": []},
}  # fmt: skip


def _llama_like(family: str, hidden: int, ffn: int, layers: int, heads: int, kv: int, vocabulary: int,
                **more: Any) -> dict[str, Any]:  # fmt: skip
    return {
        "model_type": family, "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary, "dtype": "bfloat16", **more,
    }  # fmt: skip


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-3.1-8B": (LLAMA_8B, 8_030_261_248),
    "Llama-3.2-1B": (LLAMA_1B, 1_235_814_400),
    "Falcon3-7B": (_llama_like("llama", 3072, 23040, 28, 12, 4, 131072, head_dim=256), 7_455_550_464),
    "SmolLM2-135M": (_llama_like("llama", 576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True), 134_515_008),
    "SmolLM3-3B": (_llama_like("smollm3", 2048, 11008, 36, 16, 4, 128256), 3_075_098_624),
    "Mistral-7B-v0.1": (_llama_like("mistral", 4096, 14336, 32, 32, 8, 32000), 7_241_732_096),
    "Mixtral-8x7B-v0.1": (
        _llama_like("mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2),
        46_702_792_704,
    ),
    "Qwen2.5-7B": (QWEN_7B, 7_615_616_512),
    "Qwen2.5-0.5B": (_llama_like("qwen2", 896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True), 494_032_768),
    "Qwen1.5-MoE-A2.7B": (
        _llama_like("qwen2_moe", 2048, 5632, 24, 16, 16, 151936, num_experts=60, num_experts_per_tok=4,
                    moe_intermediate_size=1408, shared_expert_intermediate_size=5632),
        14_315_784_192,
    ),
    "Qwen3-8B": (_llama_like("qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128), 8_190_735_360),
    "Qwen3-30B-A3B": (QWEN_30B, 30_532_122_624),
    "OLMoE-1B-7B": (
        _llama_like("olmoe", 2048, 1024, 16, 16, 16, 50304, num_experts=64, num_experts_per_tok=8), 6_919_161_856,
    ),
    "gemma-7b": (_llama_like("gemma", 3072, 24576, 28, 16, 16, 256000, head_dim=256), 8_537_680_896),
    "gemma-2-2b": (_llama_like("gemma2", 2304, 9216, 26, 8, 4, 256000, head_dim=256), 2_614_341_888),
    "gemma-3-1b": (_llama_like("gemma3_text", 1152, 6912, 26, 4, 1, 262144, head_dim=256), 999_885_952),
    "Phi-3-mini": (_llama_like("phi3", 3072, 8192, 32, 32, 32, 32064), 3_821_079_552),
    "phi-4": (_llama_like("phi3", 5120, 17920, 40, 40, 10, 100352), 14_659_507_200),
    "gpt-oss-20b": (GPT_OSS_20B, 20_914_757_184),
    "starcoder2-7b": (_llama_like("starcoder2", 4608, 18432, 32, 36, 4, 49152, use_bias=True), 7_173_923_840),
}  # fmt: skip


def _small(family: str, *changes: dict[str, Any]) -> dict[str, Any]:
    """Return a small config of `family`; a mixture has four experts, of which a token passes two."""
    config = SMALL | {"model_type": family}
    mixture = FAMILIES[family].mixture if family in FAMILIES else None
    if mixture:
        config |= {mixture.count_keys[0]: 4, "num_experts_per_tok": 2, mixture.ffn_key: 40, "intermediate_size": 40}
        if mixture.shared_key:
            config |= {mixture.shared_key: 56}
    for change in changes:
        config |= change
    return config


def _on_meta(config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    rest = {key: value for key, value in config.items() if key not in {"model_type", "quantization_config"}}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **rest))


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_the_published_ones(name: str) -> None:
    config, total = PUBLISHED[name]
    assert parse_anatomy(config, "here").total_parameters == total


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals_are_those_of_transformers(name: str) -> None:
    pytest.importorskip("torch")
    config, total = PUBLISHED[name]
    assert sum(parameter.numel() for parameter in _on_meta(config).parameters()) == total


def _compare_counts(config: dict[str, Any]) -> Anatomy | None:
    """Hold the anatomy equal to transformers' model, linear layer by linear layer; None when both refuse the config."""
    import torch

    try:
        model = _on_meta(config)
    except Exception:  # noqa: BLE001
        with pytest.raises(TunewrightError):
            parse_anatomy(config, "here")
        return None
    anatomy = parse_anatomy(config, "here")
    assert anatomy.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert anatomy.total_parameters == sum(anatomy.parameters_by_kind().values())
    linear = Counter(
        (name.split(".", 3)[3], tuple(module.weight.shape), module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers." in name and not name.endswith("shared_expert_gate")
    )
    assert {(each.path, each.shape, each.bias): each.count for each in anatomy.projections} == dict(linear)
    experts = sum(each.numel() for name, each in model.named_parameters() if ".experts." in name)
    assert anatomy.expert_parameters == experts
    router = sum(
        each.numel()
        for name, each in model.named_parameters()
        if re.search(r"\.(mlp\.gate|router|shared_expert_gate)\.", name)
    )
    assert anatomy.router_parameters == router
    return anatomy


def _compare_adapters(
    config: dict[str, Any], anatomy: Anatomy, kinds: tuple[str, ...] = ("all-linear", "attention", "qv")
) -> None:
    """Hold the trainable parameters equal to PEFT's, with and without DoRA."""
    from peft import LoraConfig, get_peft_model

    for targets in kinds:
        for dora in (False, True):
            lora = LoraConfig(r=4, target_modules=list(anatomy.target_names(targets)), use_dora=dora)
            tuned = get_peft_model(_on_meta(config), lora, low_cpu_mem_usage=True)
            trainable = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
            assert anatomy.lora_parameters(4, targets, dora) == trainable, (targets, dora)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_those_of_transformers_and_peft(family: str) -> None:
    pytest.importorskip("torch")
    for variant in VARIANTS:
        config = _small(family, variant)
        if (family, variant.get("head_dim"), variant.get("hidden_size")) in {("olmoe", 24, None), ("olmoe", 16, 68)}:
            with pytest.raises(TunewrightError, match="norms do not fit"):  # transformers builds it, and cannot run it
                parse_anatomy(config, "here")
            continue
        anatomy = _compare_counts(config)
        assert anatomy or variant, "the plain config is understood by both"
        if anatomy and variant in ({}, {"head_dim": 24}):
            _compare_adapters(config, anatomy)


@pytest.mark.slow
@pytest.mark.parametrize("variant", MIXED_VARIANTS, ids=str)
@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_equal_those_of_transformers_and_peft(family: str, variant: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    config = _small(family, {"intermediate_size": 96} if FAMILIES[family].mixture.dense_layers else {}, variant)  # pyright: ignore[reportOptionalMemberAccess]
    anatomy = _compare_counts(config)
    assert anatomy is not None
    _compare_adapters(config, anatomy)
    unused = 0 if anatomy.experts is None else anatomy.experts.count - anatomy.experts.per_token
    assert anatomy.active_parameters == anatomy.total_parameters - anatomy.expert_parameters * unused // 4


def _replaced_by_bitsandbytes(config: dict[str, Any]) -> int:
    """Return the weights of the layers that transformers replaces with 4-bit ones."""
    torch, bitsandbytes = pytest.importorskip("torch"), pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    model = _on_meta(config)
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    replaced = replace_with_bnb_linear(model, get_keys_to_not_convert(model), settings)
    four_bit = (each for each in replaced.modules() if isinstance(each, bitsandbytes.nn.Linear4bit))
    return sum(each.in_features * each.out_features for each in four_bit)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_quantisable_weights_are_those_that_transformers_replaces(family: str) -> None:
    config = _small(family, {"mlp_only_layers": [0]})
    assert parse_anatomy(config, "here").quantisable_parameters == _replaced_by_bitsandbytes(config)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_equal_those_of_transformers(family: str) -> None:
    """A config.json need not hold what the class has by default, so these must be the same."""
    pytest.importorskip("torch")
    required = _small(family, {"hidden_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 32})
    required.pop("num_key_value_heads")
    model, anatomy = _on_meta(required), parse_anatomy(required, "here")
    assert anatomy.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    assert anatomy.context == config.max_position_embeddings
    assert anatomy.kv_heads == config.num_key_value_heads
    assert anatomy.tied_embeddings == config.tie_word_embeddings
    assert anatomy.activation == (getattr(config, "hidden_activation", None) or config.hidden_act)
    assert anatomy.sliding_window == ((getattr(config, "sliding_window", None) or None) if slides else None)
    assert anatomy.logit_softcap == bool(getattr(config, "final_logit_softcapping", None))
    assert anatomy.attention_softcap == bool(getattr(config, "attn_logit_softcapping", None))


@given(rank=st.integers(1, 256), family=st.sampled_from(sorted(FAMILIES)))
def test_more_targets_and_ranks_train_more(rank: int, family: str) -> None:
    anatomy = parse_anatomy(_small(family), "here")
    counts = [anatomy.lora_parameters(rank, targets) for targets in ("qv", "attention", "all-linear")]
    assert 0 < counts[0] <= counts[1] <= counts[2]
    assert (counts[1] < counts[2]) == any(each.part == "mlp" for each in anatomy.projections)
    assert anatomy.lora_parameters(2 * rank, "all-linear") == 2 * counts[2]


def test_a_mixture_tells_its_experts_apart() -> None:
    anatomy = parse_anatomy(QWEN_30B, "here")
    assert anatomy.experts is not None and anatomy.experts.layers == 48
    assert anatomy.experts.parameters == 3 * 2048 * 768
    assert anatomy.active_parameters == 3_353_032_704
    assert anatomy.linear_parameters == anatomy.quantisable_parameters == 48 * 2 * 2048 * (4096 + 512)
    assert anatomy.ffn == 8 * 768
    assert anatomy.target_names("all-linear") == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert anatomy.note is not None and "no linear layers" in anatomy.note


def test_the_mlp_of_a_shared_expert_is_told_from_a_dense_one() -> None:
    anatomy = parse_anatomy(_small("qwen2_moe", {"mlp_only_layers": [0], "intermediate_size": 96}), "here")
    assert anatomy.target_names(("up_proj",)) == ("shared_expert.up_proj", "mlp.up_proj")
    assert anatomy.target_names(("mlp.up_proj",)) == ("mlp.up_proj",)
    assert anatomy.quantisable_parameters - anatomy.linear_parameters == 2 * 64  # two gates of shared experts


def test_refuses_targets_that_peft_would_take_for_the_experts() -> None:
    anatomy = parse_anatomy(_small("qwen3_moe", {"mlp_only_layers": [0]}), "here")
    assert "up_proj" in {each.name for each in anatomy.projections}
    with pytest.raises(TunewrightError, match="experts' fused weights"):
        anatomy.target_names(("up_proj",))


def test_a_checkpoint_that_is_dequantised_while_loading_is_counted_with_a_note() -> None:
    anatomy = parse_anatomy(GPT_OSS_20B, "here")
    assert anatomy.dequantised_from == "mxfp4"
    assert anatomy.checkpoint_bytes == 2
    assert anatomy.note is not None and "MXFP4" in anatomy.note and "QLoRA" in anatomy.note
    assert anatomy.attention_sinks and anatomy.sliding_window == 128
    bf16 = {key: value for key, value in GPT_OSS_20B.items() if key != "quantization_config"}
    assert parse_anatomy(bf16, "here").dequantised_from is None
    assert parse_anatomy(bf16, "here").total_parameters == anatomy.total_parameters


def test_manners_of_the_modelling_code() -> None:
    gemma, starcoder = (parse_anatomy(PUBLISHED[name][0], "here") for name in ("gemma-2-2b", "starcoder2-7b"))
    assert gemma.logit_softcap and gemma.attention_softcap and gemma.sliding_window == 4096
    assert (gemma.layer_norms, gemma.norm_kind, gemma.gated) == (4, "rms", True)
    assert (starcoder.layer_norms, starcoder.norm_kind, starcoder.gated) == (2, "layer", False)
    assert parse_anatomy(QWEN_7B, "here").sliding_window is None
    assert parse_anatomy(PUBLISHED["Qwen3-8B"][0], "here").head_norms == "head"


def test_counting_takes_milliseconds() -> None:
    started = time.perf_counter()
    for config, _ in PUBLISHED.values():
        parse_anatomy(config, "here")
    assert (time.perf_counter() - started) / len(PUBLISHED) < 0.05


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
        ({"model_type": "llama\x1b[31m2"}, "llama2"),
        ({"model_type": None}, "architecture"),
        ({"model_type": ["llama"]}, "architecture"),
        ({"vision_config": {}}, "images"),
        ({"text_config": {"hidden_size": 64}}, "multimodal model, whose text part is in `text_config`"),
        ({"model_type": "gemma3", "text_config": {}}, "text_config"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"model_type": "deepseek_v3", "n_routed_experts": 8}, "deepseek_v3, a mixture of experts"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "writes text"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "4096"}, "not a whole number"),
        ({"hidden_size": True}, "not a whole number"),
        ({"hidden_size": 4096.0}, "not a whole number"),
        ({"hidden_size": math.nan}, "nan, not a whole number"),
        ({"hidden_size": -4096}, "not a whole number"),
        ({"hidden_size": [4096]}, "a list, not a whole number"),
        ({"hidden_size": {"a": 1}}, "an object, not a whole number"),
        ({"hidden_size": 10**5000}, "a number of more than 40 digits"),
        ({"hidden_size": 4100}, "no multiple of num_attention_heads"),
        ({"hidden_size": 4100, "head_dim": 128}, "no multiple of num_attention_heads"),
        ({"num_hidden_layers": 0}, "not a whole number"),
        ({"num_hidden_layers": 10**9}, "not a whole number"),
        ({"vocab_size": 0}, "not a whole number"),
        ({"vocab_size": 10**12}, "not a whole number"),
        ({"num_key_value_heads": 5}, "multiple"),
        ({"num_key_value_heads": 64}, "multiple"),
        ({"model_type": "mistral", "num_key_value_heads": None}, "num_key_value_heads is null"),
        ({"model_type": "qwen3", "head_dim": None}, "head_dim is null"),
        ({"max_position_embeddings": -1}, "max_position_embeddings"),
        ({"tie_word_embeddings": "false"}, "neither true nor false"),
        ({"attention_bias": 1}, "neither true nor false"),
        ({"layer_types": ["full_attention"]}, "layer_types names 1 layers"),
        ({"layer_types": "full"}, "not a list"),
        ({"hidden_act": 7}, "hidden_act is 7"),
        ({"dtype": "float8_e4m3fn"}, "float8"),
        ({"dtype": ["bfloat16"]}, "dtype a list is none of"),
    ],
)
def test_refuses_what_it_would_have_to_guess(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TunewrightError, match=re.escape(said)) as caught:
        parse_anatomy(LLAMA_8B | change, "here")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_experts_per_tok": 129}, "more than the 128 experts"),
        ({"num_experts": None}, "num_experts is missing"),
        ({"num_local_experts": 64}, "contradict"),
        ({"num_experts_per_tok": 0}, "not a whole number"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
        ({"mlp_only_layers": ["0"]}, "mlp_only_layers"),
        ({"mlp_only_layers": 3}, "not a list"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step"),
    ],
)
def test_refuses_absurd_mixtures(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TunewrightError, match=re.escape(said)):
        parse_anatomy(QWEN_30B | change, "here")


@pytest.mark.parametrize(
    ("described", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "awq", "bits": 4}, "AWQ"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "\x1b[31mnew\x07"}, "new"),
        ({"bits": 4}, "an unnamed method"),
        ([], "an unnamed method"),
    ],
)
def test_refuses_quantised_checkpoints_by_name(described: object, named: str) -> None:
    with pytest.raises(TunewrightError, match=f"already quantised with {named};") as caught:
        parse_anatomy(LLAMA_8B | {"quantization_config": described}, "here")
    assert "16-bit" in caught.value.remedy and "\x1b" not in str(caught.value)
    with pytest.raises(TunewrightError, match="compressed-tensors"):
        parse_anatomy(LLAMA_8B | {"compression_config": {}}, "here")


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", "[" * 100_000, '{"a":' * 100_000, '{"hidden_size": 1\x00}', '{"n": ' + "9" * 5000 + "}", "\x00"],
)
def test_refuses_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TunewrightError):
        read_anatomy(tmp_path)


def test_refuses_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B | {"padding": "x" * 5 * 2**20}))
    with pytest.raises(TunewrightError, match="larger than 4 MiB"):
        read_anatomy(tmp_path)


@given(key=st.sampled_from(sorted(QWEN_30B)), value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
))  # fmt: skip
def test_any_value_is_counted_or_refused(key: str, value: object) -> None:
    try:
        anatomy = parse_anatomy(QWEN_30B | {key: value}, "here")
    except TunewrightError as error:
        assert "\x1b" not in str(error)
    else:
        assert 0 < anatomy.active_parameters <= anatomy.total_parameters


def test_reads_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    assert read_anatomy(tmp_path) == read_anatomy(tmp_path / "config.json") == parse_anatomy(LLAMA_8B, "here")
    assert read_anatomy(tmp_path, count_unknown=True) == parse_anatomy(LLAMA_8B, "here")


def _write(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_an_unknown_family_is_counted_when_that_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    config = SMALL | {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "dtype": "float16"}
    folder = _write(tmp_path, config)
    with pytest.raises(TunewrightError, match="its architecture is gpt_neox"):
        read_anatomy(folder)
    anatomy = read_anatomy(folder, count_unknown=True)
    assert anatomy.counted_on_meta
    assert anatomy.total_parameters == sum(parameter.numel() for parameter in _on_meta(config).parameters())
    assert {each.name: each.shape for each in anatomy.projections} == {
        "query_key_value": (192, 64),
        "dense": (64, 64),
        "dense_h_to_4h": (96, 64),
        "dense_4h_to_h": (64, 96),
    }
    assert (anatomy.gated, anatomy.norm_kind, anatomy.checkpoint_bytes) == (False, "layer", 2)
    _compare_adapters(config, anatomy)


@pytest.mark.slow
def test_counting_on_meta_agrees_with_the_formulas(tmp_path: Path) -> None:
    """The child counts a mixture with shared experts as the formulas do, field by field."""
    pytest.importorskip("torch")
    config = _small("qwen2_moe", {"mlp_only_layers": [0], "intermediate_size": 96})
    on_meta, by_formula = count_on_meta(_write(tmp_path, config)), parse_anatomy(config, "here")
    assert on_meta.parameters_by_kind() == by_formula.parameters_by_kind()
    assert on_meta.experts == by_formula.experts
    assert on_meta.quantisable_parameters == by_formula.quantisable_parameters
    assert set(on_meta.target_names("all-linear")) == set(by_formula.target_names("all-linear"))
    assert (on_meta.layer_norms, on_meta.head_norms) == (by_formula.layer_norms, by_formula.head_norms)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["falcon", "gpt2", "opt", "nemotron", "phimoe", "glm4_moe", "deepseek_v3", "lfm2"])
def test_counting_on_meta_agrees_with_peft_and_bitsandbytes(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases, shared matrices, subclasses of linear layers, experts and odd names, here without the child process."""
    pytest.importorskip("torch")
    from tunewright.engine.training.counting import count

    monkeypatch.setattr(counted, "_ask_child", lambda config: count(dict(config.values)))
    config = SMALL | {"model_type": family, "first_k_dense_replace": 1, "num_experts_per_tok": 2}
    anatomy = counted.count_configuration(Configuration(config, "here"))
    assert anatomy.total_parameters == sum(parameter.numel() for parameter in _on_meta(config).parameters())
    assert anatomy.quantisable_parameters == _replaced_by_bitsandbytes(config)
    _compare_adapters(config, anatomy, ("all-linear", "attention"))


@pytest.mark.slow
def test_counting_never_runs_code_from_the_model_folder(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "modeling.py").write_text("open('ran', 'w')")
    custom = {"AutoConfig": "modeling.Owned", "AutoModelForCausalLM": "modeling.Owned"}
    with pytest.raises(TunewrightError, match="has no architecture nothing_of_the_kind"):
        count_on_meta(_write(tmp_path, SMALL | {"model_type": "nothing_of_the_kind", "auto_map": custom}))
    assert not (tmp_path / "ran").exists() and not Path("ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "t5"}, "does not only read and write text"),
        ({"model_type": "qwen3_vl"}, "does not only read and write text"),
        ({"model_type": "gpt_neox", "num_attention_heads": 7}, "cannot build it"),
        ({"model_type": "gpt_neox", "num_hidden_layers": 10**9}, "more than"),
        ({"model_type": "mamba", "num_attention_heads": None}, "num_attention_heads"),
    ],
)
def test_the_child_refuses_what_it_cannot_count(change: dict[str, Any], said: str) -> None:
    pytest.importorskip("torch")
    from tunewright.engine.training.counting import Refused, count

    with pytest.raises(Refused, match=said):
        count(SMALL | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": True}, "vocab_size"),
        ({"vision_config": {}}, "images"),
        ({"text_config": {}}, "text_config"),
        ({"quantization_config": {"quant_method": "fp8"}}, "FP8"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_counting_refuses_other_kinds_without_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(counted.sys, "executable", "/nonexistent")
    with pytest.raises(TunewrightError, match=said):
        read_anatomy(_write(tmp_path, SMALL | {"model_type": "gpt_neox"} | change), count_unknown=True)


def test_counting_ends_when_the_child_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _write(tmp_path, SMALL | {"model_type": "gpt_neox"})
    child = tmp_path / "child"
    monkeypatch.setattr(counted.sys, "executable", str(child))
    with pytest.raises(TunewrightError, match="Counting the model failed"):
        count_on_meta(folder)
    for script, said in (("echo no >&2; exit 3", "no"), ("echo not json", "failed"), ("exec sleep 60", "too long")):
        child.write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(child, 0o755)
        monkeypatch.setattr(counted, "COUNTING_SECONDS", 0.5)
        with pytest.raises(TunewrightError, match=said):
            count_on_meta(folder)
