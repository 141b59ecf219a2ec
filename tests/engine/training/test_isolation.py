"""Isolation: rows that share a micro-batch without padding do not see each other, whatever computes attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

VOCABULARY = 97
DOCUMENTS = (17, 5, 29, 12)
"""Longer and shorter than the window of the models that have one."""
WINDOW = 8
SHAPES = ("llama", "qwen3", "gemma2", "gemma3")
WINDOWED = ("gemma2", "gemma3")
"""Plans leave these to other attention than `varlen`."""
ATTENTIONS = ("sdpa", "eager", "flex_attention", "varlen")


def pairs(attentions: Sequence[str]) -> list[tuple[str, str]]:
    """Return the kinds of models with the implementations of attention that plans may give them."""
    return [(shape, each) for shape in SHAPES for each in attentions if each != "varlen" or shape not in WINDOWED]


def tiny_model(shape: str, attention: str) -> Any:
    """Return a small model with random weights."""
    import transformers
    import tunewright.engine.training.acceleration.attention  # noqa: F401  makes `varlen` known

    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
    }  # fmt: skip
    windowed = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    configs: dict[str, Any] = {
        "llama": lambda: transformers.LlamaConfig(**sizes),
        "qwen3": lambda: transformers.Qwen3Config(**sizes),
        "gemma2": lambda: transformers.Gemma2Config(**sizes, **windowed, query_pre_attn_scalar=16),
        "gemma3": lambda: transformers.Gemma3TextConfig(**sizes, **windowed, query_pre_attn_scalar=16),
    }
    torch.manual_seed(0)
    config = configs[shape]()
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def losses(model: Any, documents: Sequence[Sequence[int]], packs: Sequence[Sequence[int]]) -> list[Any]:
    """Return the per-token losses of each document, which are strung together to `packs` as a run does it."""
    from tunewright.engine.training.acceleration.attention import keep_on_host
    from tunewright.engine.training.batching import Stringing

    rows = [
        {
            "input_ids": [token for index in pack for token in documents[index]],
            "labels": [token for index in pack for token in documents[index]],
            "seq_lengths": [len(documents[index]) for index in pack],
        }
        for pack in packs
    ]
    batch = Stringing()(rows)
    labels = batch.pop("labels").to(model.device)
    batch = {name: each.to(model.device) if hasattr(each, "to") else each for name, each in batch.items()}
    # On a processor FlexAttention takes a minute to be compiled.
    with torch.no_grad(), torch.compiler.set_stance("default" if model.device.type == "cuda" else "force_eager"):
        logits = model(**keep_on_host(batch), use_cache=False).logits.float()
    each = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="none", ignore_index=-100)
    ends = batch["cu_seq_lens_q"].tolist()
    return [each[begin : end - 1] for begin, end in pairwise(ends)]


def apart(one: Any, other: Any) -> float:
    return float((one - other).abs().max())


def assert_isolated(model: Any, packs: Sequence[Sequence[int]], tolerance: float, rounding: float) -> None:
    """Change each document in turn: its own losses change, and no other's by more than `tolerance`.

    Alone they are the same within `rounding`: other shapes are added up in another order.
    """
    generator = torch.Generator().manual_seed(1)
    documents = [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in DOCUMENTS]
    strung = losses(model, documents, packs)
    order = [index for pack in packs for index in pack]
    for place, index in enumerate(order):
        (alone,) = losses(model, [documents[index]], [[0]])
        assert apart(strung[place], alone) <= rounding
        changed = list(documents)
        changed[index] = torch.randint(VOCABULARY, (len(documents[index]),), generator=generator).tolist()
        after = losses(model, changed, packs)
        assert apart(strung[place], after[place]) > 0.01
        assert (
            max(apart(one, other) for at, (one, other) in enumerate(zip(strung, after, strict=True)) if at != place)
            <= tolerance
        )


@pytest.mark.parametrize(("shape", "attention"), pairs(ATTENTIONS))
def test_documents_are_blind_to_each_other(shape: str, attention: str) -> None:
    """In a packed sequence, in a micro-batch without padding, and in one of several packed sequences."""
    model = tiny_model(shape, attention)
    for packs in ([[0, 1, 2, 3]], [[2], [0], [3], [1]], [[1, 2], [3, 0]]):
        assert_isolated(model, packs, 1e-6, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_numbered_positions_documents_would_see_each_other(shape: str) -> None:
    """The measure of isolation is one that contamination fails."""
    model = tiny_model(shape, "sdpa")
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randint(VOCABULARY, (1, 12), generator=generator) for _ in range(2))
    other = torch.randint(VOCABULARY, (1, 12), generator=generator)
    with torch.no_grad():
        one, two = (model(torch.cat((each, second), 1), use_cache=False).logits[0, 12:] for each in (first, other))
    assert apart(one, two) > 1e-3
