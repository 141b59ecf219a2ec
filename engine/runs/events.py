"""The events of a run: typed, one JSON line each, appended to `events.jsonl`; the interface is a fold over them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from ...foundation.files import open_regular
from ..redaction import redact

State = Literal["starting", "queued", "running", "stopping", "stopped", "pausing", "paused", "finished", "failed"]
About = Literal["finished", "failed", "interrupted", "diverged", "plateau", "heat", "disk"]
"""What people are alerted about."""
ABOUT: tuple[About, ...] = get_args(About)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Event):
    """Something that people want to be called for; who follows the run is told, and its owner's command and webhook."""

    kind: ClassVar[str] = "alert"
    about: About
    key: str
    """Tells this alert from all others of the run: it is given once, whoever looks after the run."""
    title: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Event):
    """An alert was handed to the owner's command or webhook, or could not be."""

    kind: ClassVar[str] = "told"
    key: str
    """Of the alert."""
    by: Literal["command", "webhook"]
    well: bool
    detail: str = ""


KINDS: dict[str, type[Event]] = {
    each.kind: each
    for each in (
        Phase,
        Step,
        Eval,
        Best,
        Gpu,
        Cpu,
        Sample,
        Checkpoint,
        Continuity,
        Notice,
        Measured,
        Ending,
        Status,
        Alert,
        Told,
    )
}


LONGEST_TEXT = 16 * 1024
"""Characters of one text in an event; what an event holds beyond is a mistake of who tells it."""
LATEST_TIME = 1e11
"""Seconds after the epoch: the year 5138."""
LONGEST_INTEGER = 16
"""Digits."""
NEWEST_SAMPLES = 128
"""Samples of devices that a reader without the older ones gets of every block: a minute of one GPU, or of eight a moment."""
_SAMPLES = tuple(f'{{"event":"{cls.kind}",' for cls in (Gpu, Cpu))


def _fields(cls: type[Event]) -> dict[str, tuple[type, ...]]:
    """Return the types that the fields of an event have in JSON, by name, in the order in which they are written."""
    hints = get_type_hints(cls)
    return {each.name: tuple(_json_types(hints[each.name])) for each in dataclasses.fields(cls)}


def _json_types(hint: Any) -> Iterator[type]:
    if isinstance(hint, UnionType):
        for each in get_args(hint):
            yield from _json_types(each)
    elif get_origin(hint) is Literal:
        yield str  # a later version may know more words
    elif hint is float:
        yield from (float, int)
    else:
        yield get_origin(hint) or hint


_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {kind: _fields(cls) for kind, cls in KINDS.items()}


def encode(event: Event) -> str:
    """Return `event` as one JSON line, without its newline and without secrets."""
    values: dict[str, Any] = {"event": event.kind}
    for name in _FIELDS[event.kind]:
        value = getattr(event, name)
        values[name] = _tellable(value) if isinstance(value, str) else value
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=str)


def _tellable(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}… ({len(text) - LONGEST_TEXT:,} characters were left out)"
    return redact(text)


def decode(line: str) -> Event | None:
    """Return the event in `line`, or None when it is no event that this version knows.

    Where a full disk tore a line and another was written behind it, the latter is returned.
    """
    line = line[max(0, line.rfind(_BEGINNING)) :]  # within a text its quotation marks would be escaped
    try:
        values = _decoder.decode(line)
        kind = values.pop("event")
        shape = (kind, *values, *map(type, values.values()))
        if shape not in _sound_shapes:
            types = _FIELDS[kind]
            values = {name: value for name, value in values.items() if name in types}  # a later version has more
            if not all(map(isinstance, values.values(), (types[name] for name in values))):
                return None
            if len(values) * 2 + 1 == len(shape) and len(_sound_shapes) < KEPT_SHAPES:
                _sound_shapes.add(shape)
        event = KINDS[kind](**values)
        return event if 0 <= event.time <= LATEST_TIME and _figures_are_numbers(event) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _figures_are_numbers(event: Event) -> bool:
    figures = getattr(event, "values", None) or getattr(event, "metrics", None)
    return not figures or all(isinstance(each, float | int) for each in figures.values())


def _parse_integer(digits: str) -> int | float:
    """Return an integer that a float holds exactly; a larger one is no count of anything."""
    return int(digits) if len(digits) < LONGEST_INTEGER else float(digits)


_BEGINNING = '{"event":'
_decoder = json.JSONDecoder(parse_int=_parse_integer)
_sound_shapes: set[tuple[object, ...]] = set()
"""Names and types that events were found to have, which need no second look: a long run has a million of one shape."""
KEPT_SHAPES = 256


MIB = 2**20
ALLOWANCES = {Step.kind: 2048 * MIB, Notice.kind: 1 * MIB}
"""How much one process writes of each kind of event before it leaves some out; no allowance is refused a run's own state."""
ALLOWANCE = 32 * MIB
"""Of every other kind: samples of a GPU for 18 hours, twice a second."""
NEVER_LEFT_OUT = (Status.kind, Ending.kind)
SCARCEST_SECONDS = 30.0
"""Between two events of a kind at most, however many were written: a run is heard of long before it counts as silent."""


