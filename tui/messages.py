"""The messages that cross from the threads that read and calculate to the screens that show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from ..foundation.errors import TunewrightError

if TYPE_CHECKING:
    from textual.content import Content

    from ..engine.runs.directory import RunDirectory
    from ..recipes.finding import Found
    from ..recipes.registry import Entry
    from ..recipes.sharing import Arrival, Shipment
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

    run: RunDirectory
    differences: tuple[str, ...]


@dataclass
class RecipesListed(Message):
    """The recipes that match a search."""

    search: str
    entries: tuple[Entry, ...]
    found: tuple[Found, ...]
    total: int


@dataclass
class RecipesChanged(Message):
    """The registry has a recipe that it had not, or has it otherwise."""

    said: str
    name: str


@dataclass
class TextReady(Message):
    """A text to be shown; with a subject, what is to be agreed to."""

    title: str
    text: Content
    verb: str = ""
    subject: tuple[Entry | None, Shipment | Arrival] | None = None


@dataclass
class RecipeChosen(Message):
    """A recipe was chosen to start the wizard with."""

    entry: Entry
