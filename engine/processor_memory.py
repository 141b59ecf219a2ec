"""Memory on a processor: the peak resident set of the trainer's process, one function a term.

The constants are fitted to runs of the starter model.
"""

from __future__ import annotations

from ..foundation.units import GIB
from . import states
from .anatomy import Anatomy
from .setting import Setting, Tuning

TRAINER_GIB = 0.085
"""Data set, trainer and the answers before training, beside the libraries."""
HEAP_SHARE = 1.35
"""What the heap grows to for each byte of activations, for it is never quite full."""
LOSS_CHUNK_TOKENS = 256
"""Tokens whose logits TRL computes at once."""


def peak_terms(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> dict[str, float]:
    """Return the terms of the peak by name, in GiB; they add up to it."""
    terms = {
        "libraries": setting.libraries_gib,
        "trainer": TRAINER_GIB,
        "weights": states.weights_gib(anatomy, tuning, setting),
        "adapters": states.adapters_gib(anatomy, tuning, setting),
        "gradients": states.gradients_gib(anatomy, tuning, setting),
        "optimizer": states.optimizer_gib(anatomy, tuning, setting),
        "activations": activations_gib(anatomy, tuning, setting),
        "layer": layer_gib(anatomy, setting) + states.dora_expanded_bytes(anatomy, tuning) / GIB,
        "loss": loss_gib(anatomy, setting),
        "dequantisation": 4 * anatomy.largest_linear / GIB if tuning.kind == "qlora" else 0.0,
    }
    return {name: gib for name, gib in terms.items() if gib > 0}


def activations_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what is kept for the backward pass: every layer's elements, or only its input when recomputing."""
    if setting.checkpointing == "off":
        h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
        copies = 0 if tuning.kind == "full" else 3 * h
        stored = anatomy.layers * (10 * h + copies + 3 * q + 3 * kv + 4 * ffn)
        stored += anatomy.layers * states.dora_kept_bytes(anatomy, tuning) / 2  # here it computes in fp32
    else:
        stored = anatomy.layers * anatomy.hidden
    return HEAP_SHARE * 4 * setting.tokens * stored / GIB


def layer_gib(anatomy: Anatomy, setting: Setting) -> float:
    """Return the working set of one layer's recomputation and backward pass, the MLP's being largest."""
    return 0.0 if setting.checkpointing == "off" else 4 * 6.0 * setting.tokens * anatomy.ffn / GIB


def loss_gib(anatomy: Anatomy, setting: Setting) -> float:
    """Return what the logits and their loss take beyond one layer's working set: both are not there at once."""
    tokens = setting.tokens if setting.whole_logits else min(setting.tokens, LOSS_CHUNK_TOKENS)
    logits = 16.0 * tokens * anatomy.vocabulary / GIB
    return max(0.0, logits - layer_gib(anatomy, setting))
