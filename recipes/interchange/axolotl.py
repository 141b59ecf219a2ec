"""Axolotl's configuration files, in and out.

Facts from axolotl-ai-cloud/axolotl@067b021c8b87a9e5e380b9173c704cf7340e30f5: utils/schemas (training, peft, config,
datasets), core/builders/base.py (warm-up), loaders/model.py (4 bits), utils/data/utils.py (long rows).
"""

from __future__ import annotations

import re
from typing import Any

from ..model import LoraMethod, QloraMethod, Recipe
from . import hugging_face as hf
from .ledger import Ledger

TOOL = "Axolotl"
TEMPLATES = {
    "chatml": "chatml", "llama3": "llama3", "gemma": "gemma", "phi_3": "phi3", "alpaca": "alpaca",
    "mistral_v1": "mistral", "tokenizer_default": "model",
}  # fmt: skip
_ROLES = {"assistant": "assistant", "gpt": "assistant", "model": "assistant", "user": "user", "human": "user",
          "system": "system", "tool": "tool"}  # fmt: skip
_OTHER_KINDS = {
    "ebft": "energy-based fine-tuning", "grpo": "GRPO, whose reward is code", "gdpo": "GDPO, whose reward is code",
    "simpo": "SimPO",
}  # fmt: skip
_IGNORED = {
    r"(output_dir|hub_model_id|push_dataset_to_hub|dataset_prepared_path|hub_strategy|push_to_hub.*)": hf.OUTPUT,
    r"(wandb|mlflow|comet|swanlab|trackio|neptune|use_(wandb|mlflow|comet|swanlab|tensorboard|trackio)|tensorboard)\w*": hf.LOGGING,
    r"(logging_steps|logging_first_step|debug|experiment_name|profiler_steps.*|include_tokens_per_second|include_tkps)": hf.LOGGING,
    r"(save_steps|saves_per_epoch|save_total_limit|save_strategy|save_only_model|save_safetensors|save_first_step|"
    r"resume_from_checkpoint|auto_resume_from_checkpoints|early_save.*|load_best_model_at_end)": hf.CHECKPOINTS,
    r"(eval_steps|evals_per_epoch|eval_strategy|evaluation_strategy|eval_batch_size|eval_table_size|eval_max_new_tokens|"
    r"eval_sample_packing|do_bench_eval|bench_dataset|eval_causal_lm_metrics|metric_for_best_model|greater_is_better|"
    r"eval_table_max_new_tokens|do_causal_lm_eval|eval_sequence_len)": hf.EVALUATION,
    r"(deepspeed|fsdp|fsdp_config(\..*)?|fsdp_version|fsdp_final_state_dict_type|ddp.*|device_map|local_rank|world_size|"
    r"tensor_parallel_size|context_parallel_size|sequence_parallel_degree|expert_parallel.*|dp_\w+|max_memory|"
    r"ring_attn_func|heads_k_stride|dist_\w+|use_ray|ray_.*)": hf.COST,
    r"(bf16|fp16|tf32|bfloat16|float16|float32|torch_dtype|load_in_4bit|fp8.*|flash_\w+|attn_implementation|sdp_attention|eager_attention|"
    r"xformers_attention|flex_attention|flex_attn_compile_kwargs(\..*)?|s2_attention|sage_attention|"
    r"gradient_checkpointing|gradient_checkpointing_kwargs(\..*)?|activation_(check)?offloading|offload_\w+|"
    r"torch_compile\w*|torchdistx_path|lora_(mlp|qkv|o|embedding)_kernel|tiled_mlp\w*|use_kernels|kernels\w*|"
    r"use_(scattermoe|sonicmoe)|experts_implementation|fused_attn_kernel|gemma4_hybrid_attn_impl|chunked_cross_entropy\w*|"
    r"low_cpu_mem_usage|lora_on_cpu|group_by_length|unsloth_\w+|cut_cross_entropy\w*|liger_\w+|scaling_softmax)": hf.COST,
    r"(pad_to_sequence_len|pad_to_multiple_of|sample_packing_\w+|batch_flattening|multipack_\w+|max_packed_sequence_len|"
    r"streaming_multipack_buffer_size|dataloader\w*|dataset_processes|dataset_num_proc|dataset_keep_in_memory|"
    r"dataset_shard\w*|skip_prepare_dataset|remove_unused_columns|num_workers|streaming)": hf.COST,
    r"(model_type|tokenizer_type|tokenizer_use_fast|tokenizer_legacy|is_(llama|falcon|mistral|qwen)_derived_model|"
    r"trust_remote_code|base_model_ignore_patterns|hf_use_auth_token|processor_type|tokenizer_use_mistral_common|"
    r"experimental_skip_move_to_device|base_model_config|tokenizer_config|lora_fan_in_fan_out|qlora_sharded_model_loading|"
    r"cls_model_config|ddp_find_unused_parameters|strict|axolotl_config_path|plugins)": "how files are loaded; our engine finds that out",
    r"(gptq|gptq_\w+|merge_lora|merge_method|lora_out_dir|adapter_out|project_name|no_input_format|loss_watchdog_\w+|"
    r"optim_target_modules|inference|vllm(\..*)?|trl\.use_vllm|gc_steps|gc_collect_steps|seq_len_.*|"
    r"shuffle_merged_datasets|shuffle_before_merging_datasets|volumes.*|secrets|gpu|gpu_count|image|timeout|memory|docker_tag|branch|region|env.*)":
        "not of the training itself",
    r"special_tokens(\.(pad|unk|bos)_token)?": "the tokenizer's own is taken, or found",
    r"eot_tokens|train_on_eo[st]|datasets\[0\]\.train_on_eo[st]": "the end of a turn is found in the template, and trained",
    r"datasets\[0\]\.(shards|shards_idx|preprocess_shards|trust_remote_code|roles(\..*)?|ds_type|data_files)": "how files are read; our engine finds that out",
}  # fmt: skip
_RISKY = {
    "neftune_noise_alpha": "noise in the embeddings (NEFTune)", "noisy_embedding_alpha": "noise in the embeddings (NEFTune)",
    "embedding_lr": "a learning rate of its own for embeddings", "embedding_lr_scale": "a learning rate of its own for embeddings",
    "lr_groups": "learning rates of their own for groups of layers", "unfrozen_parameters": "which weights are not frozen",
    "lora_target_parameters": "adapters on parameters that are no layers", "lora_exclude_modules": "layers without adapters",
    "peft_layers_to_transform": "layers without adapters", "peft_layer_replication": "replicated layers",
    "lora_rank_pattern": "ranks of their own for some layers", "lora_alpha_pattern": "alphas of their own for some layers",
    "peft_init_lora_weights": "how adapters begin", "peft": "how adapters begin", "relora_steps": "ReLoRA",
    "relora": "ReLoRA", "model_config": "changes to the model's own configuration", "overrides_of_model_config": "changes to the model's own configuration",
    "overrides_of_model_kwargs": "changes to how the model is loaded", "rope_scaling": "stretched positions", "adapter_pruning": "pruned adapters",
    "tokens": "tokens of its own", "added_tokens_overrides": "tokens of its own", "special_tokens.eos_token": "another end token",
    "special_tokens.additional_special_tokens": "tokens of its own",
    "qat": "weights that are rounded while they learn (QAT)", "quantization": "a quantised result", "use_eaft": "another loss (EAFT)",
    "lisa_n_layers": "layers that take turns (LISA)", "curriculum_sampling": "rows in their own order",
    "jagged_restart_steps": "a schedule of another shape", "accelerator_config": "how gradients are exchanged",
    "resize_token_embeddings_to_32x": "a larger vocabulary", "reinit_weights": "weights that begin anew",
    "lr_quadratic_warmup": "a warm-up of another shape", "cosine_constant_lr_ratio": "a schedule of another shape", "eta_min": "a schedule of another shape",
    "dataset_exact_deduplication": "duplicates taken out of the data", "min_sample_len": "short rows left out", "optim_args": "the optimizer's own settings",
    "quantize_moe_experts": "experts in 4 bits", "nvfp4_merge_aware": "weights rounded to NVFP4", "dsv4_fp4_grouped_mode": "experts in 4 bits",
    "model_quantization_config": "a checkpoint that is quantised", "model_quantization_config_kwargs": "a checkpoint that is quantised",
    "mean_resizing_embeddings": "how new tokens begin", "dpo_use_weighting": "pairs of different weights", "dpo_loss_weights": "several losses at once",
    "router_aux_loss_coef": "a loss of the routers", "chat_template_jinja": "a chat template of its own", "chat_template_kwargs": "settings of the chat template",
    "default_system_message": "a system prompt for rows without", "freeze_mm_modules": "what of a multimodal model is frozen",
    "shrink_embeddings": "a smaller vocabulary", "llama4_linearized_experts": "experts as linear layers", "max_prompt_len": "a limit of its own for prompts",
}  # fmt: skip


