"""Randomness: whatever looks at a model while it trains leaves the random states as they were."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch


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