class EventLog:
    """Appends events to a file: one write a line, so that several processes may append and no line is torn.

    What is told without end does not fill the disk: beyond the allowance of its kind, an event is written ever more rarely.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o644)
        self._spent: dict[str, int] = {}
        self._written: dict[tuple[str, int], float] = {}
        """When an event of a kind, and of a device, was last written."""

    def append(self, event: Event) -> None:
        """Write `event` as the next line; raises OSError when the disk does not take it."""
        wait = self._wait(event)
        key, now = (event.kind, getattr(event, "index", 0)), time.monotonic()
        if wait and now - self._written.get(key, -SCARCEST_SECONDS) < wait:
            return
        size = self._write(event)
        self._written[key] = now
        spent = self._spent.get(event.kind, 0)
        self._spent[event.kind] = spent + size
        allowance = _allowance(event.kind)
        if spent < allowance <= spent + size:
            self._write(
                Notice(
                    level="info",
                    title="Events are left out",
                    message=f"{allowance // MIB} MiB of events of the kind {event.kind!r} are written. From here on they are "
                    f"written more rarely, down to one in {SCARCEST_SECONDS:g} s.",
                )
            )

    def _wait(self, event: Event) -> float:
        """Return the seconds that must lie between the last event of this kind and the next."""
        if event.kind in NEVER_LEFT_OUT:
            return 0.0
        share = self._spent.get(event.kind, 0) / _allowance(event.kind)
        if share < 1 or (share < 2 and isinstance(event, Notice) and event.level == "error"):
            return 0.0
        return min(SCARCEST_SECONDS, share**2)

    def _write(self, event: Event) -> int:
        line = encode(event).encode("utf-8", "replace") + b"\n"
        left = b"\n" + line if self._ends_torn() else line
        while left:  # a disk that is full may take a part
            left = left[os.write(self._descriptor, left) :]
        return len(line)

    def _ends_torn(self) -> bool:
        """Tell whether a writer that was killed left the last line without its end."""
        size = os.fstat(self._descriptor).st_size
        return size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def close(self) -> None:
        os.close(self._descriptor)


def _allowance(kind: str) -> int:
    return ALLOWANCES.get(kind, ALLOWANCE)


def read_lines(path: Path, offset: int = 0, limit_bytes: int = 8 * MIB) -> tuple[bytes, int]:
    """Return the whole lines after byte `offset`, at most `limit_bytes` of them, and the offset to go on from.

    A torn last line is the end of the file; so is everything where the file cannot be read now, as on a network's disk.
    """
    try:
        with open_regular(path) as file:
            file.seek(offset)
            block = file.read(limit_bytes)
    except OSError:
        return b"", offset
    end = block.rfind(b"\n") + 1
    if end == 0 and len(block) == limit_bytes:  # one line longer than a block is no event of ours
        return b"", offset + len(block)
    return block[:end], offset + end


def parse(block: bytes, all_samples: bool = True) -> list[Event]:
    """Return the events in a block of whole lines; without `all_samples` the devices' samples are left out but for the newest.

    A long run has hundreds of thousands of those.
    """
    text = block.decode("utf-8", "replace").replace("\0", "")  # what a power cut leaves in place of lines
    lines = text.split("\n")  # not splitlines: text may hold other line ends
    if not all_samples:
        old = [index for index, line in enumerate(lines) if line.startswith(_SAMPLES)][:-NEWEST_SAMPLES]
        for index in old:
            lines[index] = ""
    return [event for line in lines if line and (event := decode(line)) is not None]


def read_events(
    path: Path, offset: int = 0, limit_bytes: int = 8 * MIB, all_samples: bool = True
) -> tuple[list[Event], int]:
    """Return the events in whole lines after byte `offset`, and the offset to go on from; see `read_lines` and `parse`.

    At most `limit_bytes` are read, so a caller can stay responsive; call again until the offset no longer moves.
    """
    block, onward = read_lines(path, offset, limit_bytes)
    return parse(block, all_samples), onward


def newest_events(path: Path, most_bytes: int) -> list[Event]:
    """Return the events in the last `most_bytes` of a file, samples of devices left out; none where there is no file."""
    try:
        begin = max(0, os.stat(path).st_size - most_bytes)
    except OSError:
        return []
    return read_events(path, begin, most_bytes + 1, all_samples=False)[0]


def follow(path: Path, ended: Any, seconds: float = 0.25, offset: int = 0) -> Iterator[Event]:
    """Yield events after byte `offset` as they are written, until `ended()` is true and nothing is left to read."""
    while True:
        over, before = bool(ended()), offset
        events, offset = read_events(path, offset)
        yield from events
        if offset == before:
            if over:
                return
            time.sleep(seconds)
