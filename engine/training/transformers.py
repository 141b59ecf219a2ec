"""The transformers backend: a model from disk, with PEFT's adapters, on whatever device there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Mxfp4Config
from transformers.modeling_layers import GradientCheckpointingLayer

from ...recipes.model import LoraMethod, QloraMethod, Recipe
from ..anatomy import read_anatomy
from ..plan import Plan

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(recipe: Recipe, plan: Plan, folder: Path) -> Any:
    """Return the base model in `folder` on the plan's device, with fresh adapters where the method has them."""
    model = load_base(recipe, plan, folder)
    if isinstance(recipe.method, LoraMethod):
        if isinstance(recipe.method, QloraMethod):
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model = get_peft_model(model, adapter_config(recipe.method, folder))
    return model


def load_base(recipe: Recipe, plan: Plan, folder: Path) -> Any:
    """Return the base model as the method freezes it: 4-bit for QLoRA, in the plan's precision otherwise."""
    settings: dict[str, Any] = {
        "dtype": DTYPES[plan.precision],
        "attn_implementation": plan.attention,
        "use_safetensors": True,
        "local_files_only": True,
        "device_map": {"": 0 if plan.device == "cuda" else "cpu"},
    }
    if isinstance(recipe.method, QloraMethod):
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=recipe.method.quantisation,
            bnb_4bit_use_double_quant=recipe.method.double_quantisation,
            bnb_4bit_compute_dtype=DTYPES[plan.precision],
        )
    elif read_anatomy(folder).dequantised_from == "mxfp4":
        settings["quantization_config"] = Mxfp4Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(folder, **settings)
    if plan.device == "cpu":
        keep_unpacked(model)
    model.config.use_cache = False
    return model


def thin_checkpointing(model: Any, every: int) -> None:
    """Recompute only every n-th layer from now on; the others keep what they need for the backward pass."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = index % every == 0


def keep_unpacked(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for AVX512-BF16 at the first evaluation.

    Packed weights take a path without a backward pass: training would go on with wrong gradients, silently.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def adapter_config(method: LoraMethod, folder: Path) -> LoraConfig:
    """Return PEFT's configuration of the recipe's adapters."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=method.dropout,
        target_modules=list(read_anatomy(folder).target_names(method.targets)),
        use_dora=method.dora,
        use_rslora=method.rslora,
        bias="none",
    )
