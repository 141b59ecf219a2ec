"""What the registry gives and takes: recipes under their names, their history, their evidence, and indexed runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line

if TYPE_CHECKING:
    from .model import Recipe

Origin = Literal["built-in", "local", "fork", "import", "hub"]
Relation = Literal["fork", "import", "derived"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe of the registry, under the name that finds it."""

    name: str
    title: str
    summary: str
    method: str
    model: str
    data: str
    tags: tuple[str, ...]
    hash: str
    origin: Origin
    toml: str
    """The recipe as it was written, comments and all."""
    created: float
    """When this text came into the registry; seconds since the epoch."""
    accepted: bool
    """Whether somebody here has read it: false for a stranger's recipe until the user takes it for theirs."""
    recipe_id: int
    edition_id: int

    @property
    def recipe(self) -> Recipe:
        """The recipe itself; raises TunewrightError when a version that knew other keys has kept it."""
        return _parsed(self.toml, self.name)

    def require_accepted(self) -> None:
        """Raise TunewrightError where this is a stranger's recipe that nobody here has taken for theirs."""
        if not self.accepted:
            raise TunewrightError(
                "A stranger's recipe",
                f"{one_line(self.name, 120)} was pulled, and nobody here has accepted it yet.",
                f"Read it (`tunewright recipes show {one_line(self.name, 120)}`), then "
                f"`tunewright recipes accept {one_line(self.name, 120)}`.",
            )


@lru_cache(maxsize=256)
def _parsed(toml: str, name: str) -> Recipe:
    from .model import parse_recipe

    return parse_recipe(toml, origin=name)


@dataclass(frozen=True, slots=True)
class Edition:
    """One text that a name has stood for."""

    hash: str
    title: str
    toml: str
    note: str
    created: float
    current: bool
    evidence: dict[str, int]
    """How many rows of evidence its revision has, by their status; strangers' as `claimed`."""
    parents: tuple[tuple[str, Relation], ...]
    """The hashes that it was made from, and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What happened when a recipe was run: one metric, with predictions beside measurements."""

    revision: str
    """The recipe's hash."""
    kind: Literal["published", "replicated", "local", "smoke"]
    status: Literal["finished", "stopped", "failed", "out-of-memory"]
    hardware: str
    predicted_peak_gib: float | None = None
    measured_peak_gib: float | None = None
    predicted_seconds: float | None = None
    measured_seconds: float | None = None
    metric: str | None = None
    value: float | None = None
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])
    run: str | None = None
    source: str = ""
    created: float = field(default_factory=time.time)
    claimed_by: str | None = None
    """The place that a stranger's figure came with; None for what was measured here or is in the catalogue."""
    reason: str = ""
    """Why the run ended as it did."""
    steps: int | None = None
    first_loss: float | None = None
    """The mean loss of the first tenth of the steps."""
    last_loss: float | None = None
    """That of the last tenth."""
    validation_loss: float | None = None
    predicted_tokens_per_second: float | None = None
    measured_tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a recipe was pulled from or published to."""

    place: str
    """`hub:owner/name`, `folder:/path`, or `git:address#folder`."""
    commit_id: str
    hash: str
    """Of the recipe that was there."""
    moved_to: str | None = None
    """What the other side calls it now, when it was renamed there."""
    gone: float | None = None
    """When it was found to be no longer there."""
    seen: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRun:
    """What the index knows of a run; the run's folder is the truth."""

    id: str
    folder: str
    recipe: str
    """The hash of the run's recipe."""
    title: str
    method: str
    model: str
    state: str
    created: float
    reason: str = ""
    ended: float | None = None
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    exact_match_before: float | None = None
    exact_match_after: float | None = None
    peak_gib: float | None = None
