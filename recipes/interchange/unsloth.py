"""Unsloth Studio's configuration files, in; Unsloth runs from a script, which `scripts` writes.

Facts from unslothai/unsloth@015bdef0d94a241bcd94eec7a405b1700632180d: unsloth_cli/config.py and studio's request
(models/training.py), its settings for single models (assets/configs/model_defaults).
"""

from __future__ import annotations

import re
from typing import Any

from . import hugging_face as hf
from .ledger import Ledger

TOOL = "Unsloth Studio"
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_IGNORED = {
    r"(training\.)?(output_dir|project_name)|logging(\..*)?|enable_wandb|wandb_\w+|enable_tensorboard|tensorboard_dir|hf_token": hf.LOGGING,
    r"(training\.)?(save_steps|resume_from_checkpoint)": hf.CHECKPOINTS,
    r"(training\.)?eval_steps|inference(\..*)?": hf.EVALUATION,
    r"(training\.)?(gradient_checkpointing|dataset_streaming|gpu_ids|cast_norm_output_to_input_dtype)": hf.COST,
    r"(lora\.)?(finetune_\w+|vision_all_linear)|is_(dataset_image|dataset_audio|embedding)|vision_image_size": "of pictures and sound, which text has none of",
    r"trust_remote_code|approved_\w+|model_(known_cached|local_path|format|snapshot_path)|dataset_(known_cached|local_path|snapshot_path)|start_request_id|use_lora|use_fast|s3_\w+.*":
        "how files are found and loaded; our engine finds that out",
}  # fmt: skip


def read(values: dict[str, Any], gpus: int, model: str = "") -> Ledger:
    """Return the ledger of a Studio file; `model` is the name of the model for settings that give none."""
    ledger = Ledger(TOOL, values, gpus)
    nested = isinstance(ledger.get("training"), dict)
    in_training, in_lora, in_data = ("training.", "lora.", "data.") if nested else ("", "", "")
    _refuse_other_kinds(ledger)
    _base(ledger, model)
    objective = _method(ledger, in_training, in_lora)
    _data(ledger, in_data, in_training, objective)
    _training(ledger, in_training, nested)
    ledger.ignore(_IGNORED)
    return ledger


def _refuse_other_kinds(ledger: Ledger) -> None:
    if ledger.get("audio_type") or ledger.get("audio_input") or ledger.get("is_dataset_audio"):
        raise ledger.refuse("It trains on pictures or sound")
    if ledger.get("is_dataset_image") or ledger.get("lora.vision_all_linear"):
        raise ledger.refuse("It trains on pictures or sound")
    if ledger.get("is_embedding") or "embedding" in str(ledger.get("logging.wandb_project")):
        raise ledger.refuse("It trains a model of embeddings")


def _base(ledger: Ledger, model: str) -> None:
    key = next((each for each in ("model", "model_name") if ledger.get(each) is not None), "")
    name = hf.require_literal(ledger, key, ledger.text(key) or "", "base.model") if key else model
    if not name:
        raise ledger.refuse("It names no model: give --model")
    if key:
        ledger.settle("base.model", name, key)
    else:
        ledger.default("base.model", name, "the model whose settings these are")


def _method(ledger: Ledger, training: str, lora: str) -> str:
    key = f"{training}training_type"
    kind = (ledger.text(key) or "lora").casefold()
    objective = "cpt" if "pretraining" in kind or kind == "cpt" else "sft"
    ledger.settle("training.objective", objective)
    four_key = f"{training}load_in_4bit"
    four = ledger.read(four_key, hf.switch)
    if kind.startswith("full"):
        ledger.settle("method.kind", "full", key)
        ledger.drop(four_key, "every weight is trained")
        ledger.ignore(
            {
                rf"{lora.replace('.', '[.]')}(lora_\w+|target_modules|use_\w+|finetune_\w+|vision_all_linear)": "no adapter is trained"
            }
        )
        return objective
    method = "qlora" if four is not False else "lora"
    if ledger.get(key) is None and four is None:
        ledger.default("method.kind", method, "Unsloth's default: LoRA beside 4-bit weights")
    else:
        ledger.settle("method.kind", method, key, four_key)
    if method == "qlora":
        hf.settle_quantisation(ledger, "", "nf4", "", True)
    own = "Unsloth's default"
    nested = bool(lora)
    hf.carry_adapter(
        ledger,
        {"rank": f"{lora}lora_r", "alpha": f"{lora}lora_alpha", "dropout": f"{lora}lora_dropout", "rslora": f"{lora}use_rslora", "dora": f"{lora}use_dora"},
        {"rank": (64 if nested else 16, own), "alpha": (16.0, own), "dropout": (0.0, own), "rslora": (False, own), "dora": (False, own)},
    )  # fmt: skip
    hf.carry_targets(ledger, f"{lora}target_modules", _LINEAR, "Unsloth adapts all linear layers")
    ledger.unless(
        f"{lora}use_loftq", (False,), "adapters begin as usual", "use_loftq lets adapters begin otherwise than ours."
    )
    return objective


