"""Preferences in pairs: DPO by TRL's DPOTrainer and ORPO by its ORPOTrainer, over pairs that our own rendering made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from trl import DPOConfig, DPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from ....recipes.model import Recipe
from ...data.examples import IGNORED
from ...data.preparing import Prepared, Rows
from ...plan import Plan
from ..arguments import common_arguments
from ..batching import dealt
from .reference import comparing, finish, preference_of, reference_arguments, tell_asking
from .watched import Filling, columns_of, dataset_of, watched


def dpo_trainer(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return TRL's trainer of DPO, which compares the model with what it was before."""
    tell_asking(recipe, telemetry)
    trainer = dealt(watched(comparing(DPOTrainer, plan, telemetry), telemetry), "padded")(
        model=model,
        args=DPOConfig(**dpo_arguments(recipe, plan, writing)),
        data_collator=PairCollator(Filling.of(tokenizer)),
        train_dataset=pairs(prepared.training),
        eval_dataset=pairs(prepared.validation) if prepared.validation else None,
        processing_class=tokenizer,
        callbacks=[telemetry],
    )
    return finish(trainer, plan)


def orpo_trainer(
    recipe: Recipe, plan: Plan, writing: Path, model: Any, tokenizer: Any, prepared: Prepared, telemetry: Any
) -> Any:
    """Return TRL's trainer of ORPO, which learns the better answer and sets it apart from the worse at once."""

    class Trainer(ORPOTrainer):  # pyright: ignore[reportUntypedBaseClass]
        """TRL's trainer, which takes pairs as they are, and learns of the better answer what our rendering says."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature

        def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
            """TRL takes the likelihood of the prompt as well; the paper (arXiv 2403.07691) that of the answer alone."""
            found: tuple[Any, ...] = super().concatenated_forward(model, batch)
            better, worse, logits, worse_logits, _, *more = found
            labels = torch.full(logits.shape[:2], IGNORED, device=logits.device)
            own = batch["chosen_labels"][:, 1:]
            labels[:, : own.shape[1]] = own
            likelihood = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
            return better, worse, logits, worse_logits, likelihood, *more

    trainer = dealt(watched(Trainer, telemetry), "padded")(
        model=model,
        args=ORPOConfig(**orpo_arguments(recipe, plan, writing)),
        data_collator=PairCollator(Filling.of(tokenizer), apart=True),
        train_dataset=pairs(prepared.training),
        eval_dataset=pairs(prepared.validation) if prepared.validation else None,
        processing_class=tokenizer,
        callbacks=[telemetry],
    )
    trainer.use_dpo_data_collator = True  # ours makes the same of a batch
    return trainer


def dpo_arguments(recipe: Recipe, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the arguments of trl.DPOConfig for `recipe` under `plan`, saving into `folder`."""
    weighed = preference_of(recipe)
    return common_arguments(recipe, plan, folder) | reference_arguments(recipe, plan) | {
        "beta": weighed.beta,
        "loss_type": [weighed.loss],
        "loss_weights": None,
        "label_smoothing": weighed.label_smoothing,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "use_weighting": False,
        "discopop_tau": 0.05,
        "truncation_mode": "keep_start",
        "padding_free": False,
    }  # fmt: skip


def orpo_arguments(recipe: Recipe, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the arguments of trl's ORPOConfig for `recipe` under `plan`, saving into `folder`."""
    weighed = preference_of(recipe)
    return common_arguments(recipe, plan, folder) | {
        "beta": weighed.beta,
        "max_length": recipe.data.max_length,
        "max_completion_length": None,
        "disable_dropout": True,
        "padding_value": None,
        "generate_during_eval": False,
        "remove_unused_columns": False,
    }  # fmt: skip


def pairs(rows: Rows) -> Dataset:
    """Return pairs as columns: the rows with the better answer, and those with the worse."""
    assert rows.rejected is not None, "rows of other formats are refused when they are prepared"
    return dataset_of(columns_of(rows) | columns_of(rows.rejected, "rejected_"))


@dataclass(frozen=True, slots=True)
class PairCollator:
    """Makes a batch of pairs: the better answers, then the worse, in one block or `apart` in two."""

    filling: Filling
    apart: bool = False

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        better = [each["input_ids"] for each in features], [each["labels"] for each in features]
        worse = [each["rejected_input_ids"] for each in features], [each["rejected_labels"] for each in features]
        if self.apart:
            batch: dict[str, Any] = {}
            for name, (ids, labels) in (("chosen", better), ("rejected", worse)):
                tokens, mask, learned = self.filling.tensors(ids, labels)
                batch |= {f"{name}_input_ids": tokens, f"{name}_attention_mask": mask, f"{name}_labels": learned}
            return batch
        tokens, mask, learned = self.filling.tensors(better[0] + worse[0], better[1] + worse[1])
        batch = {"input_ids": tokens, "attention_mask": mask, "completion_mask": (learned != IGNORED).long()}
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in features[0]:
                batch[name] = torch.tensor([each[name] for each in features])
        return batch
