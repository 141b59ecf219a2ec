"""Supervised fine-tuning and continued pre-training: the cross-entropy of the next token, by TRL's SFTTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from ....recipes.model import Recipe
from ...data.preparing import Prepared, Rows
from ...plan import Plan
from ..acceleration import accelerate, accelerated
from ..arguments import training_arguments
from ..batching import Stringing, dealt, pack
from .watched import columns_of, dataset_of, watched


def trainer_of(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return TRL's trainer over the rows that our own rendering made."""
    kind = accelerated(SFTTrainer) if plan.compiled else SFTTrainer
    trainer = dealt(watched(kind, telemetry), plan.batching)(
        model=model,
        args=SFTConfig(**training_arguments(recipe, plan, writing)),
        train_dataset=dataset(prepared.training, recipe, plan),
        eval_dataset=dataset(prepared.validation, recipe, plan) if prepared.validation else None,
        processing_class=tokenizer,
        callbacks=[telemetry],
    )
    if plan.batching != "padded" and plan.backend != "unsloth":
        trainer.data_collator = Stringing()
    if plan.compiled:
        accelerate(trainer.model)  # after TRL, which puts its own loss into the model
    return trainer


def dataset(rows: Rows, recipe: Recipe, plan: Plan) -> Dataset:
    """Return `rows` as TRL takes what is tokenised already: packed where the plan says so, unless Unsloth does it."""
    if plan.batching == "packed" and plan.backend != "unsloth":
        packed = pack(rows, recipe.data.max_length, recipe.training.seed)
        return dataset_of(columns_of(packed.sequences) | {"seq_lengths": packed.seq_lengths})
    return dataset_of(columns_of(rows))
