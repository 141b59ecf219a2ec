"""Adapters on disk: where they are, what they are by their own files, and whether a recipe can go on from them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text
from ..foundation.text import one_line
from ..recipes.model import LoraMethod, Recipe
from .anatomy import Anatomy
from .saved_modules import EMBEDDING, HEAD, adapted_names, known_modules, saved_modules
from .sources import cached_snapshot
from .weights import StoredTensor, read_header

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
LARGEST_CONFIG_BYTES = 4 * 2**20
SHOWN_NAMES = 8

OWN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin an adapter that leave the base model's weights as they are (peft 0.21, tuners/lora/config.py)."""
UNUSED = (
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "exclude_modules", "fan_in_fan_out", "layer_replication",
    "layers_to_transform", "lora_bias", "rank_pattern", "target_parameters", "trainable_token_indices", "use_qalora",
)  # fmt: skip
"""What an adapter of a recipe has none of."""
_PREFIX = "base_model.model."
_LAYER = re.compile(r"^.*?\.\d+\.")


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter as its files describe it."""

    folder: Path
    base: str
    """The model that it says it was trained on."""
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    targets: tuple[tuple[str, int], ...]
    """Paths of the adapted modules in a layer, each with how many there are."""
    saved: tuple[str, ...]
    """Modules that are kept whole, by their paths in the model."""
    others: tuple[str, ...]
    """Settings that no recipe has, in words."""


def find_adapter(name: str) -> Path:
    """Return the folder of the adapter `name`: a local one, or one in the Hub's cache (nothing is downloaded).

    Raises TunewrightError when there is none, and for one whose weights are not in safetensors.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        found = cached_snapshot("model", name, None)
        if found is None:
            raise TunewrightError(
                "Adapter not found",
                f"{one_line(name, 200)} is neither a folder here nor in the Hub's cache on this machine.",
                "Give the folder that holds adapter_config.json, such as a run's exports/adapter (base.adapter).",
            )
        folder = found
    if not (folder / CONFIG_FILE).is_file():
        raise TunewrightError(
            "Not an adapter",
            f"{folder} has no {CONFIG_FILE}.",
            "Give the folder of an adapter; a whole model is named in base.model.",
        )
    if not (folder / WEIGHTS_FILE).is_file():
        raise TunewrightError(
            "Adapter without weights",
            f"{folder} has no {WEIGHTS_FILE}.",
            "Download the adapter whole; weights in pickle files (adapter_model.bin) are not loaded because they can run code.",
        )
    return folder


def read_adapter(folder: Path) -> StoredAdapter:
    """Return the adapter in `folder`, from its configuration and the header of its weights; raises TunewrightError."""
    file = folder / CONFIG_FILE
    try:
        values = cast("object", json.loads(read_text(file, limit_bytes=LARGEST_CONFIG_BYTES)))
    except (ValueError, RecursionError) as error:
        raise _unfit(file, one_line(str(error), 200)) from error
    if not isinstance(values, dict):
        raise _unfit(file, "it holds no JSON object")
    config = cast("dict[str, Any]", values)
    if config.get("peft_type") != "LORA":
        raise _unfit(file, f"its method is {one_line(str(config.get('peft_type')), 40)}, not LoRA")
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise _unfit(file, "lora_alpha is no number")
    targets, ranks, saved = _facts_of(read_header(folder / WEIGHTS_FILE))
    others = [f"{key} = {one_line(json.dumps(config[key]), 60)}" for key in UNUSED if config.get(key)]
    if len(ranks) != 1:
        others.append(f"adapters of {len(ranks)} ranks")
    if config.get("bias") not in (None, "none"):
        others.append(f"bias = {one_line(str(config['bias']), 40)}")
    if (start := config.get("init_lora_weights", True)) not in OWN_STARTS:
        others.append(f"init_lora_weights = {one_line(str(start), 40)}, which changed the base model's weights")
    return StoredAdapter(
        folder,
        base=one_line(str(config.get("base_model_name_or_path") or ""), 300),
        rank=max(ranks, default=0),
        alpha=float(alpha),
        rslora=config.get("use_rslora") is True,
        dora=config.get("use_dora") is True,
        targets=targets,
        saved=saved,
        others=tuple(others),
    )


def _facts_of(
    tensors: dict[str, StoredTensor],
) -> tuple[tuple[tuple[str, int], ...], set[int], tuple[str, ...]]:
    """Return what is adapted, with which ranks, and what is kept whole, from the names and shapes of the tensors."""
    adapted: Counter[str] = Counter()
    ranks: set[int] = set()
    saved: dict[str, None] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if ".lora_" not in name:
            saved[_LAYER.sub("", name.rpartition(".")[0])] = None
        elif name.endswith(".lora_A.weight"):
            adapted[_LAYER.sub("", name.removesuffix(".lora_A.weight"))] += 1
            ranks.add(tensor.shape[0] if tensor.shape else 0)
    return tuple(adapted.items()), ranks, tuple(saved)


