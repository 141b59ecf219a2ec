"""Objectives: one trainer for each way to learn from rows, all of them TRL's, over rows that our own rendering made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....recipes.model import Recipe
from ...data.preparing import Prepared
from ...plan import Plan
from . import supervised


def trainer_of(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return the trainer of the recipe's objective, which writes its checkpoints into `writing`.

    Whichever it is, it has `take_tokens()`, the useful tokens since the last call.
    """
    return supervised.trainer_of(recipe, plan, writing, model, tokenizer, prepared, telemetry)
