"""Plain Python scripts that make a recipe's run with TRL, or with Unsloth and TRL, and need nothing of ours."""

from __future__ import annotations

from pprint import pformat
from typing import Any

from ...foundation.text import one_line
from ..model import LoraMethod, QloraMethod, Recipe
from . import hugging_face as hf

TRAINERS = {
    "sft": ("trl", "SFTConfig", "SFTTrainer"),
    "cpt": ("trl", "SFTConfig", "SFTTrainer"),
    "dpo": ("trl", "DPOConfig", "DPOTrainer"),
    "kto": ("trl", "KTOConfig", "KTOTrainer"),
    "orpo": ("trl.experimental.orpo", "ORPOConfig", "ORPOTrainer"),
}
"""Where TRL 1.14 keeps the configuration and the trainer of each objective."""


def write(recipe: Recipe, library: str) -> tuple[str, dict[str, Any]]:
    """Return the script for `library` (`trl` or `unsloth`), and the fields that it does not carry."""
    data = recipe.data
    path, revision, config = hf.hub_parts(data.source)
    facts: dict[str, Any] = {
        "MODEL": recipe.base.model,
        "REVISION": recipe.base.revision,
        "ADAPTER": recipe.base.adapter,
        "DATA": path,
        "DATA_CONFIGURATION": config,
        "DATA_REVISION": revision,
        "SPLIT": data.split,
        "COLUMNS": dict(data.columns or {}),
        "SYSTEM": data.system,
        "SYSTEM_PROMPT": data.system_prompt,
        "SHARE": data.share,
        "VALIDATION": {"kind": data.validation.kind, "value": data.validation.value, "source": data.validation.source},
        "SEED": recipe.training.seed,
        "MAX_LENGTH": data.max_length,
        "LORA": _adapter(recipe),
        "FOUR_BIT": _four_bit(recipe),
        "ARGUMENTS": _arguments(recipe),
    }
    module, configuration, trainer = TRAINERS[recipe.training.objective]
    lines = "\n".join(f"{name} = {pformat(value, width=100, sort_dicts=False)}" for name, value in facts.items())
    text = _SCRIPT.format(
        title=one_line(recipe.card.title, 150).replace('"', "'") or "A recipe",
        hash=recipe.hash(),
        first="import unsloth  # before trl, transformers and peft, which it patches\n" if library == "unsloth" else "",
        needs="unsloth trl datasets" if library == "unsloth" else "trl peft bitsandbytes datasets",
        imports="" if library == "unsloth" else _IMPORTS,
        module=module,
        configuration=configuration,
        trainer=trainer,
        facts=lines,
        rows=_ROWS[_shape(recipe)].strip("\n"),
        turns=_TURNS.strip("\n") if _shape(recipe) in ("messages", "sharegpt", "alpaca") else "",
        ready=(_ASSISTANT if _splits(recipe) else _WHOLE).strip("\n"),
        loading=(_UNSLOTH if library == "unsloth" else _TRL).strip("\n"),
        peft="None" if library == "unsloth" else "peft_config()",
    )
    return "\n".join(line.rstrip() for line in text.split("\n")), _lost(recipe, library)


def _shape(recipe: Recipe) -> str:
    objective, format_ = recipe.training.objective, recipe.data.format
    if objective == "cpt":
        return "text"
    if objective == "kto":
        return "kto"
    if objective in ("dpo", "orpo"):
        return "preference"
    return "messages" if format_ in ("tools", "auto") else format_


def _splits(recipe: Recipe) -> bool:
    """Tell whether conversations are divided into what is asked and the answer that is learned."""
    return _shape(recipe) in ("messages", "sharegpt", "alpaca") and recipe.data.loss_on != "all"


def _adapter(recipe: Recipe) -> dict[str, Any] | None:
    method = recipe.method
    if not isinstance(method, LoraMethod):
        return None
    targets: Any = "all-linear" if method.targets == "all-linear" else hf.target_names(method)
    return {
        "r": method.rank,
        "lora_alpha": hf.short(method.alpha),
        "lora_dropout": method.dropout,
        "target_modules": targets,
        "use_rslora": method.rslora,
        "use_dora": method.dora,
        "modules_to_save": list(method.modules_to_save) if method.modules_to_save else None,
        "bias": "none",
    }


def _four_bit(recipe: Recipe) -> dict[str, Any] | None:
    if not isinstance(recipe.method, QloraMethod):
        return None
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": recipe.method.quantisation,
        "bnb_4bit_use_double_quant": recipe.method.double_quantisation,
    }


