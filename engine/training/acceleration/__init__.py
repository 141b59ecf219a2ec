"""Acceleration: what makes a model of transformers' fast on a GPU, without changing what it computes.

The layers are compiled, so that what lies between two matrix products is one kernel; adapters are fused
(`fused_adapters`); the loss takes no logits (`loss`); rows are strung together without padding (`attention`).
"""

from __future__ import annotations

import types
from typing import Any

import torch
from transformers import Trainer

from .fused_adapters import fuse_adapters
from .loss import take_loss_from_hidden_states


def accelerate(model: Any) -> None:
    """Compile the layers of `model`, a causal language model with or without PEFT's adapters, and fuse what can be."""
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    if causal is not model:
        fuse_adapters(model)
    take_loss_from_hidden_states(causal)
    for module in (*causal.model.layers, causal.model.norm):
        _compile_for_training(module)


def _compile_for_training(module: Any) -> None:
    """Have `module` compiled for batches of any length; evaluations and answers take it as it is written.

    They would have it compiled again and again: without gradients, with a cache, for one token at a time.
    """
    written = module.forward
    compiled = torch.compile(written, dynamic=True)

    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        return (compiled if self.training else written)(*arguments, **options)

    module.forward = types.MethodType(forward, module)


def accelerated(trainer: type[Any]) -> type[Any]:
    """Return TRL's `trainer` as one for models that were accelerated: it takes their loss as it is.

    TRL's own asks the card for figures after every micro-batch, which has to finish its work before it can answer.
    """

    class Accelerated(trainer):
        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            return Trainer.compute_loss(self, *arguments, **options)

    return Accelerated
