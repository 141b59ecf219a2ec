"""Activations: what one layer keeps for its backward pass on a GPU, and what recomputing and that pass hold beside it.

Counted from the modelling code of the pinned versions and held against the blocks that torch's allocator had handed
out at the peak of measured runs (`benchmarks/`). All figures are bytes for each token of a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .anatomy import Anatomy
from .setting import Setting, Tuning
from .states import dora_kept_bytes

UNSLOTH_LAYERS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"})
"""Families for which Unsloth has layers of its own (unsloth/models/loader.py); the others it compiles."""
UNSLOTH_PADS = frozenset({"gemma2", "gpt_oss"})
"""Families whose rows Unsloth pads (unsloth/trainer.py, PADDING_FREE_BLOCKLIST)."""
NORMALISED_IN_FP32 = frozenset({"gemma", "gemma2", "gemma3_text", "vaultgemma", "olmo2", "olmo3"})
"""Families whose norms multiply by their weight in fp32; the others do it in the hidden states' own type."""
LAYER_NORM_BYTES = {"olmo": (4, 0), "cohere": (8, 2), "cohere2": (8, 2)}
"""Bytes that a layer norm written in Python keeps of an element, and those that its weight's gradient adds."""
PLAIN_ACTIVATION_BYTES = {"xielu": 7, "gelu_new": 6}
"""Bytes for each inner element of the MLP that activations written in Python keep beside their input."""
ACCELERATED_STATES = 5.8
"""Hidden states that a compiled layer keeps; four are counted, the rest fitted to a measured slope."""
ATTENTION_BLOCK = 128
"""Unsloth pads every document's queries, keys and values to the next block (attention_dispatch.py)."""

Path = Literal["plain", "liger", "accelerated", "fast", "compiled"]