def read(values: dict[str, Any], gpus: int) -> Ledger:
    """Return the ledger of an Axolotl file; raises TunewrightError."""
    ledger = Ledger(TOOL, values, gpus)
    _refuse_other_kinds(ledger)
    objective = _objective(ledger)
    _base(ledger)
    _data(ledger, objective)
    _method(ledger)
    _training(ledger, objective)
    for key, what in _RISKY.items():
        ledger.drop(key, "not a setting of ours", f"{key}: {what}, which a recipe does not hold.") if _says(
            ledger, key
        ) else None
    hf.several(ledger, ("deepspeed", "fsdp", "fsdp_config", "dp_shard_size"))
    ledger.ignore(_IGNORED)
    return ledger


def _says(ledger: Ledger, key: str) -> bool:
    return ledger.get(key) not in (None, False, "", [], {}, 0)


def _refuse_other_kinds(ledger: Ledger) -> None:
    kind = str(ledger.get("rl") or "")
    if kind in _OTHER_KINDS:
        raise ledger.refuse(f"Its objective is {_OTHER_KINDS[kind]}, which is not one of ours")
    if (
        ledger.get("reward_model")
        or ledger.get("process_reward_model")
        or "bradley_terry" in str(ledger.get("datasets"))
    ):
        raise ledger.refuse("It trains a reward model")
    if ledger.get("num_labels") or "SequenceClassification" in str(ledger.get("model_type")):
        raise ledger.refuse("It trains a classifier")
    if ledger.get("diffusion") or "diffusion" in str(ledger.get("plugins")):
        raise ledger.refuse("It trains a diffusion language model")
    if "kd.KDPlugin" in str(ledger.get("plugins")):
        raise ledger.refuse("It distils from another model's probabilities")
    if ledger.get("trl.reward_funcs"):
        raise ledger.refuse("It learns from rewards, which are code")
    if ledger.get("processor_type") and ledger.get("skip_prepare_dataset"):
        raise ledger.refuse("It trains on pictures or sound")
    if re.search(r"_synthetic|hatchery|nemo_gym", str(ledger.get("datasets")) + str(ledger.get("plugins"))):
        raise ledger.refuse("Its rows are made or judged by another program")


