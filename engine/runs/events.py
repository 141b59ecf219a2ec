"""The events of a run: typed, one JSON line each, appended to `events.jsonl`; the interface is a fold over them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

State = Literal["starting", "running", "stopping", "stopped", "finished", "failed"]
PhaseName = Literal[
    "starting",
    "downloading",
    "tokenising",
    "importing",
    "loading",
    "quantising",
    "judging before",
    "compiling",
    "training",
    "evaluating",
    "saving",
    "judging after",
    "exporting",
    "done",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run at `time` (seconds since the epoch)."""

    kind: ClassVar[str]
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Event):
    """The run entered a phase, or got further in it."""

    kind: ClassVar[str] = "phase"
    name: PhaseName
    detail: str = ""
    done: float | None = None
    """How much of the phase is done, in its own unit, or None when that cannot be told."""
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """One optimizer step."""

    kind: ClassVar[str] = "step"
    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    """Useful tokens of the step: no padding counted."""
    seconds: float
    """From the end of the step before to the end of this one; evaluating, saving and sampling between the two left out."""
    peak_gib: float
    """The most memory so far: allocated on the GPU, or resident in the process without one."""
    reserved_gib: float = 0.0
    """What torch's allocator holds of the GPU at most so far; the same as the peak without one."""
    mfu: float | None = None
    """The share of the card's measured matrix rate that the step's arithmetic reached, None where that was not measured."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """What else the objective measures, by name, such as `rewards/accuracies`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval(Event):
    """A measurement on held-out rows: validation loss, or exact match of greedy answers, or both."""

    kind: ClassVar[str] = "eval"
    step: int
    loss: float | None = None
    exact_match: float | None = None
    """The share of answers that equal their reference, 0 to 1."""
    rows: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """What else the objective measures, by name, such as `rewards/accuracies`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best(Event):
    """The validation loss at `step` is the lowest so far; its weights are kept where the run may end with them."""

    kind: ClassVar[str] = "best"
    step: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Event):
    """A sample of one GPU, from NVML."""

    kind: ClassVar[str] = "gpu"
    index: int
    utilisation_percent: float | None
    memory_used_gib: float
    memory_total_gib: float
    temperature_celsius: float | None
    power_watts: float | None
    clock_mhz: float | None = None
    """Of its processors."""
    throttled_by: str = ""
    """What keeps its clock down, in words; empty when nothing does or the driver does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu(Event):
    """A sample of the trainer's process: 100 percent is one core, memory is resident."""

    kind: ClassVar[str] = "cpu"
    utilisation_percent: float
    memory_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Event):
    """What the model answers to a fixed prompt at this step."""

    kind: ClassVar[str] = "sample"
    step: int
    prompt: str
    completion: str
    reference: str = ""
    seconds: float = 0.0
    """What all prompts of this step took together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Event):
    """A checkpoint is on the disk, whole and verified."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    name: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity(Event):
    """A resumed run took steps again that it had taken before; this is how their losses compare."""

    kind: ClassVar[str] = "continuity"
    step: int
    """Of the checkpoint from which it went on."""
    compared: int
    """How many losses were compared."""
    largest_difference: float
    """Relative to what was recorded; 0 where all are the same to the last digit."""

    @property
    def said(self) -> str:
        """The result in words."""
        these = "the loss" if self.compared == 1 else f"the {self.compared} losses"
        if self.largest_difference == 0:
            return f"{these} after step {self.step:,} equal what was recorded before, to the last digit"
        return f"{these} after step {self.step:,} differ from what was recorded before by {self.largest_difference:.1e} of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something that people should know; an error has a remedy."""

    kind: ClassVar[str] = "notice"
    level: Literal["info", "warning", "error"]
    title: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Event):
    """Figures that the run measured, by name; names end in their unit."""

    kind: ClassVar[str] = "measured"
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Event):
    """The run's own word on its state."""

    kind: ClassVar[str] = "status"
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(Event):
    """Training is over: at which step, why, and which step's weights the result is."""

    kind: ClassVar[str] = "ending"
    step: int
    weights_step: int
    reason: str


