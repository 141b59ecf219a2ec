"""What the tools around transformers' Trainer share: the names of optimizers and schedules, batches, warm-up, adapters.

Source of the names: transformers 5.17, training_args.py (OptimizerNames) and trainer_utils.py (SchedulerType).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ..model import LoraMethod, Recipe
from .ledger import NO_CLIPPING, Ledger, number, switch, whole, words

ADAMW = {
    "adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw_torch_xla", "paged_adamw",
    "paged_adamw_32bit", "adamw_32bit", "adamw_torch_npu_fused", "flash_adamw",
}  # fmt: skip
ADAMW_8BIT = {"adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"}
EIGHT_BIT_ALIKE = {"adamw_torch_8bit", "ao_adamw_8bit", "adamw_torch_4bit", "ao_adamw_4bit", "ao_adamw_fp8"}
"""torchao's: other blocks than bitsandbytes', or fewer bits."""
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine",  # one cycle is a cosine
    "constant": "constant",
    "constant_with_warmup": "constant",
    "cosine_with_min_lr": "cosine",
    "cosine_warmup_with_min_lr": "cosine",
}
NEAREST_SCHEDULE = {"polynomial": "linear", "inverse_sqrt": "cosine", "reduce_lr_on_plateau": "constant", "one_cycle": "cosine",
                    "warmup_stable_decay": "constant", "rex": "cosine"}  # fmt: skip
TARGETS_OF_ALL = ("all", "all-linear", "all_linear")
COST = "only changes the cost: the plan chooses it"
LOGGING = "logging: every run keeps its events"
OUTPUT = "a recipe names no output path"
CHECKPOINTS = "checkpoints: the run keeps its own, and resumes from them"
EVALUATION = "when the run is evaluated; the plan chooses it"
IDENTITY = "an account's or a service's setting, which no recipe holds"
NO_SETTING = "no setting of a recipe, and its value changes nothing"


def carry_optimizer(ledger: Ledger, key: str, default: str, because: str) -> None:
    """Carry the optimizer over; other kinds than AdamW become AdamW, with a warning."""
    name = ledger.text(key)
    if name is None:
        ledger.default("training.optimizer", _optimizer(default), because)
        return
    word_ = name.casefold().removeprefix("optimizernames.")
    ledger.settle("training.optimizer", _optimizer(word_), key)
    if word_ in EIGHT_BIT_ALIKE:
        ledger.warn(f"{name} is torchao's; bitsandbytes' AdamW in 8 bits stands for it.")
    elif word_ not in ADAMW | ADAMW_8BIT:
        ledger.warn(f"The optimizer {name} is not one of ours: AdamW stands for it, and needs another learning rate.")


def _optimizer(name: str) -> str:
    return "adamw_8bit" if name in ADAMW_8BIT | EIGHT_BIT_ALIKE or "8bit" in name else "adamw"


def carry_schedule(ledger: Ledger, key: str, default: str, because: str, kwargs: str = "") -> None:
    """Carry the schedule over, and the floor of a cosine that has one."""
    name = ledger.text(key)
    if name is None:
        ledger.default("training.schedule", SCHEDULES[default], because)
        schedule = default
    else:
        schedule = name.casefold()
        if schedule not in SCHEDULES:
            nearest = NEAREST_SCHEDULE.get(schedule, "cosine")
            ledger.settle("training.schedule", nearest, key)
            ledger.warn(f"The schedule {name} is not one of ours: {nearest} stands for it.")
        else:
            ledger.settle("training.schedule", SCHEDULES[schedule], key)
    if not kwargs:
        return
    for floor in ("min_lr_rate", "min_lr_ratio"):
        share = ledger.read(f"{kwargs}.{floor}", number)
        if share is not None and ledger.fields["training.schedule"] == "cosine":
            if 0 < share < 1:
                ledger.settle("training.floor", share, f"{kwargs}.{floor}")
            else:
                ledger.drop(f"{kwargs}.{floor}", "the schedule ends at nothing")
    least, rate = ledger.read(f"{kwargs}.min_lr", number), ledger.fields.get("training.learning_rate")
    if least is not None and rate and 0 < least < rate and ledger.fields["training.schedule"] == "cosine":
        ledger.settle("training.floor", least / rate, f"{kwargs}.min_lr", note="as a share of the peak")
    cycles = ledger.read(f"{kwargs}.num_cycles", number)
    if cycles is not None:
        usual = 1 if schedule == "cosine_with_restarts" else 0.5
        ledger.unless(
            f"{kwargs}.num_cycles", (usual, int(usual)), "the schedule's usual cycle",
            f"The schedule goes through {cycles:g} cycles; ours through one.",
        )  # fmt: skip
    ledger.drop(kwargs, "no setting of our schedules", f"The schedule's own settings at {kwargs} are left out.")


def carry_warmup(
    ledger: Ledger,
    ratio_key: str,
    steps_key: str,
    because: str,
    schedule_key: str = "",
    default: tuple[str, float] = ("steps", 0.0),
) -> None:
    """Carry the warm-up over: steps stand before a ratio, and steps below 1 are a ratio (transformers 5).

    The schedule `constant` of transformers, where `schedule_key` names it, has none.
    """
    steps, ratio = ledger.read(steps_key, number), ledger.read(ratio_key, number)
    if schedule_key and ledger.get(schedule_key) == "constant":
        ledger.default("training.warmup.kind", "steps", "the schedule constant has no warm-up")
        ledger.default("training.warmup.value", 0.0, "the schedule constant has no warm-up")
        ledger.drop(steps_key, "the schedule constant ignores it")
        ledger.drop(ratio_key, "the schedule constant ignores it")
    elif steps is not None and steps > 0:
        kind = "ratio" if steps < 1 else "steps"
        ledger.settle("training.warmup.value", steps if steps < 1 else float(round(steps)), steps_key)
        ledger.settle("training.warmup.kind", kind)
        ledger.drop(ratio_key, f"{steps_key} stands before it")
    elif ratio is not None:
        ledger.settle("training.warmup.value", ratio, ratio_key)
        ledger.settle("training.warmup.kind", "ratio")
        ledger.drop(steps_key, f"none: {ratio_key} holds")
    elif steps is not None:
        ledger.settle("training.warmup.value", 0.0, steps_key)
        ledger.settle("training.warmup.kind", "steps")
    else:
        ledger.default("training.warmup.kind", default[0], because)
        ledger.default("training.warmup.value", default[1], because)


def carry_batch(
    ledger: Ledger, micro_key: str, micro: int, accumulation_key: str, because: str, steps: int = 1
) -> None:
    """Carry the rows of an optimizer step over: micro-batch times accumulation times GPUs."""
    rows, parts = ledger.read(micro_key, whole), ledger.read(accumulation_key, whole)
    if isinstance(ledger.get(accumulation_key), str) and ledger.text(accumulation_key) == "auto":
        parts = None
    total = (rows or micro) * (parts or steps) * ledger.gpus
    on = "one GPU" if ledger.gpus == 1 else f"{ledger.gpus} GPUs"
    if rows is None and parts is None:
        ledger.default("training.global_batch", total, because)
        return
    ledger.settle("training.global_batch", total, micro_key, accumulation_key, note=f"rows of a step, on {on}")
    if rows is None or parts is None:
        missing = micro_key if rows is None else accumulation_key
        ledger.default("training.global_batch", total, f"{missing} is {micro if rows is None else steps}: {because}")


def carry_length(ledger: Ledger, epochs_key: str, steps_key: str, epochs: float, because: str) -> None:
    """Carry the run's length over: steps stand before epochs, and none or -1 of them means epochs."""
    steps = ledger.read(steps_key, whole)
    if steps is not None and steps > 0:
        ledger.settle("training.steps", steps, steps_key)
        ledger.drop(epochs_key, f"{steps_key} stands before it")
        return
    if steps is not None:
        ledger.drop(steps_key, "none: the epochs count")
    given = ledger.read(epochs_key, number)
    if given is not None and given > 0:
        ledger.settle("training.epochs", given, epochs_key)
        return
    ledger.drop(epochs_key, "none: the tool's default holds")
    ledger.default("training.epochs", epochs, because)


