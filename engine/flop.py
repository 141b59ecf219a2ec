"""FLOP: how much arithmetic a token takes, by the formulas of NeMo's `llama3_flops` (causal attention)."""

from __future__ import annotations

from dataclasses import dataclass

from .anatomy import Anatomy
from .setting import Tuning


@dataclass(frozen=True, slots=True)
class Load:
    """What the micro-batches of a run hold on average."""

    tokens: float
    """Tokens of a micro-batch, padding counted."""
    attended: float
    """Tokens that one token's attention reaches over: the padded row's, or the whole pack."""


def forward_flop_per_token(anatomy: Anatomy, attended: float) -> float:
    """Return the FLOP of one token's forward pass: 2 · weights, and 2 · s · width · L for causal attention.

    Source: a third of NeMo's `llama3_flops`.
    """
    experts = anatomy.experts.active_parameters if anatomy.experts else 0
    weights = anatomy.linear_parameters + experts + anatomy.vocabulary * anatomy.hidden
    attention = attended * anatomy.attention_width * anatomy.layers
    return 2.0 * (weights + attention)


def flop_per_token(anatomy: Anatomy, tuning: Tuning, attended: float, recomputing: bool) -> float:
    """Return the FLOP of training on one token: 3 forward passes for full tuning, 2 + ρ for LoRA, one more to recompute.

    ρ is the adapters' share of the frozen weights, whose gradients are not computed.
    """
    forward = forward_flop_per_token(anatomy, attended)
    if tuning.kind == "full":
        return forward * (4 if recomputing else 3)
    share = tuning.multiplied_parameters(anatomy) / (anatomy.total_parameters - anatomy.embedding_parameters)
    return forward * (2 + share + (1 if recomputing else 0))


def adapted_projections(anatomy: Anatomy, tuning: Tuning) -> int:
    """Return how many projections carry an adapter, over all layers."""
    if tuning.kind == "full":
        return 0
    names = set(tuning.adapted(anatomy))
    return sum(each.count for each in anatomy.projections if each.name in names)


def trained_tensors(anatomy: Anatomy, tuning: Tuning) -> int:
    """Return how many tensors the optimizer updates: two an adapter (three with DoRA), or all of a model with two norms a layer."""
    if tuning.kind == "full":
        return sum(each.count for each in anatomy.projections) + anatomy.layers * anatomy.layer_norms + 2
    return (3 if tuning.dora else 2) * adapted_projections(anatomy, tuning) + len(tuning.saved)
