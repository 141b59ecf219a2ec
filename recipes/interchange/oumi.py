"""Oumi's configuration files, in and out.

Facts from oumi-ai/oumi@d8ed07778d7931565798ad45a859cafb54d4fc58: core/configs/params (model, data, training, peft) and
datasets (what a named data set is read as).
"""

from __future__ import annotations

from typing import Any

from ..model import LoraMethod, QloraMethod, Recipe
from . import hugging_face as hf
from .ledger import Ledger
from .torchtune import filled

TOOL = "Oumi"
_OWN, _T, _P = "Oumi's default", "training.", "peft."
_ALPACA = ("yahma/alpaca-cleaned", "tatsu-lab/alpaca", "uiuc-convai/CoALM-IT")
_MESSAGES = (
    "HuggingFaceH4/ultrachat_200k",
    "allenai/tulu-3-sft-mixture",
    "allenai/WildChat-1M",
    "text_sft",
    "text_sft_jsonl",
)
_TEXT = ("HuggingFaceFW/fineweb-edu", "Salesforce/wikitext", "roneneldan/TinyStories", "allenai/dolma", "allenai/c4", "EleutherAI/pile", "tiiuae/falcon-refinedweb",
         "bigcode/starcoderdata", "PleIAs/YouTube-Commons", "wikimedia/wikipedia", "cerebras/SlimPajama-627B", "gmongaras/SlimPajama-627B_Reupload", "bigcode/the-stack",
         "nampdn-ai/tiny-textbooks", "togethercomputer/RedPajama-Data-1T", "togethercomputer/RedPajama-Data-V2")  # fmt: skip
_PAIRS = {"argilla/databricks-dolly-15k-curated-en": ("original-instruction", "original-response"), "O1-OPEN/OpenO1-SFT": ("instruction", "output"), "CohereForAI/aya_dataset": ("inputs", "targets"),
          "argilla/magpie-ultra-v0.1": ("instruction", "response"), "tatsu-lab/alpaca_eval": ("instruction", "output")}  # fmt: skip
_IGNORED = {
    r"training\.(output_dir|run_name|logging_\w+|log_\w+|dep_log_level|enable_(wandb|mlflow|tensorboard)|include_\w+|telemetry(\..*)?|profiler(\..*)?)": hf.LOGGING,
    r"training\.(save_\w+|resume_from_checkpoint|try_resume_from_last_checkpoint)|peft\.peft_save_mode": hf.CHECKPOINTS,
    r"training\.(eval_\w+|per_device_eval_batch_size|metrics_function)|evaluation(\..*)?|data\.test(\..*)?": hf.EVALUATION,
    r"fsdp(\..*)?|deepspeed(\..*)?|training\.(ddp_\w+|dataloader_\w+|compile|enable_gradient_checkpointing|gradient_checkpointing_kwargs(\..*)?|empty_device_cache_steps|mixed_precision_dtype|"
    r"nccl_default_timeout_minutes|use_deterministic|full_determinism|data_seed)|model\.(torch_dtype_str|attn_implementation|compile|device_map|enable_liger_kernel|shard_for_eval)|"
    r"data\.(train|validation)\.(use_torchdata|stream|experimental_\w+|seed|datasets\[0\]\.(shuffle|seed|shuffle_buffer_size|transform_num_workers|trust_remote_code))": hf.COST,
    r"model\.(trust_remote_code|tokenizer_\w+(\..*)?|load_pretrained_weights|processor_kwargs(\..*)?|tool_call_parser)|peft\.(bnb_4bit_\w+|lora_task_type|lora_bias|q_lora_bits|llm_int8_skip_modules)|"
    r"training\.trainer_kwargs\.(max_seq_length|max_length|dataset_text_field|max_prompt_length|remove_unused_columns|dataset_\w+|eval_strategy|model_init_kwargs.*)|"
    r"data\.train\.(collator_kwargs(\..*)?|target_col|mixture_strategy|datasets\[0\]\.dataset_kwargs\.(hf_dataset_path|return_\w+|seq_length|processor_name|assistant_only|split|task_type))": "how files are loaded; our engine finds that out",
    r"(name|envs|setup|run|working_dir|num_nodes|resources|file_mounts|storage_mounts|user)(\..*)?": "a job's place, not its training",
}  # fmt: skip