def _arguments(recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's arguments, each that changes the result written out: libraries differ in their defaults."""
    training, data = recipe.training, recipe.data
    rows, accumulation = hf.micro_batch(recipe)
    values: dict[str, Any] = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(training.schedule, training.schedule),
        "warmup_steps": hf.short(training.warmup.value),
        "num_train_epochs": hf.short(training.epochs or 1),
        "max_steps": training.steps or -1,
        "optim": {"adamw": "adamw_torch", "adamw_8bit": "adamw_8bit"}[training.optimizer],
        "adam_beta1": 0.9,
        "adam_beta2": training.beta2 or 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "max_length": data.max_length,
        "gradient_checkpointing": True,
        "logging_steps": 1,
        "report_to": "none",
    }
    if training.warmup.kind == "ratio" and training.warmup.value == 1:
        values["warmup_steps"] = 0.999_999  # as a share: 1 would be one step
    if training.floor is not None:
        values |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": training.floor}}
    if training.objective in ("sft", "cpt"):
        values |= {"packing": data.packing, "packing_strategy": "bfd", "dataset_text_field": "text"}
        if _shape(recipe) == "prompt-completion":
            values["completion_only_loss"] = data.loss_on != "all"
    preference = training.preference
    if preference:
        values["beta"] = preference.beta
        if training.objective == "dpo":
            values |= {"loss_type": [preference.loss], "label_smoothing": preference.label_smoothing}
        if training.objective == "kto":
            values |= {
                "desirable_weight": preference.desirable_weight,
                "undesirable_weight": preference.undesirable_weight,
            }
    return values


def _lost(recipe: Recipe, library: str) -> dict[str, Any]:
    """Return the fields that the script does not carry, with their values."""
    data, training, method = recipe.data, recipe.training, recipe.method
    lost: dict[str, Any] = {}
    if data.template not in ("model", "trl") and not (data.template == "none" and data.format == "prompt-completion"):
        lost["data.template"] = data.template
    if data.format in ("prompt-completion",) and data.template != "none":
        lost["data.template"] = data.template
    if data.format == "auto":
        lost["data.format"] = "auto"
    if not isinstance(data.loss_on, str):
        lost["data.loss_on"] = list(data.loss_on)
    if data.thinking != "keep":
        lost["data.thinking"] = data.thinking
    if data.overlong == "drop" or training.objective == "cpt":
        lost["data.overlong"] = data.overlong
    if data.faulty == "drop":
        lost["data.faulty"] = data.faulty
    if data.validation.key or data.validation.stratify:
        lost["data.validation.key"] = data.validation.key or data.validation.stratify
    if isinstance(method, LoraMethod) and method.lora_plus_ratio != 1:
        lost["method.lora_plus_ratio"] = method.lora_plus_ratio
    if training.early_stopping:
        lost["training.early_stopping"] = training.early_stopping.patience
    if training.finish_with == "best":
        lost["training.finish_with"] = training.finish_with
    if library == "unsloth" and recipe.base.adapter:
        lost["base.adapter"] = recipe.base.adapter
    return lost


