"""TRL's configuration files (`trl sft --config FILE`), in and out; the older keys of the alignment handbook are read too.

Facts from huggingface/trl@f2cd57710ae345ea6428ae95363267fcf38a3dc8: trainer (model_config, sft_config, dpo_config,
kto_config), scripts/utils.py; peft 0.21 for the targets where none are named.
"""

from __future__ import annotations

from typing import Any

from ..model import LoraMethod, QloraMethod, Recipe
from . import hugging_face as hf
from .ledger import Ledger

TOOL = "TRL"
_HF, _OWN = "transformers' default", "TRL's default"
_REWARDED = ("reward_funcs", "reward_weights", "num_generations", "use_vllm", "vllm_mode", "reward_model_path", "teacher_model_name_or_path", "judge", "rollout_func",
             "max_completion_length_grpo", "reward_model_name_or_path", "missing_eos_penalty", "num_ppo_epochs")  # fmt: skip
_IGNORED = {
    r"output_dir|overwrite_output_dir|hub_\w+|push_to_hub\w*|run_name|tags": hf.OUTPUT,
    r"log\w*|report_to|disable_tqdm|wandb_\w+|trackio_\w+|project|include_\w+|dataset_num_proc|preprocessing_num_workers|num_completions_to_print|benchmarks|system_prompt_file": hf.LOGGING,
    r"save_\w+|resume_from_checkpoint|load_best_model_at_end|overwrite_hub_revision": hf.CHECKPOINTS,
    r"do_(train|eval|predict)|eval_\w+|evaluation_strategy|per_device_eval_batch_size|generate_during_eval|callbacks|metric_for_best_model|greater_is_better": hf.EVALUATION,
    r"bf16|fp16|tf32|dtype|torch_dtype|attn_implementation|gradient_checkpointing|gradient_checkpointing_kwargs(\..*)?|use_liger(_kernel)?|activation_offloading|"
    r"padding_free|torch_compile\w*|use_flash_attention_2|deepspeed|fsdp\w*(\..*)?|ddp_\w+|dataloader_\w+|precompute_\w+|group_by_length|use_cache|use_kernels|liger_kernel_config(\..*)?": hf.COST,
    r"pad_to_multiple_of|eval_packing|remove_unused_columns|dataset_kwargs(\..*)?|dataset_streaming|streaming|max_prompt_length|max_completion_length|truncation_mode|"
    r"packing_strategy|shuffle_dataset|ignore_bias_buffers|parallelism_config(\..*)?|torch_empty_cache_steps|auto_find_batch_size|use_logits_to_keep": hf.COST,
    r"trust_remote_code|tokenizer_name_or_path|tokenizer_name|model_init_kwargs(\..*)?|bnb_4bit_quant_storage|lora_task_type|auto_insert_empty_system_msg|use_mps_device|env(\..*)?|"
    r"disable_dropout|loss_weights|dataset_test_split|data_seed|ddp_timeout|gradient_accumulation_steps_auto|model_adapter_name|ref_adapter_name|base_model_revision": "how files are loaded; our engine finds that out",
}  # fmt: skip
_RISKY = {
    "neftune_noise_alpha": "noise in the embeddings (NEFTune)", "lora_target_parameters": "adapters on parameters that are no layers", "eos_token": "another end token",
    "pad_token": "another padding token", "ld_alpha": "a weight of long answers", "f_divergence_type": "another divergence", "use_weighting": "pairs of different weights",
    "sync_ref_model": "a reference that follows the model", "rpo_alpha": "a second loss beside the preference's", "router_aux_loss_coef": "a loss of the routers",
    "chat_template": "a chat template of its own", "teacher_model": "another model's probabilities", "label_smoothing_factor": "smoothed labels", "system_prompt": "",
}  # fmt: skip