def read(values: dict[str, Any], gpus: int) -> Ledger:
    """Return the ledger of an Oumi file; raises TunewrightError."""
    ledger = Ledger(TOOL, filled(values), gpus)
    objective = _objective(ledger)
    _base(ledger)
    objective = _data(ledger, objective)
    _method(ledger, objective)
    _training(ledger, objective)
    hf.several(ledger, ("fsdp.enable_fsdp", "deepspeed.enable_deepspeed"))
    ledger.ignore(_IGNORED)
    return ledger


def _objective(ledger: Ledger) -> str:
    kind = (ledger.text("training.trainer_type") or "hf").casefold()
    if "grpo" in kind or "gkd" in kind or "gold" in kind or ledger.get("training.reward_functions"):
        raise ledger.refuse("It learns from rewards or from another model")
    if ledger.get("training") is None or not ledger.get("data.train.datasets"):
        raise ledger.refuse("It trains nothing: it chats, judges or evaluates")
    collator = ledger.text("data.train.collator_name") or ""
    if "vision" in collator or ledger.get("data.train.datasets[0].dataset_kwargs.processor_name"):
        raise ledger.refuse("It trains on pictures or sound")
    objective = {"trl_dpo": "dpo", "trl_kto": "kto"}.get(kind, "sft")
    if ledger.get("training.trainer_type") is None:
        ledger.default("training.objective", objective, _OWN)
    else:
        ledger.settle("training.objective", objective, "training.trainer_type")
    return objective


def _base(ledger: Ledger) -> None:
    model = hf.require_literal(ledger, "model.model_name", ledger.text("model.model_name") or "", "base.model")
    if not model:
        raise ledger.refuse("It names no model")
    ledger.settle("base.model", model, "model.model_name")
    if ledger.text("model.model_revision"):
        ledger.settle("base.revision", ledger.text("model.model_revision"), "model.model_revision")
    if ledger.text("model.adapter_model"):
        ledger.settle("base.adapter", ledger.text("model.adapter_model"), "model.adapter_model")
    if ledger.get("model.load_pretrained_weights") is False:
        ledger.warn("Its weights begin anew (load_pretrained_weights: false); ours begin as the model's.")
    for key, what in {
        "model_kwargs": "changes to how the model is loaded",
        "freeze_layers": "layers that stay as they are",
        "chat_template_kwargs": "settings of the chat template",
    }.items():
        if ledger.get(f"model.{key}"):
            ledger.drop(f"model.{key}", "not a setting of ours", f"model.{key}: {what}, which a recipe does not hold.")


def _data(ledger: Ledger, objective: str) -> str:
    at = "data.train.datasets[0]"
    name = ledger.text(f"{at}.dataset_name") or ""
    kwargs = f"{at}.dataset_kwargs"
    count = len(ledger.get("data.train.datasets"))
    for index in range(1, count):
        ledger.drop(f"data.train.datasets[{index}]", "a recipe has one source")
    if count > 1:
        ledger.warn(
            f"A recipe has one source: the first of {count} data sets is taken. Join them in a file to have all."
        )
    path_key = next(
        (
            key
            for key in (f"{kwargs}.hf_dataset_path", f"{at}.dataset_path", f"{kwargs}.dataset_path")
            if ledger.get(key)
        ),
        f"{at}.dataset_name",
    )
    hf.settle_source(ledger, path_key, f"{at}.subset")
    hf.settle_split(ledger, f"{at}.split", "train", _OWN)
    share = ledger.read(f"{at}.mixture_proportion", hf.number)
    if share is not None:
        ledger.drop(f"{at}.mixture_proportion", "one source is the whole")
    for key in (f"{at}.sample_count", f"{kwargs}.limit"):
        ledger.unless(key, (), "all rows", "It takes so many rows; a recipe takes all, or data.share of them.")
    prompt, answer = ledger.text(f"{kwargs}.prompt_column"), ledger.text(f"{kwargs}.response_column")
    if objective in ("dpo", "kto"):
        ledger.settle("data.format", "kto" if objective == "kto" else "preference", f"{at}.dataset_name")
    elif name in _TEXT or ledger.text(f"{kwargs}.dataset_text_field"):
        objective = "cpt"
        ledger.settle("training.objective", "cpt")
        ledger.settle("data.format", "text", f"{at}.dataset_name")
    elif name in _ALPACA:
        ledger.settle("data.format", "alpaca", f"{at}.dataset_name")
    elif name == "PromptResponseDataset" or prompt:
        ledger.settle("data.format", "prompt-completion", f"{at}.dataset_name")
        ledger.settle(
            "data.columns",
            {"prompt": prompt or "instruction", "completion": answer or "output"},
            f"{kwargs}.prompt_column",
            f"{kwargs}.response_column",
        )
    elif name in _PAIRS:
        ledger.settle("data.format", "prompt-completion", f"{at}.dataset_name")
        ledger.default(
            "data.columns", dict(zip(("prompt", "completion"), _PAIRS[name], strict=True)), "what Oumi reads of it"
        )
    elif name in _MESSAGES or name == "HuggingFaceDataset":
        ledger.settle("data.format", "messages", f"{at}.dataset_name")
        column = ledger.text(f"{kwargs}.messages_column")
        if column and column != "messages":
            ledger.settle("data.columns", {"messages": column}, f"{kwargs}.messages_column")
        ledger.drop(f"{kwargs}.messages_column", "the usual name")
    else:
        ledger.default(
            "data.format", "auto", "Oumi has a reader of its own for it; our engine tells the format from the rows"
        )
    ledger.drop(f"{at}.dataset_name", "the reader of the data, not its name")
    ledger.drop(f"{at}.dataset_path", "where the data is")
    _rendering(ledger, objective)
    _validation(ledger)
    ledger.carry(
        "model.model_max_length", "data.max_length", hf.whole, 1024, "TRL's default, where model_max_length is not set"
    )
    ledger.default("data.overlong", "cut", "TRL cuts rows that are too long")
    packing = ledger.read("data.train.pack", hf.switch)
    if packing is None or objective in ("dpo", "kto"):
        ledger.default("data.packing", False, _OWN)
        ledger.drop("data.train.pack", "pairs are taken as they are")
    else:
        ledger.settle("data.packing", packing, "data.train.pack")
        if packing and objective == "sft":
            ledger.warn(
                "Packed rows are cut to one length there; here they stay whole, and each is blind to the others."
            )
    return objective


