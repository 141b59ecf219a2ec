"""The loss without the logits: next-token cross-entropy from hidden states, in parts that fit, gradients on the way."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutputWithPast

from ...data.examples import IGNORED
from .attention import keep_on_host

LOGIT_BYTES = 2**30
"""The most that the logits of one part take; larger parts are no faster."""


def take_loss_from_hidden_states(model: Any) -> None:
    """Have the causal language model `model` compute its loss here whenever it is given labels, and no logits then.

    Only positions that are learned go through the output layer. Without labels the model is as it was.
    """
    original = model.forward

    def forward(
        self: Any, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Any
    ) -> Any:
        if labels is None:
            return original(**inputs)
        hidden = self.model(**keep_on_host(inputs | {"use_cache": False, "return_dict": True})).last_hidden_state
        loss = next_token_loss(hidden, self.lm_head.weight, labels, num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss)  # pyright: ignore[reportArgumentType]

    model.forward = types.MethodType(forward, model)


def next_token_loss(hidden: Tensor, weight: Tensor, labels: Tensor, learned: Tensor | int | None = None) -> Tensor:
    """Return the sum of the cross-entropy over all learned positions, divided by `learned`, or their number here.

    `hidden` is (rows, tokens, width), `weight` (vocabulary, width) and `labels` (rows, tokens), in which IGNORED is
    not learned: the state at one position is asked for the token at the next.
    """
    wanted = functional.pad(labels, (0, 1), value=IGNORED)[:, 1:].reshape(-1)
    places = (wanted != IGNORED).nonzero().squeeze(1)
    states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places)
    divisor = places.numel() if learned is None else learned
    total = _LinearCrossEntropy.apply(states, weight, wanted.index_select(0, places))
    return total / divisor  # pyright: ignore[reportOperatorIssue]


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `states @ weight.T`, whose gradients are found in the forward pass, as Liger does.

    Source: liger_kernel/ops/fused_linear_cross_entropy.py. Its parts are as narrow as the hidden states are wide, which
    reads the output layer anew for every few hundred tokens; ours hold a GiB of logits.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, wanted: Tensor) -> Tensor:
        wide = torch.get_autocast_dtype(states.device.type) if torch.is_autocast_enabled() else weight.dtype
        head, inputs = weight.to(wide), states.to(wide)
        by_states = torch.empty_like(inputs)
        by_weight = torch.zeros_like(head) if weight.requires_grad else None
        rows = max(128, LOGIT_BYTES // (head.shape[0] * head.element_size()) // 128 * 128)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for part in range(0, len(inputs), rows):
            chunk = slice(part, part + rows)
            logits = inputs[chunk] @ head.t()
            total += _softmax_in_place(logits, wanted[chunk])
            torch.mm(logits, head, out=by_states[chunk])
            if by_weight is not None:
                by_weight.addmm_(logits.t(), inputs[chunk])
        ctx.save_for_backward(by_states.to(states.dtype), None if by_weight is None else by_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_states, by_weight = ctx.saved_tensors
        return by_states * gradients[0], None if by_weight is None else by_weight * gradients[0], None


def _softmax_less_wanted(logits: Tensor, wanted: Tensor) -> Tensor:
    """Put the gradient of the summed cross-entropy by the logits in their place, and return that sum."""
    exact = logits.float()
    log_sums = torch.logsumexp(exact, -1, keepdim=True)
    loss = (log_sums - exact.gather(-1, wanted[:, None])).sum()
    columns = torch.arange(logits.shape[-1], device=logits.device)[None]
    logits.copy_(torch.exp(exact - log_sums) - (columns == wanted[:, None]).float())
    return loss


_compiled = torch.compile(_softmax_less_wanted, dynamic=True)


def _softmax_in_place(logits: Tensor, wanted: Tensor) -> Tensor:
    """Do so in one kernel on a GPU."""
    return _compiled(logits, wanted) if logits.is_cuda else _softmax_less_wanted(logits, wanted)