def read(values: dict[str, Any], gpus: int, hint: str = "") -> Ledger:
    """Return the ledger of a TRL file; `hint` is the file's path, which may tell the trainer."""
    ledger = Ledger(TOOL, values, gpus)
    objective = _objective(ledger, hint)
    _base(ledger)
    _data(ledger, objective)
    _method(ledger, objective)
    _training(ledger, objective)
    for key, what in _RISKY.items():
        plain = ledger.get(key) in (None, False, "", 0, "reverse_kl", 0.001) or (key == "pad_token")
        if what and not plain:
            ledger.drop(key, "not a setting of ours", f"{key}: {what}, which a recipe does not hold.")
        else:
            ledger.drop(key, hf.NO_SETTING)
    hf.several(ledger, ("deepspeed", "fsdp"))
    ledger.ignore(_IGNORED)
    return ledger


def _objective(ledger: Ledger, hint: str) -> str:
    found = next((key for key in _REWARDED if ledger.get(key) is not None), "")
    if found:
        raise ledger.refuse(f"It learns from rewards or another model ({found})")
    if ledger.get("simpo_gamma") is not None or ledger.get("loss_type") == "simpo":
        raise ledger.refuse("SimPO is not one of our objectives")
    place = f"{hint} {ledger.get('output_dir') or ''} {ledger.get('hub_model_id') or ''}".casefold()
    if ledger.get("desirable_weight") is not None or "kto" in place:
        objective = "kto"
    elif "orpo" in place:
        objective = "orpo"
    elif ledger.get("beta") is not None or ledger.get("max_prompt_length") is not None or "dpo" in place:
        objective = "dpo"
    else:
        ledger.default("training.objective", "sft", "nothing in the file is of another trainer")
        return "sft"
    ledger.settle("training.objective", objective)
    ledger.warn(f"A TRL file does not say which trainer it is for; it is read as one for {objective}.")
    return objective


def _base(ledger: Ledger) -> None:
    model = hf.require_literal(ledger, "model_name_or_path", ledger.text("model_name_or_path") or "", "base.model")
    if not model:
        raise ledger.refuse("It names no model")
    ledger.settle("base.model", model, "model_name_or_path")
    if (ledger.text("model_revision") or "main") != "main":
        ledger.settle("base.revision", ledger.text("model_revision"), "model_revision")
    ledger.drop("model_revision", "the usual branch")


def _data(ledger: Ledger, objective: str) -> None:
    _source(ledger)
    text, assistant = ledger.text("dataset_text_field"), ledger.read("assistant_only_loss", hf.switch)
    completion = ledger.read("completion_only_loss", hf.switch)
    if objective in ("dpo", "orpo", "kto"):
        ledger.default("data.format", "kto" if objective == "kto" else "preference", "what its trainer takes")
        ledger.default("data.loss_on", "assistant", "answers are compared")
    elif assistant:
        ledger.settle("data.loss_on", "assistant", "assistant_only_loss")
        ledger.default("data.format", "messages", "assistant_only_loss needs conversations")
    elif completion:
        ledger.settle("data.loss_on", "completion", "completion_only_loss")
        ledger.default("data.format", "prompt-completion", "completion_only_loss needs a prompt and a completion")
    else:
        ledger.default(
            "data.format",
            "text" if text else "auto",
            "dataset_text_field names a column of text" if text else "TRL tells it from the columns",
        )
        because = "TRL learns conversations and texts whole"
        if completion is False or assistant is False:
            ledger.settle("data.loss_on", "all", "completion_only_loss", "assistant_only_loss")
        else:
            ledger.default("data.loss_on", "all", because)
            if not text:
                ledger.warn(
                    "TRL learns conversations whole and of rows with a prompt and a completion the completion alone: if its data are such, data.loss_on is completion."
                )
    if text and text != "text":
        ledger.settle("data.columns", {"text": text}, "dataset_text_field")
    ledger.drop("dataset_text_field", "the usual name")
    for key in ("assistant_only_loss", "completion_only_loss"):
        ledger.drop(key, "the other of the two holds")
    template = ledger.text("chat_template_path")
    ledger.default("data.template", "model", "the tokenizer's own")
    if template:
        ledger.drop(
            "chat_template_path",
            "another template",
            f"The template is taken from {template}; here it is the model's own: compare the rendered text.",
        )
    longest = next((key for key in ("max_length", "max_seq_length") if ledger.get(key) is not None), "max_length")
    ledger.carry(longest, "data.max_length", hf.whole, 1024, _OWN)
    ledger.drop("max_seq_length", "max_length holds")
    ledger.default("data.overlong", "cut", "TRL cuts rows that are too long")
    packing = ledger.read("packing", hf.switch)
    if objective == "sft" and packing is not None:
        ledger.settle("data.packing", packing, "packing")
        if packing and ledger.text("packing_strategy") in ("wrapped", "bfd_split"):
            ledger.warn("Rows are cut through where a packed one ends there; here they stay whole.")
    else:
        ledger.default("data.packing", False, _OWN)
        ledger.drop("packing", "pairs are taken as they are")
    _validation(ledger)


