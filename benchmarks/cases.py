"""The sets of configurations that `sweep.py` measures, and what a configuration is where it does not say."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from shapes import SHAPES

Case = dict[str, Any]
"""One configuration, by the names of `DEFAULTS`; `benchmarks/README.md` explains them."""

DEFAULTS: Case = {
    "method": "lora", "rank": 16, "targets": "all-linear", "optimizer": "adamw_8bit", "sequence": 2048,
    "micro_batch": 1, "checkpointing": True, "liger": False, "batching": "default", "layers": None, "adapters": "library",
    "lengths": None, "attention": "sdpa", "recompute_every": 1, "quantised": False, "parallelism": "one", "note": "",
}  # fmt: skip
WAYS = tuple(itertools.product(("unsloth", "transformers"), ("lora", "qlora", "full")))
TARGETS = ("all-linear", "all-linear", "attention", "qv")
"""What adapters go to, as often as it is drawn."""
SEQUENCES = (512, 1024, 2048, 4096, 8192, 16384)
MICRO_BATCHES = (1, 2, 4, 8, 16)
RANKS = (8, 16, 32, 64, 128, 256)
DRAWS = 1000
SMALL_PARAMETERS, MIDDLE_PARAMETERS, FULLY_TUNED_PARAMETERS = 2e9, 5e9, 9e9
"""Below these a model may have more tokens a step; beyond the last it is not tuned fully, nor measured twice."""
MOST_TOKENS = {"small": 65536, "middle": 32768, "large": 16384}
ALONE_GIB = 55
"""A case that takes more is loaded while nothing else is on the GPU."""
SWEEP_SEED, SWEEP_GIB = 20261122, 115
HELD_OUT_SEED, HELD_OUT_GIB = 977, 100
LARGEST = "llama-3.1-70b"
"""Is measured for the headlines alone."""
MEASURED_TWICE = (
    "qwen2.5-0.5b", "llama-3.2-1b", "smollm2-1.7b", "granite-3.1-2b", "llama-3.2-3b", "phi-3-mini", "qwen3-4b", "llama-3.1-8b",
)  # fmt: skip
"""Models with two configurations for each method and backend in the sweep; the others have one."""
HELD_OUT = (
    "qwen2.5-7b", "qwen2.5-1.5b", "smollm3-3b", "falcon3-7b", "llama-3.2-3b", "qwen3-8b", "mistral-7b", "qwen3-14b",
)  # fmt: skip
"""Models of the held-out set."""
ONLY_HELD_OUT = frozenset({"qwen2.5-1.5b", "smollm3-3b", "falcon3-7b", "qwen3-8b"})
"""Those that are in no other set."""


def paths() -> list[Case]:
    """Return every path through the libraries once, on a small model."""
    base: Case = {"model": "llama-3.2-1b", "sequence": 1024, "micro_batch": 4}
    cases = [
        base | {"backend": backend, "method": method, "checkpointing": recomputing}
        for backend in ("transformers", "unsloth")
        for method in ("lora", "qlora", "full")
        for recomputing in (True, False)
    ]
    return [
        *cases,
        base | {"backend": "transformers", "method": "lora", "liger": True},
        base | {"backend": "unsloth", "method": "lora", "batching": "padded"},
        base | {"backend": "unsloth", "method": "lora", "batching": "padding-free"},
        base | {"backend": "unsloth", "method": "lora", "checkpointing": "on"},
        base | {"backend": "transformers", "method": "qlora", "adapters": "fp32"},
        base | {"backend": "unsloth", "method": "full", "optimizer": "adamw"},
        base | {"backend": "transformers", "method": "full", "optimizer": "adafactor"},
        base | {"backend": "transformers", "method": "full", "optimizer": "paged_adamw_8bit"},
        {"model": "gemma-2-2b", "backend": "unsloth", "micro_batch": 2},
        {"model": "gemma-2-2b", "backend": "transformers", "micro_batch": 2},
    ]


def sweep() -> list[Case]:
    """Return the configurations that the formulas were written against, drawn with a fixed seed.

    Every model is measured with both backends and all three methods; the rest is drawn evenly. What would not fit
    an H200, or take longer than a step is worth, is drawn again.
    """
    rng = random.Random(SWEEP_SEED)
    cases: list[Case] = []
    for name in SHAPES:
        if name == LARGEST or name in ONLY_HELD_OUT:
            continue
        rounds = 2 if parameters_of(name) < FULLY_TUNED_PARAMETERS else 1
        for backend, method in _ways(name):
            for turn in range(rounds):
                recomputing = (turn == 0) if method == "full" else None
                case = _draw(rng, name, backend, method, recomputing, tokens=1.0, gib=SWEEP_GIB)
                if turn == 0 or name in MEASURED_TWICE:
                    cases.append(case)
    return cases


def held_out() -> list[Case]:
    """Return configurations of models and draws that no formula was fitted to."""
    rng = random.Random(HELD_OUT_SEED)
    return [
        _draw(rng, name, backend, method, None, tokens=0.5, gib=HELD_OUT_GIB) | {"composition": False}
        for name in HELD_OUT
        for backend, method in _ways(name)
    ]


def chat_lengths() -> list[Case]:
    """Return every plan worth trying for an 8B LoRA on rows as long as chats, and the libraries as they come."""
    base: Case = {"model": "llama-3.1-8b", "method": "lora", "rank": 16, "lengths": "chat", "composition": False}
    fast = base | {"backend": "unsloth", "batching": "padding-free"}
    padded = base | {"backend": "transformers", "batching": "padded"}
    cases = [
        *(
            fast | {"micro_batch": rows, "checkpointing": recomputing}
            for rows, recomputing in ((16, False), (8, False), (4, False), (16, True), (2, False), (8, True))
        ),
        padded | {"liger": True, "micro_batch": 4, "checkpointing": False},
        padded | {"liger": True, "micro_batch": 8, "checkpointing": False},
        padded | {"liger": True, "micro_batch": 2, "checkpointing": False},
        padded | {"liger": True, "micro_batch": 8, "checkpointing": True, "recompute_every": 2},
        padded | {"liger": True, "micro_batch": 16, "checkpointing": True},
        padded | {"liger": True, "micro_batch": 1, "checkpointing": False},
        padded | {"micro_batch": 4, "checkpointing": False, "note": "no Liger"},
        base | {"backend": "transformers", "micro_batch": 8, "checkpointing": True, "note": "as it comes"},
    ]
    return [each | {"steps": max(8, 64 // each["micro_batch"])} for each in cases]


def headlines() -> list[Case]:
    """Return what the README's table shows: 8B by every method on fixed lengths, and 70B QLoRA."""
    base: Case = {"backend": "unsloth", "sequence": 2048, "rank": 16, "composition": False}
    middle = base | {"model": "llama-3.1-8b", "micro_batch": 4}
    return [
        base | {"model": LARGEST, "method": "qlora", "micro_batch": 1, "quantised": True, "alone": True},
        middle | {"method": "lora", "checkpointing": False, "micro_batch": 8},
        middle | {"method": "qlora", "checkpointing": True},
        middle | {"method": "full", "checkpointing": True, "alone": True},
    ]


