"""The fold: what a run looks like after its events, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .events import (
    Checkpoint,
    Continuity,
    Cpu,
    Ending,
    Eval,
    Event,
    Gpu,
    Measured,
    Notice,
    Phase,
    Sample,
    State,
    Status,
    Step,
)

KEPT_SAMPLES = 512
"""Eight prompts at 64 steps."""
KEPT_NOTICES = 64


START = "seconds_"
"""How the names begin of what the time up to the first step went to."""
TO_FIRST_STEP = "seconds_to_first_step"


@dataclass(slots=True)
class History:
    """Everything the events of one run tell, in the order in which they came."""

    state: State = "starting"
    reason: str = ""
    phase: Phase | None = None
    phase_started: float | None = None
    """When the run entered the phase that it is in."""
    steps: list[Step] = field(default_factory=list[Step])
    evals: list[Eval] = field(default_factory=list[Eval])
    gpus: dict[int, Gpu] = field(default_factory=dict[int, Gpu])
    cpu: Cpu | None = None
    samples: deque[Sample] = field(default_factory=lambda: deque[Sample](maxlen=KEPT_SAMPLES))
    notices: deque[Notice] = field(default_factory=lambda: deque[Notice](maxlen=KEPT_NOTICES))
    checkpoints: list[Checkpoint] = field(default_factory=list[Checkpoint])
    continuity: Continuity | None = None
    """How the last resume went on, where it took steps again."""
    ending: Ending | None = None
    measured: dict[str, float] = field(default_factory=dict[str, float])
    starting: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds by phase since the trainer was started, before the run has measured them itself."""
    started: float | None = None
    last_event: float | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Fold `events` in. Steps that a resumed run takes again replace those it had taken before."""
        for event in events:
            if self.started is None:
                self.started = event.time
            self.last_event = event.time
            match event:
                case Step():
                    while self.steps and self.steps[-1].step >= event.step:
                        self.steps.pop()
                    self.steps.append(event)
                case Eval():
                    self.evals = [e for e in self.evals if e.step < event.step or _different(e, event)]
                    self.evals.append(event)
                case Gpu():
                    self.gpus[event.index] = event
                case Cpu():
                    self.cpu = event
                case Sample():
                    if self.samples and self.samples[-1].step >= event.step:  # a resumed run answers them again
                        kept = [s for s in self.samples if s.step != event.step or s.prompt != event.prompt]
                        self.samples = deque(kept, maxlen=KEPT_SAMPLES)
                    self.samples.append(event)
                case Notice():
                    self.notices.append(event)
                case Checkpoint():
                    self.checkpoints = [c for c in self.checkpoints if c.step < event.step]
                    self.checkpoints.append(event)
                case Continuity():
                    self.continuity = event
                case Measured():
                    if TO_FIRST_STEP in event.values:  # a resumed run begins anew
                        self.measured = {k: v for k, v in self.measured.items() if not k.startswith(START)}
                    self.measured.update(event.values)
                case Ending():
                    self.ending = event
                case Status():
                    self.state, self.reason = event.state, event.reason
                    if event.state == "running":
                        self.phase, self.phase_started, self.starting = None, event.time, {}
                case Phase():
                    self._enter(event)
                case _:
                    pass

    def _enter(self, phase: Phase) -> None:
        before = self.phase.name if self.phase else "starting"
        if before != phase.name or self.phase_started is None:
            if self.phase_started is not None:
                self.starting[before] = self.starting.get(before, 0.0) + max(0.0, phase.time - self.phase_started)
            self.phase_started = phase.time
        self.phase = phase

    def to_first_step(self, now: float | None = None) -> dict[str, float]:
        """Return what the time up to the first step goes to, in seconds by phase, in order; up to `now` while it goes on.

        The run measures it itself; before it has, its phases' own times tell.
        """
        if TO_FIRST_STEP in self.measured:
            return {
                name.removeprefix(START).replace("_", " "): seconds
                for name, seconds in self.measured.items()
                if name.startswith(START) and name != TO_FIRST_STEP
            }
        seconds = dict(self.starting)
        if self.phase_started is not None and now is not None:
            current = self.phase.name if self.phase else "starting"
            seconds[current] = seconds.get(current, 0.0) + max(0.0, now - self.phase_started)
        if planning := self.measured.get("seconds_planning"):
            seconds = {"planning": planning, **seconds}
        return seconds

    def phase_seconds_left(self, now: float) -> float | None:
        """Return how long the present phase still takes at its pace so far, None where that cannot be told."""
        phase, began = self.phase, self.phase_started
        if phase is None or began is None or not phase.done or not phase.total or phase.done > phase.total:
            return None
        taken = phase.time - began
        left = taken / phase.done * (phase.total - phase.done) - (now - phase.time)
        return max(0.0, left) if taken > 0 else None

    @property
    def step(self) -> int:
        """The last step taken."""
        return self.steps[-1].step if self.steps else 0

    @property
    def total_steps(self) -> int:
        """How many steps the run is going to take, 0 when not known yet."""
        return self.steps[-1].total_steps if self.steps else 0

    @property
    def exact_match_before(self) -> float | None:
        """The exact match of the base model, 0 to 1."""
        return next((e.exact_match for e in self.evals if e.exact_match is not None and e.step == 0), None)

    @property
    def exact_match_after(self) -> float | None:
        """The exact match of the tuned model, 0 to 1."""
        return next((e.exact_match for e in reversed(self.evals) if e.exact_match is not None and e.step > 0), None)

    def tokens_per_second(self, window: int = 20) -> float | None:
        """Useful tokens per second over the last `window` steps."""
        recent = self.steps[-window:]
        seconds = sum(step.seconds for step in recent)
        return sum(step.tokens for step in recent) / seconds if seconds > 0 else None

    def mfu(self, window: int = 20) -> float | None:
        """The mean share of the card's matrix rate over the last `window` steps, weighted by their time."""
        recent = [step for step in self.steps[-window:] if step.mfu is not None]
        seconds = sum(step.seconds for step in recent)
        return sum((step.mfu or 0.0) * step.seconds for step in recent) / seconds if seconds > 0 else None

    def seconds_left(self, window: int = 20) -> float | None:
        """The time that the steps still to come will take, at the pace of the last `window` steps."""
        recent = self.steps[-window:]
        if not recent or self.state != "running":
            return None
        return (self.total_steps - self.step) * sum(step.seconds for step in recent) / len(recent)


def _different(one: Eval, other: Eval) -> bool:
    """Tell whether two evaluations at the same step measured different things."""
    return one.step == other.step and (one.loss is None) != (other.loss is None)
