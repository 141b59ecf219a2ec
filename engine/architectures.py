"""The architectures whose parameters are counted by formula, as data: how each departs from Llama's modelling code.

Source: transformers 5.17, models/<family>/configuration_<family>.py and modeling_<family>.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NormKind = Literal["rms", "layer"]
HeadNorms = Literal["none", "head", "width"]
Switch = bool | tuple[str, bool]
"""Yes or no, or the key of the config that says so and what its absence means."""

ATTENTION_BIAS: Switch = ("attention_bias", False)
MLP_BIAS: Switch = ("mlp_bias", False)
USE_BIAS: Switch = ("use_bias", False)
SEPARATE = ("q_proj", "k_proj", "v_proj", "o_proj")
FUSED = ("qkv_proj", "o_proj")
GATED = ("gate_proj", "up_proj", "down_proj")
FOUR_NORMS = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
)  # fmt: skip
NORMS_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
GATED_FUSED = ("gate_up_proj", "down_proj")
UNGATED = ("up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Mixture:
    """How a family lays out its experts, whose weights are parameters of three dimensions and not linear layers."""

    count_keys: tuple[str, ...] = ("num_local_experts", "num_experts")
    """The keys that hold the number of experts: the class's own, and the one it is also known by."""
    ffn_key: str = "intermediate_size"
    """The key of the inner width of one expert."""
    shared_key: str | None = None
    """The key of the inner width of the expert that every token passes, where there is one."""
    dense_layers: bool = False
    """Whether `mlp_only_layers` and `decoder_sparse_step` leave layers without experts."""
    dense_adaptable: bool = True
    """Whether PEFT reaches a dense layer's MLP: in some families it takes these names for the experts
    (peft 0.21, utils/transformers_weight_conversion.py)."""
    expert_bias: bool = False
    router_bias: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """How the modelling code of one architecture departs from Llama's."""

    context: int
    """`max_position_embeddings` when the config does not say."""
    kv_heads: int | None = None
    """`num_key_value_heads` when the config does not say; None: as many as heads."""
    null_kv_heads: bool = True
    """Whether null is allowed there; it means as many as heads."""
    head_dim: int | None = None
    """`head_dim` when the config does not say; None: hidden / heads."""
    null_head_dim: bool = False
    """Whether null is allowed there; it means hidden / heads."""
    head_dim_obeyed: bool = True
    head_dim_free: bool = True
    """Whether it may differ from hidden / heads: elsewhere the norms of queries and keys would not fit them."""
    divisible: bool = False
    """Whether hidden must be a multiple of heads even when `head_dim` is given."""
    tied: bool = False
    """`tie_word_embeddings` when the config does not say."""
    layer_norms: int = 2
    """Normalisations of the hidden width in a layer."""
    norm_names: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    """What they are called."""
    last_norm: str = "norm"
    """The name of the normalisation after all layers."""
    norm_kind: NormKind = "rms"
    norm_vectors: int = 1
    """The vectors that a normalisation has: a weight, and a bias, or neither."""
    head_norms: HeadNorms = "none"
    """Whether queries and keys are normalised, over one head or over their whole width."""
    head_norms_used: Switch = True
    head_norm_vectors: int = 1
    attention: tuple[str, ...] = SEPARATE
    mlp: tuple[str, ...] = GATED
    gated: bool = True
    qkv_bias: Switch = False
    output_bias: Switch = False
    mlp_bias: Switch = False
    head_bias: bool = False
    """Whether the output layer has a bias."""
    activation_key: str = "hidden_act"
    activation: str = "silu"
    activation_parameters: tuple[str, int] | None = None
    """The activation that has parameters of its own, and how many in a layer."""
    window: Literal["none", "always", "switched"] = "none"
    """Whether `sliding_window` is obeyed: never, always, or when `use_sliding_window` is true."""
    default_window: int | None = None
    softcaps: tuple[float | None, float | None] | None = None
    """Where logits and attention scores may be capped: the caps when the config does not say."""
    sinks: bool = False
    """Whether every head has a learned attention sink."""
    mixture: Mixture | None = None


