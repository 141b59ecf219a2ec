"""Attention over rows that are strung together without padding: each row sees itself alone, by torch's own kernels.

Importing this module makes `varlen` known to transformers as an implementation of attention. A model that has it takes,
beside its `position_ids`, where each row ends, `cu_seq_lens_q` (rows + 1), and the longest row, `max_length_q`, a tensor
on the host, so that a compiled layer does not depend on its value. Without them rows are padded or single, and torch's
`scaled_dot_product_attention` is used, which has faster kernels for rows that are all of one length.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "varlen"


def keep_on_host(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return what a model is given with the longest row's length as a tensor on the host.

    Kernels are told it there, and compiled layers do not depend on its value as they would on a number's. DDP would move
    it to the GPU, so this is done within the model. What is said of the keys again is left out.
    """
    longest = inputs.get("max_length_q")
    said = {name: value for name, value in inputs.items() if name not in ("cu_seq_lens_k", "max_length_k")}
    return {**said, "max_length_q": torch.tensor(longest)} if isinstance(longest, int) else said


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: Tensor | int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Return attention's output, (1, tokens, heads, width), for query (1, heads, tokens, width), key and value.

    Keys and values may have fewer heads than queries; `dropout` is not applied to rows that are strung together.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        options = {"scaling": scaling, "dropout": dropout, **rest}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    flat = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
    assert not rest.get("sliding_window"), "plans leave models with a sliding window to other attention"
    scale = scaling or query.shape[-1] ** -0.5
    if query.is_cuda:
        longest = max_length_q if isinstance(max_length_q, Tensor) else torch.tensor(max_length_q)
        mixed, _ = _attend_rows(*flat, cu_seq_lens_q, longest, scale)
    else:
        mixed = _attend_one_by_one(*flat, cu_seq_lens_q, scale)
    return mixed.unsqueeze(0), None


@torch.library.custom_op("tunewright::attend_rows", mutates_args=())
def _attend_rows(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return causal attention within each row, (tokens, heads, width), and the logarithms of its sums, (heads, tokens).

    The kernels are those of flash attention that come with torch, called as `torch.nn.attention.varlen` calls them; that
    function itself has no word for fewer key heads than query heads before torch 2.12.
    """
    most = int(longest)
    mixed, sums, _, _, _ = torch.ops.aten._flash_attention_forward(
        query, key, value, ends, ends, most, most, 0.0, True, return_debug_mask=False, window_size_left=-1, window_size_right=0, scale=scale,
    )  # fmt: skip
    return mixed.contiguous(), sums


@_attend_rows.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    sums = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    return query.new_empty(query.shape), sums


@contextmanager
def _in_one_order() -> Generator[None]:
    """Have flash attention add its gradients up in one order while the block runs; torch's warnings alone do not do that."""
    asked, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warned)


@torch.library.custom_op("tunewright::attend_rows_backward", mutates_args=())
def _attend_rows_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, sums: Tensor, ends: Tensor,
    longest: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients by query, key and value."""
    most = int(longest)
    state = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of dropout, of which there is none
    with _in_one_order():
        by_query, by_key, by_value = torch.ops.aten._flash_attention_backward(
            gradient.contiguous(), query, key, value, mixed, sums, ends, ends, most, most, 0.0, True, state,
            torch.empty(0, device=query.device), window_size_left=-1,
            window_size_right=0, scale=scale,
        )  # fmt: skip
    return by_query.contiguous(), by_key.contiguous(), by_value.contiguous()


@_attend_rows_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, sums: Tensor, ends: Tensor,
    longest: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ends, longest, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, ends, longest)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    found = _attend_rows_backward(gradient, *ctx.saved_tensors, ctx.scale)
    return *found, None, None, None


_attend_rows.register_autograd(_differentiate, setup_context=_remember)


@torch.compiler.disable
def _attend_one_by_one(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, scale: float) -> Tensor:
    """Return causal attention within each row on a processor."""
    parts: list[Tensor] = []
    for begin, end in pairwise(ends.tolist()):
        rows = [each[begin:end].transpose(0, 1) for each in (query, key, value)]
        parts.append(scaled_dot_product_attention(*rows, is_causal=True, scale=scale, enable_gqa=True).transpose(0, 1))
    return torch.cat(parts)


def _mask(*arguments: Any, **options: Any) -> Tensor | None:
    """Return the mask of padded or single rows; rows that are strung together need none, and none is made for them.

    transformers takes positions that begin anew for strung rows, and would make a mask of tokens × tokens.
    """
    if options.get("attention_mask") is None and options.get("q_length") == options.get("kv_length"):
        return None
    return sdpa_mask(*arguments, **options)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
