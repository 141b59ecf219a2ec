"""torchtune's configuration files, in: the project has been wound down, so nothing is written for it.

Facts from pytorch/torchtune@bd2a0fc7c31430972728494fa01aaeeb0ebf1ba1: datasets (what each builder trains on), the model
builders (quantize_base), training/lr_schedulers.py, and torch's own default for AdamW's decay.
"""

from __future__ import annotations

import re
from typing import Any, cast

from . import hugging_face as hf
from .ledger import Ledger

TOOL = "torchtune"
_DATA: dict[str, tuple[str, str, bool]] = {
    "alpaca_dataset": ("tatsu-lab/alpaca", "alpaca", True),
    "alpaca_cleaned_dataset": ("yahma/alpaca-cleaned", "alpaca", True),
    "instruct_dataset": ("", "prompt-completion", False),
    "chat_dataset": ("", "messages", False),
    "slimorca_dataset": ("Open-Orca/SlimOrca-Dedup", "sharegpt", False),
    "grammar_dataset": ("liweili/c4_200m", "prompt-completion", False),
    "samsum_dataset": ("Samsung/samsum", "prompt-completion", False),
    "text_completion_dataset": ("", "text", True),
    "cnn_dailymail_articles_dataset": ("ccdv/cnn_dailymail", "text", True),
    "wikitext_dataset": ("EleutherAI/wikitext_document_level", "text", True),
    "preference_dataset": ("", "preference", False),
    "hh_rlhf_helpful_dataset": ("RLHFlow/HH-RLHF-Helpful-standard", "preference", False),
    "stack_exchange_paired_dataset": ("lvwerra/stack-exchange-paired", "preference", False),
}
"""What a builder reads by itself: its source, its shape, and whether it trains on the prompt too."""
_COLUMNS = {"stack_exchange_paired_dataset": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}}
_MODULES = {"output_proj": "o_proj"}
_IGNORED = {
    r"output_dir|checkpointer\.(output_dir|_component_|checkpoint_files(\..*)?|model_type|recipe_checkpoint|adapter_checkpoint|safe_serialization)|resume_from_checkpoint|"
    r"save_\w+|should_load_recipe_state|name|base_model_path|keep_last_n_checkpoints": hf.CHECKPOINTS,
    r"metric_logger\..*|log_\w+|profiler\..*|profiler": hf.LOGGING,
    r"device|dtype|compile|enable_activation_\w+|fsdp_\w+|optimizer_in_bwd|optimizer\.fused|low_cpu_ram|custom_sharded_layers|tensor_parallel_\w+(\..*)?|data_parallel_\w+|"
    r"context_parallel_\w+|memory_efficient_fsdp_wrap|ac_mode|ac_option|cudnn_deterministic_mode|fsdp(\..*)?|use_loss_parallel_ctx_manager|clip_grad_norm_fused|enable_fp8_training|fp8_recipe_name": hf.COST,
    r"tokenizer\.(_component_|path|merges_file|merges_path|vocab_path|special_tokens_path)|model\._component_|loss\._component_|lr_scheduler\._component_|"
    r"optimizer\._component_|collate_fn": "how files are loaded; our engine finds that out",
    r"batch_size_val|dataset_val(\..*)?|run_val_every_n_steps|max_validation_batches": hf.EVALUATION,
    r"shuffle|loss\.num_output_chunks|loss\.ignore_index|loss\.tiled_linear|loss\.mask_pre_projection|dataset\.(add_eos|split_across_pack)|datasets?\..*": hf.NO_SETTING,
    r"ref_checkpointer(\..*)?|teacher_\w+(\..*)?": "the reference is the model as it was",
}  # fmt: skip


