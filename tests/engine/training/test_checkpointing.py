"""Recomputing every n-th layer: fewer layers are computed again, and the gradients stay the same to the last digit."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow


def gradients(every: int | None) -> tuple[list[Any], int]:
    """Return the gradients of a small model's loss, and how many times attention was computed in all its layers."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM
    from tunewright.engine.training.transformers import thin_checkpointing

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, vocab_size=101
    )
    model = LlamaForCausalLM(config).train()
    calls = 0

    def count(*ignored: Any) -> None:
        nonlocal calls
        calls += 1

    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(count)
    if every is not None:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        thin_checkpointing(model, every)
    tokens = torch.arange(24).reshape(2, 12)
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    return [each.grad for each in model.parameters()], calls


@pytest.mark.parametrize(("every", "again"), [(1, 4), (2, 2), (4, 1)])
def test_only_every_nth_layer_is_computed_again(every: int, again: int) -> None:
    torch = pytest.importorskip("torch")
    kept, once = gradients(None)
    recomputed, calls = gradients(every)
    assert once == 4
    assert calls == 4 + again
    assert all(torch.equal(one, other) for one, other in zip(kept, recomputed, strict=True))
