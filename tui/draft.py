"""What the wizard knows so far: filled in step by step, and kept when one goes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.advice import Advice
    from ..engine.machine import Machine
    from ..engine.plan import Plan
    from ..engine.runs.directory import RunDirectory
    from ..engine.runs.terms import Terms
    from ..recipes.model import Recipe
    from ..recipes.registry import Entry
    from .data_report import DataReport


def _terms() -> Terms:
    from ..engine.runs.terms import Terms

    return Terms()


STARTER_MODEL = "tunewright/starter"
STARTER_DATA = "tunewright/starter-orders"


@dataclass(slots=True)
class Draft:
    """The answers so far, and what follows from them; None marks what is not known yet."""

    machine: Machine | None = None
    answers: dict[str, str] = field(default_factory=dict[str, str])
    """The chosen option of every question, by the question's name."""
    model: str = STARTER_MODEL
    source: str = STARTER_DATA
    data_changes: dict[str, object] = field(default_factory=dict[str, object])
    """What was chosen in the data step, by the names of the recipe's data section."""
    against: tuple[str, ...] = ()
    """Evaluation files of which no row may stand in the data, beside the recipe's own."""
    report: DataReport | None = None
    entry: Entry | None = None
    """The registry's recipe that the wizard was started with."""
    parent: RunDirectory | None = None
    """The run that this one is made from, with changes."""
    advice: Advice | None = None
    method: str | None = None
    """The method that was chosen; None follows the advice."""
    recipe: Recipe | None = None
    plan: Plan | None = None
    terms: Terms = field(default_factory=_terms)
    """When the run begins, and how it treats others on the machine."""
