"""The Unsloth backend: the same model and adapters through FastLanguageModel, on one NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import unsloth  # must come before trl, transformers and peft, which it patches

from ...recipes.model import LoraMethod, QloraMethod, Recipe
from ..anatomy import read_anatomy
from ..plan import Plan
from .transformers import DTYPES


def load_model(recipe: Recipe, plan: Plan, folder: Path) -> Any:
    """Return the base model in `folder` on the GPU, with fresh adapters where the method has them."""
    method = recipe.method
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=recipe.data.max_length,
        dtype=DTYPES[plan.precision],
        load_in_4bit=isinstance(method, QloraMethod),
        full_finetuning=not isinstance(method, LoraMethod),
        use_gradient_checkpointing=_checkpointing(plan),
        local_files_only=True,
    )
    if isinstance(method, LoraMethod):
        model = unsloth.FastLanguageModel.get_peft_model(
            model,
            r=method.rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            target_modules=list(read_anatomy(folder).target_names(method.targets)),
            bias="none",
            use_gradient_checkpointing=_checkpointing(plan),
            random_state=recipe.training.seed,
            use_rslora=method.rslora,
            use_dora=method.dora,
            max_seq_length=recipe.data.max_length,
        )
    return model


def _checkpointing(plan: Plan) -> bool | str:
    return {"off": False, "on": True, "offloaded": "unsloth"}[plan.gradient_checkpointing]