def _objective(ledger: Ledger) -> str:
    kind = ledger.text("rl")
    if kind in ("dpo", "ipo"):
        ledger.settle("training.objective", "dpo", "rl")
        return "dpo"
    if kind in ("orpo", "kto"):
        ledger.settle("training.objective", kind, "rl")
        return kind
    if kind:
        raise ledger.refuse(f"{kind} is not one of our objectives")
    if ledger.get("pretraining_dataset") or str(ledger.get("datasets[0].type")).partition(".")[0] in (
        "completion",
        "pretrain",
    ):
        ledger.settle("training.objective", "cpt")
        return "cpt"
    ledger.default("training.objective", "sft", "no rl is set")
    return "sft"


def _base(ledger: Ledger) -> None:
    model = hf.require_literal(ledger, "base_model", ledger.text("base_model") or "", "base.model")
    if not model:
        raise ledger.refuse("It names no base_model")
    ledger.settle("base.model", model, "base_model")
    for key in ("revision_of_model", "model_revision"):
        if ledger.text(key):
            ledger.settle("base.revision", ledger.text(key), key)
    if ledger.text("lora_model_dir"):
        ledger.settle("base.adapter", ledger.text("lora_model_dir"), "lora_model_dir")


def _data(ledger: Ledger, objective: str) -> None:
    at = "pretraining_dataset[0]" if ledger.get("pretraining_dataset[0]") else "datasets[0]"
    whole_name = ledger.get("pretraining_dataset")
    if isinstance(whole_name, str):
        ledger.settle(
            "data.source",
            hf.require_literal(ledger, "pretraining_dataset", whole_name, "data.source"),
            "pretraining_dataset",
        )
    elif ledger.get(f"{at}.path") is None:
        hf.no_data(ledger, "no data set is named")
    elif ledger.text(f"{at}.path") in ("json", "parquet", "csv", "text", "arrow") and ledger.get(f"{at}.data_files"):
        files = ledger.read(f"{at}.data_files", hf.words) or []
        ledger.settle(
            "data.source",
            hf.require_literal(ledger, f"{at}.data_files", files[0], "data.source"),
            f"{at}.data_files",
            f"{at}.path",
        )
        if len(files) > 1:
            ledger.warn("A recipe has one source: of several data files the first is taken.")
    else:
        hf.settle_source(ledger, f"{at}.path", f"{at}.name", f"{at}.revision")
    _others(ledger, at.partition("[")[0])
    hf.settle_split(ledger, f"{at}.split", "train", "the split train")
    _shape(ledger, at, objective)
    _loss_on(ledger, at, objective)
    _validation(ledger)
    ledger.carry("sequence_len", "data.max_length", hf.whole, 512, "Axolotl's default")
    strategy = ledger.text("excess_length_strategy")
    if objective == "cpt":
        ledger.default("data.overlong", "cut", "long texts are divided into several rows")
        ledger.drop("excess_length_strategy", "long texts are divided")
    elif strategy is None:
        ledger.default("data.overlong", "drop", "Axolotl drops rows that are too long")
    else:
        ledger.settle("data.overlong", "cut" if strategy == "truncate" else "drop", "excess_length_strategy")
        if strategy == "raise":
            ledger.warn("Axolotl stops at a row that is too long; here it is dropped, and told.")
    packing = ledger.read("sample_packing", hf.switch)
    if objective in ("dpo", "orpo", "kto"):
        ledger.drop("sample_packing", f"{objective} takes rows as they are")
        ledger.default("data.packing", False, f"{objective} takes rows as they are")
    elif packing is None:
        ledger.default("data.packing", False, "Axolotl's default")
    else:
        ledger.settle("data.packing", packing, "sample_packing")


