"""Answers that are marked good or bad: KTO (arXiv 2402.01306) by TRL's KTOTrainer, over rows that our own rendering made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from ....recipes.model import Recipe
from ...data.examples import IGNORED
from ...data.preparing import Prepared, Rows
from ...plan import Plan
from ..arguments import common_arguments
from ..batching import dealt
from .reference import comparing, finish, preference_of, reference_arguments, tell_asking
from .watched import Filling, columns_of, dataset_of, watched


def trainer_of(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return TRL's trainer of KTO.

    How far the model has moved is estimated from prompts with answers to other prompts. TRL pairs neighbours of a
    micro-batch, for which it wants rows in the order of the file and two at least; our pairs belong to the rows, so
    that rows may come in any order and number.
    """
    tell_asking(recipe, telemetry)
    arguments = kto_arguments(recipe, plan, writing)
    wanted = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": max(2, plan.micro_batch)}
    length, seed = recipe.data.max_length, recipe.training.seed
    trainer = dealt(watched(comparing(KTOTrainer, plan, telemetry), telemetry), "padded")(
        model=model,
        args=KTOConfig(**arguments | wanted),
        data_collator=MarkedCollator(Filling.of(tokenizer)),
        train_dataset=marked(prepared.training, length, seed),
        eval_dataset=marked(prepared.validation, length, seed) if prepared.validation else None,
        processing_class=tokenizer,
        callbacks=[telemetry],
    )
    for name in wanted:
        setattr(trainer.args, name, arguments[name])
    trainer._train_batch_size = trainer.args.train_batch_size
    return finish(trainer, plan)


def kto_arguments(recipe: Recipe, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the arguments of trl.KTOConfig for `recipe` under `plan`, saving into `folder`."""
    weighed = preference_of(recipe)
    return common_arguments(recipe, plan, folder) | reference_arguments(recipe, plan) | {
        "loss_type": "kto",
        "beta": weighed.beta,
        "desirable_weight": weighed.desirable_weight,
        "undesirable_weight": weighed.undesirable_weight,
    }  # fmt: skip


def mismatch(rows: Rows, max_length: int, seed: int) -> Rows:
    """Return each row's prompt with the answer of another, drawn with `seed`: every answer is used once."""
    begins = np.concatenate(([0], rows.ends[:-1]))
    learned = np.flatnonzero(rows.learned)
    answers = learned[np.searchsorted(learned, begins)]  # where each answer begins
    drawn = np.random.default_rng(seed).permutation(len(rows))
    others = np.empty(len(rows), np.int64)
    others[drawn] = np.roll(drawn, 1)
    tokens: list[Any] = []
    marks: list[Any] = []
    for row, other in enumerate(others):
        prompt, answer = slice(begins[row], answers[row]), slice(answers[other], rows.ends[other])
        tokens.append(np.concatenate((rows.tokens[prompt], rows.tokens[answer]))[:max_length])
        marks.append(np.concatenate((rows.learned[prompt], rows.learned[answer]))[:max_length])
    lengths = np.array([len(each) for each in tokens])
    return Rows(np.concatenate(tokens), np.concatenate(marks), np.cumsum(lengths), lengths.astype(np.int32))


def marked(rows: Rows, max_length: int, seed: int) -> Dataset:
    """Return marked rows as columns, each with its mark and its prompt's mismatched answer."""
    assert rows.desirable is not None, "rows of other formats are refused when they are prepared"
    columns = columns_of(rows) | columns_of(mismatch(rows, max_length, seed), "KL_")
    return dataset_of(columns | {"label": pa.array(rows.desirable)})


@dataclass(frozen=True, slots=True)
class MarkedCollator:
    """Makes a batch of marked answers, with the mismatched ones beside them."""

    filling: Filling

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {"label": torch.tensor([each["label"] for each in features])}
        for prefix in ("", "KL_"):
            tokens, mask, learned = self.filling.tensors(
                [each[f"{prefix}input_ids"] for each in features], [each[f"{prefix}labels"] for each in features]
            )
            batch[f"{prefix}input_ids"] = tokens
            batch[f"{prefix}attention_mask"] = mask
            batch[f"{prefix}completion_mask"] = (learned != IGNORED).long()
        for name in ("ref_logps", "ref_KL_logps"):
            if name in features[0]:
                batch[name] = torch.tensor([each[name] for each in features])
        return batch
