"""From a configuration of another tool to a recipe, and back: whose it is, what it means, and what is lost."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

import yaml

from ...foundation.errors import TunewrightError, nearest
from ...foundation.files import read_text
from ...foundation.text import one_line
from ..model import Recipe
from . import FORMATS, TARGETS, FormatName, axolotl, llama_factory, oumi, scripts, torchtune, trl, unsloth
from .ledger import Imported, Ledger
from .reading import read_values

if TYPE_CHECKING:
    from ..records import Entry
    from ..registry import Registry

LARGEST_FILE_BYTES = 1 << 20
MOST_GPUS = 65_536
_TITLES: dict[FormatName, str] = {
    "axolotl": axolotl.TOOL, "llamafactory": llama_factory.TOOL, "torchtune": torchtune.TOOL, "trl": trl.TOOL,
    "unsloth": unsloth.TOOL, "oumi": oumi.TOOL,
}  # fmt: skip
_WRITERS: dict[str, tuple[FormatName, Callable[[Recipe], dict[str, Any]], str]] = {
    "axolotl": ("axolotl", axolotl.write, "axolotl train FILE"),
    "llamafactory": ("llamafactory", llama_factory.write, "llamafactory-cli train FILE"),
    "trl": ("trl", trl.write, "trl {command} --config FILE"),
    "oumi": ("oumi", oumi.write, "oumi train -c FILE"),
}
REFUSED = {
    "training.objective": "the objective", "training.preference.loss": "the loss", "method.kind": "the method",
    "method.rslora": "rank-stabilised scaling", "method.dora": "DoRA", "method.lora_plus_ratio": "LoRA+'s second rate",
    "base.adapter": "the adapter that it goes on from", "data.loss_on": "which tokens are learned",
    "training.preference.beta": "the strength of the preference", "training.floor": "where the learning rate ends",
    "training.beta2": "AdamW's second beta", "training.preference.label_smoothing": "the smoothing of labels",
    "data.source": "the data", "data.columns": "the data's columns",
}  # fmt: skip
"""What an export without would be another run: it is refused unless the loss is agreed to."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A field that the other format does not carry, or says otherwise."""

    field: str
    value: Any
    there: Any
    """What it is there: the tool's default, or None where it has no such setting."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A recipe in another tool's format, with what it does not carry."""

    format: str
    text: str
    lost: tuple[Lost, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the text as one JSON object."""
        return {"format": self.format, "lost": [asdict(each) for each in self.lost], "warnings": list(self.warnings)}


def import_recipe(
    text: str, name: str = "", format_: str | None = None, gpus: int = 1, model: str = "", data: str = ""
) -> Imported:
    """Return the recipe that the configuration in `text` means, with an account of every key.

    `name` is its file's path, `gpus` how many GPUs it was written for; `model` and `data` stand in where it names none.
    Raises TunewrightError when it cannot be read, or is of a kind that our engine does not train.
    """
    file = PurePath(name).name
    values, notes = read_values(text, one_line(file, 100) or "The configuration")
    chosen = _checked(format_) if format_ else guess_format(values, name)
    ledger = _read(chosen, values, gpus, text, name, model)
    ledger.warnings[:0] = notes
    if data:
        ledger.settle("data.source", data)
        ledger.warnings[:] = [each for each in ledger.warnings if not each.startswith("The file names no data")]
    if model and ledger.fields["base.model"] != model:
        ledger.settle("base.model", model)
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    card = {
        "title": one_line(f"{ledger.fields['base.model']} as {_TITLES[chosen]} tunes it", 200),
        "summary": f"Imported from a configuration of {_TITLES[chosen]}; `tunewright recipes import` told what it carries.",
        "tags": ["import", chosen],
        "sources": [one_line(f"{file or 'configuration'} of {_TITLES[chosen]}, sha256 {digest}", 400)],
    }
    return ledger.finish(chosen, card)


def import_file(path: Path, format_: str | None = None, gpus: int = 1, model: str = "", data: str = "") -> Imported:
    """Return the recipe that the configuration in the file at `path` means, as `import_recipe` does; raises TunewrightError."""
    if not 1 <= gpus <= MOST_GPUS:
        raise TunewrightError("Not a number of GPUs", f"{gpus} is none.", "Such as 8.")
    return import_recipe(read_text(path, limit_bytes=LARGEST_FILE_BYTES), str(path), format_, gpus, model, data)


def keep_imported(registry: Registry, imported: Imported, name: str, path: Path) -> Entry:
    """Keep what was imported from the file at `path` in the registry under `name`; raises TunewrightError."""
    note = f"imported from {one_line(path.name, 100)}"
    return registry.add(imported.recipe.to_toml(), name, origin="import", note=note)


def _read(chosen: str, values: dict[str, Any], gpus: int, text: str, name: str, model: str) -> Ledger:
    match chosen:
        case "axolotl":
            return axolotl.read(values, gpus)
        case "llamafactory":
            return llama_factory.read(values, gpus)
        case "torchtune":
            return torchtune.read(values, gpus, text)
        case "unsloth":
            return unsloth.read(values, gpus, model or unsloth.model_of_name(PurePath(name).name))
        case "oumi":
            return oumi.read(values, gpus)
        case _:
            return trl.read(values, gpus, name)


def guess_format(values: dict[str, Any], name: str = "") -> FormatName:
    """Return the tool whose configuration `values` look like; raises TunewrightError when they look like none."""
    if "base_model" in values:
        return "axolotl"
    nested = {key: cast("dict[str, Any]", value) for key, value in values.items() if isinstance(value, dict)}
    if "model_name" in nested.get("model", {}) or "trainer_type" in nested.get("training", {}):
        return "oumi"
    if any(
        str(value.get("_component_", "")).startswith(("torchtune", "torch.", "recipes")) for value in nested.values()
    ):
        return "torchtune"
    if ("training" in nested and ("lora" in nested or isinstance(values.get("model"), str))) or "hf_dataset" in values:
        return "unsloth"
    if values.keys() & {"training_type", "train_on_completions", "use_loftq"}:
        return "unsloth"
    if values.keys() & {"stage", "finetuning_type", "cutoff_len", "train_dataset", "quantization_bit", "model_class"}:
        return "llamafactory"
    if values.keys() & {"adapter", "micro_batch_size", "sequence_len"}:
        return "axolotl"
    if "model_name_or_path" in values or values.keys() & {"dataset_name", "dataset_mixer", "dataset_mixture"}:
        return "trl"
    raise TunewrightError(
        "Format not recognised",
        f"The keys of {one_line(PurePath(name).name, 100) or 'the file'} are those of none of {', '.join(FORMATS)}.",
        "Say whose it is with --from, or check that it is a configuration of a training run.",
    )


def _checked(format_: str) -> FormatName:
    if format_ in FORMATS:
        return format_
    near = nearest(format_, FORMATS)
    raise TunewrightError(
        "Unknown format",
        f"{one_line(format_, 60)} is none of {', '.join(FORMATS)}.",
        f"Did you mean {near}?" if near else "Name one of them, or leave it out to have it guessed.",
    )


def export_recipe(recipe: Recipe, target: str, allow_loss: bool = False) -> Exported:
    """Return `recipe` in the format `target`, with every field that this does not carry.

    The text is read again by our own import, and what differs is what is lost. Raises TunewrightError for an unknown
    format, and when what is lost would make it another run unless `allow_loss`.
    """
    if target not in TARGETS:
        near = nearest(target, TARGETS)
        raise TunewrightError(
            "Unknown format",
            f"{one_line(target, 60)} is none of {', '.join(TARGETS)}.",
            f"Did you mean {near}?" if near else "torchtune was wound down, and Unsloth Studio runs python-unsloth.",
        )
    if target.startswith("python-"):
        text, lost = scripts.write(recipe, target.removeprefix("python-"))
        found = tuple(Lost(field, value, None) for field, value in lost.items())
        return _judged(recipe, Exported(target, text, found, ()), target, allow_loss)
    chosen, writer, command = _WRITERS[target]
    if chosen == "trl" and recipe.training.objective == "orpo":
        raise TunewrightError(
            "Meaning would be lost",
            "TRL's command has no ORPO: its trainer is among the experimental ones, which run from Python.",
            "Choose --to python-trl.",
        )
    body = yaml.safe_dump(writer(recipe), sort_keys=False, allow_unicode=True, width=100)
    rows = recipe.training.global_batch
    command = command.format(command={"dpo": "dpo", "kto": "kto"}.get(recipe.training.objective, "sft"))
    head = (
        f"# {one_line(recipe.card.title, 100) or 'A recipe'}, written by Tunewright for {_TITLES[chosen]}: {command}\n"
        f"# For one GPU: {rows} rows an optimizer step. Divide the accumulation by the number of GPUs.\n"
        f"# The recipe's hash: {recipe.hash()}\n"
    )
    hint = f"{recipe.training.objective}.yaml"
    back = import_recipe(head + body, hint, chosen)
    lost = tuple(_differences(recipe, back.recipe))
    return _judged(recipe, Exported(target, head + body, lost, ()), _TITLES[chosen], allow_loss)


def _judged(recipe: Recipe, exported: Exported, tool: str, allow_loss: bool) -> Exported:
    """Return `exported` with its warnings; raises TunewrightError when it would be another run."""
    grave = [each for each in exported.lost if each.field in REFUSED]
    if recipe.base.model.startswith("tunewright/") or recipe.data.source.startswith("tunewright/"):
        note = ("The model or the data are Tunewright's own: give their folder and file to the other tool.",)
    else:
        note = ()
    if grave and not allow_loss:
        said = "; ".join(f"{REFUSED[each.field]} ({each.field} = {_shown(each.value)})" for each in grave)
        raise TunewrightError(
            "Meaning would be lost",
            f"{tool} does not carry {said}: it would be another run.",
            "Choose another format (`--to python-trl` carries most), or agree with --allow-loss.",
        )
    warnings = [f"{each.field} = {_shown(each.value)} is not carried{_instead(each)}." for each in exported.lost]
    return Exported(exported.format, exported.text, exported.lost, (*warnings, *note))


def _instead(lost: Lost) -> str:
    return "" if lost.there is None else f"; it is {_shown(lost.there)} there"


def _shown(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False), 80)


def _differences(ours: Recipe, theirs: Recipe) -> Iterator[Lost]:
    """Yield the fields of the hash in which two recipes differ."""
    one, other = (dict(_fields(json.loads(each.canonical_json()))) for each in (ours, theirs))
    for field in {**one, **other}:
        if one.get(field) != other.get(field):
            yield Lost(field, one.get(field), other.get(field))


def _fields(value: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        where = f"{at}.{key}" if at else key
        if isinstance(inner, dict) and not re.fullmatch(r"data\.columns", where):
            yield from _fields(cast("dict[str, Any]", inner), where)
        else:
            yield where, inner
