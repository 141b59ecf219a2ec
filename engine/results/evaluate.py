"""Judging: greedy answers to held-out prompts, compared word for word with their references."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from ..data.examples import Example
from ..data.rendering import Renderer
from ..training.memory import free_cached_memory, ran_out_of_memory
from ..training.parallel import is_alone
from ..training.randomness import undisturbed_randomness

PROMPTS_AT_ONCE = 50
TOKENS_AT_ONCE = 32_768
"""Prompts that are answered together hold no more tokens than this, padding and answers counted."""


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


def answer(
    model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int, end_tokens: list[int],
    told: Callable[[int], None] = lambda answered: None,
) -> list[str]:  # fmt: skip
    """Return the greedy completion of each prompt; the model is left in the mode and settings it was in.

    Prompts that do not fit into memory together are answered in halves; torch's error is raised when one alone does not.
    """
    lengths = [len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]] if prompts else []
    by_length = sorted(range(len(prompts)), key=lambda index: lengths[index])
    answers: dict[int, str] = {}
    with answering(model):
        waiting = batches_of(by_length, [length + max_new_tokens for length in lengths])
        while waiting:
            chosen = waiting.pop(0)
            texts = None
            try:
                texts = _complete(model, tokenizer, [prompts[index] for index in chosen], max_new_tokens, end_tokens)
            except Exception as error:
                if len(chosen) == 1 or not is_alone() or not ran_out_of_memory(error):
                    raise
            if texts is not None:
                answers.update(zip(chosen, texts, strict=True))
                told(len(answers))
                continue
            free_cached_memory()  # only now: the error held on to what was computed
            most = len(chosen) // 2
            waiting = [part[at : at + most] for part in [chosen, *waiting] for at in range(0, len(part), most)]
    return [answers[index] for index in range(len(prompts))]


def batches_of(by_length: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Return indexes in the order of `by_length`, cut into batches that hold no more than may be answered at once."""
    batches: list[list[int]] = []
    for index in by_length:
        if batches and len(batches[-1]) < PROMPTS_AT_ONCE:
            rows = len(batches[-1]) + 1
            if rows * lengths[index] <= TOKENS_AT_ONCE:  # the longest of them comes last
                batches[-1].append(index)
                continue
        batches.append([index])
    return batches


def _complete(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int, end_tokens: list[int]) -> list[str]:
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False).to(
        model.device
    )
    output = model.generate(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=end_tokens,
        pad_token_id=tokenizer.pad_token_id,
        synced_gpus=not is_alone(),  # split weights are gathered by all ranks, as long as one of them needs them
    )
    return tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


@contextlib.contextmanager
def answering(model: Any) -> Generator[None]:
    """Put `model` into evaluation mode while the block runs, and leave the random states as they were."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(is_alone()), undisturbed_randomness():
            yield
    finally:
        model.train(training)
