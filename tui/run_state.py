"""What the monitor shows of one run: the fold of its events, and what else its directory says."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engine.plan import Plan
from ..engine.runs.curves import Curves
from ..engine.runs.directory import Standing
from ..engine.runs.history import History
from ..engine.runs.waiting import Wait
from .follow import Reading

if TYPE_CHECKING:
    from ..recipes.model import Recipe

LIVE: tuple[Standing, ...] = (
    "starting", "queued", "running", "stopping", "pausing", "unresponsive", "elsewhere",
)  # fmt: skip


@dataclass(slots=True)
class RunState:
    """One run as it is known now."""

    standing: Standing = "starting"
    history: History = field(default_factory=History)
    console: str = ""
    share_read: float = 0.0
    ended: float | None = None
    wait: Wait | None = None
    """What it waits for, while it is queued."""
    recipe: Recipe | None = None
    plan: Plan | None = None

    def add(self, reading: Reading) -> None:
        """Fold in what was read."""
        if reading.history is not None:
            self.curves.become(reading.history.curves)  # which the charts draw
            reading.history.curves = self.curves
            self.history = reading.history
        self.history.add(reading.events)
        if reading.console is not None:
            self.console = reading.console
        self.standing = reading.standing
        if reading.standing == "running" and self.history.state in ("stopping", "pausing"):
            self.standing = self.history.state
        self.share_read = reading.share_read
        self.ended = reading.ended
        self.wait = reading.wait

    @property
    def curves(self) -> Curves:
        """The curves of the history, the same ones as long as the state is."""
        return self.history.curves

    @property
    def live(self) -> bool:
        """Whether more is to be expected."""
        return self.standing in LIVE

    @property
    def total_steps(self) -> int:
        """How many steps the run takes, as its events or else its plan say."""
        return self.history.total_steps or (self.plan.total_steps if self.plan else 0)

    def elapsed(self) -> float | None:
        """Return the seconds since the run began, up to its end or to now."""
        if self.history.started is None:
            return None
        end = self.now() if self.live else self.ended or self.history.last_event or self.history.started
        return max(0.0, end - self.history.started)

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return time.time()

    @property
    def peak_gib(self) -> float | None:
        """The most memory that the run has measured."""
        if "peak_gib" in self.history.measured:
            return self.history.measured["peak_gib"]
        return self.history.steps[-1].peak_gib if self.history.steps else None
