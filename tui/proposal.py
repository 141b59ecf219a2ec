"""The recipe that follows from the wizard's answers, and why each of its values is what it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, cast

from ..engine.anatomy import read_anatomy
from ..engine.defaults import default_recipe
from ..engine.runs.directory import RunDirectory
from ..engine.runs.lineage import plain_name
from ..engine.sources import find_model
from ..foundation.text import one_line
from ..recipes.model import Data, Recipe, validate_section
from ..recipes.reading import comments
from ..recipes.registry import Entry, open_registry
from ..recipes.schema import slots
from .draft import STARTER_DATA, STARTER_MODEL, Draft

USUAL_LENGTH = 2048
"""The maximum length where nobody chose one and no row is shorter; `default_recipe` has the same."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A recipe, the registry's entry that it is when it is one, and the reasons for its values by their paths."""

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
    chosen = {_path(name, "lora"): "You chose it beside the data." for name in draft.data_changes}
    if entry is not None:
        recipe = entry.recipe.model_copy(
            update={
                "base": entry.recipe.base.model_copy(update={"model": draft.model}),
                "data": _section(entry.recipe.data, draft),
            }
        )
        return Proposal(recipe, entry, comments(entry.toml) | chosen)
    report = draft.report
    rows = report.rows if report and report.rows else _count_rows(draft)
    anatomy = report.anatomy if report and report.anatomy else read_anatomy(find_model(draft.model))
    longest = report.longest if report else None
    # Without a word of the user's no row is let become longer than the data step's preview and audit showed it.
    lengths = [min(longest, USUAL_LENGTH)] if longest is not None else None
    method = cast("Literal['full', 'lora', 'qlora']", draft.method or "lora")
    recipe, reasons = default_recipe(method, draft.model, draft.source, rows, anatomy, lengths)
    recipe = recipe.model_copy(update={"data": _section(recipe.data, draft)})
    because = {_path(reason.choice, method): reason.because for reason in reasons}
    if longest is not None and longest > recipe.data.max_length:
        because["data.max_length"] = f"The longest row has {longest:,} tokens; rows beyond the maximum are cut."
    return Proposal(recipe, None, because | chosen)


def _path(choice: str, method: str) -> str:
    """Return where a choice stands that the defaults are reasoned for; of a table its first field."""
    named = (each.path for each in slots(method) if each.name == choice or each.name.startswith(f"{choice}."))
    return next(named, choice)


def entry_of(run: RunDirectory, recipe: Recipe) -> Entry:
    """Return a run's recipe as if it were one of the registry, under the run's name."""
    return as_entry(one_line(plain_name(run), 80), recipe)


def as_entry(name: str, recipe: Recipe) -> Entry:
    """Return a recipe as if it were one of the registry under `name`."""
    card = recipe.card
    return Entry(
        name=name, title=card.title or name, summary=card.summary, method=recipe.method.kind, model=recipe.base.model,
        data=recipe.data.source, tags=card.tags, hash=recipe.hash(), origin="local", toml=recipe.to_toml(),
        created=time.time(), accepted=True, recipe_id=0, edition_id=0,
    )  # fmt: skip


def _section(data: Data, draft: Draft) -> Data:
    """Return the data section `data` for the draft's source, with what was chosen in the data step."""
    values = data.model_dump(exclude_none=True)
    if data.source != draft.source:
        # The shape of a row and the rows kept out belong to the file they were written for.
        for name in ("format", "columns", "split"):
            values.pop(name, None)
        if data.validation.kind == "file" or data.validation.key or data.validation.stratify:
            values.pop("validation", None)
    return validate_section(Data, values | draft.data_changes | {"source": draft.source}, "the data step")


def _count_rows(draft: Draft) -> int:
    from ..engine.data.reading import count_rows, open_source

    return count_rows(open_source(draft.source))[0]