FAMILIES: dict[str, Family] = {
    "llama": Family(
        2048, null_head_dim=True, divisible=True,
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mlp_bias=MLP_BIAS,
    ),
    "mistral": Family(
        131072, kv_heads=8, null_kv_heads=False, null_head_dim=True, window="always", default_window=4096,
    ),
    "ministral3": Family(262144, kv_heads=8, null_kv_heads=False, head_dim=128, window="always"),
    "mixtral": Family(
        131072, kv_heads=8, null_kv_heads=False, null_head_dim=True, window="always", mixture=Mixture(),
    ),
    "qwen2": Family(32768, kv_heads=32, qkv_bias=True, window="switched", default_window=4096),
    "qwen2_moe": Family(
        32768, kv_heads=16, null_kv_heads=False, qkv_bias=("qkv_bias", True), window="switched", default_window=4096,
        mixture=Mixture(
            ("num_experts",), "moe_intermediate_size", "shared_expert_intermediate_size", dense_layers=True,
        ),
    ),
    "qwen3": Family(
        32768, kv_heads=32, head_dim=128, head_norms="head", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        window="switched", default_window=4096,
    ),
    "qwen3_moe": Family(
        32768, kv_heads=4, null_kv_heads=False, head_norms="head",
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, window="switched", default_window=4096,
        mixture=Mixture(ffn_key="moe_intermediate_size", dense_layers=True, dense_adaptable=False),
    ),
    "gemma": Family(
        8192, kv_heads=16, null_kv_heads=False, head_dim=256, tied=True,
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, activation="gelu_pytorch_tanh",
    ),
    "gemma2": Family(
        8192, kv_heads=4, null_kv_heads=False, head_dim=256, divisible=True, tied=True, layer_norms=4,
        norm_names=FOUR_NORMS,
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        activation_key="hidden_activation", activation="gelu_pytorch_tanh",
        window="always", default_window=4096, softcaps=(30.0, 50.0),
    ),
    "gemma3_text": Family(
        131072, kv_heads=4, null_kv_heads=False, head_dim=256, divisible=True, tied=True, layer_norms=4,
        norm_names=FOUR_NORMS,
        head_norms="head", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        activation_key="hidden_activation", activation="gelu_pytorch_tanh",
        window="always", default_window=4096, softcaps=(None, None),
    ),
    "vaultgemma": Family(
        8192, kv_heads=4, null_kv_heads=False, head_dim=256, divisible=True, tied=True,
        norm_names=("input_layernorm", "pre_feedforward_layernorm"),
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        activation_key="hidden_activation", activation="gelu_pytorch_tanh",
        window="always", default_window=4096, softcaps=(30.0, 50.0),
    ),
    "phi": Family(
        2048, head_dim_free=False, layer_norms=1, norm_kind="layer", norm_vectors=2,
        norm_names=("input_layernorm",), last_norm="final_layernorm",
        head_norms="head", head_norms_used=("qk_layernorm", False), head_norm_vectors=2,
        attention=("q_proj", "k_proj", "v_proj", "dense"), mlp=("fc1", "fc2"), gated=False,
        qkv_bias=True, output_bias=True, mlp_bias=True, head_bias=True, activation="gelu_new",
    ),
    "phi3": Family(4096, attention=FUSED, mlp=GATED_FUSED, window="always"),
    "smollm3": Family(
        32768, kv_heads=4, tied=True, window="switched",
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mlp_bias=MLP_BIAS,
    ),
    "olmo": Family(2048, norm_kind="layer", norm_vectors=0, qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS),
    "olmo2": Family(
        2048, norm_names=NORMS_AFTER, head_norms="width", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
    ),
    "olmo3": Family(
        2048, norm_names=NORMS_AFTER, head_norms="width", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        window="always", default_window=4096,
    ),
    "olmoe": Family(
        4096, head_dim_free=False, head_norms="width", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mixture=Mixture(),
    ),
    "flex_olmo": Family(
        4096, norm_names=NORMS_AFTER, head_norms="width", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        mixture=Mixture(),
    ),
    "granite": Family(2048, qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mlp_bias=MLP_BIAS),
    "granite_swa": Family(
        8192, kv_heads=4, tied=True, qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mlp_bias=MLP_BIAS,
        window="always", default_window=128, sinks=True,
    ),
    "granitemoe": Family(
        2048, qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mixture=Mixture(("num_local_experts",)),
    ),
    "gpt_oss": Family(
        131072, kv_heads=8, null_kv_heads=False, head_dim=64,
        qkv_bias=("attention_bias", True), output_bias=("attention_bias", True),
        window="always", default_window=128, sinks=True, mixture=Mixture(expert_bias=True, router_bias=True),
    ),
    "starcoder2": Family(
        4096, kv_heads=2, null_kv_heads=False, null_head_dim=True, tied=True, norm_kind="layer", norm_vectors=2,
        mlp=("c_fc", "c_proj"), gated=False, activation="gelu_pytorch_tanh",
        qkv_bias=("use_bias", True), output_bias=("use_bias", True), mlp_bias=("use_bias", True), window="always",
    ),
    "cohere": Family(
        8192, tied=True, layer_norms=1, norm_names=("input_layernorm",), norm_kind="layer", head_norms="width", head_norms_used=("use_qk_norm", False),
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
    ),
    "cohere2": Family(
        8192, tied=True, layer_norms=1, norm_names=("input_layernorm",), norm_kind="layer", qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
        window="always", default_window=4096,
    ),
    "stablelm": Family(
        4096, kv_heads=32, null_kv_heads=False, head_dim_obeyed=False, divisible=True,
        norm_kind="layer", norm_vectors=2, head_norms="width", head_norms_used=("qk_layernorm", False),
        qkv_bias=("use_qkv_bias", False),
    ),
    "glm": Family(
        131072, kv_heads=2, null_kv_heads=False, head_dim=128, mlp=GATED_FUSED, qkv_bias=("attention_bias", True),
    ),
    "glm4": Family(
        131072, kv_heads=2, null_kv_heads=False, head_dim=128, layer_norms=4, mlp=GATED_FUSED,
        norm_names=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"),
        qkv_bias=("attention_bias", True),
    ),
    "arcee": Family(
        4096, null_head_dim=True, divisible=True, mlp=UNGATED, gated=False, activation="relu2",
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mlp_bias=MLP_BIAS,
    ),
    "apertus": Family(
        65536, norm_names=("attention_layernorm", "feedforward_layernorm"), head_norms="head", mlp=UNGATED, gated=False, activation="xielu", activation_parameters=("xielu", 2),
        qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS,
    ),
    "exaone4": Family(
        2048, kv_heads=32, null_kv_heads=False, norm_names=NORMS_AFTER, head_norms="head",
        window="always", default_window=4096,
    ),
    "ernie4_5": Family(
        131072, kv_heads=2, head_dim=128, null_head_dim=True, tied=True,
        qkv_bias=USE_BIAS, output_bias=USE_BIAS, mlp_bias=USE_BIAS,
    ),
    "seed_oss": Family(
        524288, kv_heads=8, head_dim=128, null_head_dim=True,
        qkv_bias=("attention_bias", True), output_bias=("attention_out_bias", False), mlp_bias=MLP_BIAS,
    ),
    "cwm": Family(
        131072, kv_heads=8, null_kv_heads=False, head_dim=128, divisible=True, mlp_bias=MLP_BIAS,
        window="always", default_window=8192,
    ),
}  # fmt: skip
"""The architectures whose counts are held equal to transformers' own in the tests."""
