"""Judging: greedy answers to held-out prompts, compared word for word with their references."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from ..data.examples import Example
from ..data.rendering import Renderer

PROMPTS_AT_ONCE = 50


def judge(
    generate: Callable[[list[str]], list[str]], renderer: Renderer, examples: Sequence[Example]
) -> tuple[float, float, list[tuple[Example, str]]]:
    """Return the share of last answers given exactly (0 to 1), the seconds it took, and every answer."""
    started = time.perf_counter()
    answers = generate([renderer.prompt(each.messages[:-1], each.tools) for each in examples])
    right = sum(
        answer.strip() == each.messages[-1].content.strip() for each, answer in zip(examples, answers, strict=True)
    )
    share = right / len(examples) if examples else 0.0
    return share, time.perf_counter() - started, list(zip(examples, answers, strict=True))


def answer(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int, end_tokens: list[int]) -> list[str]:
    """Return the greedy completion of each prompt; the model is left in the mode and settings it was in."""
    answers: dict[int, str] = {}
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    with answering(model):
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            chosen = by_length[start : start + PROMPTS_AT_ONCE]
            encoded = tokenizer(
                [prompts[index] for index in chosen],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            ).to(model.device)
            output = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=end_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            completions = output[:, encoded["input_ids"].shape[1] :]
            for index, text in zip(chosen, tokenizer.batch_decode(completions, skip_special_tokens=True), strict=True):
                answers[index] = text
    return [answers[index] for index in range(len(prompts))]


@contextlib.contextmanager
def answering(model: Any) -> Generator[None]:
    """Put `model` into evaluation mode while the block runs."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