def _others(ledger: Ledger, name: str) -> None:
    items = ledger.get(name)
    if isinstance(items, list) and len(items) > 1:  # pyright: ignore[reportUnknownArgumentType]
        count = len(items)  # pyright: ignore[reportUnknownArgumentType]
        for index in range(1, count):
            ledger.drop(f"{name}[{index}]", "a recipe has one source")
        ledger.warn(
            f"A recipe has one source: the first of {count} data sets is taken. Join them in a file to have all."
        )
    if name != "datasets" and ledger.get("datasets"):
        ledger.drop("datasets", "a recipe has one source", "The data sets beside the pre-training texts are left out.")


def _shape(ledger: Ledger, at: str, objective: str) -> None:
    """Carry over what a row looks like, and the template that it is rendered with."""
    key = f"{at}.type"
    kind = ledger.get(key)
    chat = ledger.text("chat_template") or ledger.text(f"{at}.chat_template")
    template_key = "chat_template" if ledger.get("chat_template") else f"{at}.chat_template"
    if isinstance(kind, dict):
        _own_prompt(ledger, key, objective)
        return
    name, _, variant = re.sub(r"\.(load|transform)?_?\w*$", lambda found: found[0], str(kind or "")).partition(".")
    if objective in ("dpo", "orpo", "kto"):
        ledger.settle("data.format", "kto" if objective == "kto" else "preference", key)
        family = chat or (name if name in TEMPLATES else None)
        _columns(ledger, at, {"chosen": "field_chosen", "rejected": "field_rejected"})
        ledger.drop(f"{at}.field_messages", "found in the rows")
        ledger.drop(f"{at}.message_property_mappings", "found in the rows")
    elif objective == "cpt":
        ledger.settle("data.format", "text", key)
        _columns(ledger, at, {"text": "field", "text ": "text_column"})
        family = None
    elif name == "chat_template":
        family = chat
        _conversations(ledger, at, key)
    elif name == "sharegpt":
        ledger.settle("data.format", "sharegpt", key)
        ledger.warn("Axolotl's type sharegpt is no more; it reads such rows as conversations of from and value.")
        family = chat
    elif name.startswith("alpaca"):
        ledger.settle("data.format", "alpaca", key)
        if name != "alpaca" or variant:
            ledger.warn(f"{kind} writes the prompt otherwise than Alpaca's own form, which stands for it.")
        family = chat or "alpaca"
    else:
        ledger.settle("data.format", "auto", key)
        if kind:
            ledger.warn(
                f"The type {kind} writes its prompt in a way of its own; our engine tells the format from the rows."
            )
        else:
            ledger.warn("The rows have no type: tokens made beforehand are not read; our engine tells the format.")
        family = chat
    _template(ledger, family, template_key, chat is not None, at)


def _template(ledger: Ledger, family: str | None, key: str, given: bool, at: str) -> None:
    name = re.sub(r"^tokenizer_default_fallback_.*", "tokenizer_default", family or "tokenizer_default")
    if not given:
        ledger.default(
            "data.template", TEMPLATES.get(name, "model"), "that of the type" if family else "the tokenizer's own"
        )
        return
    ledger.settle("data.template", TEMPLATES.get(name, "model"), key)
    if name not in TEMPLATES:
        ledger.warn(f"The template {name} is Axolotl's own; the model's own stands for it: compare the rendered text.")
    ledger.drop(f"{at}.chat_template", "the same for all rows")


