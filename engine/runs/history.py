"""The fold: what a run looks like after its events, and nothing else."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from .curves import Curves
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
    decode,
    encode,
)

KEPT_SAMPLES = 512
"""Eight prompts at 64 steps."""
KEPT_NOTICES = 64
KEPT_STEPS = 1024
"""The newest steps at least; what came before is in the curves."""
FIRST_KEPT, LAST_KEPT = 32, 512
"""Of evaluations and of checkpoints: the first ones and the newest ones."""
MOST_NAMES = 1000
"""Of GPUs, phases and measured figures: more are no run of ours."""

Kind = TypeVar("Kind", bound=Event)

START = "seconds_"
"""How the names begin of what the time up to the first step went to."""
TO_FIRST_STEP = "seconds_to_first_step"


@dataclass(slots=True)
class History:
    """Everything the events of one run tell, in the order in which they came, in a size that does not grow with the run."""

    state: State = "starting"
    reason: str = ""
    phase: Phase | None = None
    phase_started: float | None = None
    """When the run entered the phase that it is in."""
    steps: list[Step] = field(default_factory=list[Step])
    """The newest ones."""
    curves: Curves = field(default_factory=Curves)
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
                    _take_again(self.steps, event.step)
                    self.steps.append(event)
                    if len(self.steps) > 2 * KEPT_STEPS:
                        del self.steps[:KEPT_STEPS]
                    self.curves.add(event)
                case Eval():
                    before = _take_again(self.evals, event.step)
                    self.evals += [each for each in before if _different(each, event)]
                    self.evals.append(event)
                    _thin(self.evals)
                    self.curves.add(event)
                case Gpu():
                    _keep(self.gpus, event.index, event)
                case Cpu():
                    self.cpu = event
                case Sample():
                    self._answer(event)
                case Notice():
                    self.notices.append(event)
                case Checkpoint():
                    _take_again(self.checkpoints, event.step)
                    self.checkpoints.append(event)
                    _thin(self.checkpoints)
                case Continuity():
                    self.continuity = event
                case Measured():
                    if TO_FIRST_STEP in event.values:  # a resumed run begins anew
                        self.measured = {k: v for k, v in self.measured.items() if not k.startswith(START)}
                    for name, value in event.values.items():
                        _keep(self.measured, name, value)
                case Ending():
                    self.ending = event
                case Status():
                    if self.state == "queued" and not self.steps:
                        self.started = event.time  # what it waited for others is not its own time
                    self.state, self.reason = event.state, event.reason
                    if event.state == "running":
                        self.phase, self.phase_started, self.starting = None, event.time, {}
                case Phase():
                    self._enter(event)
                case _:
                    pass

    def _answer(self, sample: Sample) -> None:
        """Append a sample in place of the one that a resumed run answers again."""
        later: list[Sample] = []
        while self.samples and self.samples[-1].step >= sample.step:
            each = self.samples.pop()
            if each.step != sample.step or each.prompt != sample.prompt:
                later.append(each)
        self.samples.extend(reversed(later))
        self.samples.append(sample)

    def _enter(self, phase: Phase) -> None:
        before = self.phase.name if self.phase else "starting"
        if before != phase.name or self.phase_started is None:
            if self.phase_started is not None:
                seconds = self.starting.get(before, 0.0) + max(0.0, phase.time - self.phase_started)
                _keep(self.starting, before, seconds)
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

    def to_json(self) -> dict[str, Any]:
        """Return the history as plain data, its events as the lines that they were."""
        return {each.name: _plain(getattr(self, each.name)) for each in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: Any) -> History:
        """Return the history in what `to_json` returned; raises ValueError, KeyError or TypeError for all else."""
        history = cls()
        for name in ("phase_started", "started", "last_event"):
            setattr(history, name, None if values[name] is None else float(values[name]))
        for name, kind in (("phase", Phase), ("cpu", Cpu), ("continuity", Continuity), ("ending", Ending)):
            setattr(history, name, None if values[name] is None else _event(values[name], kind))
        for name, kind in _EVENT_LISTS.items():
            getattr(history, name).extend(_event(line, kind) for line in values[name])
        for name in ("measured", "starting"):
            setattr(history, name, {str(key): float(value) for key, value in values[name].items()})
        history.gpus = {int(index): _event(line, Gpu) for index, line in values["gpus"].items()}
        history.state, history.reason = cast("State", str(values["state"])), str(values["reason"])
        history.curves = Curves.from_json(values["curves"])
        return history


_EVENT_LISTS: dict[str, type[Event]] = {
    "steps": Step,
    "evals": Eval,
    "samples": Sample,
    "notices": Notice,
    "checkpoints": Checkpoint,
}


def _plain(value: Any) -> Any:
    """Return what a field of a history holds as plain data."""
    match value:
        case Curves():
            return value.to_json()
        case Event():
            return encode(value)
        case dict():
            return {key: _plain(each) for key, each in cast("dict[Any, Any]", value).items()}
        case list() | deque():
            return [_plain(each) for each in cast("Iterable[Any]", value)]
        case _:
            return value


def _event(line: Any, kind: type[Kind]) -> Kind:
    """Return the event of this kind in `line`; raises ValueError for all else."""
    event = decode(line) if isinstance(line, str) else None
    if not isinstance(event, kind):
        raise ValueError(f"no event of the kind {kind.kind}")
    return event


Taken = TypeVar("Taken", Step, Eval, Checkpoint)
Key = TypeVar("Key", int, str)
Value = TypeVar("Value")


def _take_again(events: list[Taken], step: int) -> list[Taken]:
    """Take those away that happened at `step` or after it, and return those of `step` itself, in their order."""
    again: list[Taken] = []
    while events and events[-1].step >= step:
        if (last := events.pop()).step == step:
            again.append(last)
    return again[::-1]


def _thin(events: list[Eval] | list[Checkpoint]) -> None:
    """Keep the first ones and the newest ones."""
    if len(events) > FIRST_KEPT + 2 * LAST_KEPT:
        del events[FIRST_KEPT:-LAST_KEPT]


def _keep(names: dict[Key, Value], key: Key, value: Value) -> None:
    if key in names or len(names) < MOST_NAMES:
        names[key] = value


def _different(one: Eval, other: Eval) -> bool:
    """Tell whether two evaluations at the same step measured different things."""
    return one.step == other.step and (one.loss is None) != (other.loss is None)
