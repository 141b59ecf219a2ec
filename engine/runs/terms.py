"""Terms: when a run may start and how it treats others on its machine; nothing of it changes the result or the plan."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text, write_atomically
from .directory import RunDirectory

TERMS_FILE = "terms.json"
NICEST = 19
LOWEST_IO_LEVEL = 7


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run starts and goes on beside others; kept with the run, so that a resume keeps to it."""

    queue: bool = False
    """Whether it waits until no other run of Tunewright holds what it takes, and its turn has come."""
    wait_for_memory: bool = False
    """Whether it waits until the memory of its plan is free; a queued run does so too."""
    wait_at_most_hours: float | None = None
    """After so long it gives up; None waits for as long as it takes."""
    nice: int = 0
    """How readily it gives way to others on the processor: 0 as everybody, 19 the most."""
    watch_preemption: bool = False
    """Whether the cloud's warnings are asked for although the machine does not look like a cloud's."""
    check_seconds: float = 3.0
    """How often a run that waits looks again."""
    steady_seconds: float = 10.0
    """How long memory has to stay free before a run that has waited begins."""

    def __post_init__(self) -> None:
        """Raise TunewrightError for what makes no sense."""
        if not 0 <= self.nice <= NICEST:
            raise TunewrightError("Not a nice value", f"{self.nice} is not from 0 to {NICEST}.", "Such as --nice 10.")
        hours = self.wait_at_most_hours
        if hours is not None and not (math.isfinite(hours) and hours > 0):
            raise TunewrightError("Not a time to wait", f"{hours} hours.", "Such as --wait-at-most 12.")

    @property
    def waits(self) -> bool:
        """Whether the run may have to wait before it starts."""
        return self.queue or self.wait_for_memory


def write_terms(run: RunDirectory, terms: Terms) -> None:
    """Keep `terms` with the run; raises TunewrightError."""
    write_atomically(run.path / TERMS_FILE, json.dumps(asdict(terms), indent=2) + "\n")


def read_terms(run: RunDirectory) -> Terms:
    """Return the terms of a run; the usual ones where none are kept, or what is kept is none."""
    try:
        values: Any = json.loads(read_text(run.path / TERMS_FILE, limit_bytes=64 * 1024))
        known = {each.name for each in fields(Terms)}
        kept = {name: value for name, value in cast("dict[str, Any]", values).items() if name in known}
        if not all(value is None or isinstance(value, bool | int | float) for value in kept.values()):
            return Terms()
        return Terms(**kept)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, TunewrightError):
        return Terms()


def give_way(nice: int) -> None:
    """Let this process and all it starts give way to others, by `nice`, on the processor and on the disk.

    The disk's class is the lowest of the ordinary ones and not `idle`, in which a save could starve on a busy disk. Where
    sessions are scheduled as groups (sched_autogroup), a nice value counts within one only, so the group gets it as well.
    """
    if nice <= 0:
        return
    import psutil

    with contextlib.suppress(OSError):  # a run that is nicer already may not take that back
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")
    with contextlib.suppress(AttributeError, psutil.Error, OSError, ValueError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_BE, LOWEST_IO_LEVEL)