def _source(ledger: Ledger) -> None:
    mixture = next((key for key in ("datasets", "dataset_mixture.datasets") if isinstance(ledger.get(key), list)), "")
    mixer = ledger.get("dataset_mixer")
    if ledger.get("dataset_name") is not None:
        hf.settle_source(
            ledger, "dataset_name", "dataset_config" if ledger.get("dataset_config") else "dataset_config_name"
        )
        hf.settle_split(ledger, "dataset_train_split", "train", _OWN)
    elif mixture:
        at = f"{mixture}[0]"
        path = "path" if ledger.get(f"{at}.path") is not None else "id"
        if ledger.get(f"{at}.{path}") is None:
            raise ledger.refuse("Its mixture names no data set")
        hf.settle_source(ledger, f"{at}.{path}", f"{at}.name" if ledger.get(f"{at}.name") else f"{at}.config")
        hf.settle_split(ledger, f"{at}.split", "train", _OWN)
        _fraction(ledger, f"{at}.fraction")
        _fraction(ledger, f"{at}.weight")
        ledger.drop(f"{at}.columns", "our engine finds the columns")
        ledger.unless(f"{at}.data_files", (), "", "The data's files are named: set data.source to them.")
        count = len(ledger.get(mixture))
        for index in range(1, count):
            ledger.drop(f"{mixture}[{index}]", "a recipe has one source")
        if count > 1:
            ledger.warn(
                f"A recipe has one source: the first of {count} data sets is taken. Join them in a file to have all."
            )
    elif isinstance(mixer, dict) and mixer:
        names = [str(each) for each in mixer]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        ledger.settle(
            "data.source", hf.require_literal(ledger, "dataset_mixer", names[0], "data.source"), "dataset_mixer"
        )
        share = next(iter(mixer.values()))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if isinstance(share, (int, float)) and 0 < share < 1:
            ledger.settle("data.share", float(share))
        splits = ledger.read("dataset_splits", hf.words) or ["train"]
        ledger.settle("data.split", splits[0], "dataset_splits")
        if len(names) > 1:
            ledger.warn(
                f"A recipe has one source: the first of {len(names)} data sets is taken. Join them in a file to have all."
            )
        if len(splits) > 1:
            ledger.warn(f"It evaluates on {splits[1]}: set data.validation to have a validation loss.")
    else:
        hf.no_data(ledger, "no data set is named")
    ledger.drop("dataset_configs", "found in the data set's own files")
    for key in ("seed", "test_split_size"):
        ledger.drop(f"dataset_mixture.{key}", "of the mixture alone") if key == "seed" else None


def _fraction(ledger: Ledger, key: str) -> None:
    share = ledger.read(key, hf.number)
    if share is not None and 0 < share < 1:
        ledger.settle("data.share", share, key)
    ledger.drop(key, "all rows")


