"""The messages that cross from the threads that read and calculate to the screens that show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from ..foundation.errors import TunewrightError

if TYPE_CHECKING:
    from textual.content import Content

    from ..engine.runs.directory import RunDirectory
    from ..engine.runs.extend import Extensible
    from ..engine.runs.retry import Failure
    from ..recipes.finding import Found
    from ..recipes.model import Recipe
    from ..recipes.registry import Entry
    from .follow import Reading
    from .run_summary import RunSummary


@dataclass
class Failed(Message):
    """Something that was asked for did not work; it ends in the error dialog."""

    error: TunewrightError


@dataclass
class RunsListed(Message):
    """The runs on the disk, newest first."""

    runs: tuple[RunSummary, ...]


@dataclass
class RunRead(Message):
    """What a run wrote since the last time."""

    reading: Reading


@dataclass
class RunLaunched(Message):
    """A new run is going on."""

    run: RunDirectory


@dataclass
class RunChanged(Message):
    """A run was asked to stop or to go on; `said` tells it in words."""

    said: str


@dataclass
class CircumstancesChanged(Message):
    """A run cannot go on as the run that it was, unless its user agrees to the differences."""

    differences: tuple[str, ...]
    agreed: Callable[[], object]
    """Has it go on."""


@dataclass
class RunLookedAt(Message):
    """A finished run is to be extended; this is what is to be known before."""

    found: Extensible


@dataclass
class RunCloned(Message):
    """A run like this one is to be made in the wizard."""

    run: RunDirectory
    recipe: Recipe


@dataclass
class AlertsGiven(Message):
    """What runs have just alerted about, as the terminal is to be told it."""

    words: str


@dataclass
class RunFailedBefore(Message):
    """A failed run is to be tried again; this is why it failed."""

    run: RunDirectory
    failure: Failure


@dataclass
class RecipesListed(Message):
    """The recipes that match a search."""

    search: str
    entries: tuple[Entry, ...]
    found: tuple[Found, ...]
    total: int


@dataclass
class RecipeRead(Message):
    """A recipe of the list was read wholly, or cannot be."""

    entry: Entry
    fault: TunewrightError | None = None


@dataclass
class RecipesChanged(Message):
    """The registry has a recipe that it had not, has it otherwise, or lists it no longer."""

    said: str
    name: str | None
    """The recipe to be chosen; None where one has gone."""


@dataclass
class RecipeEdited(Message):
    """The wizard's recipe was changed in the editor."""

    recipe: Recipe


@dataclass
class Unsaved(Message):
    """Changes in an editor would be lost by leaving, or no longer would be."""

    editor: object
    name: str
    """What is changed; empty once it is kept or given up."""


@dataclass
class TextReady(Message):
    """A text to be shown; with a verb, what is to be agreed to, and what is done then."""

    title: str
    text: Content
    verb: str = ""
    agreed: Callable[[], object] | None = None


@dataclass
class RecipeChosen(Message):
    """A recipe was chosen to start the wizard with."""

    entry: Entry
