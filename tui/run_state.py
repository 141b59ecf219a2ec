"""What the monitor shows of one run: the fold of its events, and the curves drawn from them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..engine.plan import Plan
from ..engine.runs.directory import Standing
from ..engine.runs.events import Eval, Event, Step
from ..engine.runs.history import History
from ..recipes.model import Recipe
from .follow import Reading
from .trace import Trace

SMOOTHED_SHARE = 1 / 60
"""The share of the run's steps over which the loss is smoothed."""
LIVE: tuple[Standing, ...] = ("starting", "running", "stopping", "unresponsive", "elsewhere")


@dataclass(slots=True)
class Curves:
    """The curves of one run, over its steps."""

    loss: Trace = field(default_factory=Trace)
    smooth: Trace = field(default_factory=Trace)
    validation: Trace = field(default_factory=Trace)
    learning_rate: Trace = field(default_factory=Trace)
    grad_norm: Trace = field(default_factory=Trace)
    tokens_per_second: Trace = field(default_factory=Trace)
    mfu: Trace = field(default_factory=Trace)
    """In percent."""
    preferred: Trace = field(default_factory=Trace)
    """The share of pairs whose better answer the model prefers, in percent."""
    margin: Trace = field(default_factory=Trace)
    """By how much, in the objective's own reward."""
    preferred_held_out: Trace = field(default_factory=Trace)
    margin_held_out: Trace = field(default_factory=Trace)

    def add(self, events: tuple[Event, ...]) -> None:
        """Draw `events` on."""
        for event in events:
            if isinstance(event, Step):
                self.loss.append(event.step, event.loss)
                self._smooth(event)
                self.learning_rate.append(event.step, event.learning_rate)
                self.grad_norm.append(event.step, event.grad_norm)
                if event.seconds > 0:
                    self.tokens_per_second.append(event.step, event.tokens / event.seconds)
                if event.mfu is not None:
                    self.mfu.append(event.step, 100 * event.mfu)
                if event.metrics:
                    self._prefer(event.step, event.metrics, self.preferred, self.margin)
            elif isinstance(event, Eval) and event.loss is not None:
                self.validation.append(event.step, event.loss)
                self._prefer(event.step, event.metrics, self.preferred_held_out, self.margin_held_out)

    @staticmethod
    def _prefer(step: int, metrics: dict[str, float], preferred: Trace, margin: Trace) -> None:
        if (value := metrics.get("rewards/accuracies")) is not None:
            preferred.append(step, 100 * value)
        if (value := metrics.get("rewards/margins")) is not None:
            margin.append(step, value)

    def _smooth(self, event: Step) -> None:
        """Append the exponential mean of the losses, begun anew where a resumed run takes a step again."""
        if self.smooth.xs and event.step <= self.smooth.xs[-1]:
            self.smooth.rewind(event.step)
        before = self.smooth.last
        window = max(4.0, event.total_steps * SMOOTHED_SHARE)
        weight = max(2 / (window + 1), 1 / (1 + len(self.smooth)))
        value = event.loss if before is None else before + weight * (event.loss - before)
        if value == value and abs(value) != float("inf"):
            self.smooth.append(event.step, value)


@dataclass(slots=True)
class RunState:
    """One run as it is known now."""

    standing: Standing = "starting"
    history: History = field(default_factory=History)
    curves: Curves = field(default_factory=Curves)
    console: str = ""
    share_read: float = 0.0
    ended: float | None = None
    recipe: Recipe | None = None
    plan: Plan | None = None

    def add(self, reading: Reading) -> None:
        """Fold in what was read."""
        self.history.add(reading.events)
        self.curves.add(reading.events)
        if reading.console is not None:
            self.console = reading.console
        self.standing = reading.standing
        if reading.standing == "running" and self.history.state == "stopping":
            self.standing = "stopping"
        self.share_read = reading.share_read
        self.ended = reading.ended

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