def _data(ledger: Ledger, data: str, training: str, objective: str) -> None:
    local_keys = ("data.local_dataset", "local_datasets")
    local = next((key for key in local_keys if ledger.get(key)), "")
    hub = next((key for key in ("data.dataset", "hf_dataset") if ledger.get(key)), "")
    if local:
        files = ledger.read(local, hf.words) or []
        ledger.settle("data.source", hf.require_literal(ledger, local, files[0], "data.source"), local)
        if len(files) > 1:
            ledger.warn(f"A recipe has one source: the first of {len(files)} files is taken.")
    elif hub:
        hf.settle_source(ledger, hub, "subset")
    else:
        hf.no_data(ledger, "these settings name none")
    split = next((key for key in ("train_split", "split") if ledger.get(key)), "train_split")
    hf.settle_split(ledger, split, "train", "the split train")
    kind = ledger.text(f"{data}format_type")
    formats = {"alpaca": "alpaca", "chatml": "messages", "sharegpt": "sharegpt", "raw": "text"}
    if objective == "cpt":
        ledger.settle("data.format", "text", f"{data}format_type")
    elif kind is None:
        ledger.default("data.format", "auto", "Studio tells it from the rows")
    else:
        ledger.settle("data.format", formats.get(kind, "auto"), f"{data}format_type")
    ledger.unless("custom_format_mapping", ({},), "none", "Columns are mapped by hand there: set data.columns.")
    for key in ("dataset_slice_start", "dataset_slice_end"):
        ledger.unless(key, (), "all rows", "It takes a part of the rows; a recipe takes all, or data.share of them.")
    ledger.unless(
        "eval_split", (), "no validation split", "Its validation rows are another split: set data.validation."
    )
    ledger.unless(
        "local_eval_datasets", ([],), "no validation file", "Its validation rows are a file: set data.validation."
    )
    ledger.default("data.validation.kind", "none", "no rows are kept out")
    ledger.default("data.validation.value", 0.0, "none are kept out")
    ledger.default("data.template", "model", "the tokenizer's own")
    only = ledger.read(f"{training}train_on_completions", hf.switch)
    if objective == "cpt":
        ledger.default("data.loss_on", "all", "texts are learned whole")
        ledger.drop(f"{training}train_on_completions", "texts are learned whole")
    elif only is None:
        ledger.default("data.loss_on", "all", "Unsloth learns prompts too unless told otherwise")
    else:
        ledger.settle("data.loss_on", "assistant" if only else "all", f"{training}train_on_completions")
    ledger.carry(f"{training}max_seq_length", "data.max_length", hf.whole, 2048, "Unsloth's default")
    ledger.default("data.overlong", "cut", "TRL cuts rows that are too long")
    ledger.carry(f"{training}packing", "data.packing", hf.switch, False, "Unsloth's default")


def _training(ledger: Ledger, at: str, nested: bool) -> None:
    own = "Unsloth's default"
    ledger.carry(f"{at}learning_rate", "training.learning_rate", hf.number, 2e-4, own)
    hf.carry_schedule(ledger, f"{at}lr_scheduler_type", "linear", own)
    hf.carry_warmup(
        ledger, f"{at}warmup_ratio", f"{at}warmup_steps", own, f"{at}lr_scheduler_type", default=("steps", 5.0)
    )
    hf.carry_length(ledger, f"{at}num_epochs", f"{at}max_steps", 3.0 if nested else 1.0, own)
    hf.carry_batch(
        ledger, f"{at}batch_size", 2 if nested else 1, f"{at}gradient_accumulation_steps", own, 4 if nested else 1
    )
    hf.carry_optimizer(ledger, f"{at}optim", "adamw_8bit", own)
    ledger.carry(f"{at}weight_decay", "training.weight_decay", hf.number, 0.01 if nested else 0.001, own)
    hf.carry_clipping(ledger, f"{at}max_grad_norm", 1.0, "transformers' default")
    ledger.carry(f"{at}random_seed", "training.seed", hf.whole, 3407, own)
    ledger.unless(f"{at}embedding_learning_rate", (), "none", "Embeddings have a learning rate of their own there.")
    for key in ("max_grad_value", "max_grad_leaf_norm"):
        ledger.unless(f"{at}{key}", (), "none", f"{key} clips gradients in a way of its own.")


def model_of_name(file_name: str) -> str:
    """Return the model that a file of settings is called by (`owner_name.yaml`), nothing for other names."""
    found = re.fullmatch(r"([A-Za-z0-9-]+)_(.+)\.ya?ml", file_name)
    return f"{found[1]}/{found[2]}" if found else ""