def carry_clipping(ledger: Ledger, key: str, default: float | None, because: str) -> None:
    """Carry the clipping of gradients over; 0 and nothing mean none."""
    value = ledger.read(key, number)
    if value is None:
        ledger.default("training.max_grad_norm", default or NO_CLIPPING, because)
    elif value > 0:
        ledger.settle("training.max_grad_norm", value, key)
    else:
        ledger.settle("training.max_grad_norm", NO_CLIPPING, key, note="not clipped: a norm that no run reaches")


def carry_betas(ledger: Ledger, prefix: str = "") -> None:
    """Carry AdamW's second beta over; the first and epsilon are the usual ones with us."""
    beta2 = ledger.read(f"{prefix}adam_beta2", number)
    if beta2 is not None and beta2 != 0.999:
        ledger.settle("training.beta2", beta2, f"{prefix}adam_beta2")
    ledger.drop(f"{prefix}adam_beta2", "the usual value")
    ledger.unless(f"{prefix}adam_beta1", (0.9, "0.9"), "the usual value", "adam_beta1 is another than 0.9, as ours is.")
    epsilon = ledger.read(f"{prefix}adam_epsilon", number)
    if epsilon is not None:
        ledger.drop(
            f"{prefix}adam_epsilon",
            "the usual value" if epsilon == 1e-8 else "not a setting of ours",
            "" if epsilon == 1e-8 else f"adam_epsilon is {epsilon:g}; ours is 1e-8.",
        )


