"""Shortage: where a trainer ran out of memory, in its own words, or in the kernel's when that killed it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ...foundation.errors import TunewrightError
from ...foundation.files import write_atomically
from ...foundation.text import one_line
from .directory import RunDirectory

CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a trainer could not have."""

    message: str
    """What was asked for and what was held, as one sentence."""
    killed: bool = False
    """Whether the kernel ended the trainer, which then could do nothing itself."""


KILLED = Shortage("The machine had no memory left, and its kernel ended the trainer.", killed=True)


def leave_shortage(run: RunDirectory, shortage: Shortage) -> None:
    """Write down what ran out, for the supervisor; a disk that is full as well takes nothing from the run."""
    with contextlib.suppress(TunewrightError):
        write_atomically(_file(run), json.dumps(asdict(shortage)))


def take_shortage(run: RunDirectory) -> Shortage:
    """Return what the trainer that just ended wrote down, and forget it."""
    try:
        values = json.loads(_file(run).read_text(encoding="utf-8"))
        return Shortage(one_line(str(values["message"]), 500), bool(values["killed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Shortage("")
    finally:
        _file(run).unlink(missing_ok=True)


def kernel_kills() -> int:
    """Return how many processes of this one's control group the kernel has killed for want of memory, 0 when not told.

    `oom_kill` of the group, from memory.events (version 2) or memory.oom_control (version 1).
    """
    for file in _counters():
        with contextlib.suppress(OSError, ValueError):
            for line in file.read_text(encoding="utf-8").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _counters() -> list[Path]:
    """Return the files that may tell: those of this process's group, then those at the top, as a container sees them."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    files: list[Path] = []
    for line in groups:
        _, kinds, path = line.split(":", 2)
        inner = path.lstrip("/")
        if kinds == "":
            tops, name = [CONTROL_GROUPS, CONTROL_GROUPS / "unified"], "memory.events"
        elif "memory" in kinds.split(","):
            tops, name = [CONTROL_GROUPS / "memory"], "memory.oom_control"
        else:
            continue
        files += [place / name for top in tops for place in (top / inner, top)]
    return files


def _file(run: RunDirectory) -> Path:
    return run.path / ".shortage.json"
