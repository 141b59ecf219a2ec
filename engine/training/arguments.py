"""Every field that the trainer uses, written out: libraries differ in their defaults, and Unsloth rewrites them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...recipes.model import LoraMethod, Recipe
from ..plan import Plan
from ..schedule import warmup_steps

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
OPTIMIZERS = {
    ("adamw", "device"): "adamw_torch",
    ("adamw", "paged"): "paged_adamw_32bit",
    ("adamw_8bit", "device"): "adamw_8bit",
    ("adamw_8bit", "paged"): "paged_adamw_8bit",
}
"""What Hugging Face's trainer calls them, by the recipe's optimizer and the plan's placement of its states."""


def training_arguments(recipe: Recipe, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the arguments of trl.SFTConfig for `recipe` under `plan`, saving into `folder`."""
    ready = plan.backend != "unsloth"
    """Rows are cut and packed by us, and the trainer takes them as they are; Unsloth insists on doing it."""
    return common_arguments(recipe, plan, folder) | {
        "max_length": None if ready else recipe.data.max_length,
        "packing": recipe.data.packing and not ready,
        "padding_free": plan.batching == "padding-free" or (ready and plan.batching == "packed"),
        "assistant_only_loss": False,  # our own rendering wrote the labels
        "dataset_kwargs": {"skip_prepare_dataset": ready},
        "activation_offloading": moves_activations(plan),
        "loss_type": "chunked_nll" if _takes_trls_loss(recipe, plan) else "nll",
    }


def _takes_trls_loss(recipe: Recipe, plan: Plan) -> bool:
    """Tell whether TRL's loss in chunks is used: the accelerated way and Liger bring their own.

    So does Unsloth, and its full fine-tuning needs it: TRL's goes past the autocast that its 32-bit norms rely on.
    """
    unsloths = plan.backend == "unsloth" and not isinstance(recipe.method, LoraMethod)
    return not (plan.compiled or plan.liger or unsloths)


def moves_activations(plan: Plan) -> bool:
    """Tell whether TRL has to move what is kept for the backward pass to the host; Unsloth does so by itself."""
    return plan.gradient_checkpointing == "offloaded" and plan.backend == "transformers"


def common_arguments(recipe: Recipe, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the arguments that all objectives share.

    Evaluation and saving are asked for by our own callback, at the plan's cadence.
    """
    training = recipe.training
    return {
        "output_dir": str(folder),
        # what changes the result
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": SCHEDULES[training.schedule] if training.floor is None else "cosine_with_min_lr",
        "lr_scheduler_kwargs": {} if training.floor is None else {"min_lr_rate": training.floor},
        "warmup_steps": warmup_steps(training, plan.total_steps),
        "max_steps": plan.total_steps,
        "optim": OPTIMIZERS[training.optimizer, plan.optimizer_placement],
        "adam_beta1": 0.9,
        "adam_beta2": training.beta2 or 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "seed": training.seed,
        "data_seed": training.seed,
        "train_sampling_strategy": "random",
        # what only changes the cost
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_checkpointing": plan.gradient_checkpointing != "off",
        "bf16": plan.precision == "bf16",
        "fp16": plan.precision == "fp16",
        "use_cpu": plan.device == "cpu",
        "use_liger_kernel": plan.liger,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": plan.device == "cuda",
        "dataloader_drop_last": False,
        "torch_compile": False,
        # what is told, and where
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not a number has to be seen
        "eval_strategy": "no",
        "prediction_loss_only": True,
        "save_strategy": "no",
        "save_total_limit": None,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        "remove_unused_columns": True,
    }
