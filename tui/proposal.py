"""The recipe that follows from the wizard's answers, and why each of its values is what it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from ..engine.anatomy import read_anatomy
from ..engine.data.formats import read_conversations
from ..engine.defaults import default_recipe
from ..engine.sources import find_data, find_model
from ..recipes.model import Recipe
from ..recipes.registry import Entry, open_registry
from .draft import STARTER_DATA, STARTER_MODEL, Draft


@dataclass(frozen=True, slots=True)
class Proposal:
    """A recipe, the registry's entry that it is when it is one, and the reasons for its values by their names."""

    recipe: Recipe
    entry: Entry | None
    reasons: dict[str, str]


def propose_recipe(draft: Draft) -> Proposal:
    """Return the recipe for `draft`; raises TunewrightError.

    A chosen recipe is taken with the draft's model and data; the starter has its own; all others get the defaults.
    """
    entry = draft.entry
    if entry is None and (draft.model, draft.source) == (STARTER_MODEL, STARTER_DATA):
        with open_registry() as registry:
            entry = registry.get(f"starter-{draft.method or 'lora'}")
    if entry is not None:
        recipe = entry.recipe.model_copy(
            update={
                "base": entry.recipe.base.model_copy(update={"model": draft.model}),
                "data": entry.recipe.data.model_copy(update={"source": draft.source}),
            }
        )
        return Proposal(recipe, entry, comments(entry.toml))
    report = draft.report
    rows = report.rows if report else len(read_conversations(find_data(draft.source)).require_whole())
    anatomy = report.anatomy if report and report.anatomy else read_anatomy(find_model(draft.model))
    whole = report is not None and report.lengths is not None and report.lengths.rows == report.rows
    lengths = [report.lengths.most] if report is not None and report.lengths is not None and whole else None
    method = cast("Literal['full', 'lora', 'qlora']", draft.method or "lora")
    recipe, reasons = default_recipe(method, draft.model, draft.source, rows, anatomy, lengths)
    return Proposal(recipe, None, {reason.choice: reason.because for reason in reasons})


def comments(toml: str) -> dict[str, str]:
    """Return the comment above each key of a recipe's TOML, by the key's own name."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in toml.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# ").strip())
        elif key := re.match(r"\s*([\w-]+)\s*=", line):
            if above:
                found.setdefault(key[1], " ".join(above))
            above = []
        else:  # a blank line or a table's head ends what belongs together
            above = []
    return found
