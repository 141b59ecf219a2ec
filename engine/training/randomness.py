"""Randomness: the same run gives the same digits twice, and whoever looks at a model while it trains changes none."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

from ...recipes.model import LoraMethod, Recipe
from ..plan import Plan


def compute_alike(recipe: Recipe, plan: Plan) -> None:
    """Have torch add up in one order on a GPU where it can, so that the same seed, plan and card give the same losses.

    What it cannot do in one order it says on the run's console; attention over strung rows sees to itself
    (`acceleration.attention`). The environment of a trainer holds what compiled layers and cuBLAS need. Unsloth would
    leave its fastest attention, so it is asked only where a whole embedding is trained: its compiled layers add
    up that gradient in any order, and were measured to differ by that alone.
    """
    adapters_alone = isinstance(recipe.method, LoraMethod) and not recipe.method.modules_to_save
    if plan.device == "cuda" and not (plan.backend == "unsloth" and adapters_alone):
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # that is for finding faults, and takes time


@contextmanager
def undisturbed_randomness() -> Generator[None]:
    """Put the random states of Python, NumPy and torch, on this process's device, back to what they were after the block."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