def path_of(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> Path:
    """Return which code runs the layers: transformers' own, Liger's, ours, Unsloth's own, or what Unsloth compiles."""
    if setting.compiled:
        return "accelerated"
    if setting.backend == "transformers":
        return "liger" if setting.liger else "plain"
    return "fast" if anatomy.family in UNSLOTH_LAYERS and tuning.kind != "full" else "compiled"


def strings_together(setting: Setting) -> bool:
    """Tell whether a row holds several documents, which attention must keep apart."""
    strings = setting.backend == "unsloth" or setting.compiled
    return setting.packed or (strings and setting.strung > 1 and not setting.padded)


@dataclass(frozen=True, slots=True)
class _Adapted:
    """Which projections of a layer carry an adapter, by their place in it."""

    inputs: int
    """Of those that read what attention reads."""
    all_inputs: bool
    output: bool
    mlp_inputs: int
    down: bool

    @property
    def mlp(self) -> bool:
        """Whether the whole MLP is adapted."""
        return self.mlp_inputs > 0 and self.down

    @property
    def count(self) -> int:
        return self.inputs + self.output + self.mlp_inputs + self.down


def _adapted(anatomy: Anatomy, tuning: Tuning) -> _Adapted:
    if tuning.kind == "full":
        return _Adapted(0, False, False, 0, False)
    names = set(tuning.adapted(anatomy))
    attention = [each for each in anatomy.projections if each.part == "attention"]
    mlp = [each for each in anatomy.projections if each.part == "mlp"]
    inputs = sum(each.name in names for each in attention[:-1])
    return _Adapted(
        inputs,
        inputs == len(attention) - 1,
        attention[-1].name in names,
        sum(each.name in names for each in mlp[:-1]),
        bool(mlp) and mlp[-1].name in names,
    )


def adapts_mlp(anatomy: Anatomy, tuning: Tuning) -> bool:
    """Tell whether all of a layer's MLP carries adapters."""
    return _adapted(anatomy, tuning).mlp


def _fused(anatomy: Anatomy) -> bool:
    """Tell whether queries, keys and values come out of one projection, so that the values keep all of it alive."""
    return sum(each.part == "attention" for each in anatomy.projections) == 2


def _blocks(setting: Setting) -> float:
    """Return how much longer documents are once padded to whole blocks."""
    if setting.documents:  # of any length: at most a block more each
        return 1 + setting.documents * ATTENTION_BLOCK / setting.tokens
    length = max(1, setting.tokens_per_row)
    return (length + ATTENTION_BLOCK - length % ATTENTION_BLOCK) / length


def kept_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what one layer keeps of a token until its backward pass when nothing is recomputed."""
    dora = dora_kept_bytes(anatomy, tuning)
    match path_of(anatomy, tuning, setting):
        case "fast":
            return _kept_by_unsloth(anatomy, tuning, setting) + dora
        case "compiled":
            return _kept_by_compiled(anatomy, tuning, setting) + dora
        case "accelerated":
            return _kept_accelerated(anatomy, tuning)
        case _:
            return _kept_by_transformers(anatomy, tuning, setting) + dora


def _kept_by_transformers(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
    full, quantised = tuning.kind == "full", tuning.kind == "qlora"
    state = 4 if quantised else 2
    """Hidden states are fp32 after transformers' preparation for 4-bit training."""
    kept = 2.0 * (2 * q + 2 * kv) + 4 * anatomy.heads  # rotated queries and keys, values, output, log-sums
    if _fused(anatomy) and not quantised:
        kept += 2 * (q + kv)
    weighted = (4 if anatomy.family in NORMALISED_IN_FP32 else 2) if full else 0
    """What the gradient of a norm's weight needs: the normalised values."""
    if anatomy.head_norms != "none":
        kept += (4 + weighted) * (q + kv)
    kept += PLAIN_ACTIVATION_BYTES.get(anatomy.activation, 0) * ffn
    if setting.liger:
        kept += anatomy.layer_norms * h * state + (2 if anatomy.gated else 1) * ffn * state
        kept += 2 * (2 * h + ffn) if full else 0
    else:
        if anatomy.norm_kind == "rms":
            kept += anatomy.layer_norms * h * (4 + weighted)  # every norm computes in fp32
        else:
            own, more = LAYER_NORM_BYTES.get(anatomy.family, (2, 0))  # torch's own keeps its input as it is
            kept += anatomy.layer_norms * h * (own + (more if full else 0))
        kept += (3 if anatomy.gated else 1) * ffn * state  # gate, its activation, up
        kept += 2 * (2 * h + ffn) if full else 0  # what the linear layers multiply
    return kept + _kept_by_adapters(anatomy, tuning, setting)


def _kept_accelerated(anatomy: Anatomy, tuning: Tuning) -> float:
    """Return what compiled layers keep: the inputs of all products, attention's, and what cannot be computed again."""
    h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
    ranks = tuning.rank * _adapted(anatomy, tuning).count
    norms = 2 * (q + kv) if anatomy.head_norms != "none" else 0
    return 2.0 * (ACCELERATED_STATES * h + 2 * q + 2 * kv + 3 * ffn + norms + ranks) + 4 * anatomy.heads


def _kept_by_adapters(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what PEFT's layers keep: a copy of each input in the adapters' computing type, and rank values."""
    if tuning.kind == "full":
        return 0.0
    adapted = _adapted(anatomy, tuning)
    casts = tuning.kind != "qlora" or setting.adapters == "fp32"
    copies = (adapted.inputs + adapted.mlp_inputs) * anatomy.hidden + adapted.down * anatomy.ffn
    copies += anatomy.attention_width if adapted.output and casts else 0
    return 2.0 * (copies + tuning.rank * adapted.count)


def _kept_by_unsloth(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
    adapted = _adapted(anatomy, tuning)
    at_once = _at_once(anatomy, adapted)
    kept = 2.0 * h  # both sums with the residual
    if anatomy.attention_softcap:
        kept += 3 * h + 4 * q + 2 * ffn + 2 * anatomy.heads * setting.tokens_per_row
        kept += h if adapted.mlp else 0
    else:
        kept += (1 if at_once or tuning.kind == "qlora" else adapted.inputs) * h if adapted.inputs else 0
        kept += (q if adapted.output else 0) + 2 * _blocks(setting) * (q + kv)
        kept += h + 2 * ffn if adapted.mlp else 3 * ffn
        kept += q + kv if anatomy.head_norms != "none" else 0
    ranks = 0 if at_once else tuning.rank * adapted.inputs
    return 2 * (kept + ranks) + 4 * anatomy.heads


def _at_once(anatomy: Anatomy, adapted: _Adapted) -> bool:
    """Tell whether Unsloth computes queries, keys and values in one function, which keeps its input once."""
    biased = any(each.bias for each in anatomy.projections if each.part == "attention")
    return adapted.all_inputs and not biased


def _kept_by_compiled(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
    adapted = _adapted(anatomy, tuning)
    whole = tuning.kind == "full" or adapted.mlp
    kept = 4.0 * h + 2 * q + 2 * kv + (3 * ffn if whole else 2 * ffn)
    kept -= 0 if whole else h
    kept += q + kv if _fused(anatomy) else 0
    kept += q + kv if anatomy.head_norms != "none" else 0
    if tuning.kind == "full" and anatomy.head_norms == "head" and strings_together(setting):
        kept += 2 * q - kv + setting.tokens  # keys and values repeated for every head, and a mask in every layer
    return 2 * (kept + tuning.rank * adapted.count) + 4 * anatomy.heads


def recomputed_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what one layer's recomputation and backward pass hold of a token at their most."""
    h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
    adapted = _adapted(anatomy, tuning)
    qk = q + kv if anatomy.head_norms != "none" else 0
    match path_of(anatomy, tuning, setting):
        case "fast":
            mlp = 3 * ffn + h if adapted.mlp and not _pads(anatomy, setting) else 6 * ffn
            attention = 2 * _blocks(setting) * (q + kv) + qk
            if anatomy.attention_softcap:
                attention += 2 * anatomy.heads * setting.tokens_per_row
            copies = 1 if tuning.kind == "qlora" or _at_once(anatomy, adapted) else max(1, adapted.inputs)
            return 2 * ((4 + copies) * h + q + mlp + attention)
        case "compiled":
            values = q + 2 * kv if _fused(anatomy) else kv
            if tuning.kind == "full":
                return 2 * (5 * h + 2 * q + kv + values + qk + 4 * ffn)
            mlp = 6 * ffn if _fused(anatomy) and adapted.mlp else 5 * ffn
            return 2 * (6 * h + 2 * q + kv + values + qk + mlp)
        case _:
            return kept_bytes(anatomy, tuning, setting) + passing_bytes(anatomy, tuning, setting)


def passing_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what the backward pass of one layer holds beside what was kept: the MLP's gradients and copies.

    Fitted to measured peaks.
    """
    h, ffn = anatomy.hidden, anatomy.ffn
    adapted = _adapted(anatomy, tuning)
    down = adapted.down
    if setting.backend == "unsloth":
        return 2.0 * (ffn if tuning.kind == "full" or adapted.mlp else 3 * ffn - h)
    if setting.compiled:
        return 2.0 * (4 * ffn + 3 * h)
    if setting.checkpointing == "off" and setting.liger and tuning.kind == "lora":
        return 2.0 * 2 * ffn
    match tuning.kind, setting.liger:
        case "full", liger:
            return 2 * ((0.9 if liger else 2) * ffn + 1.3 * h)
        case "lora", False:
            return 2 * (3 * ffn + (5 if down else 1.5) * h)
        case "lora", True:
            return 2 * (3 * ffn + (3.1 if down else 1.5) * h)
        case _, False:
            return 2 * ((5 if down else 6) * ffn + 1.5 * h)
        case _:
            return 2 * (4 * ffn + 2.1 * h)


def _pads(anatomy: Anatomy, setting: Setting) -> bool:
    return setting.padded or anatomy.family in UNSLOTH_PADS
