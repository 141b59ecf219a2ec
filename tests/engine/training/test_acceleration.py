"""Fused adapters, the loss without logits, and attention over strung rows, held against PEFT's and transformers' own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from tunewright.engine.training import acceleration
from tunewright.engine.training.acceleration import attention, fused_adapters
from tunewright.engine.training.acceleration.loss import LOGIT_BYTES, next_token_loss, take_loss_from_hidden_states

ROWS = (5, 9, 3, 20)
SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False, "attn_implementation": "sdpa",
}  # fmt: skip
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2, with biases": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3, with norms of heads": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
}


def base(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]()


def adapted(model: Any, alpha: int = 6, targets: Any = "all-linear") -> Any:
    """Return a copy with adapters that already differ from nothing."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    found = get_peft_model(copy.deepcopy(model), config)
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return found.train()


def strung(rows: Sequence[int] = ROWS, seed: int = 2) -> dict[str, torch.Tensor]:
    """Return a micro-batch of rows of random tokens without padding, as the collator makes it."""
    torch.manual_seed(seed)
    ends = torch.tensor([0, *torch.tensor(rows).cumsum(0)], dtype=torch.int32)
    tokens = torch.randint(0, 300, (1, sum(rows)))
    labels = tokens.clone()
    labels[0, ends[:-1].long()] = -100
    labels[0, 6:8] = -100
    positions = torch.cat([torch.arange(length) for length in rows])[None]
    return {
        "input_ids": tokens, "labels": labels, "position_ids": positions, "cu_seq_lens_q": ends,
        "max_length_q": torch.tensor(max(rows)),
    }  # fmt: skip


def learn(model: Any, batch: dict[str, torch.Tensor], plain: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and all gradients; `plain` leaves out what only our attention takes."""
    model.zero_grad()
    given = {name: value for name, value in batch.items() if not (plain and name in ("cu_seq_lens_q", "max_length_q"))}
    loss = model(**given, use_cache=False).loss
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_alike(ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=2e-6)
    assert set(ours[1]) == set(theirs[1])
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=1e-6 * max(1, gradient.abs().max().item()))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"]])
def test_fused_adapters_learn_what_pefts_do(name: str, targets: Any) -> None:
    model = base(name)
    theirs, ours = adapted(model, targets=targets), adapted(model, targets=targets)
    assert fused_adapters.fuse_adapters(ours) > 0
    assert_alike(learn(ours, strung(), plain=True), learn(theirs, strung(), plain=True))


def test_what_the_adapters_learned_is_what_the_next_pass_uses() -> None:
    model = base("llama")
    losses: list[list[float]] = []
    for fused in (False, True):
        tuned = adapted(model)
        if fused:
            fused_adapters.fuse_adapters(tuned)
        optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
        losses.append([])
        for _ in range(5):
            losses[-1].append(learn(tuned, strung(), plain=True)[0])
            optimizer.step()
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[1][-1] < losses[1][0] - 0.1


def test_the_model_stays_itself_outside_of_training() -> None:
    model = base("llama")
    theirs, ours = adapted(model).eval(), adapted(model)
    fused_adapters.fuse_adapters(ours)
    learn(ours, strung(), plain=True)
    ours.eval()
    batch = {"input_ids": strung()["input_ids"]}
    torch.testing.assert_close(ours(**batch).logits, theirs(**batch).logits)
    with ours.disable_adapter(), theirs.disable_adapter():
        torch.testing.assert_close(ours.train()(**batch).logits, theirs.train()(**batch).logits)
    for (name, one), (_, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}], ids=lambda options: next(iter(options))
)
def test_what_is_more_than_plain_adapters_is_left_to_peft(options: dict[str, Any]) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    assert fused_adapters.fuse_adapters(get_peft_model(base("llama"), config)) == 0


@pytest.mark.parametrize("name", MODELS)
def test_strung_rows_learn_what_they_learn_alone(name: str) -> None:
    model = base(name).train()
    batch = strung()
    ends = batch["cu_seq_lens_q"].tolist()
    total = 0.0
    model.zero_grad()
    for begin, end in itertools.pairwise(ends):
        alone = {key: batch[key][:, begin:end] for key in ("input_ids", "labels")}
        loss = model(**alone, num_items_in_batch=1).loss
        loss.backward()
        total += loss.item()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    model.set_attn_implementation(attention.NAME)
    loss = model(**batch, num_items_in_batch=1).loss
    loss.backward()
    assert_alike((loss.item() / total, {n: p.grad for n, p in model.named_parameters()}), (1.0, gradients))


def test_a_changed_row_changes_no_other() -> None:
    model = base("llama").eval()
    model.set_attn_implementation(attention.NAME)
    batch = strung()
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, 5:14] = 7
    one, other = (
        model(**{key: each[key] for key in each if key != "labels"}, use_cache=False).logits[0]
        for each in (batch, changed)
    )
    torch.testing.assert_close(torch.cat([one[:5], one[14:]]), torch.cat([other[:5], other[14:]]), rtol=0, atol=1e-6)
    assert not torch.allclose(one[5:14], other[5:14])


@pytest.mark.parametrize("learned", [None, 11])
@pytest.mark.parametrize("part_bytes", [LOGIT_BYTES, 1])
def test_the_loss_without_logits_is_the_cross_entropy(
    learned: int | None, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright.engine.training.acceleration.loss.LOGIT_BYTES", part_bytes)
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 150, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    labels = torch.randint(0, 30, (2, 150))
    labels[0, :7] = labels[1, 3:9] = -100
    found = next_token_loss(hidden, weight, labels, learned)
    ours = torch.autograd.grad(3 * found, (hidden, weight))
    logits = hidden @ weight.t()
    total = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    wanted = total / (learned or int((labels[:, 1:] != -100).sum()))
    theirs = torch.autograd.grad(3 * wanted, (hidden, weight))
    torch.testing.assert_close(found, wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_batch_in_which_nothing_is_learned_has_no_gradient() -> None:
    hidden, weight = torch.randn(1, 4, 8, requires_grad=True), torch.randn(30, 8)
    loss = next_token_loss(hidden, weight, torch.full((1, 4), -100), 5)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert loss.item() == 0
    assert not gradient.any()


def test_without_labels_the_model_answers_as_before() -> None:
    model = base("llama").eval()
    batch = {"input_ids": strung()["input_ids"]}
    before = model(**batch).logits
    take_loss_from_hidden_states(model)
    assert torch.equal(model(**batch).logits, before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_accelerated_model_learns_what_the_plain_one_does(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by the tracer alone: that what it finds is compiled into kernels rightly is torch's own affair."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda what, **options: compile_(what, backend="eager", **options))
    model = base("llama")
    theirs, ours = adapted(model), adapted(model)
    ours.get_base_model().set_attn_implementation(attention.NAME)
    acceleration.accelerate(ours)
    if checkpointing:
        ours.gradient_checkpointing_enable({"use_reentrant": False})
        ours.enable_input_require_grads()
    for rows in (ROWS, (7, 8), (30, 2, 2)):
        assert_alike(learn(ours, strung(rows)), learn(theirs, strung(rows), plain=True))
    ours.eval()
    prompt = torch.tensor([[1, 2, 3], [0, 4, 5]])
    asked = {"input_ids": prompt, "attention_mask": (prompt > 0).long(), "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(ours.generate(**asked), theirs.eval().generate(**asked))
