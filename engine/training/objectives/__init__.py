"""Objectives: one trainer for each way to learn from rows, all of them TRL's, over rows that our own rendering made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....recipes.model import Recipe
from ...data.preparing import Prepared
from ...plan import Plan
from ..optimizer import set_rates, set_schedule
from . import supervised


def trainer_of(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return the trainer of the recipe's objective, which writes its checkpoints into `writing`."""
    objective = recipe.training.objective
    if objective in ("sft", "cpt"):
        build = supervised.trainer_of
    elif objective == "kto":
        from .kto import trainer_of as build
    elif objective == "orpo":
        from .preference import orpo_trainer as build
    else:
        from .preference import dpo_trainer as build
    trainer = build(recipe, plan, writing, model, tokenizer, prepared, telemetry)
    return set_schedule(set_rates(trainer, recipe), recipe)
