"""A model's anatomy: its shape and exact parameter counts, from config.json alone, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from ..foundation.errors import TunewrightError, nearest
from ..foundation.files import read_text
from ..foundation.text import one_line

LARGEST_CONFIG_BYTES = 4 * 2**20
Targets = Literal["all-linear", "attention", "qv"] | Sequence[str]
"""The projections that get an adapter, as in `recipes.model.LoraMethod.targets`."""


@dataclass(frozen=True, slots=True)
class _Family:
    """How the modelling code of one architecture departs from Llama's (transformers 5.17, models/<family>)."""

    layer_norms: int = 2
    """Normalisations of the hidden width in a layer."""
    head_norms: Literal["none", "head", "width"] = "none"
    """Whether queries and keys are normalised, over one head or over their whole width."""
    fused: bool = False
    """Whether query, key and value are one matrix, and gate and up another."""
    qkv_bias: bool | None = None
    """Whether query, key and value have a bias; None: as the config's `attention_bias` says."""
    configurable_bias: bool = True
    """Whether the config's `attention_bias` is obeyed at all."""
    configurable_mlp_bias: bool = False
    """Whether the config's `mlp_bias` is obeyed."""
    tied_by_default: bool = False
    head_dim_by_default: int | None = None
    """None: hidden / heads."""
    kv_heads_by_default: int | None = None
    """None: as many as heads."""


FAMILIES: dict[str, _Family] = {
    "llama": _Family(configurable_mlp_bias=True),
    "mistral": _Family(configurable_bias=False, kv_heads_by_default=8),
    "qwen2": _Family(qkv_bias=True, configurable_bias=False, kv_heads_by_default=32),
    "qwen3": _Family(head_norms="head", head_dim_by_default=128, kv_heads_by_default=32),
    "gemma2": _Family(layer_norms=4, tied_by_default=True, head_dim_by_default=256, kv_heads_by_default=4),
    "phi3": _Family(fused=True, configurable_bias=False),
    "smollm3": _Family(configurable_mlp_bias=True, tied_by_default=True, kv_heads_by_default=4),
    "olmo2": _Family(head_norms="width"),
    "granite": _Family(configurable_mlp_bias=True),
}
"""The architectures whose counts are held equal to transformers' own in the tests."""

_CHECKPOINT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_SEEING_KEYS = ("vision_config", "audio_config", "image_token_id", "image_token_index")