def _validation(ledger: Ledger) -> None:
    key = (
        "dataset_mixture.test_split_size"
        if ledger.get("dataset_mixture.test_split_size") is not None
        else "test_split_size"
    )
    size = ledger.read(key, hf.number)
    if size:
        kind = "rows" if size >= 1 else "fraction"
        ledger.settle("data.validation.kind", kind)
        ledger.settle("data.validation.value", size if kind == "rows" else min(size, 0.5), key)
        return
    ledger.default("data.validation.kind", "none", "no rows are kept out")
    ledger.default("data.validation.value", 0.0, "none are kept out")
    ledger.drop(key, "no rows are kept out")


def _method(ledger: Ledger, objective: str) -> None:
    peft, four, eight = (ledger.read(key, hf.switch) for key in ("use_peft", "load_in_4bit", "load_in_8bit"))
    if not peft:
        if peft is None:
            ledger.default("method.kind", "full", "TRL trains every weight unless use_peft is set")
        else:
            ledger.settle("method.kind", "full", "use_peft")
        ledger.ignore(
            {r"lora_\w+|use_rslora|use_dora|load_in_[48]bit|use_bnb_nested_quant|bnb_4bit_\w+": "no adapter is trained"}
        )
        return
    ledger.settle("method.kind", "qlora" if four else "lora", "use_peft", "load_in_4bit")
    if four:
        hf.settle_quantisation(ledger, "bnb_4bit_quant_type", "nf4", "use_bnb_nested_quant", False)
    ledger.ignore({r"use_bnb_nested_quant|bnb_4bit_\w+": "no 4-bit weights, or how they are stored"})
    ledger.drop(
        "load_in_8bit",
        "no 8-bit weights",
        "The frozen weights are in 8 bits there; here they keep 16." if eight else "",
    )
    hf.carry_adapter(
        ledger,
        {"rank": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora", "saved": "lora_modules_to_save"},
        {"rank": (16, _OWN), "alpha": (32.0, _OWN), "dropout": (0.05, _OWN), "rslora": (False, _OWN), "dora": (False, _OWN)},
    )  # fmt: skip
    hf.carry_targets(ledger, "lora_target_modules", "qv", "PEFT's choice for most models: queries and values")
    if ledger.get("lora_target_modules") is None:
        ledger.warn("No target modules are named: PEFT chooses them by the model, and mostly q_proj and v_proj.")
    if objective in ("dpo", "orpo", "kto") and ledger.fields.get("method.dropout"):
        ledger.settle("method.dropout", 0.0)
        ledger.warn(
            f"{objective} compares the model with itself: adapters have no dropout here, as TRL turns it off too."
        )


def _training(ledger: Ledger, objective: str) -> None:
    ledger.carry("learning_rate", "training.learning_rate", hf.number, 2e-5 if objective == "sft" else 1e-6, _OWN)
    hf.carry_schedule(ledger, "lr_scheduler_type", "linear", _HF, "lr_scheduler_kwargs")
    hf.carry_warmup(ledger, "warmup_ratio", "warmup_steps", _HF, "lr_scheduler_type")
    hf.carry_length(ledger, "num_train_epochs", "max_steps", 3.0, _HF)
    hf.carry_batch(ledger, "per_device_train_batch_size", 8, "gradient_accumulation_steps", _HF)
    hf.carry_optimizer(ledger, "optim", "adamw_torch_fused", _HF)
    ledger.unless("optim_args", (), "", "optim_args: the optimizer's own settings, which a recipe does not hold.")
    ledger.carry("weight_decay", "training.weight_decay", hf.number, 0.0, _HF)
    hf.carry_clipping(ledger, "max_grad_norm", 1.0, _HF)
    hf.carry_betas(ledger)
    ledger.carry("seed", "training.seed", hf.whole, 42, _HF)
    if objective == "sft":
        kind = ledger.text("loss_type")
        ledger.drop(
            "loss_type",
            "a way to compute the same loss",
            "" if kind in (None, "nll", "chunked_nll") else f"The loss {kind} is not one of ours.",
        )
        return
    ledger.carry("beta", "training.preference.beta", hf.number, 0.1, _OWN)
    if objective == "dpo":
        losses = ledger.read("loss_type", hf.words) or []
        if losses:
            ledger.settle("training.preference.loss", losses[0], "loss_type")
            if len(losses) > 1:
                ledger.warn(f"Several losses at once are not ours: {losses[0]} is taken alone.")
        else:
            ledger.default("training.preference.loss", "sigmoid", _OWN)
        smoothing = ledger.read("label_smoothing", hf.number)
        if smoothing and ledger.fields["training.preference.loss"] in ("robust", "exo_pair"):
            ledger.settle("training.preference.label_smoothing", smoothing, "label_smoothing")
        ledger.unless(
            "label_smoothing", (0, 0.0), "none", "label_smoothing belongs to the losses robust and exo_pair with us."
        )
    if objective == "kto":
        ledger.carry("desirable_weight", "training.preference.desirable_weight", hf.number, 1.0, _OWN)
        ledger.carry("undesirable_weight", "training.preference.undesirable_weight", hf.number, 1.0, _OWN)
        ledger.unless("loss_type", ("kto",), "KTO's own", "The loss is another than KTO's.")


def write(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as TRL's keys; what they cannot say is found by reading them again."""
    data, training, method = recipe.data, recipe.training, recipe.method
    rows, accumulation = hf.micro_batch(recipe)
    path, revision, config = hf.hub_parts(data.source)
    values: dict[str, Any] = {"model_name_or_path": recipe.base.model}
    values |= {"model_revision": recipe.base.revision} if recipe.base.revision else {}
    values["dtype"] = "bfloat16"
    values |= {"dataset_name": path if revision is None else f"{path}@{revision}"}
    values |= {"dataset_config": config} if config else {}
    values["dataset_train_split"] = data.split
    if isinstance(method, LoraMethod):
        values |= {
            "use_peft": True,
            "lora_r": method.rank,
            "lora_alpha": hf.short(method.alpha),
            "lora_dropout": method.dropout,
        }
        values["lora_target_modules"] = ["all-linear"] if method.targets == "all-linear" else hf.target_names(method)
        values |= {"use_rslora": True} if method.rslora else {}
        values |= {"use_dora": True} if method.dora else {}
        values |= {"lora_modules_to_save": list(method.modules_to_save)} if method.modules_to_save else {}
        if isinstance(method, QloraMethod):
            values |= {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "use_bnb_nested_quant": method.double_quantisation,
            }
    values["max_length"] = data.max_length
    if training.objective == "sft":
        values |= {"packing": data.packing}
        if data.format == "text":
            values["dataset_text_field"] = dict(data.columns or {}).get("text", "text")
        elif data.format == "prompt-completion" and data.loss_on in ("completion", "assistant"):
            values["completion_only_loss"] = True
        elif data.loss_on == "assistant":
            values["assistant_only_loss"] = True
        elif data.loss_on == "all":
            values["assistant_only_loss"] = False
    values |= {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "optim": {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit"}[training.optimizer],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "bf16": True,
        "output_dir": f"{training.objective}-output",
    }
    share = training.warmup.kind == "ratio" and training.warmup.value in (0, 1)  # as steps they would not be shares
    values["warmup_ratio" if share else "warmup_steps"] = hf.short(training.warmup.value)
    values |= {"max_steps": training.steps} if training.steps else {"num_train_epochs": hf.short(training.epochs or 1)}
    if training.floor:
        values |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": training.floor}}
    values |= {"adam_beta2": training.beta2} if training.beta2 else {}
    if training.preference:
        preference = training.preference
        values["beta"] = preference.beta
        if training.objective == "dpo":
            values["loss_type"] = [preference.loss]
            values |= {"label_smoothing": preference.label_smoothing} if preference.label_smoothing else {}
        if training.objective == "kto":
            values |= {
                "desirable_weight": preference.desirable_weight,
                "undesirable_weight": preference.undesirable_weight,
            }
    if data.validation.kind in ("fraction", "rows"):
        values["test_split_size"] = hf.short(data.validation.value)
    return values
