"""The transformers backend: a model from disk, with PEFT's adapters, on whatever device there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Mxfp4Config
from transformers.modeling_layers import GradientCheckpointingLayer

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import LoraMethod, QloraMethod, Recipe
from ..adapters import WEIGHTS_FILE, find_adapter
from ..anatomy import Anatomy, read_anatomy
from ..plan import Plan
from ..saved_modules import HEAD, adapted_names, saved_modules
from . import parallel
from .acceleration import attention
from .inspection import require_as_planned, weight_dtype

assert attention.NAME  # importing it makes it known to transformers
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(recipe: Recipe, plan: Plan, folder: Path) -> Any:
    """Return the base model in `folder` on the plan's device, with adapters where the method has them.

    They are fresh, or those that the recipe goes on from. Raises TunewrightError when what came of it is not what the
    recipe says.
    """
    model = load_base(recipe, plan, folder)
    anatomy = read_anatomy(folder)
    if isinstance(recipe.method, LoraMethod):
        # FSDP2 prepares what it splits itself; what is accelerated keeps its hidden states in 16 bits, as Unsloth does.
        if isinstance(recipe.method, QloraMethod) and plan.parallelism != "fsdp2" and not plan.compiled:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model = get_peft_model(model, adapter_config(recipe.method, anatomy))
        keep_trained_exact(model)
        keep_computing_type(model, DTYPES[plan.precision])
        if recipe.base.adapter is not None:
            take_over(model, find_adapter(recipe.base.adapter))
    require_as_planned(model, recipe, plan, anatomy)
    return model


def load_base(recipe: Recipe, plan: Plan, folder: Path) -> Any:
    """Return the base model as the method freezes it: 4-bit for QLoRA, in the plan's precision otherwise."""
    settings: dict[str, Any] = {
        "dtype": getattr(torch, weight_dtype(recipe, plan).removeprefix("torch.")),
        "attn_implementation": plan.attention,
        "use_safetensors": True,
        "local_files_only": True,
        "device_map": place_of(plan),
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
    if plan.parallelism == "fsdp2" and not parallel.is_alone():
        from .parallel.sharding import load_sharded

        return load_sharded(
            folder, settings["dtype"], plan.attention, parallel.device_of(plan), settings.get("quantization_config")
        )
    model = AutoModelForCausalLM.from_pretrained(folder, **settings)
    if plan.device == "cpu":
        keep_unpacked(model)
    model.config.use_cache = False
    return model


def place_of(plan: Plan) -> Any:
    """Return where transformers is to put a model: on this rank's GPU, or one that was split on as many as hold it."""
    if plan.device == "cpu":
        return {"": "cpu"}
    return "auto" if plan.parallelism == "fsdp2" else {"": parallel.local_rank()}


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


def adapter_config(method: LoraMethod, anatomy: Anatomy) -> LoraConfig:
    """Return PEFT's configuration of the recipe's adapters."""
    settings = adapter_settings(method, anatomy)
    return LoraConfig(task_type="CAUSAL_LM", **settings)


def adapter_settings(method: LoraMethod, anatomy: Anatomy) -> dict[str, Any]:
    """Return the settings of the recipe's adapters by PEFT's names, which Unsloth takes too."""
    names, quantised = method.modules_to_save or (), isinstance(method, QloraMethod)
    modules = saved_modules(anatomy, names, quantised)
    return {
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": list(adapted_names(anatomy, method.targets, names, quantised)),
        "use_dora": method.dora,
        "use_rslora": method.rslora,
        "bias": "none",
        "modules_to_save": [each.path for each in modules] or None,
        # One matrix for words in and out stays one.
        "ensure_weight_tying": anatomy.tied_embeddings and any(each.kind == "embedding" for each in modules),
    }


def keep_trained_exact(model: Any) -> None:
    """Keep what is trained in 32 bits: in 16, most of an update would be rounded away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def keep_computing_type(model: Any, dtype: torch.dtype) -> None:
    """Let modules that are trained whole, in 32 bits, take and give what the layers around them compute in.

    The output layer gives its logits as they are. While training autocast would do; answers are written without it.
    """
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and dtype != torch.float32:
            module.register_forward_pre_hook(_to_own_type)
            if name.rpartition(".")[2] != HEAD:
                module.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))


def _to_own_type(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    (first, *others) = inputs
    return (first.to(module.weight.dtype) if first.is_floating_point() else first, *others)


def take_over(model: Any, folder: Path) -> None:
    """Load the adapter in `folder` over the fresh one of `model`; raises TunewrightError when not all of it fits."""
    found: Any = set_peft_model_state_dict(model, load_file(folder / WEIGHTS_FILE))
    missing = [name for name in found.missing_keys if ".lora_" in name or ".modules_to_save." in name]
    if missing or found.unexpected_keys:
        names = [*missing, *found.unexpected_keys]
        raise TunewrightError(
            "Adapter does not fit the recipe",
            f"{folder}: {len(names)} tensors are missing or not expected, {one_line(names[0], 100)} among them.",
            "Check method.targets and method.modules_to_save against its adapter_config.json.",
        )