def require_fit(recipe: Recipe, anatomy: Anatomy, adapter: StoredAdapter) -> tuple[str, ...]:
    """Return what should be known when the recipe goes on from `adapter`.

    Raises TunewrightError that lists every field in which both differ, and what to write in the recipe.
    """
    method = recipe.method
    assert isinstance(method, LoraMethod), "the recipe's schema refuses an adapter with full fine-tuning"
    found = _names_of(anatomy, adapter)
    wanted = adapted_names(anatomy, method.targets, method.modules_to_save or (), method.kind == "qlora")
    saved = {each.name for each in saved_modules(anatomy, method.modules_to_save or ())}
    kept = _saved_names(anatomy, adapter)
    pairs: list[tuple[str, object, object, str]] = [
        ("rank", adapter.rank, method.rank, str(adapter.rank)),
        ("alpha", adapter.alpha, method.alpha, f"{adapter.alpha:g}"),
        ("rslora", adapter.rslora, method.rslora, str(adapter.rslora).lower()),
        ("dora", adapter.dora, method.dora, str(adapter.dora).lower()),
        ("targets", set(found), set(wanted), json.dumps(found)),
        ("modules_to_save", set(kept), saved, json.dumps(kept)),
    ]
    differing = [each for each in pairs if each[1] != each[2]]
    if adapter.others:
        raise TunewrightError(
            "Adapter cannot be gone on from",
            f"{adapter.folder} has settings that no recipe has: {'; '.join(adapter.others)}.",
            "Merge it into its base model with the tool that made it, and start from the merged model (base.model).",
        )
    if differing:
        lines = [
            f"  method.{key}: the adapter has {_shown(its)}, the recipe {_shown(ours)}"
            for key, its, ours, _ in differing
        ]
        remedy = ", ".join(f"{key} = {text}" for key, its, _, text in differing if its)
        without = [key for key, its, *_ in differing if not its and key == "modules_to_save"]
        remedy += (" and " if remedy and without else "") + "".join(f"no {key}" for key in without)
        raise TunewrightError(
            "Adapter does not fit the recipe",
            f"{adapter.folder}:\n" + "\n".join(lines),
            f"To go on from it write in [method]: {remedy}.",
        )
    if adapter.base and not _same_model(adapter.base, recipe.base.model):
        return (
            f"The adapter in {adapter.folder} says that it was trained on {adapter.base}, and the recipe starts from "
            f"{one_line(recipe.base.model, 200)}: on other weights it means little.",
        )
    return ()


def _names_of(anatomy: Anatomy, adapter: StoredAdapter) -> list[str]:
    """Return the projections that the adapter adapts, in the order of the model; raises TunewrightError for any other."""
    counts = dict(adapter.targets)
    found: list[str] = []
    for each in anatomy.projections:
        if counts.get(each.path) == each.count:
            found.append(each.name)
            del counts[each.path]
    if counts or not found:
        names = [one_line(name, 60) for name in counts][:SHOWN_NAMES]
        what = f"it adapts {', '.join(names)} in {max(counts.values())} layers" if counts else "it adapts nothing"
        raise TunewrightError(
            "Adapter of another model",
            f"{adapter.folder}: {what}, which a {anatomy.family} model of {anatomy.layers} layers does not have.",
            f"Name the model that it was trained on (base.model): it says {adapter.base or 'nothing'}.",
        )
    return found


def _saved_names(anatomy: Anatomy, adapter: StoredAdapter) -> list[str]:
    """Return the modules that the adapter keeps whole, as recipes name them."""
    known = {each.path.removeprefix("model."): each.name for each in known_modules(anatomy).values()}
    known |= {each.path: each.name for each in anatomy.projections}
    names = [known.get(path.removeprefix("model."), one_line(path, 80)) for path in adapter.saved]
    tied = anatomy.tied_embeddings
    return sorted({EMBEDDING if tied and name == HEAD else name for name in names})


def _shown(value: object) -> str:
    if isinstance(value, set):
        names = sorted(cast("set[str]", value))
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        return (", ".join(names[:SHOWN_NAMES]) or "none") + more
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _same_model(one: str, other: str) -> bool:
    """Tell whether two names or folders can mean the same model: one may be the other's place in a cache."""
    ends = [name.rstrip("/").replace("--", "/").lower() for name in (one, other)]
    if ends[0] == ends[1] or f"/{ends[1]}/" in f"/{ends[0]}/":
        return True
    return ends[0].rpartition("/")[2] == ends[1].rpartition("/")[2] or _resolved(one) == _resolved(other)


def _resolved(name: str) -> Path | str:
    from .sources import BUILT_IN_MODELS

    place = BUILT_IN_MODELS.get(name, Path(name))
    return place.resolve() if place.is_dir() else name


def _unfit(file: Path, why: str) -> TunewrightError:
    return TunewrightError("Not an adapter of LoRA", f"{file}: {why}.", "Give an adapter that PEFT or Tunewright made.")
