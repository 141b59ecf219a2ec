"""Refusals of a backend, told as what they are: why, what the other backend would cost, and how to take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ..plan import Plan

INSTEAD = "`tunewright train … --backend transformers`"


def asked(plan: Plan, work: Callable[[], Any]) -> Any:
    """Return what `work` returns; where Unsloth refuses in it, raise TunewrightError that says why.

    A lack of memory, disk or files is raised as it is: who asked knows what to do about it.
    """
    try:
        return work()
    except (TunewrightError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Unsloth and the code that it compiles fail in their own ways
        if getattr(error, "errno", None) is not None or "out of memory" in str(error).lower():
            raise
        raise TunewrightError(
            "Unsloth refuses this model",
            f"{type(error).__name__}: {one_line(str(error), 600) or 'it gives no reason'}",
            f"Take the other backend: {INSTEAD}. {cost_of_other(plan)}",
        ) from error


def cost_of_other(plan: Plan) -> str:
    """Return what the same run costs with transformers, as far as the plan has looked at it."""
    others = [each for each in plan.alternatives if "transformers" in each.summary]
    if plan.prediction is None or not others:
        return "It is slower; `tunewright plan … --backend transformers` says by how much."
    best = min(others, key=lambda each: each.total_seconds)
    slower = best.total_seconds / plan.prediction.total_seconds
    return (
        f"It would take about {best.total_seconds / 60:.0f} minutes instead of {plan.prediction.total_seconds / 60:.0f} "
        f"({slower:.1f} times as long), and {best.peak_gib:.1f} GiB instead of {plan.prediction.peak_gib:.1f}."
    )
