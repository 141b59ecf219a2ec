"""LLaMA-Factory's configuration files, in and out.

Facts from hiyouga/LLaMA-Factory@ff6d4d12eeb035d6ce06805a5733dd7b29f2ac30: hparams (model, data, finetuning, parser),
data/parser.py, data/dataset_info.json, v1/config. What is not set there is transformers' own.
"""

from __future__ import annotations

from typing import Any, cast

from ..model import LoraMethod, QloraMethod, Recipe
from . import hugging_face as hf
from .ledger import Ledger, word

TOOL = "LLaMA-Factory"
TEMPLATES = {
    "llama3": "llama3", "chatml": "chatml", "gemma": "gemma", "gemma2": "gemma", "mistral": "mistral", "phi": "phi3",
    "vicuna": "vicuna", "zephyr": "zephyr", "alpaca": "alpaca", "empty": "none",
}  # fmt: skip
_THINKING_OFF = "_nothink"
_HF, _OWN = "transformers' default", "LLaMA-Factory's default"
_ALPACA = {"instruction": "instruction", "input": "input", "output": "output"}
DATA: dict[str, dict[str, Any]] = {
    "identity": {"file_name": "identity.json"},
    "alpaca_en_demo": {"file_name": "alpaca_en_demo.json"},
    "alpaca_zh_demo": {"file_name": "alpaca_zh_demo.json"},
    "glaive_toolcall_en_demo": {"file_name": "glaive_toolcall_en_demo.json", "formatting": "sharegpt", "columns": {"tools": "tools"}},
    "glaive_toolcall_zh_demo": {"file_name": "glaive_toolcall_zh_demo.json", "formatting": "sharegpt", "columns": {"tools": "tools"}},
    "dpo_en_demo": {"file_name": "dpo_en_demo.json", "ranking": True, "formatting": "sharegpt"},
    "dpo_zh_demo": {"file_name": "dpo_zh_demo.json", "ranking": True, "formatting": "sharegpt"},
    "kto_en_demo": {"file_name": "kto_en_demo.json", "formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "label"}},
    "wiki_demo": {"file_name": "wiki_demo.txt", "columns": {"prompt": "text"}},
    "c4_demo": {"file_name": "c4_demo.jsonl", "columns": {"prompt": "text"}},
    "alpaca_en": {"hf_hub_url": "llamafactory/alpaca_en"},
    "alpaca_zh": {"hf_hub_url": "llamafactory/alpaca_zh"},
    "alpaca_gpt4_en": {"hf_hub_url": "llamafactory/alpaca_gpt4_en"},
    "alpaca_gpt4_zh": {"hf_hub_url": "llamafactory/alpaca_gpt4_zh"},
    "glaive_toolcall_en": {"hf_hub_url": "llamafactory/glaive_toolcall_en", "formatting": "sharegpt", "columns": {"tools": "tools"}},
    "glaive_toolcall_zh": {"hf_hub_url": "llamafactory/glaive_toolcall_zh", "formatting": "sharegpt", "columns": {"tools": "tools"}},
    "lima": {"hf_hub_url": "llamafactory/lima", "formatting": "sharegpt"},
    "open_platypus": {"hf_hub_url": "garage-bAInd/Open-Platypus"},
    "codealpaca": {"hf_hub_url": "sahil2801/CodeAlpaca-20k"},
    "openorca": {"hf_hub_url": "Open-Orca/OpenOrca", "columns": {"prompt": "question", "response": "response", "system": "system_prompt"}},
    "slimorca": {"hf_hub_url": "Open-Orca/SlimOrca", "formatting": "sharegpt"},
    "mathinstruct": {"hf_hub_url": "TIGER-Lab/MathInstruct"},
    "ultrachat_200k": {"hf_hub_url": "HuggingFaceH4/ultrachat_200k", "split": "train_sft", "formatting": "openai"},
    "lmsys_chat": {"hf_hub_url": "lmsys/lmsys-chat-1m", "formatting": "openai", "columns": {"messages": "conversation"}},
    "evol_instruct": {"hf_hub_url": "WizardLM/WizardLM_evol_instruct_V2_196k", "formatting": "sharegpt"},
    "neo_sft": {"hf_hub_url": "m-a-p/neo_sft_phase2", "formatting": "sharegpt"},
    "magpie_pro_300k": {"hf_hub_url": "Magpie-Align/Magpie-Pro-300K-Filtered", "formatting": "sharegpt"},
    "magpie_ultra": {"hf_hub_url": "argilla/magpie-ultra-v0.1", "columns": {"prompt": "instruction", "response": "response"}},
    "web_instruct": {"hf_hub_url": "TIGER-Lab/WebInstructSub", "columns": {"prompt": "question", "response": "answer"}},
    "open_thoughts": {"hf_hub_url": "llamafactory/OpenThoughts-114k", "formatting": "openai"},
    "open_r1_math": {"hf_hub_url": "llamafactory/OpenR1-Math-94k", "formatting": "openai"},
    "dpo_mix_en": {"hf_hub_url": "llamafactory/DPO-En-Zh-20k", "subset": "en", "ranking": True, "formatting": "sharegpt"},
    "dpo_mix_zh": {"hf_hub_url": "llamafactory/DPO-En-Zh-20k", "subset": "zh", "ranking": True, "formatting": "sharegpt"},
    "ultrafeedback": {"hf_hub_url": "llamafactory/ultrafeedback_binarized", "ranking": True, "columns": {"prompt": "instruction"}},
    "orca_pairs": {"hf_hub_url": "Intel/orca_dpo_pairs", "ranking": True, "columns": {"prompt": "question", "system": "system"}},
    "kto_mix_en": {"hf_hub_url": "argilla/kto-mix-15k", "formatting": "openai", "columns": {"messages": "completion", "kto_tag": "label"}},
    "pile": {"hf_hub_url": "monology/pile-uncopyrighted", "columns": {"prompt": "text"}},
    "fineweb": {"hf_hub_url": "HuggingFaceFW/fineweb", "columns": {"prompt": "text"}},
    "fineweb_edu": {"hf_hub_url": "HuggingFaceFW/fineweb-edu", "columns": {"prompt": "text"}},
}  # fmt: skip
"""What the names of the shipped dataset_info.json stand for; tables of a file's own stand before it."""
_IGNORED = {
    r"output_dir|overwrite_output_dir|run_name|hub_\w+|push_to_hub|export_\w+": hf.OUTPUT,
    r"logging_\w+|plot_loss|report_to|log_level|use_swanlab|swanlab_\w+|include_\w+|disable_tqdm|print_param_status|ray_\w+|num_workers_ray": hf.LOGGING,
    r"save_\w+|resume_from_checkpoint|load_best_model_at_end|cache_dir": hf.CHECKPOINTS,
    r"do_(train|eval|predict)|eval_\w+|per_device_eval_batch_size|predict_with_generate|compute_accuracy|metric_for_best_model|greater_is_better|sample_backend|"
    r"max_new_tokens|top_\w+|temperature|infer_\w+|generation_max_length|generation_num_beams": hf.EVALUATION,
    r"deepspeed|fsdp\w*(\..*)?|ddp_\w+|dist_config(\..*)?|init_config(\..*)?|dp_size|cp_\w+|mp_\w+|sequence_parallel\w*|(tensor|pipeline|expert)_model_parallel_size|use_mca|"
    r"use_megatron_bridge|megatron_bridge_args(\..*)?|overlap_\w+|use_distributed_optimizer|bias_activation_fusion|apply_rope_fusion|moe_\w+|recompute_\w+|context_parallel_size|"
    r"virtual_pipeline_\w+|num_workers|resources_per_worker(\..*)?|placement_strategy|gradient_accumulation_fusion|use_hyper_parallel|hyper_parallel\w*": hf.COST,
    r"bf16|fp16|pure_bf16|tf32|fp8\w*|flash_attn|disable_gradient_checkpointing|gradient_checkpointing\w*|use_reentrant_gc|use_unsloth\w*|enable_liger_kernel|use_v1_kernels|"
    r"kernel_config(\..*)?|enable_activation_checkpointing|upcast_\w+|torch_compile\w*|low_cpu_mem_usage|use_kt|kt_\w+(\..*)?|chunk_size|batching_\w+|offload_\w+": hf.COST,
    r"preprocessing_\w+|overwrite_cache|dataloader_\w+|streaming|buffer_size|data_shared_file_system|media_dir|tokenized_path|remove_unused_columns|ignore_pad_token_for_loss": hf.COST,
    r"trust_remote_code|use_fast_tokenizer|model_class|split_special_tokens|quantization_device_map|use_kv_cache|hf_hub_token|ms_hub_token|om_hub_token|use_modelscope_hub": "how files are loaded; our engine finds that out",
    r"(image|video|audio)_\w+|freeze_(vision_tower|multi_modal_projector|language_model)|use_audio_in_video": "of pictures and sound, which text has none of",
    r"enable_thinking|preserve_thinking|tool_format|quant_config(\..*)?|peft_config\.(name|export_\w+|adapter_name_or_path|infer_dtype|init_lora_weights)": "of the template or of loading; our engine finds that out",
}  # fmt: skip
_RISKY = {
    "use_dft_loss": "another loss (DFT)", "use_asft_loss": "another loss (ASFT)", "asft_alpha": "another loss (ASFT)", "use_eaft_loss": "another loss (EAFT)",
    "eaft_alpha": "another loss (EAFT)", "use_galore": "another optimizer (GaLore)", "use_apollo": "another optimizer (APOLLO)", "use_badam": "another optimizer (BAdam)",
    "use_muon": "another optimizer (Muon)", "use_adam_mini": "another optimizer (Adam-mini)", "optim_config": "another optimizer", "mixture_of_depths": "layers that are skipped",
    "pissa_init": "how adapters begin (PiSSA)", "pissa_iter": "how adapters begin (PiSSA)", "pissa_convert": "how adapters begin (PiSSA)", "neftune_noise_alpha": "noise in the embeddings (NEFTune)",
    "rope_scaling": "stretched positions", "shift_attn": "another attention (S²)", "mask_history": "", "default_system": "", "pref_ftx": "a second loss beside the preference's",
    "ld_alpha": "a weight of long answers", "ref_model": "a reference of its own", "add_tokens": "tokens of its own", "add_special_tokens": "tokens of its own", "resize_vocab": "a larger vocabulary",
    "new_special_tokens_config": "tokens of its own", "disable_shuffling": "rows in their own order", "train_from_scratch": "weights that begin anew", "efficient_eos": "end tokens as padding",
    "lr_scheduler_config": "a schedule of its own", "max_grad_value": "", "label_smoothing_factor": "smoothed labels",
}  # fmt: skip


def read(values: dict[str, Any], gpus: int) -> Ledger:
    """Return the ledger of a LLaMA-Factory file; raises TunewrightError."""
    ledger = Ledger(TOOL, values, gpus)
    newer = ledger.get("model_name_or_path") is None and ledger.get("model") is not None
    _refuse_other_kinds(ledger)
    objective = _objective(ledger)
    _base(ledger, "model" if newer else "model_name_or_path")
    _data(ledger, objective, newer)
    (_newer_method if newer else _method)(ledger)
    _training(ledger, objective, newer)
    for key, what in _RISKY.items():
        if what and ledger.get(key) not in (None, False, "", 0):
            ledger.drop(key, "not a setting of ours", f"{key}: {what}, which a recipe does not hold.")
        else:
            ledger.drop(key, hf.NO_SETTING)
    ledger.ignore({r"(galore|apollo|badam|muon|oft)_\w+": "of an optimizer or adapter that a recipe does not hold"})
    hf.several(ledger, ("deepspeed", "fsdp", "dist_config.name", "use_mca", "use_megatron_bridge"))
    ledger.ignore(_IGNORED)
    return ledger


def _refuse_other_kinds(ledger: Ledger) -> None:
    stage, kind = ledger.text("stage") or "sft", ledger.text("finetuning_type") or "lora"
    if stage in ("rm", "ppo"):
        raise ledger.refuse("It trains a reward model" if stage == "rm" else "It learns from rewards (PPO)")
    if stage not in ("pt", "sft", "dpo", "kto"):
        raise ledger.refuse(f"{stage} is not one of our objectives")
    if kind not in ("lora", "full"):
        raise ledger.refuse(f"{kind} is neither full fine-tuning nor LoRA")
    if (peft := ledger.get("peft_config.name")) not in (None, "lora"):
        raise ledger.refuse(f"{peft} is neither full fine-tuning nor LoRA")
    if not any(ledger.get(key) for key in ("dataset", "train_dataset", "do_train", "learning_rate")):
        raise ledger.refuse("It trains nothing: it exports, chats or evaluates")
    if ledger.get("do_predict") and not ledger.get("do_train"):
        raise ledger.refuse("It trains nothing: it predicts")
    if ledger.get("pref_loss") in ("simpo", "kto_pair"):
        raise ledger.refuse(f"{ledger.get('pref_loss')} is not one of our losses")
    names = ledger.read("dataset", hf.words) or []
    if (
        any(each.startswith("mllm") for each in names)
        or "-VL-" in str(ledger.get("model_name_or_path"))
        or ledger.get("model_class") == "vlm"
    ):
        raise ledger.refuse("It trains on pictures or sound")
    if any("multimodal" in each for each in ledger.read("train_dataset", hf.words) or []):
        raise ledger.refuse("It trains on pictures or sound")


def _objective(ledger: Ledger) -> str:
    stage = ledger.text("stage")
    objective = {"pt": "cpt", "dpo": "dpo", "kto": "kto"}.get(stage or "sft", "sft")
    if "dpo" in (ledger.text("train_dataset") or "") and stage is None:
        objective = "dpo"
    if objective == "dpo" and ledger.get("pref_loss") == "orpo":
        ledger.settle("training.objective", "orpo", "stage", "pref_loss")
        return "orpo"
    if stage:
        ledger.settle("training.objective", objective, "stage")
    else:
        ledger.default("training.objective", objective, _OWN if objective == "sft" else "the data set's name says so")
    return objective


def _base(ledger: Ledger, key: str) -> None:
    model = hf.require_literal(ledger, key, ledger.text(key) or "", "base.model")
    if not model:
        raise ledger.refuse("It names no model")
    ledger.settle("base.model", model, key)
    revision = ledger.text("model_revision")
    if revision and revision != "main":
        ledger.settle("base.revision", revision, "model_revision")
    ledger.drop("model_revision", "the usual branch")
    adapter = ledger.text("adapter_name_or_path") or ledger.text("peft_config.adapter_name_or_path")
    if adapter and "," not in adapter:
        ledger.settle("base.adapter", adapter, "adapter_name_or_path", "peft_config.adapter_name_or_path")
    ledger.drop("create_new_adapter", "an adapter is gone on from")


def _data(ledger: Ledger, objective: str, newer: bool) -> None:
    key = "train_dataset" if newer else "dataset"
    names = ledger.read(key, hf.words) or []
    if not names:
        hf.no_data(ledger, "no data set is named")
        _shape(ledger, {}, objective)
    else:
        known = cast("dict[str, Any]", ledger.get("dataset_dir")) if isinstance(ledger.get("dataset_dir"), dict) else {}
        entry = known.get(names[0]) or (
            {"hf_hub_url": names[0]} if ledger.get("dataset_dir") == "ONLINE" else DATA.get(names[0])
        )
        if not isinstance(entry, dict):
            entry = {"file_name": names[0]}
            ledger.warn(
                f"{names[0]} is a name in a dataset_info.json that is not here: set data.source to its file or Hub name."
            )
        table = cast("dict[str, Any]", entry)
        source = str(table.get("hf_hub_url") or "")
        if source and table.get("subset"):
            source += f":{table['subset']}"
        if not source:
            source = str(table.get("file_name", names[0]))
            if names[0] in DATA and names[0] not in known:
                ledger.warn(f"{names[0]} is a file of LLaMA-Factory's own data folder: copy it, or set data.source.")
        ledger.settle("data.source", hf.require_literal(ledger, key, source, "data.source"), key)
        if table.get("split"):
            ledger.settle("data.split", str(table["split"]))
        if len(names) > 1:
            ledger.warn(
                f"A recipe has one source: {names[0]} of {len(names)} data sets is taken. Join them in a file to have all."
            )
        _shape(ledger, table, objective)
    for name in ("dataset_dir", "interleave_probs", "mix_strategy"):
        ledger.drop(name, "where the data is found")
    ledger.unless(
        "max_samples",
        (),
        "a recipe takes a share of the rows",
        "max_samples takes so many rows; a recipe takes all, or data.share of them.",
    )
    _template(ledger, newer)
    if ledger.text("default_system"):
        ledger.settle("data.system_prompt", ledger.text("default_system"), "default_system")
    _loss_on(ledger, objective)
    _validation(ledger)
    ledger.carry("cutoff_len", "data.max_length", hf.whole, 2048, _OWN)
    _packing(ledger, objective)


def _shape(ledger: Ledger, entry: dict[str, Any], objective: str) -> None:
    """Say what a row looks like, from the entry in dataset_info.json."""
    columns = cast("dict[str, Any]", entry.get("columns") or {})
    formatting = entry.get("formatting", "alpaca")
    tags = cast("dict[str, Any]", entry.get("tags") or {})
    turns = "messages" if formatting == "openai" or tags.get("role_tag") == "role" else "sharegpt"
    if objective == "cpt":
        format_, names, usual = "text", {"prompt": "text"}, {"text": "text"}
    elif objective == "kto":
        format_, names, usual = "kto", {"kto_tag": "label"}, {"label": "label"}
        names |= {"messages": "messages"} if formatting != "alpaca" else {"prompt": "prompt", "response": "completion"}
    elif objective in ("dpo", "orpo"):
        format_, usual = "preference", {"chosen": "chosen", "rejected": "rejected"}
        names = {"prompt": "prompt", "query": "input"} if formatting == "alpaca" else {"messages": "prompt"}
        names |= {"chosen": "chosen", "rejected": "rejected", "system": "system"}
    elif formatting == "alpaca" and columns and columns.keys() <= {"prompt", "response"}:
        format_, usual = "prompt-completion", {"prompt": "prompt", "completion": "completion"}
        names = {"prompt": "prompt", "response": "completion"}
    elif formatting == "alpaca":
        format_, usual = "alpaca", dict(_ALPACA)
        names = {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        }
    else:
        format_, names = turns, {"messages": "messages", "system": "system", "tools": "tools"}
        usual = {
            "messages": "conversations" if turns == "sharegpt" else "messages",
            "tools": "tools",
            "system": "system",
        }
    found = {names[key]: str(column) for key, column in columns.items() if key in names and column}
    odd = {field: column for field, column in found.items() if column != usual.get(field, field)}
    because = "its entry in dataset_info.json" if entry else _OWN
    ledger.default("data.format", format_, because)
    if odd and format_ in ("alpaca", "prompt-completion", "kto", "preference", "text", "messages", "sharegpt"):
        ledger.default("data.columns", odd, because)


def _template(ledger: Ledger, newer: bool) -> None:
    name = ledger.text("template")
    if name is None:
        ledger.default(
            "data.template",
            "model",
            "the tokenizer's own" if newer else "found by the model's name, or the tokenizer's own",
        )
        return
    base = name.removesuffix(_THINKING_OFF)
    if base != name:
        ledger.settle("data.thinking", "drop")
    ledger.settle("data.template", TEMPLATES.get(name, "model"), "template")
    if name not in TEMPLATES and name != "default":
        ledger.warn(
            f"The template {name} is LLaMA-Factory's own; the model's own stands for it: compare the rendered text."
        )


def _loss_on(ledger: Ledger, objective: str) -> None:
    whole, last = ledger.read("train_on_prompt", hf.switch), ledger.read("mask_history", hf.switch)
    if objective == "cpt":
        ledger.default("data.loss_on", "all", "texts are learned whole")
        ledger.drop("train_on_prompt", "texts are learned whole")
    elif whole and objective == "sft":
        ledger.settle("data.loss_on", "all", "train_on_prompt")
    elif last:
        ledger.settle("data.loss_on", "last", "mask_history")
    elif whole is not None and objective == "sft":
        ledger.settle("data.loss_on", "assistant", "train_on_prompt")
    else:
        ledger.default("data.loss_on", "assistant", "LLaMA-Factory masks the prompt")
    ledger.drop("train_on_prompt", "answers are compared")


def _validation(ledger: Ledger) -> None:
    size = ledger.read("val_size", hf.number)
    if ledger.get("eval_dataset"):
        ledger.drop(
            "eval_dataset",
            "a name in dataset_info.json",
            "Its evaluation data is another data set: set data.validation to have a validation loss.",
        )
    if not size:
        ledger.default("data.validation.kind", "none", _OWN)
        ledger.default("data.validation.value", 0.0, "none are kept out")
        ledger.drop("val_size", "no rows are kept out")
        return
    kind = "rows" if size >= 1 else "fraction"
    ledger.settle("data.validation.kind", kind)
    ledger.settle("data.validation.value", float(size) if kind == "rows" else min(size, 0.5), "val_size")


def _packing(ledger: Ledger, objective: str) -> None:
    neat, plain = ledger.read("neat_packing", hf.switch), ledger.read("packing", hf.switch)
    packs = bool(neat or plain or (plain is None and objective == "cpt"))
    if objective in ("dpo", "kto", "orpo"):
        packs = False
        ledger.drop("packing", "pairs are taken as they are")
        ledger.drop("neat_packing", "pairs are taken as they are")
    if neat is None and plain is None:
        ledger.default(
            "data.packing",
            packs,
            "LLaMA-Factory packs texts of pre-training, and nothing else" if objective == "cpt" else _OWN,
        )
    else:
        ledger.settle("data.packing", packs, "packing", "neat_packing")
        if packs and not neat:
            ledger.warn(
                "Packed rows see each other there (packing without neat_packing); here each is blind to the others."
            )
    strategy = ledger.text("batching_strategy")
    ledger.default(
        "data.overlong", "drop" if packs and objective == "sft" else "cut",
        "packing leaves long rows out" if packs and objective == "sft" else "LLaMA-Factory cuts long rows",
    )  # fmt: skip
    if strategy and strategy != "normal":
        ledger.drop("batching_strategy", hf.COST)


def _method(ledger: Ledger) -> None:
    kind = ledger.text("finetuning_type") or "lora"
    bits, double = ledger.read("quantization_bit", hf.whole), "double_quantization"
    if kind == "full":
        ledger.settle("method.kind", "full", "finetuning_type")
        ledger.ignore(
            {
                r"lora_\w+|use_rslora|use_dora|loraplus\w*|quantization_\w+|double_quantization|additional_target": "no adapter is trained"
            }
        )
        return
    method = "qlora" if bits == 4 else "lora"
    if ledger.get("finetuning_type"):
        ledger.settle("method.kind", method, "finetuning_type", "quantization_bit" if bits == 4 else "")
    else:
        ledger.default("method.kind", method, _OWN)
    if method == "qlora":
        ledger.drop("quantization_bit", "4 bits")
        hf.settle_quantisation(ledger, "quantization_type", "nf4", double, True)
    else:
        ledger.drop(
            "quantization_bit",
            "no 4-bit weights",
            f"The frozen weights are in {bits} bits there; here they keep 16." if bits else "",
        )
        ledger.drop(double, "no 4-bit weights")
        ledger.drop("quantization_type", "no 4-bit weights")
    ledger.unless(
        "quantization_method",
        ("bnb", "bitsandbytes", "BNB"),
        "bitsandbytes, as ours",
        "The weights are quantised by another library than bitsandbytes.",
    )
    rank = ledger.read("lora_rank", hf.whole) or 8
    hf.carry_adapter(
        ledger,
        {"rank": "lora_rank", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora",
         "saved": "additional_target", "lora_plus": "loraplus_lr_ratio"},
        {"rank": (8, _OWN), "alpha": (float(2 * rank), "LLaMA-Factory: twice the rank"), "dropout": (0.0, _OWN), "rslora": (False, _OWN), "dora": (False, _OWN)},
    )  # fmt: skip
    hf.carry_targets(ledger, "lora_target", "all-linear", "LLaMA-Factory adapts all linear layers")
    ledger.drop("loraplus_lr_embedding", "adapters on embeddings have the recipe's rate")


def _newer_method(ledger: Ledger) -> None:
    """Carry over the method of the tool's newer configuration (v1)."""
    if ledger.get("peft_config.name") is None:
        ledger.default("method.kind", "full", "no peft_config is set")
        return
    four = ledger.read("quant_config.quantization_bit", hf.whole) == 4
    ledger.settle("method.kind", "qlora" if four else "lora", "peft_config.name", *(["quant_config"] if four else []))
    if four:
        hf.settle_quantisation(ledger, "", "nf4", "", True)
    hf.carry_adapter(
        ledger,
        {"rank": "peft_config.r", "alpha": "peft_config.lora_alpha", "dropout": "peft_config.lora_dropout", "rslora": "peft_config.use_rslora", "dora": "peft_config.use_dora",
         "saved": "peft_config.modules_to_save"},
        {"rank": (8, _OWN), "alpha": (16.0, _OWN), "dropout": (0.05, _OWN), "rslora": (False, _OWN), "dora": (False, _OWN)},
    )  # fmt: skip
    hf.carry_targets(ledger, "peft_config.target_modules", "all-linear", _OWN)


def _training(ledger: Ledger, objective: str, newer: bool) -> None:
    ledger.carry("learning_rate", "training.learning_rate", hf.number, 1e-4 if newer else 5e-5, _OWN if newer else _HF)
    hf.carry_schedule(
        ledger,
        "lr_scheduler_type",
        "constant_with_warmup" if newer else "linear",
        _OWN if newer else _HF,
        "lr_scheduler_kwargs",
    )
    hf.carry_warmup(ledger, "warmup_ratio", "warmup_steps", _HF, "lr_scheduler_type")
    hf.carry_length(ledger, "num_train_epochs", "max_steps", 3.0, _HF)
    if newer:
        whole = ledger.read("global_batch_size", hf.whole)
        if whole:
            ledger.settle("training.global_batch", whole, "global_batch_size")
            ledger.drop("micro_batch_size", hf.COST)
        else:
            hf.carry_batch(ledger, "micro_batch_size", 1, "gradient_accumulation_steps", _OWN)
    else:
        hf.carry_batch(ledger, "per_device_train_batch_size", 8, "gradient_accumulation_steps", _HF)
    hf.carry_optimizer(ledger, "optim", "adamw_torch", _OWN if newer else _HF)
    ledger.carry("weight_decay", "training.weight_decay", hf.number, 0.0, _HF)
    hf.carry_clipping(ledger, "max_grad_norm", 1.0, _HF)
    hf.carry_betas(ledger)
    ledger.carry("seed", "training.seed", hf.whole, 42, _HF)
    ledger.drop("data_seed", "one seed is used for all")
    patience = ledger.read("early_stopping_steps", hf.whole)
    if patience and ledger.fields["data.validation.kind"] != "none":
        ledger.settle("training.early_stopping.patience", patience, "early_stopping_steps")
    ledger.drop("early_stopping_steps", "there are no validation rows")
    if objective in ("dpo", "orpo", "kto"):
        _preference(ledger, objective)


def _preference(ledger: Ledger, objective: str) -> None:
    ledger.carry("pref_beta", "training.preference.beta", hf.number, 0.1, _OWN)
    if objective == "dpo":
        ledger.carry("pref_loss", "training.preference.loss", word, "sigmoid", _OWN)
    smoothing = ledger.read("dpo_label_smoothing", hf.number)
    if smoothing and ledger.fields.get("training.preference.loss") == "sigmoid":
        ledger.settle("training.preference.loss", "robust")
        ledger.settle("training.preference.label_smoothing", smoothing, "dpo_label_smoothing")
        ledger.warn(
            "dpo_label_smoothing smooths the sigmoid loss there; the loss robust, which undoes the noise, is nearest here."
        )
    ledger.drop("dpo_label_smoothing", "none")
    ledger.drop("simpo_gamma", "of SimPO alone")
    if objective == "kto":
        ledger.carry("kto_chosen_weight", "training.preference.desirable_weight", hf.number, 1.0, _OWN)
        ledger.carry("kto_rejected_weight", "training.preference.undesirable_weight", hf.number, 1.0, _OWN)
    if ledger.fields.get("method.dropout"):
        ledger.settle("method.dropout", 0.0)
        ledger.warn(f"{objective} compares the model with itself: adapters have no dropout here.")


def write(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as LLaMA-Factory's keys; what they cannot say is found by reading them again."""
    data, training, method = recipe.data, recipe.training, recipe.method
    rows, accumulation = hf.micro_batch(recipe)
    values: dict[str, Any] = {"model_name_or_path": recipe.base.model}
    values |= {"model_revision": recipe.base.revision} if recipe.base.revision else {}
    values |= {"adapter_name_or_path": recipe.base.adapter} if recipe.base.adapter else {}
    values["stage"] = {"cpt": "pt", "orpo": "dpo"}.get(training.objective, training.objective)
    values["do_train"] = True
    if isinstance(method, LoraMethod):
        values |= {
            "finetuning_type": "lora",
            "lora_rank": method.rank,
            "lora_alpha": hf.short(method.alpha),
            "lora_dropout": method.dropout,
        }
        values["lora_target"] = "all" if method.targets == "all-linear" else ",".join(hf.target_names(method))
        values |= {"use_dora": True} if method.dora else {}
        values |= {"use_rslora": True} if method.rslora else {}
        values |= {"loraplus_lr_ratio": method.lora_plus_ratio} if method.lora_plus_ratio != 1 else {}
        values |= {"additional_target": ",".join(method.modules_to_save)} if method.modules_to_save else {}
        if isinstance(method, QloraMethod):
            values |= {
                "quantization_bit": 4,
                "quantization_type": "nf4",
                "double_quantization": method.double_quantisation,
            }
    else:
        values["finetuning_type"] = "full"
    values |= _written_data(recipe)
    values |= {
        "cutoff_len": data.max_length,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "optim": {"adamw": "adamw_torch", "adamw_8bit": "adamw_8bit"}[training.optimizer],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "bf16": True,
        "output_dir": "saves/run",
    }
    values["warmup_ratio" if training.warmup.kind == "ratio" else "warmup_steps"] = hf.short(training.warmup.value)
    values |= {"max_steps": training.steps} if training.steps else {"num_train_epochs": hf.short(training.epochs or 1)}
    if training.floor:
        values |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": training.floor}}
    values |= {"adam_beta2": training.beta2} if training.beta2 else {}
    if training.preference:
        preference = training.preference
        values["pref_beta"] = preference.beta
        if training.objective != "kto":
            known = preference.loss if preference.loss in ("sigmoid", "hinge", "ipo") else "sigmoid"
            values["pref_loss"] = "orpo" if training.objective == "orpo" else known
        else:
            values |= {
                "kto_chosen_weight": preference.desirable_weight,
                "kto_rejected_weight": preference.undesirable_weight,
            }
    if training.early_stopping:
        values["early_stopping_steps"] = training.early_stopping.patience
    return values


def _written_data(recipe: Recipe) -> dict[str, Any]:
    data, objective = recipe.data, recipe.training.objective
    path, _, subset = hf.hub_parts(data.source)
    columns = dict(data.columns or {})
    entry: dict[str, Any] = {"file_name": path} if hf.is_file(path) else {"hf_hub_url": path}
    entry |= {"subset": subset} if subset else {}
    entry |= {"split": data.split} if data.split != "train" else {}
    if objective == "cpt":
        entry["columns"] = {"prompt": columns.get("text", "text")}
    elif objective == "kto":
        entry |= {
            "formatting": "openai",
            "columns": {"messages": columns.get("messages", "messages"), "kto_tag": columns.get("label", "label")},
        }
        if "messages" not in columns:
            entry |= {
                "formatting": "alpaca",
                "columns": {
                    "prompt": columns.get("prompt", "prompt"),
                    "response": columns.get("completion", "completion"),
                    "kto_tag": columns.get("label", "label"),
                },
            }
    elif objective in ("dpo", "orpo"):
        entry |= {
            "ranking": True,
            "columns": {
                "prompt": columns.get("prompt", "prompt"),
                "chosen": columns.get("chosen", "chosen"),
                "rejected": columns.get("rejected", "rejected"),
            },
        }
    elif data.format == "alpaca":
        names = {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        }
        entry["columns"] = {
            theirs: columns.get(ours, ours) for theirs, ours in names.items() if ours in columns or ours in _ALPACA
        }
    elif data.format in ("messages", "sharegpt", "tools"):
        usual = "conversations" if data.format == "sharegpt" else "messages"
        entry |= {"formatting": "sharegpt" if data.format == "sharegpt" else "openai"}
        entry["columns"] = {"messages": columns.get("messages", usual)} | {
            key: columns[key] for key in ("system", "tools") if key in columns
        }
    elif data.format == "prompt-completion":
        entry["columns"] = {
            "prompt": columns.get("prompt", "prompt"),
            "response": columns.get("completion", "completion"),
        }
    values: dict[str, Any] = {"dataset": "data", "dataset_dir": {"data": entry}}
    names = {ours: known for known, ours in reversed(TEMPLATES.items())}
    if data.template in names:
        values["template"] = names[data.template]
    values |= {"default_system": data.system_prompt} if data.system_prompt else {}
    values |= {"train_on_prompt": True} if objective == "sft" and data.loss_on == "all" else {}
    values |= {"mask_history": True} if data.loss_on == "last" else {}
    if objective in ("sft", "cpt"):
        values |= (
            {"packing": data.packing, "neat_packing": data.packing} if objective == "sft" else {"packing": data.packing}
        )
    if data.validation.kind in ("fraction", "rows"):
        values["val_size"] = hf.short(data.validation.value)
    return values