def _rendering(ledger: Ledger, objective: str) -> None:
    template, target = ledger.text("model.chat_template"), ledger.text("data.train.train_target")
    collator = ledger.text("data.train.collator_name")
    names = {
        "chatml": "chatml",
        "zephyr": "zephyr",
        "llama3-instruct": "llama3",
        "gemma-it": "gemma",
        "phi3-instruct": "phi3",
    }
    if template in (None, "auto"):
        ledger.default("data.template", "model", "the tokenizer's own")
        ledger.drop("model.chat_template", "the tokenizer's own")
    else:
        ledger.settle("data.template", names.get(template or "", "model"), "model.chat_template")
        if template not in names:
            ledger.warn(
                f"The template {template} is Oumi's own; the model's own stands for it: compare the rendered text."
            )
    if objective == "cpt":
        ledger.default("data.loss_on", "all", "texts are learned whole")
    elif objective in ("dpo", "kto"):
        ledger.default("data.loss_on", "assistant", "answers are compared")
    elif target:
        last = target.casefold() == "final_assistant_turn"
        ledger.settle(
            "data.loss_on", "last" if last else "assistant", "data.train.train_target", "data.train.collator_name"
        )
    elif collator == "text_completions_only_with_padding":
        ledger.settle("data.loss_on", "assistant", "data.train.collator_name")
    else:
        ledger.default("data.loss_on", "all", "Oumi learns prompts too unless its collator is that for completions")
    ledger.drop("data.train.collator_name", "how rows are padded")
    ledger.drop("data.train.train_target", "the objective says what is learned")


def _validation(ledger: Ledger) -> None:
    at = "data.validation.datasets[0]"
    path = ledger.text(f"{at}.dataset_path")
    if path:
        ledger.settle("data.validation.kind", "file")
        ledger.settle("data.validation.value", 0.0)
        ledger.settle("data.validation.source", path, f"{at}.dataset_path")
        ledger.drop("data.validation", "how the validation rows are read")
        return
    ledger.default("data.validation.kind", "none", "no rows are kept out")
    ledger.default("data.validation.value", 0.0, "none are kept out")
    ledger.drop(
        "data.validation",
        "another split or data set",
        "Its validation rows are another split or data set: set data.validation to have a validation loss.",
    )


