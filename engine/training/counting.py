"""Counts the parameters of a model from its config, without weights; prints one line of JSON.

`python -m tunewright.engine.training.counting`, with the config's JSON on stdin. The answer has the fields of
`engine.anatomy.Anatomy`, or `refused` and why.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

ROUTERS = {"gate", "router", "shared_expert_gate", "shared_gate"}
FUSED = {"query_key_value", "qkv_proj", "c_attn", "Wqkv"}
CONTEXTS = ("max_position_embeddings", "max_seq_len", "seq_length", "n_positions")
DOWN = {"down_proj", "w2", "output_linear"}
LARGEST_LAYERS = 2048
NOT_ARCHITECTURE = {"model_type", "attn_implementation", "_attn_implementation", "quantization_config"}
"""Keys of a config that say nothing of the parameters, and may ask for what is not installed."""


class Refused(Exception):
    """The model is none that can be counted; the message says why."""


def main() -> int:
    """Print the counts of the model whose config stands on stdin."""
    values = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # libraries greet
        try:
            answer = count(values)
        except Refused as error:
            answer = {"refused": str(error)}
    print(json.dumps(answer))
    return 0


def count(values: dict[str, Any]) -> dict[str, Any]:
    """Return the counts and the shape of the model that `values` describe; raises Refused."""
    model = build(values)
    config = model.config
    hidden, layers = _whole(config, "hidden_size"), _whole(config, "num_hidden_layers")
    vocabulary, heads = _whole(config, "vocab_size"), _whole(config, "num_attention_heads")
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    if output is None or embedding is None:
        raise Refused(f"its class {type(model).__name__} has no output layer")
    for matrix, name in ((embedding, "embedding"), (output, "output layer")):
        if tuple(matrix.weight.shape) != (vocabulary, hidden):
            raise Refused(f"its {name} is {tuple(matrix.weight.shape)}, not vocabulary × hidden {vocabulary, hidden}")
    experts, owners = find_experts(model, config)
    names = router_names(model) if experts else set()
    projections, linear_routers = find_projections(model, config, output, names)
    tied = output.weight is embedding.weight
    sizes = Counter[str]()
    for name, parameter in model.named_parameters():
        sizes["total"] += parameter.numel()
        owner = name.rpartition(".")[0]
        if owner in owners:
            sizes["experts"] += parameter.numel()
        elif any(owner == each or owner.startswith(f"{each}.") for each in names):
            sizes["router"] += parameter.numel()
        elif "norm" in type(model.get_submodule(owner)).__name__.lower():
            sizes["norm"] += parameter.numel()
    head_bias = 0 if getattr(output, "bias", None) is None else output.bias.numel()
    linear = sum(each["count"] * each["outputs"] * (each["inputs"] + each["bias"]) for each in projections)
    matrices = vocabulary * hidden * (1 if tied else 2)
    kinds = linear + matrices + head_bias + sizes["experts"] + sizes["router"] + sizes["norm"]
    if sizes["total"] < kinds:
        raise Refused("some of its parameters serve two purposes")
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    inner = [each["inputs"] for each in projections if each["part"] == "mlp" and each["outputs"] == hidden]
    context = next((_whole(config, key) for key in CONTEXTS if getattr(config, key, None)), None)
    if context is None or not (inner or experts):
        raise Refused("its config does not say how long a sequence may be, or its layers have no MLP")
    everywhere = experts is not None and experts["layers"] == layers
    return {
        "hidden": hidden,
        "layers": layers,
        "vocabulary": vocabulary,
        "heads": heads,
        "kv_heads": key_heads(config, projections, heads, head_dim),
        "head_dim": head_dim,
        "ffn": experts["per_token"] * experts["ffn"] + experts["shared_ffn"] if experts and everywhere else max(inner),
        "tied_embeddings": tied,
        "context": context,
        "projections": projections,
        "norm_parameters": sizes["norm"],
        "router_parameters": sizes["router"],
        "router_linear_parameters": linear_routers,
        "head_bias_parameters": head_bias,
        "other_parameters": sizes["total"] - kinds,
        "experts": experts,
        "total": sizes["total"],
        **manner(model, config, projections, layers, hidden, head_dim),
    }


def key_heads(config: Any, projections: list[dict[str, Any]], heads: int, head_dim: int) -> int:
    """Return the key heads, from the width of the keys where it is seen, and else from the config."""
    for each in projections:
        leaf = each["name"].rpartition(".")[2]
        found = each["outputs"] / head_dim if leaf in {"k_proj", "key"} else 0.0
        if leaf in FUSED:
            found = (each["outputs"] / head_dim - heads) / 2
        if found >= 1 and found.is_integer():
            return int(found)
    return getattr(config, "num_key_value_heads", None) or heads


def build(values: dict[str, Any]) -> Any:
    """Return the model on torch's meta device, where its tensors have shapes but no memory."""
    import torch
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    family = str(values.get("model_type", ""))
    if family not in CONFIG_MAPPING:
        raise Refused(f"transformers {transformers.__version__} has no architecture {family}")
    rest = {key: value for key, value in values.items() if key not in NOT_ARCHITECTURE}
    try:
        config = AutoConfig.for_model(family, **rest)
        if config.get_text_config() is not config or getattr(config, "is_encoder_decoder", False):
            raise Refused(f"its architecture {family} does not only read and write text")
        if _whole(config, "num_hidden_layers") > LARGEST_LAYERS:
            raise Refused(f"it has more than {LARGEST_LAYERS} layers")
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Refused:
        raise
    except Exception as error:  # modelling code fails in its own ways
        said = " ".join(str(error).split())
        raise Refused(f"transformers cannot build it ({type(error).__name__}: {said[:200]})") from error


