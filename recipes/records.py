"""What the registry gives and takes: recipes under their names, their history, their evidence, and indexed runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

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
    recipe: Recipe
    toml: str
    """The recipe as it was written, comments and all."""
    created: float
    """When this text came into the registry; seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Edition:
    """One text that a name has stood for."""

    hash: str
    title: str
    toml: str
    note: str
    created: float
    current: bool


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