def _method(ledger: Ledger, objective: str) -> None:
    peft, four = ledger.read("training.use_peft", hf.switch), ledger.read("peft.q_lora", hf.switch)
    if not peft:
        if peft is None:
            ledger.default("method.kind", "full", "Oumi trains every weight unless use_peft is set")
        else:
            ledger.settle("method.kind", "full", "training.use_peft")
        ledger.drop("peft", "no adapter is trained")
        return
    ledger.settle("method.kind", "qlora" if four else "lora", "training.use_peft", "peft.q_lora")
    if four:
        if ledger.read("peft.q_lora_bits", hf.whole) == 8:
            ledger.warn("The frozen weights are in 8 bits there and in 4 here.")
        hf.settle_quantisation(ledger, "peft.bnb_4bit_quant_type", "fp4", "peft.use_bnb_nested_quant", False)
    else:
        ledger.drop("peft.use_bnb_nested_quant", "no 4-bit weights")
    hf.carry_adapter(
        ledger,
        {"rank": "peft.lora_r", "alpha": "peft.lora_alpha", "dropout": "peft.lora_dropout", "saved": "peft.lora_modules_to_save"},
        {"rank": (8, _OWN), "alpha": (8.0, _OWN), "dropout": (0.0, _OWN), "rslora": (False, "Oumi has none"), "dora": (False, "Oumi has none")},
    )  # fmt: skip
    hf.carry_targets(ledger, "peft.lora_target_modules", "qv", "PEFT's choice for most models: queries and values")
    for key, what in {
        "lora_exclude_modules": "layers without adapters",
        "lora_target_parameters": "adapters on parameters that are no layers",
    }.items():
        ledger.unless(f"peft.{key}", ([],), "none", f"peft.{key}: {what}, which a recipe does not hold.")
    ledger.unless(
        "peft.lora_init_weights",
        ("DEFAULT", "default", "True", True),
        "as usual",
        "Adapters begin otherwise than ours (peft.lora_init_weights).",
    )
    if objective in ("dpo", "kto") and ledger.fields.get("method.dropout"):
        ledger.settle("method.dropout", 0.0)
        ledger.warn(f"{objective} compares the model with itself: adapters have no dropout here.")


def _training(ledger: Ledger, objective: str) -> None:
    ledger.carry("training.learning_rate", "training.learning_rate", hf.number, 5e-5, _OWN)
    hf.carry_schedule(ledger, "training.lr_scheduler_type", "linear", _OWN, "training.lr_scheduler_kwargs")
    hf.carry_warmup(ledger, "training.warmup_ratio", "training.warmup_steps", _OWN, "training.lr_scheduler_type")
    hf.carry_length(ledger, "training.num_train_epochs", "training.max_steps", 3.0, _OWN)
    hf.carry_batch(ledger, "training.per_device_train_batch_size", 8, "training.gradient_accumulation_steps", _OWN)
    hf.carry_optimizer(ledger, "training.optimizer", "adamw_torch", _OWN)
    ledger.drop("training.sgd_momentum", "of another optimizer")
    ledger.carry("training.weight_decay", "training.weight_decay", hf.number, 0.0, _OWN)
    hf.carry_clipping(ledger, "training.max_grad_norm", 1.0, _OWN)
    hf.carry_betas(ledger, "training.")
    ledger.carry("training.seed", "training.seed", hf.whole, 42, _OWN)
    if objective in ("dpo", "kto"):
        ledger.carry("training.trainer_kwargs.beta", "training.preference.beta", hf.number, 0.1, "TRL's default")
        for key, field in {"desirable_weight": "desirable_weight", "undesirable_weight": "undesirable_weight"}.items():
            if objective == "kto":
                ledger.carry(
                    f"training.trainer_kwargs.{key}", f"training.preference.{field}", hf.number, 1.0, "TRL's default"
                )
        if objective == "dpo":
            ledger.carry(
                "training.trainer_kwargs.loss_type", "training.preference.loss", _first, "sigmoid", "TRL's default"
            )
            smoothing = ledger.read("training.trainer_kwargs.label_smoothing", hf.number)
            if smoothing:
                ledger.settle(
                    "training.preference.label_smoothing", smoothing, "training.trainer_kwargs.label_smoothing"
                )


def _first(value: Any) -> str:
    return (hf.words(value) or ["sigmoid"])[0]


