"""The fold: what a run looks like after its events, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .events import Checkpoint, Cpu, Eval, Event, Gpu, Measured, Notice, Phase, Sample, State, Status, Step

KEPT_SAMPLES = 64
KEPT_NOTICES = 64


@dataclass(slots=True)
class History:
    """Everything the events of one run tell, in the order in which they came."""

    state: State = "starting"
    reason: str = ""
    phase: Phase | None = None
    steps: list[Step] = field(default_factory=list[Step])
    evals: list[Eval] = field(default_factory=list[Eval])
    gpus: dict[int, Gpu] = field(default_factory=dict[int, Gpu])
    cpu: Cpu | None = None
    samples: deque[Sample] = field(default_factory=lambda: deque[Sample](maxlen=KEPT_SAMPLES))
    notices: deque[Notice] = field(default_factory=lambda: deque[Notice](maxlen=KEPT_NOTICES))
    checkpoints: list[Checkpoint] = field(default_factory=list[Checkpoint])
    measured: dict[str, float] = field(default_factory=dict[str, float])
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
                    self.samples.append(event)
                case Notice():
                    self.notices.append(event)
                case Checkpoint():
                    self.checkpoints = [c for c in self.checkpoints if c.step < event.step]
                    self.checkpoints.append(event)
                case Measured():
                    self.measured.update(event.values)
                case Status():
                    self.state, self.reason = event.state, event.reason
                case Phase():
                    self.phase = event
                case _:
                    pass

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

    def seconds_left(self, window: int = 20) -> float | None:
        """The time that the steps still to come will take, at the pace of the last `window` steps."""
        recent = self.steps[-window:]
        if not recent or self.state != "running":
            return None
        return (self.total_steps - self.step) * sum(step.seconds for step in recent) / len(recent)


def _different(one: Eval, other: Eval) -> bool:
    """Tell whether two evaluations at the same step measured different things."""
    return one.step == other.step and (one.loss is None) != (other.loss is None)