def find_experts(model: Any, config: Any) -> tuple[dict[str, int] | None, set[str]]:
    """Return the fused experts as the fields of `engine.anatomy.Experts`, and the modules that hold them."""
    owners: dict[str, int] = {}
    counts: set[int] = set()
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if "expert" in name and any(parameter.dim() == 3 for parameter in own):
            owners[name] = sum(parameter.numel() for parameter in own)
            counts |= {parameter.shape[0] for parameter in own}
    if any(re.search(r"experts\.\d+\.", name) for name, _ in model.named_modules()):  # a list of ordinary MLPs
        raise Refused("its experts are separate modules, of which it is not known how many a token passes")
    if not owners:
        return None, set()
    per_token = next((_whole(config, key) for key in ("num_experts_per_tok", "moe_k", "top_k_experts")
                      if getattr(config, key, None)), None)  # fmt: skip
    if per_token is None or len(counts) != 1 or len(set(owners.values())) != 1 or per_token > min(counts):
        raise Refused("its layers' experts differ, or the config does not say how many of them a token passes")
    number = counts.pop()
    ffn = inner_width(model, owners, _whole(config, "hidden_size"))
    shared = [module.out_features for name, module in model.named_modules()
              if re.search(r"shared_(?:expert|mlp)s?\.(?:up_proj|input_linear)$", name)]  # fmt: skip
    experts = {
        "count": number,
        "per_token": per_token,
        "ffn": ffn,
        "shared_ffn": shared[0] if shared else 0,
        "layers": len(owners),
        "parameters": next(iter(owners.values())) // number,
    }
    return experts, set(owners)


def inner_width(model: Any, owners: Iterable[str], hidden: int) -> int:
    """Return the inner width of an expert, from the matrix that leads back to the hidden width."""
    for owner in owners:
        for name, parameter in model.get_submodule(owner).named_parameters(recurse=False):
            if parameter.dim() == 3 and name in DOWN and hidden in parameter.shape[1:]:
                return math.prod(parameter.shape[1:]) // hidden
    raise Refused("its experts have no matrix that leads back to the hidden width")


def router_names(model: Any) -> set[str]:
    """Return the modules that choose the experts."""
    return {
        name
        for name, module in model.named_modules()
        if "attn" not in name and (name.rpartition(".")[2] in ROUTERS or "Router" in type(module).__name__)
    }