def write(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as Oumi's keys; what they cannot say is found by reading them again."""
    data, training, method = recipe.data, recipe.training, recipe.method
    rows, accumulation = hf.micro_batch(recipe)
    model: dict[str, Any] = {"model_name": recipe.base.model}
    model |= {"model_revision": recipe.base.revision} if recipe.base.revision else {}
    model |= {"adapter_model": recipe.base.adapter} if recipe.base.adapter else {}
    names = {
        "chatml": "chatml",
        "zephyr": "zephyr",
        "llama3": "llama3-instruct",
        "gemma": "gemma-it",
        "phi3": "phi3-instruct",
    }
    model |= {"model_max_length": data.max_length, "torch_dtype_str": "bfloat16"}
    model |= {"chat_template": names[data.template]} if data.template in names else {}
    keys: dict[str, Any] = {
        "trainer_type": {"dpo": "TRL_DPO", "kto": "TRL_KTO", "orpo": "TRL_ORPO"}.get(training.objective, "TRL_SFT"),
        "use_peft": isinstance(method, LoraMethod),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "optimizer": {"adamw": "adamw_torch_fused", "adamw_8bit": "paged_adamw_8bit"}[training.optimizer],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "output_dir": "output/run",
    }
    keys["warmup_ratio" if training.warmup.kind == "ratio" else "warmup_steps"] = hf.short(training.warmup.value)
    keys |= {"max_steps": training.steps} if training.steps else {"num_train_epochs": hf.short(training.epochs or 1)}
    if training.floor:
        keys |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": training.floor}}
    keys |= {"adam_beta2": training.beta2} if training.beta2 else {}
    if training.preference:
        extra: dict[str, Any] = {"beta": training.preference.beta}
        if training.objective == "dpo":
            extra["loss_type"] = training.preference.loss
            extra |= (
                {"label_smoothing": training.preference.label_smoothing} if training.preference.label_smoothing else {}
            )
        if training.objective == "kto":
            extra |= {
                "desirable_weight": training.preference.desirable_weight,
                "undesirable_weight": training.preference.undesirable_weight,
            }
        keys["trainer_kwargs"] = extra
    values: dict[str, Any] = {"model": model, "data": _written_data(recipe), "training": keys}
    if isinstance(method, LoraMethod):
        peft: dict[str, Any] = {
            "lora_r": method.rank,
            "lora_alpha": hf.short(method.alpha),
            "lora_dropout": method.dropout,
        }
        peft["lora_target_modules"] = ["all-linear"] if method.targets == "all-linear" else hf.target_names(method)
        peft |= {"lora_modules_to_save": list(method.modules_to_save)} if method.modules_to_save else {}
        if isinstance(method, QloraMethod):
            peft |= {
                "q_lora": True,
                "bnb_4bit_quant_type": "nf4",
                "use_bnb_nested_quant": method.double_quantisation,
                "bnb_4bit_compute_dtype": "bfloat16",
            }
        values["peft"] = peft
    return values


def _written_data(recipe: Recipe) -> dict[str, Any]:
    data, objective = recipe.data, recipe.training.objective
    path, _, subset = hf.hub_parts(data.source)
    columns = dict(data.columns or {})
    source: dict[str, Any] = {"dataset_name": path}
    if data.format == "prompt-completion" and path not in _PAIRS:
        source = {"dataset_name": "PromptResponseDataset", "dataset_kwargs": {
            "hf_dataset_path": path, "prompt_column": columns.get("prompt", "prompt"), "response_column": columns.get("completion", "completion"),
        }}  # fmt: skip
    elif data.format in ("messages", "tools") and path not in _MESSAGES:
        source = {
            "dataset_name": "HuggingFaceDataset",
            "dataset_kwargs": {"hf_dataset_path": path, "messages_column": columns.get("messages", "messages")},
        }
        if hf.is_file(path):
            source = {"dataset_name": "text_sft_jsonl", "dataset_path": path}
    source |= {"subset": subset} if subset else {}
    source["split"] = data.split if data.share == 1 else f"{data.split}[:{hf.short(100 * data.share)}%]"
    train: dict[str, Any] = {"datasets": [source], "pack": data.packing}
    if objective == "sft" and data.loss_on in ("assistant", "completion", "last"):
        train["collator_name"] = "text_completions_only_with_padding"
        train["train_target"] = "FINAL_ASSISTANT_TURN" if data.loss_on == "last" else "ALL_ASSISTANT_TURNS"
    values: dict[str, Any] = {"train": train}
    if data.validation.kind == "file":
        values["validation"] = {
            "datasets": [{"dataset_name": "text_sft_jsonl", "dataset_path": data.validation.source}]
        }
    return values