def _conversations(ledger: Ledger, at: str, key: str) -> None:
    role = ledger.text(f"{at}.message_property_mappings.role") or ledger.text(f"{at}.message_field_role") or "role"
    content = (
        ledger.text(f"{at}.message_property_mappings.content")
        or ledger.text(f"{at}.message_field_content")
        or "content"
    )
    column = ledger.text(f"{at}.field_messages")
    from_value = (role, content) == ("from", "value")
    ledger.settle("data.format", "sharegpt" if from_value else "messages", key, *(
        f"{at}.{name}" for name in ("message_property_mappings", "message_field_role", "message_field_content")
    ))  # fmt: skip
    if not from_value and (role, content) != ("role", "content"):
        ledger.warn(f"Turns have {role} and {content}; our engine reads role and content, or from and value.")
    if column:
        usual = "conversations" if from_value else "messages"
        if column == usual:
            ledger.settle(
                "data.columns", ledger.fields.get("data.columns"), f"{at}.field_messages", note="the usual name"
            )
        else:
            ledger.settle("data.columns", {"messages": column}, f"{at}.field_messages")
    _columns(ledger, at, {"tools": "field_tools", "system": "field_system"})
    if ledger.get(f"{at}.drop_system_message"):
        ledger.settle("data.system", "drop", f"{at}.drop_system_message")
    for name in ("field_thinking", "template_thinking_key", "split_thinking"):
        ledger.drop(f"{at}.{name}", "thinking is found in the rows")


def _columns(ledger: Ledger, at: str, keys: dict[str, str]) -> None:
    """Carry over columns that have other names than the format's."""
    for field, name in keys.items():
        column = ledger.text(f"{at}.{name}")
        if column and column != field.strip():
            columns = dict(ledger.fields.get("data.columns") or {}) | {field.strip(): column}
            ledger.settle("data.columns", columns, f"{at}.{name}")
        elif column:
            ledger.drop(f"{at}.{name}", "the usual name")


def _own_prompt(ledger: Ledger, key: str, objective: str) -> None:
    """Carry over a prompt that the file writes itself: its columns, and no text around them."""
    names = {"prompt": "field_instruction", "completion": "field_output"}
    if objective in ("dpo", "orpo"):
        names = {"prompt": "field_prompt", "chosen": "field_chosen", "rejected": "field_rejected"}
    elif objective == "kto":
        names = {"prompt": "field_prompt", "completion": "field_completion", "label": "field_label"}
    ledger.settle("data.format", {"kto": "kto", "sft": "prompt-completion"}.get(objective, "preference"))
    ledger.default(
        "data.template", "none" if objective == "sft" else "model", "the prompt is written without a chat template"
    )
    columns = {
        field: column for field, name in names.items() if (column := ledger.text(f"{key}.{name}")) and column != field
    }
    if columns:
        ledger.settle("data.columns", columns, *(f"{key}.{name}" for name in names.values()))
    ledger.drop(
        key,
        "the words around the columns",
        "The words that the file puts around its columns are left out: put them into the rows.",
    )


def _loss_on(ledger: Ledger, at: str, objective: str) -> None:
    if objective == "cpt":
        ledger.default("data.loss_on", "all", "texts are learned whole")
        ledger.drop("train_on_inputs", "texts are learned whole")
        return
    inputs = ledger.read("train_on_inputs", hf.switch)
    roles = ledger.read(f"{at}.roles_to_train", hf.words)
    if inputs and objective == "sft":
        ledger.settle("data.loss_on", "all", "train_on_inputs")
        ledger.drop(f"{at}.roles_to_train", "train_on_inputs trains all")
    elif roles:
        known = list(dict.fromkeys(_ROLES.get(role, "assistant") for role in roles))
        ledger.settle("data.loss_on", "assistant" if known == ["assistant"] else known, f"{at}.roles_to_train")
    elif inputs is not None:
        ledger.settle("data.loss_on", "assistant", "train_on_inputs")
    else:
        ledger.default("data.loss_on", "assistant", "Axolotl masks the prompt")
    for name in ("message_field_training", "message_field_training_detail"):
        ledger.unless(
            f"{at}.{name}",
            (),
            "a mark in the rows",
            "The rows mark which turns are trained; our engine trains all of the assistant's.",
        )