_SCRIPT = '''\
# {title}
#
# The same run without Tunewright: pip install {needs}
# The recipe's hash: {hash}
{first}import argparse

import torch
from datasets import load_dataset
{imports}from {module} import {configuration}, {trainer}

{facts}


def load(source, split, revision=None, configuration=None):
    """Return the rows of a file on this disk, or of a data set on the Hub."""
    kinds = {{".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}}
    kind = next((kind for ending, kind in kinds.items() if source.endswith(ending)), None)
    if kind:
        return load_dataset(kind, data_files=source, split="train")
    return load_dataset(source, configuration, split=split, revision=revision)


def column(row, name):
    return row.get(COLUMNS.get(name, name))


{turns}


{rows}


{ready}


def data(source):
    """Return the training rows and the validation rows, None where there are none."""
    rows = load(source, SPLIT, DATA_REVISION, DATA_CONFIGURATION)
    validation = None
    if VALIDATION["kind"] == "file":
        validation = load(VALIDATION["source"], "train")
    elif VALIDATION["kind"] != "none":
        size = VALIDATION["value"] if VALIDATION["kind"] == "fraction" else int(VALIDATION["value"])
        parts = rows.train_test_split(test_size=size, seed=SEED)
        rows, validation = parts["train"], parts["test"]
    if SHARE < 1:
        rows = rows.shuffle(seed=SEED).select(range(max(1, round(SHARE * len(rows)))))
    return ready(rows), ready(validation) if validation is not None else None


{loading}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=MODEL, help="a name on the Hub, or a folder")
    parser.add_argument("--data", default=DATA, help="a name on the Hub, or a file")
    parser.add_argument("--output", default="output")
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    options = parser.parse_args()
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    training, validation = data(options.data)
    arguments = dict(ARGUMENTS, output_dir=options.output, bf16=bf16, use_cpu=not torch.cuda.is_available())
    if options.steps:
        arguments["max_steps"] = options.steps
    if validation is not None:
        arguments["eval_strategy"] = "epoch"
    if "messages" in training.column_names and training.info.description == "assistant":
        arguments["assistant_only_loss"] = True
    model, tokenizer = load_model(options.model, bf16)
    trainer = {trainer}(
        model=model,
        args={configuration}(**arguments),
        train_dataset=training,
        eval_dataset=validation,
        processing_class=tokenizer,
        **({{"peft_config": {peft}}} if {peft} is not None else {{}}),
    )
    trainer.train()
    trainer.save_model(options.output)


if __name__ == "__main__":
    main()
'''
_IMPORTS = """\
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
"""
_TURNS = '''
def with_system(turns):
    """Return the turns with the recipe's wishes about system prompts."""
    if SYSTEM == "drop":
        turns = [turn for turn in turns if turn["role"] != "system"]
    if SYSTEM == "user" and turns and turns[0]["role"] == "system" and len(turns) > 1:
        first = dict(turns[1], content=turns[0]["content"] + "\\n\\n" + turns[1]["content"])
        turns = [first, *turns[2:]]
    if SYSTEM_PROMPT and (not turns or turns[0]["role"] != "system"):
        turns = [{"role": "system", "content": SYSTEM_PROMPT}, *turns]
    return turns
'''
_ROWS = {
    "messages": """
def to_row(row):
    turns = column(row, "messages") or row.get("conversations") or row.get("conversation")
    kept = ("role", "content", "tool_calls", "name")
    turns = [{key: turn[key] for key in kept if turn.get(key) is not None} for turn in turns]
    result = {"messages": with_system(turns)}
    if column(row, "tools"):
        result["tools"] = column(row, "tools")
    return result
""",
    "sharegpt": """
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant", "system": "system",
         "tool": "tool", "observation": "tool"}


def to_row(row):
    turns = row.get(COLUMNS.get("messages", "conversations")) or row.get("messages")
    system = [{"role": "system", "content": column(row, "system")}] if column(row, "system") else []
    turns = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns]
    return {"messages": with_system(system + turns)}
""",
    "alpaca": """
def to_row(row):
    asked = column(row, "instruction")
    if column(row, "input"):
        asked += "\\n\\n" + column(row, "input")
    system = [{"role": "system", "content": column(row, "system")}] if column(row, "system") else []
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": column(row, "output")}]
    return {"messages": with_system(system + turns)}
""",
    "prompt-completion": """
def to_row(row):
    return {"prompt": column(row, "prompt"), "completion": column(row, "completion")}
""",
    "text": """
def to_row(row):
    return {"text": column(row, "text")}
""",
    "preference": """
def to_row(row):
    result = {"chosen": column(row, "chosen"), "rejected": column(row, "rejected")}
    asked = column(row, "prompt")
    if asked is not None:
        if isinstance(result["chosen"], list) and isinstance(asked, str):
            if result["chosen"][0]["role"] != "assistant":
                return result  # the answers begin with what was asked
            asked = [{"role": "user", "content": asked}]
        elif isinstance(asked, str) and isinstance(result["chosen"], str):
            asked = [{"role": "user", "content": asked}]
            result = {key: [{"role": "assistant", "content": answer}] for key, answer in result.items()}
        result["prompt"] = asked
    return result
""",
    "kto": """
def to_row(row):
    asked, answer = column(row, "prompt"), column(row, "completion")
    if asked is None:
        turns = column(row, "messages") or row["messages"]
        asked, answer = turns[:-1], turns[-1:]
    elif isinstance(asked, str) and isinstance(answer, str):
        asked, answer = [{"role": "user", "content": asked}], [{"role": "assistant", "content": answer}]
    return {"prompt": asked, "completion": answer, "label": bool(column(row, "label"))}
""",
}
_WHOLE = '''
def ready(rows):
    """Return the rows as TRL takes them; what they hold is learned as TRL learns it."""
    return rows.map(to_row, remove_columns=rows.column_names)
'''
_ASSISTANT = '''
def ready(rows):
    """Return the rows as TRL takes them, so that answers alone are learned.

    Where each conversation has one answer at its end, it is divided there. Others need a template that marks answers.
    """
    rows = rows.map(to_row, remove_columns=rows.column_names)
    if all(sum(turn["role"] == "assistant" for turn in row["messages"]) == 1 for row in rows):
        return rows.map(
            lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}, remove_columns=["messages"]
        )
    rows.info.description = "assistant"
    return rows
'''
_TRL = """
def peft_config():
    return LoraConfig(task_type="CAUSAL_LM", **LORA) if LORA and not ADAPTER else None


def load_model(name, bf16):
    dtype = torch.bfloat16 if bf16 else torch.float32
    four_bit = BitsAndBytesConfig(bnb_4bit_compute_dtype=dtype, **FOUR_BIT) if FOUR_BIT else None
    model = AutoModelForCausalLM.from_pretrained(name, revision=REVISION, dtype=dtype, quantization_config=four_bit)
    if ADAPTER:
        model = PeftModel.from_pretrained(model, ADAPTER, is_trainable=True)
    return model, AutoTokenizer.from_pretrained(name, revision=REVISION)
"""
_UNSLOTH = """
def load_model(name, bf16):
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        name,
        revision=REVISION,
        max_seq_length=MAX_LENGTH,
        dtype=torch.bfloat16 if bf16 else torch.float16,
        load_in_4bit=bool(FOUR_BIT),
        full_finetuning=LORA is None,
    )
    if LORA:
        settings = dict(LORA)
        if settings["target_modules"] == "all-linear":
            settings["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = unsloth.FastLanguageModel.get_peft_model(
            model, use_gradient_checkpointing="unsloth", random_state=SEED, max_seq_length=MAX_LENGTH, **settings
        )
    return model, tokenizer
"""
