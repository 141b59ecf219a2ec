"""Circumstances: what a run began with beside its plan, and what of it is no longer so when it is to go on.

With other rows or weights, another template, other libraries or another card it would be another run under the same name. That is
shown, and done only when somebody agrees.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text, write_atomically
from ...foundation.home import runs_folder
from ...foundation.text import one_line
from ...recipes.model import Recipe
from ..adapters import find_adapter
from ..data.entries import content_of, hash_tokenizer, versions_of
from ..data.reading import open_source
from ..machine import Machine, inspect_machine
from ..plan import Plan
from ..sources import find_weights
from .directory import RunDirectory
from .pinned import pinned_recipe

CIRCUMSTANCES_FILE = "circumstances.json"
COMPUTING = (
    "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "unsloth", "unsloth_zoo", "liger-kernel", "tokenizers",
)  # fmt: skip
"""The packages whose code or choices are in the digits of a loss."""
SHOWN_HASH = 12
SAMPLES, SAMPLE_BYTES = 16, 64 * 1024
"""How many pieces of a file of weights are compared, spread evenly from its first byte to its last, and their size."""
MISSING = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """One circumstance that is not what it was."""

    what: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.before} when the run began, {self.now} now"


class OtherCircumstances(TunewrightError):
    """A run would go on as another run; nobody has agreed to that yet."""

    def __init__(self, run: RunDirectory, differences: tuple[Difference, ...], command: str = "") -> None:
        """Say what differs, and with which `command` one agrees; a resume unless it is named."""
        self.differences = differences
        super().__init__(
            "Not the same circumstances",
            f"{run.id} would not go on as the run that it was. " + "; ".join(map(str, differences)) + ".",
            f"Put back what was changed, or agree: `tunewright {command or f'resume {run.id}'} --accept-changes`.",
        )


def remember(run: RunDirectory) -> None:
    """Write the circumstances of now into the run's folder; raises OSError."""
    write_atomically(run.path / CIRCUMSTANCES_FILE, json.dumps(observe(run), indent=2, ensure_ascii=False) + "\n")


def differences(run: RunDirectory) -> tuple[Difference, ...]:
    """Return what is not as it was when the run began, or when somebody last agreed.

    There is none for a run that kept no circumstances: an earlier version made it.
    """
    place = run.path / CIRCUMSTANCES_FILE
    try:
        kept: Any = json.loads(read_text(place)) if place.exists() else {}
        entries = cast("dict[str, Any]", kept).items()
        before = {one_line(name, 60): one_line(str(value), 120) for name, value in entries}
    except (OSError, ValueError, AttributeError, TunewrightError):
        return (Difference("what is known of its start", "a file", f"an unreadable {place.name}"),)
    now = observe(run) if before else {}
    return tuple(
        Difference(what, before.get(what, MISSING), now.get(what, MISSING))
        for what in sorted(before.keys() | now.keys())
        if before.get(what, MISSING) != now.get(what, MISSING)
    )


def observe(run: RunDirectory) -> dict[str, str]:
    """Return each circumstance of now by its name, as people are told it; raises TunewrightError for a damaged run."""
    recipe, plan = pinned_recipe(run), run.plan()
    return {
        "recipe": run.recipe().hash()[:SHOWN_HASH],
        "plan": _hash(run.plan_file.read_bytes()),
        "tokenizer and template": _texts_hash(recipe),
        **_weights(recipe),
        **_rows(recipe),
        **_hardware(plan, inspect_machine(runs_folder())),
        **versions_of(COMPUTING),
    }


def _weights(recipe: Recipe) -> dict[str, str]:
    """Return the fingerprints of the model's weights, and of the adapter's that the run goes on from."""
    base = recipe.base
    found = {"weights": _sampled(lambda: find_weights(base.model, base.revision))}
    if base.adapter:
        found["adapter"] = _sampled(lambda: find_adapter(str(base.adapter)))
    return found


def _sampled(find: Callable[[], Path]) -> str:
    """Return a hash of the names, sizes and some pieces of a folder's weights: reading all of them takes minutes."""
    digest = hashlib.sha256()
    try:
        for file in sorted(find().glob("*.safetensors")):
            size = file.stat().st_size
            digest.update(f"{file.name}:{size}:".encode())
            with file.open("rb") as opened:
                for number in range(SAMPLES):
                    opened.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                    digest.update(opened.read(SAMPLE_BYTES))
    except (TunewrightError, OSError):
        return MISSING
    return digest.hexdigest()[:SHOWN_HASH]


def _rows(recipe: Recipe) -> dict[str, str]:
    """Return the fingerprint of each data set that the recipe names."""
    named = {
        "rows": recipe.data.source,
        "validation rows": recipe.data.validation.source,
        "evaluation rows": recipe.evaluation.source,
    }
    return {what: _fingerprint(source, recipe) for what, source in named.items() if source}


def _fingerprint(source: str, recipe: Recipe) -> str:
    try:
        return content_of(open_source(source, recipe.data.split))[:SHOWN_HASH]
    except (TunewrightError, OSError):
        return MISSING


def _texts_hash(recipe: Recipe) -> str:
    try:
        folder = find_weights(recipe.base.model, recipe.base.revision)
        return _hash(json.dumps(hash_tokenizer(folder, "tokenizer.model")).encode())
    except (TunewrightError, OSError):
        return MISSING


def _hardware(plan: Plan, machine: Machine) -> dict[str, str]:
    """Return the cards of the plan by name with their driver, or the processor where it trains on one."""
    if plan.device == "cpu":
        return {"processor": machine.cpu}
    names = {gpu.index: gpu.name for gpu in machine.gpus}
    cards = [names.get(index, MISSING) for index in plan.gpu_indices]
    return {"cards": ", ".join(cards), "driver": machine.driver or MISSING}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:SHOWN_HASH]