def _validation(ledger: Ledger) -> None:
    size = ledger.read("val_set_size", hf.number)
    if ledger.get("test_datasets"):
        path, files = ledger.get("test_datasets[0].path"), ledger.get("test_datasets[0].data_files")
        if path == "json" and files:
            first = (ledger.read("test_datasets[0].data_files", hf.words) or [""])[0]
            ledger.settle("data.validation.kind", "file", "test_datasets[0].data_files")
            ledger.settle("data.validation.source", first)
            ledger.settle("data.validation.value", 0.0)
        else:
            ledger.default("data.validation.kind", "none", "the test data is another split")
            ledger.default("data.validation.value", 0.0, "none are kept out")
            ledger.warn("Its test data is another split or data set: set data.validation to have a validation loss.")
        ledger.drop("test_datasets", "a recipe's validation rows are a file, or kept out of its data")
        ledger.drop("val_set_size", "test_datasets stand before it")
    elif size is None:
        ledger.default("data.validation.kind", "none", "Axolotl's default")
        ledger.default("data.validation.value", 0.0, "none are kept out")
    else:
        kind = "none" if size == 0 else "fraction" if size < 1 else "rows"
        ledger.settle("data.validation.kind", kind)
        ledger.settle("data.validation.value", min(size, 0.5) if kind == "fraction" else size, "val_set_size")


def _method(ledger: Ledger) -> None:
    adapter = ledger.text("adapter")
    if adapter not in (None, "", "lora", "qlora"):
        raise ledger.refuse(f"The adapter {adapter} is neither LoRA nor QLoRA")
    eight_bit, four_bit = ledger.read("load_in_8bit", hf.switch), ledger.read("load_in_4bit", hf.switch)
    if not adapter:
        ledger.default("method.kind", "full", "no adapter is set")
        ledger.ignore({r"lora_\w+|peft_\w+|load_in_8bit|loraplus\w*": "no adapter is trained"})
        return
    if adapter == "qlora" or four_bit:
        ledger.settle("method.kind", "qlora", "adapter", "load_in_4bit")
        hf.settle_quantisation(
            ledger, "bnb_config_kwargs.bnb_4bit_quant_type", "nf4", "bnb_config_kwargs.bnb_4bit_use_double_quant", True
        )
        ledger.drop("bnb_config_kwargs", "how 4 bits are stored and multiplied: the engine's choice")
    else:
        ledger.settle("method.kind", "lora", "adapter")
    ledger.drop(
        "load_in_8bit",
        "no 8-bit weights",
        "The frozen weights are in 8 bits there; here they keep 16." if eight_bit else "",
    )
    unset = "Axolotl has none; PEFT's"
    hf.carry_adapter(
        ledger,
        {"rank": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "peft_use_rslora",
         "dora": "peft_use_dora", "saved": "lora_modules_to_save", "lora_plus": "loraplus_lr_ratio"},
        {"rank": (8, unset), "alpha": (8.0, unset), "dropout": (0.0, "Axolotl's default"), "rslora": (False, "Axolotl's default"),
         "dora": (False, "Axolotl's default")},
    )  # fmt: skip
    if ledger.get("lora_target_linear"):
        ledger.settle("method.targets", "all-linear", "lora_target_linear", "lora_target_modules")
    else:
        ledger.drop("lora_target_linear", "lora_target_modules hold")
        hf.carry_targets(
            ledger,
            "lora_target_modules",
            "all-linear",
            "neither linear layers nor names are given; PEFT's depend on the model",
        )
    ledger.drop("loraplus_lr_embedding", "adapters on embeddings have the recipe's rate")


def _training(ledger: Ledger, objective: str) -> None:
    if ledger.get("learning_rate") is None:
        raise ledger.refuse("It gives no learning_rate, and Axolotl has none by itself")
    ledger.carry("learning_rate", "training.learning_rate", hf.number)
    default = "Axolotl's default"
    hf.carry_schedule(ledger, "lr_scheduler", "cosine", default, "lr_scheduler_kwargs")
    least = ledger.read("cosine_min_lr_ratio", hf.number)
    if least and 0 < least < 1 and ledger.fields["training.schedule"] == "cosine":
        ledger.settle("training.floor", least, "cosine_min_lr_ratio")
    ledger.unless("cosine_min_lr_ratio", (0,), "no fall", "cosine_min_lr_ratio is 1: the rate does not fall there.")
    because = "3 % of the steps, and at most 100, where nothing is set"
    hf.carry_warmup(ledger, "warmup_ratio", "warmup_steps", because, "lr_scheduler", ("ratio", 0.03))
    hf.carry_length(ledger, "num_epochs", "max_steps", 1.0, default)
    _batch(ledger)
    hf.carry_optimizer(ledger, "optimizer", "adamw_torch_fused", default)
    ledger.carry("weight_decay", "training.weight_decay", hf.number, 0.0, default)
    hf.carry_clipping(ledger, "max_grad_norm", 1.0, "transformers' default")
    hf.carry_betas(ledger)
    ledger.drop("adam_eps", "not a name that Axolotl knows")
    ledger.carry("seed", "training.seed", hf.whole, 42, "transformers' default")
    patience = ledger.read("early_stopping_patience", hf.whole)
    if patience and ledger.fields["data.validation.kind"] != "none":
        ledger.settle("training.early_stopping.patience", patience, "early_stopping_patience")
    ledger.drop(
        "early_stopping_patience",
        "there are no validation rows",
        "It stops early, but no validation rows are left to see when.",
    )
    if ledger.get("load_best_model_at_end") and ledger.fields["data.validation.kind"] != "none":
        ledger.settle("training.finish_with", "best", "load_best_model_at_end")
    if objective in ("dpo", "orpo", "kto"):
        _preference(ledger, objective)