CASES: dict[str, Callable[[], Sequence[Case]]] = {
    "paths": paths,
    "sweep": sweep,
    "held_out": held_out,
    "chat_lengths": chat_lengths,
    "headlines": headlines,
}
"""By the name of the file in `rows/` that holds what was measured."""


def parameters_of(name: str) -> float:
    """Return roughly how many parameters the model `name` has."""
    config = SHAPES[name]
    hidden, ffn, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    ends = config["vocab_size"] * hidden * (1 if config["tie_word_embeddings"] else 2)
    return layers * (2.5 * hidden * hidden + 3 * hidden * ffn) + ends


def rough_gib(case: Case) -> float:
    """Return roughly what a case takes, only so that cases that cannot fit are not drawn."""
    config, parameters = SHAPES[case["model"]], parameters_of(case["model"])
    tokens, recomputing = case["sequence"] * case["micro_batch"], case["checkpointing"]
    hidden, ffn, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    full = 8.0 if case["optimizer"] == "adamw" else 6.0
    standing = {"full": full, "lora": 2.0, "qlora": 0.75}[case["method"]] * parameters
    standing += 16.0 * case["rank"] * layers * 8 * (hidden + ffn / 2) if case["method"] != "full" else 0
    kept = tokens * layers * (2 * hidden if recomputing else 2 * (14 * hidden + 4 * ffn))
    kept += tokens * 30 * ffn
    if config["model_type"] == "gemma2" and case["backend"] == "transformers":
        scores = 3 * tokens * case["sequence"] * config["num_attention_heads"] * 4
        kept += scores * (1 if recomputing else layers / 2)
    return (standing + kept) / 2**30


def _ways(name: str) -> Iterator[tuple[str, str]]:
    """Yield the backends and methods in which the model `name` is tuned on one GPU."""
    for backend, method in WAYS:
        if method != "full" or parameters_of(name) <= FULLY_TUNED_PARAMETERS:
            yield backend, method


def _draw(
    rng: random.Random, name: str, backend: str, method: str, recomputing: bool | None, tokens: float, gib: float
) -> Case:
    """Return a configuration that takes up to this share of `MOST_TOKENS` and about this much memory."""
    parameters = parameters_of(name)
    size = "small" if parameters < SMALL_PARAMETERS else "middle" if parameters < MIDDLE_PARAMETERS else "large"
    for _ in range(DRAWS):
        case: Case = {
            "model": name,
            "backend": backend,
            "method": method,
            "rank": rng.choice(RANKS) if method != "full" else 0,
            "targets": rng.choice(TARGETS) if method != "full" else "all-linear",
            "optimizer": rng.choice(("adamw", "adamw_8bit")),
            "sequence": rng.choice(SEQUENCES),
            "micro_batch": rng.choice(MICRO_BATCHES),
            "checkpointing": rng.random() < 0.5 if recomputing is None else recomputing,
            "liger": backend == "transformers" and rng.random() < 0.35,
        }
        fits = rough_gib(case) < gib
        if fits and 1024 <= case["sequence"] * case["micro_batch"] <= tokens * MOST_TOKENS[size]:
            return case | {"alone": rough_gib(case) > ALONE_GIB}
    raise AssertionError(f"nothing fits for {name}")