def read(values: dict[str, Any], gpus: int, text: str = "") -> Ledger:
    """Return the ledger of a torchtune file; `text` may name that in a comment."""
    ledger = Ledger(TOOL, filled(values), gpus)
    component = _refuse_other_kinds(ledger)
    _base(ledger, text)
    objective = _data(ledger)
    _method(ledger, component)
    _training(ledger, objective)
    if ledger.get("quantizer._component_") or ledger.get("fake_quant_after_n_steps"):
        ledger.drop(
            "quantizer",
            "not a setting of ours",
            "It trains for a quantised model (QAT): weights are rounded while they learn, which ours are not.",
        )
        ledger.drop("fake_quant_after_n_steps", "not a setting of ours")
    ledger.drop("quantizer", "none")
    hf.several(ledger, ("fsdp_cpu_offload", "tensor_parallel_dim", "custom_sharded_layers"))
    ledger.ignore(_IGNORED)
    return ledger


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with `${key}` replaced by the plain value of that key of the same file; nothing else is filled in."""
    ledger = Ledger(TOOL, values, 1)

    def fill(value: Any, depth: int = 0) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, list):
            return [fill(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
        found = re.fullmatch(r"\$\{([\w.]+)\}(.*)", value) if isinstance(value, str) and depth < 5 else None
        other = ledger.get(found[1]) if found else None
        if found is None or isinstance(other, (dict, list)) or other is None:
            return value
        return fill(f"{other}{found[2]}" if found[2] else other, depth + 1)

    return fill(values)


def _refuse_other_kinds(ledger: Ledger) -> str:
    component = ledger.text("model._component_")
    loss, data = ledger.text("loss._component_") or "", str(ledger.get("dataset")) + str(ledger.get("datasets"))
    kinds = {"PPO": "It learns from rewards (PPO)", "GRPO": "It learns from rewards (GRPO)"}
    for word, because in kinds.items():
        if word in loss:
            raise ledger.refuse(because)
    if ledger.get("kd_loss") or ledger.get("teacher_model"):
        raise ledger.refuse("It distils from another model's probabilities")
    if ledger.get("policy_model") or ledger.get("reward_functions") or ledger.get("num_generations") or "grpo" in data:
        raise ledger.refuse("It learns from rewards, or prepares for it with code")
    if component is None or ledger.get("optimizer") is None or not (ledger.get("dataset") or ledger.get("datasets")):
        raise ledger.refuse("It trains nothing: it evaluates, generates or quantises")
    if "multimodal" in data or "vision" in component:
        raise ledger.refuse("It trains on pictures or sound")
    return component.rpartition(".")[2]


def _base(ledger: Ledger, text: str) -> None:
    folder = (ledger.text("checkpointer.checkpoint_dir") or "").rstrip("/")
    if not folder:
        raise ledger.refuse("It names no checkpoint")
    last = folder.rpartition("/")[2]
    named = re.findall(r"tune download ([\w.-]+/[\w.-]+)", text)
    likely = next(
        (each for each in named if each.rpartition("/")[2].casefold() == last.casefold()),
        named[0] if len(set(named)) == 1 else "",
    )
    if likely:
        ledger.settle(
            "base.model", likely, "checkpointer.checkpoint_dir", note="the name that its comment downloads there"
        )
    else:
        ledger.settle(
            "base.model",
            hf.require_literal(ledger, "checkpointer.checkpoint_dir", folder, "base.model"),
            "checkpointer.checkpoint_dir",
        )
        ledger.warn("torchtune names a folder, not a model: base.model is that folder.")


def _data(ledger: Ledger) -> str:
    several = ledger.get("dataset") if isinstance(ledger.get("dataset"), list) else None
    at = "dataset[0]" if several else "dataset" if ledger.get("dataset") else "datasets[0]"
    if several and len(several) > 1:
        for index in range(1, len(several)):
            ledger.drop(f"dataset[{index}]", "a recipe has one source")
        ledger.warn(f"A recipe has one source: the first of {len(several)} data sets is taken.")
    builder = (ledger.text(f"{at}._component_") or "").rpartition(".")[2]
    source, format_, prompt = _DATA.get(builder, ("", "auto", False))
    if builder not in _DATA:
        ledger.warn(f"{builder} is a builder of its own: our engine tells the format from the rows.")
    objective = {"text": "cpt", "preference": "dpo"}.get(format_, "sft")
    if "DPOLoss" in (ledger.text("loss._component_") or "") or "RSO" in (ledger.text("loss._component_") or ""):
        objective, format_ = "dpo", "preference"
    ledger.settle("training.objective", objective)
    ledger.settle("data.format", format_, f"{at}._component_")
    named, files = ledger.text(f"{at}.source"), ledger.text(f"{at}.data_files")
    if named in ("json", "csv", "parquet", "text") and files:
        ledger.settle(
            "data.source",
            hf.require_literal(ledger, f"{at}.data_files", files, "data.source"),
            f"{at}.data_files",
            f"{at}.source",
        )
    elif named:
        hf.settle_source(ledger, f"{at}.source", f"{at}.name" if ledger.text(f"{at}.name") else f"{at}.subset")
    elif source:
        ledger.default("data.source", source, f"what {builder} reads")
    else:
        hf.no_data(ledger, "the builder names none")
    columns = ledger.get(f"{at}.column_map")
    if isinstance(columns, dict) and columns:
        names = {"input": "prompt", "output": "completion"} if format_ == "prompt-completion" else {}
        table = cast("dict[str, Any]", columns)
        ledger.settle(
            "data.columns", {names.get(key, key): str(each) for key, each in table.items()}, f"{at}.column_map"
        )
    elif builder in _COLUMNS:
        ledger.default("data.columns", _COLUMNS[builder], f"what {builder} reads")
    elif ledger.text(f"{at}.column") and ledger.text(f"{at}.column") != "text":
        ledger.settle("data.columns", {"text": ledger.text(f"{at}.column")}, f"{at}.column")
    if ledger.text(f"{at}.conversation_column") and format_ == "messages":
        style = ledger.text(f"{at}.conversation_style")
        ledger.settle("data.format", "sharegpt" if style == "sharegpt" else "messages", f"{at}.conversation_style")
        ledger.settle(
            "data.columns", {"messages": ledger.text(f"{at}.conversation_column")}, f"{at}.conversation_column"
        )
    if ledger.text(f"{at}.new_system_prompt"):
        ledger.settle("data.system_prompt", ledger.text(f"{at}.new_system_prompt"), f"{at}.new_system_prompt")
    _split(ledger, at)
    _loss_on(ledger, at, objective, prompt)
    ledger.default("data.template", "model", "torchtune's tokenizer writes the model's own tokens")
    if format_ == "alpaca":
        ledger.warn("torchtune puts Alpaca's preamble into the user's turn; here the instruction stands there alone.")
    ledger.drop(
        "tokenizer.prompt_template",
        "the model's own template",
        "The file has a prompt template of its own." if ledger.get("tokenizer.prompt_template") else "",
    )
    longest = ledger.read("tokenizer.max_seq_len", hf.whole)
    if longest is None:
        ledger.default("data.max_length", 8192, "torchtune has no limit where max_seq_len is null")
        ledger.warn("There is no limit of length; 8192 tokens stand for it.")
    else:
        ledger.settle("data.max_length", longest, "tokenizer.max_seq_len")
    ledger.default("data.overlong", "cut", "torchtune cuts rows that are too long")
    packed = ledger.read("dataset.packed", hf.switch)
    if objective == "dpo" or packed is None:
        ledger.default("data.packing", False, "torchtune's default")
        ledger.drop("dataset.packed", "pairs are taken as they are")
    else:
        ledger.settle("data.packing", packed, "dataset.packed")
    return objective


def _split(ledger: Ledger, at: str) -> None:
    """Carry the split over: where the rest of the same data is evaluated on, it is kept out of the rows."""
    split, rest = ledger.text(f"{at}.split"), ledger.text("dataset_val.split")
    kept = re.fullmatch(r"(\w+)\[:(\d+)%\]", split or "")
    if kept and rest == f"{kept[1]}[{kept[2]}%:]":
        ledger.settle("data.split", kept[1], f"{at}.split")
        ledger.settle("data.validation.kind", "fraction", "dataset_val")
        ledger.settle("data.validation.value", round(1 - int(kept[2]) / 100, 6))
        return
    hf.settle_split(ledger, f"{at}.split", "train", "the split train")
    ledger.default("data.validation.kind", "none", "no rows are kept out")
    ledger.default("data.validation.value", 0.0, "none are kept out")
    if ledger.get("dataset_val._component_"):
        ledger.drop(
            "dataset_val",
            "another data set",
            "Its validation data is another: set data.validation to have a validation loss.",
        )


def _loss_on(ledger: Ledger, at: str, objective: str, prompt: bool) -> None:
    given = ledger.read(f"{at}.train_on_input", hf.switch)
    strategy = ledger.text(f"{at}.masking_strategy")
    if objective != "sft":
        ledger.default(
            "data.loss_on",
            "all" if objective == "cpt" else "assistant",
            "texts are learned whole" if objective == "cpt" else "answers are compared",
        )
        ledger.drop(f"{at}.train_on_input", "the objective says what is learned")
    elif given is not None:
        ledger.settle("data.loss_on", "all" if given else "assistant", f"{at}.train_on_input")
    elif strategy:
        ledger.settle(
            "data.loss_on",
            {"train_on_all": "all", "train_on_last": "last"}.get(strategy, "assistant"),
            f"{at}.masking_strategy",
        )
    else:
        ledger.default(
            "data.loss_on",
            "all" if prompt else "assistant",
            "the builder trains on the prompt too" if prompt else "the builder masks the prompt",
        )


def _method(ledger: Ledger, component: str) -> None:
    if not component.startswith(("lora_", "qlora_", "dora_", "qdora_")):
        ledger.settle("method.kind", "full", "model._component_")
        return
    four = component.startswith(("qlora_", "qdora_")) or bool(ledger.get("model.quantize_base"))
    ledger.settle("method.kind", "qlora" if four else "lora", "model._component_", "model.quantize_base")
    if four:
        ledger.default("method.quantisation", "nf4", "torchao's NF4")
        ledger.default("method.double_quantisation", True, "torchao's NF4 quantises its scales too")
    own = "torchtune's default"
    rank = ledger.carry("model.lora_rank", "method.rank", hf.whole, 8, own)
    ledger.carry("model.lora_alpha", "method.alpha", hf.number, 16.0, own)
    assert rank
    ledger.carry("model.lora_dropout", "method.dropout", hf.number, 0.0, own)
    ledger.carry("model.use_dora", "method.dora", hf.switch, component.startswith(("dora_", "qdora_")), own)
    ledger.default("method.rslora", False, "torchtune has none")
    ledger.default("method.lora_plus_ratio", 1.0, "torchtune has one rate for both matrices")
    names = [_MODULES.get(each, each) for each in ledger.read("model.lora_attn_modules", hf.words) or []]
    if ledger.read("model.apply_lora_to_mlp", hf.switch):
        names += ["gate_proj", "up_proj", "down_proj"]
    if ledger.read("model.apply_lora_to_output", hf.switch):
        ledger.warn("Adapters on the output layer are left out; method.modules_to_save trains it whole.")
    ledger.settle(
        "method.targets",
        list(dict.fromkeys(names)) or "all-linear",
        "model.lora_attn_modules",
        "model.apply_lora_to_mlp",
    )
    ledger.drop("model.apply_lora_to_output", "not one of our targets")


def _training(ledger: Ledger, objective: str) -> None:
    if ledger.get("optimizer.lr") is None:
        raise ledger.refuse("It gives no learning rate")
    ledger.carry("optimizer.lr", "training.learning_rate", hf.number)
    scheduler = (ledger.text("lr_scheduler._component_") or "").rpartition(".")[2]
    if not scheduler:
        ledger.default("training.schedule", "constant", "torchtune's rate is constant where no schedule is set")
    elif "cosine" in scheduler:
        ledger.settle("training.schedule", "cosine", "lr_scheduler._component_")
    else:
        ledger.settle(
            "training.schedule", "linear" if "linear" in scheduler else "constant", "lr_scheduler._component_"
        )
        ledger.warn(f"The schedule {scheduler} is not one of ours.")
    hf.carry_warmup(ledger, "lr_scheduler.warmup_ratio", "lr_scheduler.num_warmup_steps", "no schedule warms up")
    ledger.unless(
        "lr_scheduler.num_cycles", (0.5,), "half a cycle, as ours", "The schedule goes through other cycles than ours."
    )
    ledger.carry("epochs", "training.epochs", hf.number, 1.0, "one epoch")
    ledger.unless(
        "max_steps_per_epoch",
        (),
        "all steps of an epoch",
        "max_steps_per_epoch ends an epoch early; here an epoch is the whole data: set training.steps.",
    )
    hf.carry_batch(ledger, "batch_size", 1, "gradient_accumulation_steps", "torchtune's default")
    kind = (ledger.text("optimizer._component_") or "torch.optim.AdamW").rpartition(".")[2]
    ledger.settle("training.optimizer", "adamw_8bit" if "8bit" in kind.casefold() else "adamw", "optimizer._component_")
    if "adamw" not in kind.casefold():
        ledger.warn(f"The optimizer {kind} is not one of ours: AdamW stands for it, and needs another learning rate.")
    ledger.carry(
        "optimizer.weight_decay",
        "training.weight_decay",
        hf.number,
        0.01,
        "AdamW's own default in torch and bitsandbytes",
    )
    betas = ledger.get("optimizer.betas")
    if isinstance(betas, list) and len(betas) == 2 and betas[1] != 0.999:  # pyright: ignore[reportUnknownArgumentType]
        ledger.settle("training.beta2", hf.number(betas[1]), "optimizer.betas")
    ledger.drop("optimizer.betas", "the usual values")
    hf.carry_clipping(ledger, "clip_grad_norm", None, "torchtune does not clip where clip_grad_norm is null")
    if ledger.get("seed") is None:
        ledger.default("training.seed", 42, "torchtune draws one where the seed is null")
        ledger.drop("seed", "null: torchtune draws one")
    else:
        ledger.carry("seed", "training.seed", hf.whole)
    ledger.default("training.finish_with", "last", "torchtune keeps the last weights")
    if objective == "dpo":
        ledger.carry("loss.beta", "training.preference.beta", hf.number, 0.1, "torchtune's default")
        smoothing = ledger.read("loss.label_smoothing", hf.number)
        if smoothing:
            ledger.warn("loss.label_smoothing smooths the sigmoid loss there; it is left out here.")
        ledger.drop("loss.label_smoothing", "none")
        ledger.default("training.preference.loss", "sigmoid", "torchtune's DPOLoss")
        if ledger.fields.get("method.dropout"):
            ledger.settle("method.dropout", 0.0)
            ledger.warn("dpo compares the model with itself: adapters have no dropout here.")
        if ledger.fields["training.learning_rate"] > 5e-5:
            ledger.warn(
                "The learning rate is 10 to 100 times what DPO is replicated with (5e-6 with adapters): lower it."
            )