def _batch(ledger: Ledger) -> None:
    whole = ledger.read("batch_size", hf.whole)
    if whole and ledger.get("gradient_accumulation_steps") is None:
        ledger.settle("training.global_batch", whole * ledger.gpus, "batch_size")
        ledger.drop("micro_batch_size", hf.COST)
        return
    hf.carry_batch(ledger, "micro_batch_size", 1, "gradient_accumulation_steps", "Axolotl's default")
    ledger.drop("batch_size", "micro_batch_size and gradient_accumulation_steps hold")


def _preference(ledger: Ledger, objective: str) -> None:
    beta = next((key for key in ("trl.beta", "rl_beta", "orpo_alpha") if ledger.get(key) is not None), "rl_beta")
    ledger.carry(beta, "training.preference.beta", hf.number, 0.1, "TRL's default")
    losses = ledger.read("dpo_loss_type", hf.words) or []
    if losses and objective == "dpo":
        ledger.settle("training.preference.loss", losses[0], "dpo_loss_type")
        if len(losses) > 1:
            ledger.warn(f"Several losses at once are not ours: {losses[0]} is taken alone.")
    elif objective == "dpo":
        ipo = ledger.get("rl") == "ipo"
        ledger.default(
            "training.preference.loss", "ipo" if ipo else "sigmoid", "that of rl" if ipo else "TRL's default"
        )
    smoothing = ledger.read("dpo_label_smoothing", hf.number)
    if smoothing and ledger.fields.get("training.preference.loss") in ("robust", "exo_pair"):
        ledger.settle("training.preference.label_smoothing", smoothing, "dpo_label_smoothing")
    ledger.unless("dpo_label_smoothing", (0, 0.0), "none", "dpo_label_smoothing belongs to other losses with us.")
    if objective == "kto":
        ledger.carry(
            "kto_desirable_weight", "training.preference.desirable_weight", hf.number, 1.0, "Axolotl's default"
        )
        ledger.carry(
            "kto_undesirable_weight", "training.preference.undesirable_weight", hf.number, 1.0, "Axolotl's default"
        )
    if ledger.fields.get("method.dropout"):
        ledger.settle("method.dropout", 0.0)
        ledger.warn(
            f"{objective} compares the model with itself: adapters have no dropout here, as TRL turns it off too."
        )
    ledger.ignore(
        {
            r"precompute_ref_log_probs|dpo_use_logits_to_keep|dpo_use_liger_kernel|dpo_padding_free|dpo_norm_loss|use_logits_to_keep": hf.COST
        }
    )


