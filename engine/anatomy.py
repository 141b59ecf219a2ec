"""A model's anatomy: its shape and exact parameter counts, from config.json alone, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..foundation.errors import TunewrightError, by_likeness, nearest
from ..foundation.text import one_line
from . import configuration
from .architectures import FAMILIES, Family, HeadNorms, Mixture, NormKind
from .configuration import Configuration, read_configuration
from .projection import Experts, Projection

Targets = Literal["all-linear", "attention", "qv"] | Sequence[str]
"""The projections that get an adapter, as in `recipes.model.LoraMethod.targets`."""

_QUERIES_AND_VALUES = {"q_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv"}


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The shape of a decoder; every count is a number of parameters."""

    family: str
    hidden: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    """The inner width of the MLP; where every layer has experts, that of all experts that one token passes."""
    tied_embeddings: bool
    """Whether the output layer is the embedding's own matrix."""
    context: int
    """The longest sequence that the positions reach, in tokens."""
    checkpoint_bytes: int
    """Bytes of one parameter in the checkpoint; of one that is dequantised while loading, in memory."""
    projections: tuple[Projection, ...]
    norm_parameters: int
    gated: bool = True
    """Whether the MLP multiplies two projections of its input (gate and up)."""
    activation: str = "silu"
    layer_norms: int = 2
    """Normalisations of the hidden width in a layer."""
    head_norms: HeadNorms = "none"
    """Whether queries and keys are normalised, over one head or over their whole width."""
    norm_kind: NormKind = "rms"
    experts: Experts | None = None
    router_parameters: int = 0
    """What chooses the experts, biases counted."""
    router_linear_parameters: int = 0
    """Those of them in linear layers, which bitsandbytes quantises."""
    head_bias_parameters: int = 0
    other_parameters: int = 0
    """Attention sinks, the activation's own parameters, learned positions."""
    logit_softcap: bool = False
    attention_softcap: bool = False
    sliding_window: int | None = None
    """Tokens that attention reaches back in at least some layers; None: all."""
    attention_sinks: bool = False
    dequantised_from: str | None = None
    """The quantisation of the stored weights that is undone while loading; all counts are of the 16-bit model."""
    counted_on_meta: bool = False
    """Whether transformers' own class was counted, and not by these formulas."""

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
        """The weights of all projections, biases and fused experts apart: what adapters stand beside."""
        return sum(each.weights for each in self.projections)

    @property
    def quantisable_parameters(self) -> int:
        """The weights that bitsandbytes stores in 4 bits: linear layers, and of them not the output layer.

        Source: transformers 5.17, integrations/bitsandbytes.py, `replace_with_bnb_linear`.
        """
        return self.router_linear_parameters + sum(each.weights for each in self.projections if each.quantisable)

    @property
    def expert_parameters(self) -> int:
        """The parameters of all experts, biases counted; the shared expert is made of projections instead."""
        return self.experts.total_parameters if self.experts else 0

    @property
    def active_parameters(self) -> int:
        """The parameters that one token uses: all but those of the experts that it does not pass."""
        unused = self.experts.total_parameters - self.experts.active_parameters if self.experts else 0
        return self.total_parameters - unused

    @property
    def bias_parameters(self) -> int:
        biases = sum(each.outputs * each.count for each in self.projections if each.bias)
        return biases + self.head_bias_parameters

    @property
    def largest_linear(self) -> int:
        """The weights of the largest single projection."""
        return max(each.outputs * each.inputs for each in self.projections)

    @property
    def total_parameters(self) -> int:
        return sum(self.parameters_by_kind().values())

    @property
    def note(self) -> str | None:
        """What must be known of these counts, in a sentence, or None."""
        if self.dequantised_from:
            return (
                f"The checkpoint is quantised with {self.dequantised_from.upper()}; transformers makes 16-bit weights "
                "of it while loading for full tuning and LoRA, which are counted here. QLoRA cannot load it."
            )
        if self.experts:
            return "The experts are no linear layers: LoRA and 4-bit quantisation leave them as they are."
        return None

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for; they add up to `total_parameters`."""
        attention, mlp = (
            sum(each.weights for each in self.projections if each.part == part) for part in ("attention", "mlp")
        )
        kinds = {
            "embedding": self.embedding_parameters,
            "attention": attention,
            "mlp": mlp,
            "biases": self.bias_parameters,
            "norms": self.norm_parameters,
            "head": self.head_parameters,
        }
        more = {"experts": self.expert_parameters, "router": self.router_parameters, "other": self.other_parameters}
        return kinds | {kind: count for kind, count in more.items() if count}

    def target_names(self, targets: Targets) -> tuple[str, ...]:
        """Return the names of the projections that `targets` means, in the order of the forward pass.

        Where query, key and value are one matrix, `qv` means that matrix, as in PEFT's own table.
        Raises TunewrightError for a name that no projection has, and for one that PEFT cannot adapt.
        """
        if not isinstance(targets, str):
            wanted = {name for target in targets or ("",) for name in self._projection_names(target)}
            return tuple(each.name for each in self.projections if each.name in wanted)
        match targets:
            case "all-linear":
                found = self._adaptable()
            case "attention":
                found = tuple(each for each in self._adaptable() if each.part == "attention")
            case "qv":
                found = tuple(each for each in self._adaptable() if each.leaf in _QUERIES_AND_VALUES)
            case _:
                return self.target_names((targets,))
        if not found:
            names = ", ".join(each.name for each in self._adaptable())
            raise TunewrightError(
                "No such targets",
                f"A {self.family} model has no projections that {targets} means.",
                f"Name some of {names} instead." if names else "Tune all parameters (method full).",
            )
        return tuple(each.name for each in found)

    def _adaptable(self) -> tuple[Projection, ...]:
        return tuple(each for each in self.projections if each.adaptable)

    def _projection_names(self, target: str) -> tuple[str, ...]:
        """Return the projections whose path ends in the module name `target`, as PEFT matches it."""
        found = [each for each in self.projections if f".{each.path}".endswith(f".{target}")] if target else []
        names = list(dict.fromkeys(each.name for each in self.projections))
        if not found:
            names = by_likeness(target, names)
            suggestion = nearest(target, names)
            raise TunewrightError(
                "Unknown target module",
                f"A {self.family} model has no projection {one_line(target, 80)!r}; it has {', '.join(names)}.",
                f"Did you mean {suggestion}?"
                if suggestion
                else "Choose from these, or use all-linear, attention or qv.",
            )
        if not all(each.adaptable for each in found):
            raise TunewrightError(
                "Target out of reach",
                f"In a {self.family} model PEFT takes {one_line(target, 80)!r} for the experts' fused weights.",
                f"Choose from {', '.join(each.name for each in self._adaptable())}.",
            )
        return tuple(each.name for each in found)

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


def read_anatomy(path: Path, count_unknown: bool = False) -> Anatomy:
    """Return the anatomy of the model whose config.json is at `path`, or in the folder `path`.

    With `count_unknown`, an architecture without a formula is counted with `counted.count_on_meta`, in some seconds.
    Raises TunewrightError when it cannot be read, and for a model that cannot be counted exactly.
    """
    config = read_configuration(path)
    if count_unknown and config.family not in FAMILIES:
        from .counted import count_configuration  # it makes anatomies, so it imports this module

        return count_configuration(config)
    return _by_formula(config)


def parse_anatomy(config: Mapping[str, Any], origin: str) -> Anatomy:
    """Return the anatomy that `config` describes; `origin` names it in errors.

    Raises TunewrightError for an architecture that is not known exactly, and for missing or absurd sizes.
    """
    return _by_formula(Configuration(config, origin))


def _by_formula(config: Configuration) -> Anatomy:
    """Return the anatomy by the formulas that `FAMILIES` describes."""
    config.refuse_other_kinds()
    config.refuse_unknown_family()
    family = FAMILIES[config.family]
    hidden = config.size("hidden_size", configuration.LARGEST_HIDDEN)
    layers = config.size("num_hidden_layers", configuration.LARGEST_LAYERS)
    vocabulary = config.size("vocab_size", configuration.LARGEST_VOCABULARY)
    ffn = config.size("intermediate_size", configuration.LARGEST_FFN)
    heads, kv_heads, head_dim = _heads(config, family, hidden)
    mixture = family.mixture
    experts = _experts(config, mixture, layers, hidden) if mixture else None
    types = config.layer_types(layers)
    queries, keys = heads * head_dim, kv_heads * head_dim
    head_norms: HeadNorms = family.head_norms if config.switch(family.head_norms_used) else "none"
    normed = family.head_norm_vectors * {"none": 0, "head": 2 * head_dim, "width": queries + keys}[head_norms]
    activation = config.word(family.activation_key, family.activation)
    own = family.activation_parameters
    softcaps = family.softcaps
    router, router_linear = _router(mixture, experts, hidden) if mixture and experts else (0, 0)
    only_experts = experts is not None and experts.layers == layers
    return Anatomy(
        family=config.family,
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=experts.per_token * experts.ffn + experts.shared_ffn if experts and only_experts else ffn,
        tied_embeddings=config.switch(("tie_word_embeddings", family.tied)),
        context=config.size("max_position_embeddings", configuration.LARGEST_CONTEXT, family.context),
        checkpoint_bytes=config.checkpoint_bytes(),
        projections=_projections(config, family, experts, layers, hidden, ffn, queries, keys),
        norm_parameters=layers * (family.norm_vectors * family.layer_norms * hidden + normed)
        + family.norm_vectors * hidden,
        gated=family.gated,
        activation=activation,
        layer_norms=family.layer_norms,
        head_norms=head_norms,
        norm_kind=family.norm_kind,
        experts=experts,
        router_parameters=router,
        router_linear_parameters=router_linear,
        head_bias_parameters=vocabulary if family.head_bias else 0,
        other_parameters=layers * ((heads if family.sinks else 0) + (own[1] if own and own[0] == activation else 0)),
        logit_softcap=softcaps is not None and config.has("final_logit_softcapping", softcaps[0]),
        attention_softcap=softcaps is not None and config.has("attn_logit_softcapping", softcaps[1]),
        sliding_window=_window(config, family, types),
        attention_sinks=family.sinks,
        dequantised_from=config.quantisation(),
    )


def _heads(config: Configuration, family: Family, hidden: int) -> tuple[int, int, int]:
    """Return the heads, the key heads, and the width of one."""
    heads = config.size("num_attention_heads", configuration.LARGEST_HEADS)
    kv_heads = config.size_or_null(
        "num_key_value_heads",
        configuration.LARGEST_HEADS,
        default=heads if family.kv_heads is None else family.kv_heads,
        null=heads if family.null_kv_heads else None,
    )
    if heads % kv_heads:
        raise config.absurd(f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
    # A width of 0 stands for one that the config must give: hidden cannot be shared out among the heads.
    share = 0 if hidden % heads else hidden // heads
    if not family.head_dim_obeyed:
        head_dim = share
    else:
        head_dim = config.size_or_null(
            "head_dim",
            configuration.LARGEST_HEAD_DIM,
            default=share if family.head_dim is None else family.head_dim,
            null=share if family.null_head_dim else None,
        )
    if not head_dim or (family.divisible and not share):
        raise config.absurd(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    if head_dim != share and not family.head_dim_free and config.switch(family.head_norms_used):
        raise config.absurd(f"head_dim is {head_dim}, which a {config.family} model's norms do not fit")
    return heads, kv_heads, head_dim


def _experts(config: Configuration, mixture: Mixture, layers: int, hidden: int) -> Experts | None:
    """Return the experts of a mixture, or None when no layer has them, as Qwen's modelling code decides."""
    counts = {
        key: config.size(key, configuration.LARGEST_EXPERTS) for key in mixture.count_keys if key in config.values
    }
    if len(set(counts.values())) != 1:
        said = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise config.absurd(f"{said} contradict each other" if said else f"{mixture.count_keys[0]} is missing")
    count = next(iter(counts.values()))
    per_token = config.size("num_experts_per_tok", configuration.LARGEST_EXPERTS)
    if per_token > count:
        raise config.absurd(f"num_experts_per_tok {per_token} is more than the {count} experts")
    ffn = config.size(mixture.ffn_key, configuration.LARGEST_FFN)
    shared = config.size(mixture.shared_key, configuration.LARGEST_FFN) if mixture.shared_key else 0
    with_experts = layers
    if mixture.dense_layers:
        dense = config.items("mlp_only_layers") or []
        if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in dense):
            raise config.absurd("mlp_only_layers is no list of layers' numbers")
        step = config.size("decoder_sparse_step", configuration.LARGEST_LAYERS, 1)
        with_experts = sum((layer + 1) % step == 0 and layer not in dense for layer in range(layers))
    if not with_experts:
        return None
    bias = 2 * ffn + hidden if mixture.expert_bias else 0
    return Experts(count, per_token, ffn, shared, with_experts, 3 * hidden * ffn + bias)