def carry_adapter(
    ledger: Ledger,
    keys: dict[str, str],
    defaults: dict[str, tuple[Any, str]],
) -> None:
    """Carry an adapter's numbers over: `keys` are the rival's names of rank, alpha, dropout, rslora, dora, saved."""
    readers = {"rank": whole, "alpha": number, "dropout": number, "rslora": switch, "dora": switch}
    for name, reader in readers.items():
        key, (value, because) = keys.get(name, ""), defaults[name]
        if key:
            ledger.carry(key, f"method.{name}", reader, value, because)
        else:
            ledger.default(f"method.{name}", value, because)
    saved = ledger.read(keys["saved"], words) if keys.get("saved") else None
    if saved:
        ledger.settle("method.modules_to_save", [each.rpartition(".")[2] for each in saved], keys["saved"])
    if "lora_plus" not in keys:
        ledger.default("method.lora_plus_ratio", 1.0, f"{ledger.tool} has one rate for both matrices")
    else:
        ledger.carry(keys["lora_plus"], "method.lora_plus_ratio", number, 1.0, "one rate for both matrices")


def carry_targets(ledger: Ledger, key: str, default: Any, because: str) -> None:
    """Carry the target modules over: names, or all linear layers; a regular expression becomes all linear layers."""
    value = ledger.get(key)
    if value is None or value in ("", []):
        ledger.drop(key, f"empty: {ledger.tool}'s default holds")
        ledger.default("method.targets", default, because)
        return
    names = ledger.read(key, words) or []
    if any(each in TARGETS_OF_ALL for each in names):
        ledger.settle("method.targets", "all-linear", key)
    elif all(re.fullmatch(r"[A-Za-z0-9_.]{1,200}", each) for each in names):
        ledger.settle("method.targets", list(dict.fromkeys(names)), key)
    else:
        ledger.settle("method.targets", "all-linear", key)
        ledger.warn(f"{key} is a pattern, which a recipe does not hold: all linear layers stand for it.")


def settle_quantisation(ledger: Ledger, type_key: str, type_: str, double_key: str, double: bool) -> None:
    """Carry the 4-bit type and its double quantisation over; `type_` and `double` are the tool's defaults."""
    kind = ledger.text(type_key) if type_key else None
    if (kind or type_) != "nf4":
        ledger.warn("The frozen weights are FP4 there and NF4 here, which loses less.")
    if kind is None:
        ledger.default("method.quantisation", "nf4", f"{ledger.tool} takes {type_} by default")
    else:
        ledger.settle("method.quantisation", "nf4", type_key)
    if double_key:
        ledger.carry(double_key, "method.double_quantisation", switch, double, f"{ledger.tool}'s default")
    else:
        ledger.default("method.double_quantisation", double, f"{ledger.tool}'s default")