def write(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as Axolotl's keys; what they cannot say is found by reading them again."""
    data, training, method = recipe.data, recipe.training, recipe.method
    rows, accumulation = hf.micro_batch(recipe)
    values: dict[str, Any] = {"base_model": recipe.base.model}
    if recipe.base.revision:
        values["revision_of_model"] = recipe.base.revision
    if isinstance(method, LoraMethod):
        values["adapter"] = "qlora" if isinstance(method, QloraMethod) else "lora"
        if isinstance(method, QloraMethod):
            values["load_in_4bit"] = True
            if not method.double_quantisation:
                values["bnb_config_kwargs"] = {"bnb_4bit_use_double_quant": False}
        values |= {"lora_r": method.rank, "lora_alpha": method.alpha, "lora_dropout": method.dropout}
        values |= (
            {"lora_target_linear": True}
            if method.targets == "all-linear"
            else {"lora_target_modules": hf.target_names(method)}
        )
        values |= {"peft_use_dora": True} if method.dora else {}
        values |= {"peft_use_rslora": True} if method.rslora else {}
        values |= {"loraplus_lr_ratio": method.lora_plus_ratio} if method.lora_plus_ratio != 1 else {}
        values |= {"lora_modules_to_save": list(method.modules_to_save)} if method.modules_to_save else {}
        values |= {"lora_model_dir": recipe.base.adapter} if recipe.base.adapter else {}
    values |= _written_data(recipe)
    values |= {
        "sequence_len": data.max_length,
        "sample_packing": data.packing,
        "micro_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "optimizer": {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit"}[training.optimizer],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "bf16": "auto",
        "gradient_checkpointing": True,
        "output_dir": "./outputs/out",
    }
    values["warmup_ratio" if training.warmup.kind == "ratio" else "warmup_steps"] = hf.short(training.warmup.value)
    values |= {"max_steps": training.steps} if training.steps else {"num_epochs": hf.short(training.epochs or 1)}
    values |= {"cosine_min_lr_ratio": training.floor} if training.floor else {}
    values |= {"adam_beta2": training.beta2} if training.beta2 else {}
    if training.objective not in ("sft", "cpt"):
        values["rl"] = training.objective
    if training.preference:
        preference = training.preference
        values["rl_beta"] = preference.beta
        if training.objective == "dpo":
            values["dpo_loss_type"] = [preference.loss]
            values |= {"dpo_label_smoothing": preference.label_smoothing} if preference.label_smoothing else {}
        if training.objective == "kto":
            values |= {
                "kto_desirable_weight": preference.desirable_weight,
                "kto_undesirable_weight": preference.undesirable_weight,
            }
    if training.early_stopping:
        values["early_stopping_patience"] = training.early_stopping.patience
    if training.finish_with == "best":
        values["load_best_model_at_end"] = True
    return values


def _written_data(recipe: Recipe) -> dict[str, Any]:
    data, objective = recipe.data, recipe.training.objective
    path, revision, name = hf.hub_parts(data.source)
    source: dict[str, Any] = {"path": path}
    if hf.is_file(path):
        source = {"path": "json", "data_files": [path], "ds_type": "json"}
    source |= {"name": name} if name else {}
    source |= {"revision": revision} if revision else {}
    source["split"] = data.split if data.share == 1 else f"{data.split}[:{hf.short(100 * data.share)}%]"
    columns = dict(data.columns or {})
    values: dict[str, Any] = {}
    names = {known: ours for ours, known in reversed(TEMPLATES.items())}
    template = names.get(data.template)
    if objective == "cpt":
        values["pretraining_dataset"] = None
        source |= {"type": "completion", "field": columns.get("text", "text")}
    elif objective == "kto":
        source["type"] = "chatml.argilla" if data.template == "chatml" else "llama3.ultra"
        values["chat_template"] = template
    elif objective in ("dpo", "orpo"):
        source |= {"type": "chat_template.default" if objective == "dpo" else "chat_template.argilla"}
        source |= {f"field_{field}": columns[field] for field in ("chosen", "rejected") if field in columns}
        values["chat_template"] = template
    elif data.format == "alpaca":
        source["type"] = "alpaca"
        values["chat_template"] = None if data.template == "alpaca" else template
    elif data.format == "prompt-completion" and data.template == "none":
        source["type"] = {
            "field_instruction": columns.get("prompt", "prompt"), "field_output": columns.get("completion", "completion"),
            "format": "{instruction}", "no_input_format": "{instruction}",
        }  # fmt: skip
    elif data.format in ("messages", "sharegpt", "tools"):
        source["type"] = "chat_template"
        usual = "conversations" if data.format == "sharegpt" else "messages"
        source["field_messages"] = columns.get("messages", usual)
        if data.format == "sharegpt":
            source["message_property_mappings"] = {"role": "from", "content": "value"}
        source |= {f"field_{field}": columns[field] for field in ("tools", "system") if field in columns}
        values["chat_template"] = template
    if data.system == "drop" and source.get("type") == "chat_template":
        source["drop_system_message"] = True
    values = {key: value for key, value in values.items() if value is not None}
    values["datasets"] = [source]
    if objective == "sft" and data.loss_on == "all":
        values["train_on_inputs"] = True
    elif not isinstance(data.loss_on, str):
        source["roles_to_train"] = list(data.loss_on)
    if objective != "cpt":
        values["excess_length_strategy"] = "drop" if data.overlong == "drop" else "truncate"
    validation = data.validation
    if validation.kind == "file":
        values["test_datasets"] = [{"path": "json", "data_files": [validation.source], "ds_type": "json"}]
    else:
        values["val_set_size"] = hf.short(validation.value) if validation.kind != "none" else 0
    return values
