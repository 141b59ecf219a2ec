"""The Unsloth backend: the same model and adapters through FastLanguageModel, on NVIDIA GPUs.

Unsloth decides some things by itself and says so only in its output, if at all: what it is given here leaves it nothing
to decide, and what it made is inspected. Source: unsloth 2026.10.9, models/loader.py, llama.py and vision.py.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import LoraMethod, QloraMethod, Recipe
from ..adapters import find_adapter
from ..anatomy import read_anatomy
from ..plan import Plan

KEPT_SETTINGS = ("UNSLOTH_COMPILE_LOCATION", "UNSLOTH_DISABLE_STATISTICS", "UNSLOTH_ALLOW_CPU")
"""Of the environment; the others change what is trained (UNSLOTH_FORCE_FLOAT32, UNSLOTH_TILED_MLP, …)."""

for _name in [each for each in os.environ if each.startswith("UNSLOTH_") and each not in KEPT_SETTINGS]:
    del os.environ[_name]

try:
    import unsloth  # must come before trl, transformers and peft, which it patches
except Exception as _error:  # it inspects the whole machine while it is imported
    raise TunewrightError(
        "Unsloth does not start",
        f"Importing it fails: {one_line(str(_error), 400)}",
        "`tunewright doctor` shows what is installed; without Unsloth: `tunewright train … --backend transformers`.",
    ) from _error

from transformers import BitsAndBytesConfig  # noqa: E402  after Unsloth

from .inspection import require_as_planned  # noqa: E402
from .refusals import asked  # noqa: E402
from .transformers import DTYPES, adapter_settings, keep_trained_exact, take_over  # noqa: E402


def load_model(recipe: Recipe, plan: Plan, folder: Path) -> Any:
    """Return the base model in `folder` on the GPU, with adapters where the method has them.

    They are fresh, or those that the recipe goes on from. Raises TunewrightError when Unsloth refuses the model, and
    when what it made is not what the recipe says.
    """
    method, anatomy = recipe.method, read_anatomy(folder)
    model, _ = asked(plan, lambda: unsloth.FastLanguageModel.from_pretrained(**loading_settings(recipe, plan, folder)))
    if isinstance(method, LoraMethod):
        with tempfile.TemporaryDirectory(prefix="tunewright-unsloth-") as aside:
            model = asked(
                plan,
                lambda: unsloth.FastLanguageModel.get_peft_model(
                    model,
                    **adapter_settings(method, anatomy),
                    use_gradient_checkpointing=_checkpointing(plan),
                    random_state=recipe.training.seed,
                    max_seq_length=recipe.data.max_length,
                    # Of a mixture of experts it would adapt the experts too, which no recipe names.
                    target_parameters=[] if anatomy.experts else None,
                    temporary_location=aside,
                ),
            )
        keep_trained_exact(model)
        if recipe.base.adapter is not None:
            take_over(model, find_adapter(recipe.base.adapter))
    require_as_planned(model, recipe, plan, anatomy)
    return model


def loading_settings(recipe: Recipe, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return all that Unsloth is told about loading the base model."""
    method = recipe.method
    settings: dict[str, Any] = {
        "model_name": str(folder),
        "use_exact_model_name": True,  # it knows quantised copies of many models, and would take one
        # Beyond the model's own context it would stretch the positions.
        "max_seq_length": min(recipe.data.max_length, read_anatomy(folder).context),
        "dtype": DTYPES[plan.precision],
        "load_in_4bit": isinstance(method, QloraMethod),
        "full_finetuning": not isinstance(method, LoraMethod),
        "use_gradient_checkpointing": _checkpointing(plan),
        "offload_embedding": False,
        "float32_mixed_precision": False,
        "random_state": recipe.training.seed,
        "trust_remote_code": False,
        "use_safetensors": True,
        "local_files_only": True,
    }
    if isinstance(method, QloraMethod) and not method.double_quantisation:  # its own setting is twice
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=method.quantisation,
            bnb_4bit_use_double_quant=False,
            bnb_4bit_compute_dtype=DTYPES[plan.precision],
        )
    return settings


def _checkpointing(plan: Plan) -> bool | str:
    return {"off": False, "on": True, "offloaded": "unsloth"}[plan.gradient_checkpointing]