KINDS: dict[str, type[Event]] = {
    each.kind: each
    for each in (Phase, Step, Eval, Best, Gpu, Cpu, Sample, Checkpoint, Continuity, Notice, Measured, Ending, Status)
}


def encode(event: Event) -> str:
    """Return `event` as one JSON line, without its newline."""
    values = {name: getattr(event, name) for name in _FIELDS[event.kind]}
    return json.dumps({"event": event.kind, **values}, ensure_ascii=False, separators=(",", ":"), default=str)


def decode(line: str) -> Event | None:
    """Return the event in `line`, or None when it is no event that this version knows.

    Where a full disk tore a line and another was written behind it, the latter is returned.
    """
    line = line[max(0, line.rfind(_BEGINNING)) :]  # within a text its quotation marks would be escaped
    try:
        values = json.loads(line)
        cls = KINDS[values.pop("event")]
        known = _FIELDS[cls.kind]
        if not values.keys() <= known:  # a later version wrote it
            values = {name: value for name, value in values.items() if name in known}
        return cls(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


_BEGINNING = '{"event":'
NEWEST_SAMPLES = 128
"""Samples of devices that a reader without the older ones gets of every block: a minute of one GPU, or of eight a moment."""
_SAMPLES = tuple(f'{{"event":"{cls.kind}",' for cls in (Gpu, Cpu))
_FIELDS: dict[str, frozenset[str]] = {
    kind: frozenset(f.name for f in dataclasses.fields(cls)) for kind, cls in KINDS.items()
}


class EventLog:
    """Appends events to a file: one write a line, so that several processes may append and no line is torn."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if _ends_torn(path):
            os.write(self._descriptor, b"\n")

    def append(self, event: Event) -> None:
        """Write `event` as the next line; raises OSError when the disk does not take it, or not the whole of it."""
        line = memoryview(encode(event).encode("utf-8", "replace") + b"\n")
        while line:  # a disk that fills takes the beginning of a line, and refuses the rest
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        os.close(self._descriptor)


def _ends_torn(path: Path) -> bool:
    """Tell whether a crash left the last line without its end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_events(
    path: Path, offset: int = 0, limit_bytes: int = 8 * 2**20, all_samples: bool = True
) -> tuple[list[Event], int]:
    """Return the events in whole lines after byte `offset`, and the offset to go on from.

    A torn last line is the end of the file. At most `limit_bytes` are read, so a caller can stay responsive;
    call again until the offset no longer moves. Without `all_samples` the devices' samples are left out but for the
    newest: a long run has hundreds of thousands.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            block = file.read(limit_bytes)
    except FileNotFoundError:
        return [], offset
    end = block.rfind(b"\n") + 1
    if end == 0 and len(block) == limit_bytes:  # one line longer than a block is no event of ours
        return [], offset + len(block)
    lines = block[:end].decode("utf-8", "replace").split("\n")  # not splitlines: text may hold other line ends
    if not all_samples:
        old = [index for index, line in enumerate(lines) if line.startswith(_SAMPLES)][:-NEWEST_SAMPLES]
        for index in old:
            lines[index] = ""
    return [event for line in lines if line and (event := decode(line)) is not None], offset + end


def newest_events(path: Path, most_bytes: int) -> list[Event]:
    """Return the events in the last `most_bytes` of a file, samples of devices left out; none where there is no file."""
    try:
        begin = max(0, path.stat().st_size - most_bytes)
    except OSError:
        return []
    return read_events(path, begin, most_bytes + 1, all_samples=False)[0]


def follow(path: Path, ended: Any, seconds: float = 0.25) -> Iterator[Event]:
    """Yield events as they are written, until `ended()` is true and nothing is left to read."""
    offset = 0
    while True:
        over = bool(ended())
        events, offset = read_events(path, offset)
        yield from events
        if over and not events:
            return
        if not events:
            time.sleep(seconds)
