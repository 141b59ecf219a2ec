"""What a trainer really uses, field by field, beside what recipe and plan say, worked out anew.

`python tests/fields.py RUN_DIRECTORY` takes a run to its end and prints both as one line of JSON, so that a backend that
has to be imported first has a process of its own.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.engine.anatomy import read_anatomy
from tunewright.engine.plan import Plan
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.setting import Tuning
from tunewright.engine.sources import find_model
from tunewright.recipes.model import LoraMethod, QloraMethod, Recipe

Facts = dict[str, Any]
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
OPTIMIZERS = {
    ("adamw", "device"): ("adamw_torch", "AdamW"),
    ("adamw", "paged"): ("paged_adamw_32bit", "AdamW"),
    ("adamw_8bit", "device"): ("adamw_8bit", "AdamW"),
    ("adamw_8bit", "paged"): ("paged_adamw_8bit", "AdamW"),
}
EIGHT_BIT_LEAST = 4096
"""Smaller tensors keep 32-bit states (bitsandbytes optimizer.py)."""


def expected(recipe: Recipe, plan: Plan) -> Facts:
    """Return every field as the recipe and the plan mean it."""
    training, method = recipe.training, recipe.method
    anatomy = read_anatomy(find_model(recipe.base.model, recipe.base.revision))
    warmup = training.warmup.value
    if training.warmup.kind == "ratio":
        warmup = math.ceil(warmup * plan.total_steps)
    optimizer, class_name = OPTIMIZERS[training.optimizer, plan.optimizer_placement]
    ratio = method.lora_plus_ratio if isinstance(method, LoraMethod) else 1.0
    rates = [
        training.learning_rate * share(recipe, step, int(warmup), plan.total_steps) for step in range(plan.total_steps)
    ]
    facts: Facts = {
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr" if training.floor else SCHEDULES[training.schedule],
        "warmup": int(warmup),
        "max_steps": plan.total_steps,
        "optim": optimizer,
        "optimizer": class_name,
        "betas": [0.9, training.beta2 or 0.999],
        "eps": 1e-8,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "seed": training.seed,
        "data_seed": training.seed,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "micro_batches_of_a_step": plan.accumulation,
        "gradient_checkpointing": plan.gradient_checkpointing != "off",
        "bf16": plan.precision == "bf16",
        "fp16": plan.precision == "fp16",
        "use_cpu": plan.device == "cpu",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "rates": rates,
        "rates_of_b": [ratio * rate for rate in rates] if isinstance(method, LoraMethod) else None,
        "trained_parameters": Tuning.of(method).trainable_parameters(anatomy),
        "trained_types": ["torch.float32"]
        if isinstance(method, LoraMethod) or plan.precision == "fp32"
        else ["torch.bfloat16"],
        "use_cache": False,
        "rows_of_a_batch": plan.micro_batch if plan.batching == "padded" else 1,
        "filled_places_are_learned": False,
        "filled_places_are_seen": False,
        "ends_are_learned": True,
        "weights_are_quantised": None,
    }
    if plan.backend == "transformers":
        facts["attention"] = plan.attention
    if isinstance(method, LoraMethod):
        scaling = method.alpha / (math.sqrt(method.rank) if method.rslora else method.rank)
        facts |= {
            "rank": [method.rank],
            "alpha": method.alpha,
            "scaling": [round(scaling, 6)],
            "dropout": [method.dropout],
            "dora": [method.dora],
            "rslora": method.rslora,
            "bias": "none",
            "adapted": sorted(Tuning.of(method).adapted(anatomy)),
            "saved": sorted(_one_matrix(method.modules_to_save or (), anatomy.tied_embeddings)),
        }
    if isinstance(method, QloraMethod):
        facts["weights_are_quantised"] = [[method.quantisation, method.double_quantisation]]
    return facts


def share(recipe: Recipe, step: int, warmup: int, steps: int) -> float:
    """Return the share of the peak learning rate that the step after `step` others takes."""
    if step < warmup:
        return step / warmup
    if recipe.training.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    if recipe.training.schedule == "linear":
        return 1 - done
    floor = recipe.training.floor or 0.0
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def _one_matrix(names: tuple[str, ...], tied: bool) -> set[str]:
    return {"embed_tokens" if tied and name == "lm_head" else name for name in names}


def observe(run: RunDirectory, tamper: Callable[[Any], None] = lambda trainer: None) -> Facts:
    """Return every field as the trainer of `run` uses it while it takes the run to its end; `tamper` may change it first."""
    from tunewright.engine.training import trainer as training

    plan, seen = run.plan(), Facts()
    build = training.build_trainer

    def build_and_watch(*arguments: Any) -> Any:
        trainer = build(*arguments)
        tamper(trainer)
        trainer.add_callback(_watcher(trainer, plan, seen))
        return trainer

    training.build_trainer = build_and_watch
    try:
        assert training.main([str(run.path)]) == 0, run.events_file.read_text()[-3000:]
    finally:
        training.build_trainer = build
    return seen


def _watcher(trainer: Any, plan: Plan, seen: Facts) -> Any:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        micro_batches = 0

        def on_train_begin(self, *ignored: Any, **more: Any) -> None:
            seen.update(_of_arguments(trainer), **_of_model(trainer.model), rates=[], rates_of_b=[])
            seen["trained_parameters"] = sum(each.numel() for each in trainer.model.parameters() if each.requires_grad)

        def on_step_begin(self, *ignored: Any, **more: Any) -> None:
            self.micro_batches = 1
            seen["rates"].append(_rate(trainer, of_b=False))
            seen["rates_of_b"].append(_rate(trainer, of_b=True))

        def on_substep_end(self, *ignored: Any, **more: Any) -> None:
            self.micro_batches += 1

        def on_step_end(self, *ignored: Any, **more: Any) -> None:
            seen["micro_batches_of_a_step"] = self.micro_batches
            seen.update(_of_optimizer(trainer))

        def on_train_end(self, *ignored: Any, **more: Any) -> None:
            if None in seen["rates_of_b"]:
                seen["rates_of_b"] = None
            seen.update(_of_batch(trainer))

    return Watcher()


def _of_arguments(trainer: Any) -> Facts:
    used = trainer.args
    names = (
        "learning_rate", "max_steps", "weight_decay", "max_grad_norm", "label_smoothing_factor", "neftune_noise_alpha",
        "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
        "bf16", "fp16", "use_cpu", "logging_steps", "report_to",
    )  # fmt: skip
    return {name: getattr(used, name) for name in names} | {
        "lr_scheduler_type": used.lr_scheduler_type.value,
        "optim": used.optim.value,
        "warmup": used.get_warmup_steps(used.max_steps),
        "eval_strategy": used.eval_strategy.value,
        "save_strategy": used.save_strategy.value,
    }


def _of_model(model: Any) -> Facts:
    config = model.config
    trained = [each for each in model.parameters() if each.requires_grad]
    facts: Facts = {
        "trained_types": sorted({str(each.dtype) for each in trained}),
        "use_cache": config.use_cache,
        "attention": config._attn_implementation,
    }
    kinds = {
        (module.weight.quant_state.quant_type, module.weight.quant_state.nested)
        for module in model.modules()
        if type(module).__name__ == "Linear4bit"
    }
    facts["weights_are_quantised"] = sorted(map(list, kinds)) or None
    if hasattr(model, "peft_config"):
        used = model.peft_config["default"]
        layers = {name: each for name, each in model.named_modules() if "default" in getattr(each, "lora_A", ())}
        facts |= {
            "alpha": used.lora_alpha,
            "rslora": used.use_rslora,
            "bias": used.bias,
            "rank": sorted({each.lora_A["default"].weight.shape[0] for each in layers.values()}),
            "scaling": sorted({round(each.scaling["default"], 6) for each in layers.values()}),
            "dropout": sorted({float(getattr(each.lora_dropout["default"], "p", 0.0)) for each in layers.values()}),
            "dora": sorted({"default" in getattr(each, "lora_magnitude_vector", ()) for each in layers.values()}),
            "adapted": sorted({name.rpartition(".")[2] for name in layers}),
            "saved": sorted(
                {
                    name.partition(".modules_to_save.")[0].rpartition(".")[2]
                    for name, each in model.named_parameters()
                    if ".modules_to_save." in name and each.requires_grad
                }
            ),
        }
    return facts


def _of_optimizer(trainer: Any) -> Facts:
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate's wrapping
        optimizer = optimizer.optimizer
    groups = [group for group in optimizer.param_groups if group["params"]]
    decays = {group["weight_decay"] for group in groups if any(each.dim() > 1 for each in group["params"])}
    states = {
        str(optimizer.state[each][name].dtype)
        for group in groups
        for each in group["params"]
        if each.numel() >= EIGHT_BIT_LEAST
        for name in ("exp_avg", "state1")
        if name in optimizer.state[each]
    }
    facts: Facts = {
        "optimizer": type(optimizer).__name__.removesuffix("8bit"),
        "betas": sorted({beta for group in groups for beta in group["betas"]}),
        "eps": max(group["eps"] for group in groups),
        "weight_decay": decays.pop() if len(decays) == 1 else sorted(decays),
        "state_types": sorted(states),
    }
    return facts


def _rate(trainer: Any, of_b: bool) -> float | None:
    """Return the one learning rate of the adapters' B matrices, or of everything else, at this moment."""
    names = {id(each): name for name, each in trainer.model.named_parameters()}
    rates = {
        group["lr"]
        for group in trainer.optimizer.param_groups
        for each in group["params"]
        if (".lora_B." in names[id(each)]) == of_b
    }
    assert len(rates) <= 1, rates
    return rates.pop() if rates else None


