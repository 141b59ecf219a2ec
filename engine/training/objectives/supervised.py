"""Supervised fine-tuning and continued pre-training: the cross-entropy of the next token, by TRL's SFTTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from ....recipes.model import Recipe
from ...data.preparing import Prepared, Rows
from ...plan import Plan
from ...runs.events import Phase
from ..arguments import training_arguments


def trainer_of(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return TRL's trainer over the rows that our own rendering made."""

    class Trainer(SFTTrainer):  # pyright: ignore[reportUntypedBaseClass]
        """TRL's trainer, which also counts useful tokens and keeps evaluation away from the random state."""

        counted = 0

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            if model.training:
                mask = inputs.get("attention_mask")
                self.counted += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
            return super().compute_loss(model, inputs, *arguments, **options)

        def evaluate(self, *arguments: Any, **options: Any) -> Any:
            telemetry.log.append(Phase(name="evaluating"))
            with torch.random.fork_rng():
                metrics = super().evaluate(*arguments, **options)
            telemetry.log.append(Phase(name="training"))
            return metrics

        def take_tokens(self) -> int:
            """Return the useful tokens since the last call."""
            taken, self.counted = self.counted, 0
            return taken

    return Trainer(
        model=model,
        args=SFTConfig(**training_arguments(recipe, plan, writing)),
        train_dataset=dataset(prepared.training),
        eval_dataset=dataset(prepared.validation) if prepared.validation else None,
        processing_class=tokenizer,
        callbacks=[telemetry],
    )


def dataset(rows: Rows) -> Dataset:
    """Return `rows` as TRL takes what is tokenised already, without copying them row by row."""
    offsets = pa.array([0, *rows.ends], pa.int64())
    columns = {
        "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(rows.tokens)),
        "labels": pa.LargeListArray.from_arrays(offsets, pa.array(rows.labels)),
    }
    return Dataset(pa.table(columns))