def settle_source(ledger: Ledger, path_key: str, name_key: str = "", revision_key: str = "") -> str:
    """Carry the data's name over, with its configuration and revision, and return it."""
    path = ledger.text(path_key) or ""
    source = require_literal(ledger, path_key, path, "data.source")
    name, revision = (ledger.text(key) if key else None for key in (name_key, revision_key))
    if revision:
        source += f"@{revision}"
    if name:
        source += f":{name}"
    ledger.settle("data.source", source, *(key for key in (path_key, name_key, revision_key) if key))
    return source


def settle_split(ledger: Ledger, key: str, default: str, because: str) -> None:
    """Carry the split over; a slice of per cent becomes a share, of rows a warning."""
    split = ledger.text(key)
    if split is None:
        ledger.default("data.split", default, because)
        return
    name, _, slice_ = split.partition("[")
    ledger.settle("data.split", name or default, key)
    if not slice_:
        return
    percent = re.fullmatch(r"(?:0%)?:(\d{1,2}(?:\.\d+)?)%\]", slice_)
    if percent and 0 < float(percent[1]) < 100:
        ledger.settle("data.share", float(percent[1]) / 100)
        ledger.warn(f"{split} takes the first {percent[1]} % of the rows; data.share takes as many, drawn by the seed.")
    else:
        ledger.warn(f"{split} takes a part of the rows; a recipe takes all of the split {name}.")


def require_literal(ledger: Ledger, key: str, value: str, field: str) -> str:
    """Return `value`; raises TunewrightError for a placeholder, which is never filled in."""
    if re.search(r"\$\{|\{\{|\{%|\$[A-Z_]{2,}", value):
        raise TunewrightError(
            "A placeholder, not a value",
            f"{key} is {one_line(value, 100)!r}; what stands for a variable or a template is never evaluated.",
            f"Write the name itself, which becomes {field}.",
        )
    return value


def no_data(ledger: Ledger, because: str) -> None:
    """Put a stand-in where the file names no data."""
    ledger.default("data.source", "your-data.jsonl", because)
    ledger.warn("The file names no data: set data.source before the run.")


def micro_batch(recipe: Recipe) -> tuple[int, int]:
    """Return a micro-batch and an accumulation that make the recipe's global batch on one GPU."""
    total = recipe.training.global_batch
    rows = next(each for each in (8, 4, 2, 1) if total % each == 0)
    return rows, total // rows


def several(ledger: Ledger, hints: Sequence[str]) -> None:
    """Warn where the file was written for several GPUs and nobody said for how many."""
    found = [key for key in hints if ledger.get(key) not in (None, False, "", [])]
    if found and ledger.gpus == 1:
        ledger.warn(
            f"{found[0]} is for several GPUs, and the rows of a step grow with them: counted for one, give --gpus N."
        )


def target_names(method: LoraMethod) -> list[str]:
    """Return the names of a recipe's target modules, for a format that knows no word for a group of them."""
    groups = {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"], "qv": ["q_proj", "v_proj"]}
    return groups[method.targets] if isinstance(method.targets, str) else list(method.targets)


def hub_parts(source: str) -> tuple[str, str | None, str | None]:
    """Return the name, the revision and the configuration of a data set on the Hub; a path is a name alone."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([^:\s]+))?(?::(.+))?", source)
    return (found[1], found[2], found[3]) if found and not is_file(source) else (source, None, None)


def is_file(source: str) -> bool:
    """Tell whether the data's name is that of a file on a disk."""
    return bool(re.search(r"\.(jsonl?|csv|tsv|parquet|arrow|txt)(\.\w+)?$", source)) or source[:1] in "/.~"


def short(value: float) -> float | int:
    """Return a whole number without its point."""
    return int(value) if value == int(value) else value