def _of_batch(trainer: Any) -> Facts:
    """Return what a batch of the trainer's own rows looks like."""
    end = trainer.processing_class.eos_token_id
    seen_places, learned_places, ends_learned, rows = False, False, True, 0
    for batch, _ in zip(trainer.get_train_dataloader(), range(4), strict=False):
        tokens, labels, mask = (batch.get(name) for name in ("input_ids", "labels", "attention_mask"))
        rows = max(rows, len(tokens))
        if mask is None:  # rows of no padding
            continue
        for row, learned, kept in zip(tokens, labels, mask, strict=True):
            length = int(kept.sum())
            seen_places |= bool(kept[length:].any())
            learned_places |= bool((learned[length:] != -100).any())
            last = [place for place in range(length) if row[place] == end]
            ends_learned &= not last or bool(learned[last[-1]] == end)
    return {
        "rows_of_a_batch": rows,
        "filled_places_are_learned": learned_places,
        "filled_places_are_seen": seen_places,
        "ends_are_learned": ends_learned,
    }


def departures(seen: Facts, meant: Facts) -> list[str]:
    """Return the fields in which what was used is not what was meant."""
    return [
        f"{name}: {seen.get(name)!r}, not {value!r}"
        for name, value in meant.items()
        if not _alike(seen.get(name), value)
    ]


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    return one == other


if __name__ == "__main__":
    taken = RunDirectory(Path(sys.argv[1]))
    print(json.dumps({"seen": observe(taken), "meant": expected(taken.recipe(), taken.plan())}, default=str))