def find_projections(model: Any, config: Any, output: Any, routers: set[str]) -> tuple[list[dict[str, Any]], int]:
    """Return the linear layers as fields of `engine.anatomy.Projection`, and the weights of linear routers."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found: Counter[tuple[str, int, int, bool, bool]] = Counter()
    linear_routers = 0
    for name, module in model.named_modules():
        if module is output or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        exact = type(module) in {torch.nn.Linear, Conv1D}
        if name in routers:
            linear_routers += module.weight.numel() if exact else 0
            continue
        outputs, inputs = reversed(module.weight.shape) if isinstance(module, Conv1D) else module.weight.shape
        path = re.sub(r"^.*?\.\d+\.", "", name)
        found[path, outputs, inputs, getattr(module, "bias", None) is not None, exact] += 1
    paths = list(dict.fromkeys(path for path, *_ in found))
    names = {path: short_name(path, paths) for path in paths}
    reached = reachable(config, model, list(names.values()))
    projections = [
        {
            "name": names[path],
            "part": "attention" if re.search(r"att(n|ention)", path) else "mlp",
            "outputs": outputs,
            "inputs": inputs,
            "bias": bias,
            "count": count,
            "module": path,
            "adaptable": names[path] in reached,
            "quantisable": exact,
        }
        for (path, outputs, inputs, bias, exact), count in found.items()
    ]
    return projections, linear_routers


def short_name(path: str, paths: list[str]) -> str:
    """Return the shortest end of `path` that no other path ends in."""
    parts = path.split(".")
    ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
    return next((end for end in ends if sum(f".{each}".endswith(f".{end}") for each in paths) == 1), path)


def reachable(config: Any, model: Any, names: list[str]) -> set[str]:
    """Return the names that PEFT takes for linear layers, and not for the experts of older checkpoints."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    lora = LoraConfig(target_modules=names)
    convert_peft_config_for_transformers(lora, model=model, conversions=None)
    return set(lora.target_modules or [])


def manner(
    model: Any, config: Any, projections: list[dict[str, Any]], layers: int, hidden: int, head_dim: int
) -> dict[str, Any]:
    """Return what memory and speed depend on beside the counts."""
    in_layers, in_heads, kinds = 0, set[int](), set[str]()
    for name, module in model.named_modules():
        weights = [parameter.numel() for parameter in module.parameters(recurse=False)]
        if "norm" not in type(module).__name__.lower():
            continue
        kinds.add("rms" if "rms" in type(module).__name__.lower() else "layer")
        if re.search(r"\.\d+\.", name) and re.search(r"(^|[._])(q|k|query|key)_?(layer)?norm", name.rpartition(".")[2]):
            in_heads.add(math.prod(weights[:1]))
        elif re.search(r"\.\d+\.", name) and weights[:1] in ([], [hidden]):
            in_layers += 1
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    fused = (name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.dim() == 3)
    ups = [each["name"] for each in projections if each["part"] == "mlp"] + list(fused)
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    return {
        "gated": any("gate" in name for name in ups) or {"w1", "w3"} <= set(ups),
        "activation": str(activation or getattr(config, "activation_function", None) or "unknown")[:40],
        "layer_norms": in_layers // layers,
        "head_norms": "none" if not in_heads else "head" if in_heads == {head_dim} else "width",
        "norm_kind": "rms" if "rms" in kinds else "layer",
        "logit_softcap": bool(getattr(config, "final_logit_softcapping", None)),
        "attention_softcap": bool(getattr(config, "attn_logit_softcapping", None)),
        "sliding_window": window if window and (types is None or "sliding_attention" in types) else None,
        "attention_sinks": any(name.endswith(".sinks") for name, _ in model.named_parameters()),
    }


def _whole(config: Any, key: str) -> int:
    """Return the positive whole number that the config has at `key`; raises Refused."""
    value = getattr(config, key, None)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(f"its {key} is {str(value)[:40]}, not one whole number for all layers")
    return value


if __name__ == "__main__":
    sys.exit(main())