def _router(mixture: Mixture, experts: Experts, hidden: int) -> tuple[int, int]:
    """Return the parameters that choose the experts, and those of them in linear layers: the shared expert's gate."""
    gate = experts.layers * hidden if experts.shared_ffn else 0
    bias = 1 if mixture.router_bias else 0
    return experts.layers * experts.count * (hidden + bias) + gate, gate


def _window(config: Configuration, family: Family, types: list[object] | None) -> int | None:
    """Return the width of sliding attention in tokens, or None where no layer slides."""
    if family.window == "none" or (family.window == "switched" and not config.switch(("use_sliding_window", False))):
        return None
    if types is not None and "sliding_attention" not in types:
        return None
    if config.values.get("sliding_window", family.default_window) is None:
        return None
    return config.size("sliding_window", configuration.LARGEST_CONTEXT, family.default_window, least=0) or None


def _projections(
    config: Configuration, family: Family, experts: Experts | None, layers: int,
    hidden: int, ffn: int, queries: int, keys: int,
) -> tuple[Projection, ...]:  # fmt: skip
    """Return the linear layers in the order of the forward pass."""
    qkv, out, mlp = (config.switch(each) for each in (family.qkv_bias, family.output_bias, family.mlp_bias))
    widths = (queries + 2 * keys,) if len(family.attention) == 2 else (queries, keys, keys)
    *inner, output = family.attention
    found = [
        Projection(name, "attention", width, hidden, qkv, layers) for name, width in zip(inner, widths, strict=True)
    ]
    found.append(Projection(output, "attention", hidden, queries, out, layers))

    def add_mlp(width: int, count: int, module: str = "mlp", above: str = "", adaptable: bool = True) -> None:
        """Add an MLP's projections; names are told apart by the module `above` them where there are two kinds."""
        *ups, down = family.mlp
        fused = family.gated and len(ups) == 1
        shapes = [(name, (2 if fused else 1) * width, hidden) for name in ups] + [(down, hidden, width)]
        for name, outputs, inputs in shapes:
            known = f"{above}.{name}" if above else name
            found.append(Projection(known, "mlp", outputs, inputs, mlp, count, f"{module}.{name}", adaptable))

    dense = layers - (experts.layers if experts else 0)
    shared = experts is not None and experts.shared_ffn > 0
    if experts and shared:
        add_mlp(experts.shared_ffn, experts.layers, "mlp.shared_expert", "shared_expert" if dense else "")
    if dense:
        add_mlp(ffn, dense, "mlp", "mlp" if shared else "", family.mixture is None or family.mixture.dense_adaptable)
    return tuple(found)