@dataclass(frozen=True, slots=True)
class Projection:
    """One linear layer that every decoder layer has once."""

    name: str
    part: Literal["attention", "mlp"]
    outputs: int
    inputs: int
    bias: bool
    count: int
    """How many the whole model has: one a layer."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), as torch stores the weight."""
        return self.outputs, self.inputs


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The shape of a dense decoder; every count is a number of parameters."""

    family: str
    hidden: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    tied_embeddings: bool
    """Whether the output layer is the embedding's own matrix."""
    context: int
    """The longest sequence that the positions reach, in tokens."""
    checkpoint_bytes: int
    """Bytes of one parameter in the checkpoint."""
    projections: tuple[Projection, ...]
    norm_parameters: int

    @property
    def attention_width(self) -> int:
        """The width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """The width of all key heads together; the values' is the same."""
        return self.kv_heads * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head_parameters(self) -> int:
        """The output layer's own parameters: 0 when it is tied to the embedding."""
        return 0 if self.tied_embeddings else self.vocabulary * self.hidden

    @property
    def linear_parameters(self) -> int:
        """The weights of all projections, biases apart: what 4-bit quantisation shrinks and adapters stand beside."""
        return sum(each.outputs * each.inputs * each.count for each in self.projections)

    @property
    def bias_parameters(self) -> int:
        return sum(each.outputs * each.count for each in self.projections if each.bias)

    @property
    def largest_linear(self) -> int:
        """The weights of the largest single projection."""
        return max(each.outputs * each.inputs for each in self.projections)

    @property
    def total_parameters(self) -> int:
        return sum(self.parameters_by_kind().values())

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for; they add up to `total_parameters`."""
        attention, mlp = (
            sum(each.outputs * each.inputs * each.count for each in self.projections if each.part == part)
            for part in ("attention", "mlp")
        )
        return {
            "embedding": self.embedding_parameters,
            "attention": attention,
            "mlp": mlp,
            "biases": self.bias_parameters,
            "norms": self.norm_parameters,
            "head": self.head_parameters,
        }

    def target_names(self, targets: Targets) -> tuple[str, ...]:
        """Return the names of the projections that `targets` means, in the order of the forward pass.

        Where query, key and value are one matrix, `qv` means that matrix, as in PEFT's own table.
        Raises TunewrightError for a name that no projection has.
        """
        match targets:
            case "all-linear":
                return tuple(each.name for each in self.projections)
            case "attention":
                return tuple(each.name for each in self.projections if each.part == "attention")
            case "qv":
                return tuple(each.name for each in self.projections if each.name in {"q_proj", "v_proj", "qkv_proj"})
            case str():
                return self.target_names((targets,))
            case _:
                wanted = {self._projection_name(name) for name in targets or ("",)}
                return tuple(each.name for each in self.projections if each.name in wanted)

    def _projection_name(self, target: str) -> str:
        """Return the projection that the module name `target` ends in, as PEFT matches it."""
        known = {
            each.name: f"{'self_attn' if each.part == 'attention' else 'mlp'}.{each.name}" for each in self.projections
        }
        for name, module in known.items():
            if target in {name, module}:
                return name
        suggestion = nearest(target, known)
        raise TunewrightError(
            "Unknown target module",
            f"A {self.family} model has no projection {one_line(target, 80)!r}; it has {', '.join(known)}.",
            f"Did you mean {suggestion}?" if suggestion else "Choose from these, or use all-linear, attention or qv.",
        )

    def lora_parameters(self, rank: int, targets: Targets, dora: bool = False) -> int:
        """Return the trainable parameters of adapters: rank · Σ (in + out), and one magnitude an output with DoRA.

        Source: arXiv 2106.09685 §4.1; arXiv 2402.09353 eq. 5.
        """
        names = self.target_names(targets)
        return sum(
            each.count * (rank * (each.inputs + each.outputs) + (each.outputs if dora else 0))
            for each in self.projections
            if each.name in names
        )


def read_anatomy(path: Path) -> Anatomy:
    """Return the anatomy of the model whose config.json is at `path`, or in the folder `path`.

    Raises TunewrightError when it cannot be read, and for a model that these formulas do not hold for.
    """
    file = path / "config.json" if path.is_dir() else path
    text = read_text(file, limit_bytes=LARGEST_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TunewrightError(
            "config.json is not JSON", f"{file}: {one_line(str(error), 200)}.", "Download the model's files again."
        ) from error
    if not isinstance(config, dict):
        raise TunewrightError(
            "config.json is not a model's", f"{file} holds no JSON object.", "Give the config.json of a model."
        )
    return parse_anatomy(cast("dict[str, Any]", config), origin=str(file))


def parse_anatomy(config: Mapping[str, Any], origin: str) -> Anatomy:
    """Return the anatomy that `config` describes; `origin` names it in errors.

    Raises TunewrightError for an architecture that is not known exactly, and for missing or absurd sizes.
    """
    family_name = one_line(str(config.get("model_type", "")), 60)
    _refuse_other_kinds(config, family_name, origin)
    family = FAMILIES[family_name]

    def size(key: str, most: int, default: int | None = None) -> int:
        return _size(config, key, most, origin, default)

    hidden, layers = size("hidden_size", 2**17), size("num_hidden_layers", 2048)
    vocabulary, ffn = size("vocab_size", 2**24), size("intermediate_size", 2**20)
    heads = size("num_attention_heads", 4096)
    kv_heads = size("num_key_value_heads", 4096, family.kv_heads_by_default or heads)
    head_dim = size("head_dim", 2**14, family.head_dim_by_default or max(1, hidden // heads))
    if heads % kv_heads:
        raise _absurd(origin, f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
    tied = config.get("tie_word_embeddings")
    queries, keys = heads * head_dim, kv_heads * head_dim
    head_norms = {"none": 0, "head": 2 * head_dim, "width": queries + keys}[family.head_norms]
    return Anatomy(
        family=family_name,
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        tied_embeddings=family.tied_by_default if tied is None else bool(tied),
        context=size("max_position_embeddings", 2**31, 2048),
        checkpoint_bytes=_checkpoint_bytes(config, origin),
        projections=_projections(config, family, layers, hidden, ffn, queries, keys),
        norm_parameters=layers * (family.layer_norms * hidden + head_norms) + hidden,
    )


def _projections(
    config: Mapping[str, Any], family: _Family, layers: int, hidden: int, ffn: int, queries: int, keys: int
) -> tuple[Projection, ...]:
    """Return the linear layers in the order of the forward pass."""
    bias = family.configurable_bias and bool(config.get("attention_bias"))
    qkv = bias if family.qkv_bias is None else family.qkv_bias
    mlp = family.configurable_mlp_bias and bool(config.get("mlp_bias"))
    if family.fused:
        return (
            Projection("qkv_proj", "attention", queries + 2 * keys, hidden, qkv, layers),
            Projection("o_proj", "attention", hidden, queries, bias, layers),
            Projection("gate_up_proj", "mlp", 2 * ffn, hidden, mlp, layers),
            Projection("down_proj", "mlp", hidden, ffn, mlp, layers),
        )
    return (
        Projection("q_proj", "attention", queries, hidden, qkv, layers),
        Projection("k_proj", "attention", keys, hidden, qkv, layers),
        Projection("v_proj", "attention", keys, hidden, qkv, layers),
        Projection("o_proj", "attention", hidden, queries, bias, layers),
        Projection("gate_proj", "mlp", ffn, hidden, mlp, layers),
        Projection("up_proj", "mlp", ffn, hidden, mlp, layers),
        Projection("down_proj", "mlp", hidden, ffn, mlp, layers),
    )


def _refuse_other_kinds(config: Mapping[str, Any], family: str, origin: str) -> None:
    """Raise TunewrightError for a model that is no dense, unquantised text decoder of a known architecture."""
    if config.get("quantization_config") is not None:
        raise TunewrightError(
            "Quantised checkpoint",
            f"{origin} describes weights that are already quantised; they cannot be trained or merged exactly.",
            "Take the model's 16-bit weights; QLoRA quantises them while loading.",
        )
    architectures = config.get("architectures")
    names = [one_line(str(name), 80) for name in architectures] if isinstance(architectures, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    found = next((key for key in _SEEING_KEYS if config.get(key) is not None), None)
    if found:
        raise _unsupported(origin, f"it is a model of images or sound (`{found}`)")
    if config.get("is_encoder_decoder"):
        raise _unsupported(origin, "it is an encoder-decoder")
    found = next((key for key in _EXPERT_KEYS if config.get(key)), None)
    if found:
        raise _unsupported(origin, f"it is a mixture of experts (`{found}`)")
    if names and not any(name.endswith("ForCausalLM") for name in names):
        raise _unsupported(origin, f"it is no language model that writes text ({', '.join(names)})")
    if not family:
        raise _unsupported(origin, "it names no architecture (`model_type`)")
    if family not in FAMILIES:
        raise _unsupported(origin, f"its architecture is {family}")


def _unsupported(origin: str, because: str) -> TunewrightError:
    return TunewrightError(
        "Model not supported",
        f"{origin}: {because}; its size would have to be guessed.",
        f"Supported are dense text models of the families {', '.join(FAMILIES)}.",
    )


def _absurd(origin: str, what: str) -> TunewrightError:
    return TunewrightError(
        "config.json does not describe a model", f"{origin}: {what}.", "Download the model's files again."
    )


def _size(config: Mapping[str, Any], key: str, most: int, origin: str, default: int | None) -> int:
    value = config.get(key)
    if value is None:
        if default is None:
            raise _absurd(origin, f"{key} is missing")
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _absurd(origin, f"{key} is {one_line(repr(value), 60)}, not a whole number from 1 to {most:,}")
    return value


def _checkpoint_bytes(config: Mapping[str, Any], origin: str) -> int:
    """Return the bytes of a stored parameter; a config that does not say comes from the days of float32."""
    name = config.get("dtype") or config.get("torch_dtype")
    if name is None:
        return 4
    stored = _CHECKPOINT_BYTES.get(str(name).removeprefix("torch."))
    if stored is None:
        raise _absurd(origin, f"dtype {one_line(str(name), 40)} is none of {', '.join(_CHECKPOINT_BYTES)}")
    return stored
