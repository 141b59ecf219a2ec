"""The run directory: the only contract between a run and whoever looks at it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ...foundation.errors import TunewrightError, explain_os_error, nearest
from ...foundation.files import open_regular, read_text, write_atomically
from ...foundation.home import runs_folder
from ...foundation.text import one_line
from ..plan import Plan, read_plan, write_plan
from ..redaction import redact
from .events import Event, EventLog, Status

if TYPE_CHECKING:
    from ...recipes.model import Recipe

Standing = Literal[
    "starting", "queued", "running", "stopping", "stopped", "pausing", "paused", "finished", "failed", "unresponsive",
    "lost", "elsewhere", "damaged",
]  # fmt: skip
"""What can be said of a run from outside.

`queued` waits for its turn or for memory; `unresponsive` is alive but silent; `lost` ended without a word; `elsewhere` was started by another machine that shares
this folder; `damaged` is no run that this version can read.
"""
SILENCE_SECONDS = 120.0
"""After this long without an event a run that is alive is called unresponsive."""
STARTING_SECONDS = 30.0
RESERVE_BYTES = 128 * 1024
LARGEST_BYTES = 16 * 2**20
"""Of a run's small files: a larger one is none of ours."""
TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot: a number alone may be given to another process."""

    pid: int
    started: int
    """Clock ticks after boot at which the process started (field 22 of /proc/PID/stat)."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of the process `pid`, None when there is none or it has ended."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return _identity_without_proc(pid)
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self


def _identity_without_proc(pid: int) -> ProcessIdentity | None:
    if Path("/proc/self/stat").exists():
        return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else ProcessIdentity(pid, int(process.create_time()))
    except psutil.Error:
        return None


def boot_id() -> str:
    """Return a text that changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


@dataclass(frozen=True, slots=True)
class Processes:
    """Who runs a run: what `process.json` holds."""

    host: str
    boot_id: str
    supervisor: ProcessIdentity
    trainer: ProcessIdentity | None
    detached_by: str
    """How the supervisor was set free of the terminal, in words."""

    def to_json(self) -> str:
        def entry(process: ProcessIdentity | None) -> dict[str, int] | None:
            return None if process is None else {"pid": process.pid, "started": process.started}

        return json.dumps(
            {
                "host": self.host,
                "boot_id": self.boot_id,
                "supervisor": entry(self.supervisor),
                "trainer": entry(self.trainer),
                "detached_by": self.detached_by,
            },
            indent=2,
        )


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def plan_file(self) -> Path:
        return self.path / "plan.json"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def fold_file(self) -> Path:
        """What the events add up to: made from them anew whenever it does not fit them."""
        return self.path / "fold.json"

    @property
    def console_file(self) -> Path:
        return self.path / "console.log"

    @property
    def process_file(self) -> Path:
        return self.path / "process.json"

    @property
    def result_file(self) -> Path:
        return self.path / "result.json"

    @property
    def reserve_file(self) -> Path:
        """A little space held back, so that a run on a full disk can still say so."""
        return self.path / ".reserve"

    @property
    def rung_file(self) -> Path:
        """The rung of the memory ladder on which the run stands, once it has left the top one."""
        return self.path / "rung.json"

    @property
    def waiting_file(self) -> Path:
        """What the run waits for; there only while it waits, and touched whenever it looks again."""
        return self.path / "waiting.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def adapter(self) -> Path:
        """The tuned adapter in PEFT's format."""
        return self.exports / "adapter"

    @property
    def model(self) -> Path:
        """The whole tuned model: merged, or fully fine-tuned."""
        return self.exports / "model"

    def recipe(self) -> Recipe:
        """Return the frozen recipe; raises TunewrightError."""
        from ...recipes.model import read_recipe

        return read_recipe(self.recipe_file)

    def plan(self) -> Plan:
        """Return the frozen plan; raises TunewrightError."""
        return read_plan(self.plan_file)

    def processes(self) -> Processes | None:
        """Return who runs the run, None when nobody has said so yet; raises TunewrightError for a damaged file."""
        if not os.path.lexists(self.process_file):
            return None
        try:
            values = json.loads(read_text(self.process_file, LARGEST_BYTES))
            trainer = values["trainer"]
            return Processes(
                host=str(values["host"]),
                boot_id=str(values["boot_id"]),
                supervisor=ProcessIdentity(int(values["supervisor"]["pid"]), int(values["supervisor"]["started"])),
                trainer=None if trainer is None else ProcessIdentity(int(trainer["pid"]), int(trainer["started"])),
                detached_by=one_line(str(values["detached_by"]), 200),
            )
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise _damaged(self.process_file) from error

    def result(self) -> dict[str, Any] | None:
        """Return the result, None while there is none; raises TunewrightError for a damaged file."""
        if not os.path.lexists(self.result_file):
            return None
        try:
            values = json.loads(read_text(self.result_file, LARGEST_BYTES))
            if not isinstance(values, dict) or not isinstance(values.get("state"), str):  # pyright: ignore[reportUnknownMemberType]
                raise _damaged(self.result_file)
            return cast("dict[str, Any]", values)
        except (ValueError, RecursionError) as error:
            raise _damaged(self.result_file) from error

    def console_tail(self, lines: int = 40) -> str:
        """Return the last `lines` of what the processes printed, without secrets but uncleaned."""
        try:
            with open_regular(self.console_file) as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - TAIL_BYTES))
                return redact("\n".join(file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()[-lines:]))
        except OSError:
            return ""

    def size_bytes(self) -> int:
        """Return what the run takes on the disk; what cannot be looked at is not counted, and no link is followed."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.lstat(os.path.join(folder, name))
                    total += min(status.st_size, status.st_blocks * 512)  # a file of holes takes what is between them
        return total


def _damaged(path: Path) -> TunewrightError:
    return TunewrightError("Run damaged", f"{path} cannot be read.", "Its checkpoints and exports can still be used.")


def hold_reserve(run: RunDirectory) -> None:
    """Hold back the space for a run's last words; raises OSError when there is none."""
    run.reserve_file.write_bytes(b"\xff" * RESERVE_BYTES)


def release_reserve(run: RunDirectory) -> None:
    """Give the space for the last words free."""
    run.reserve_file.unlink(missing_ok=True)


class InsistentLog(EventLog):
    """An event log for what has to be told: it takes the reserve of a full disk, and goes without only where that is gone."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(run.events_file)
        self._run = run

    def append(self, event: Event) -> None:
        """Write `event` as the next line; a disk that takes nothing at all is no reason to stop."""
        try:
            super().append(event)
        except OSError:
            with contextlib.suppress(OSError):
                release_reserve(self._run)
                super().append(event)


def standing(run: RunDirectory) -> Standing:
    """Tell how the run stands, from its result, its processes' identities and its last event; never raises."""
    try:
        if not run.recipe_file.is_file() or not run.plan_file.is_file():
            return "damaged"
        processes = run.processes()
        result = run.result()
        if result is not None:
            state = result["state"]
            return cast("Standing", state) if state in ("finished", "stopped", "paused", "failed") else "damaged"
        if processes is None:
            return "starting" if time.time() - run.path.stat().st_mtime < STARTING_SECONDS else "lost"
        if processes.host != socket.gethostname():
            return "elsewhere"
        if processes.boot_id != boot_id() or not processes.supervisor.alive:
            return "lost"
        waiting = run.waiting_file.exists()
        if time.time() - (run.waiting_file if waiting else run.events_file).stat().st_mtime > SILENCE_SECONDS:
            return "unresponsive"
        return "queued" if waiting else "running"
    except (TunewrightError, OSError):
        return "damaged"


def is_live(run: RunDirectory) -> bool:
    """Tell whether a process of this machine is working on the run."""
    return standing(run) in ("starting", "queued", "running", "stopping", "pausing", "unresponsive")


def create_run(recipe: Recipe, plan: Plan, name: str, folder: Path | None = None) -> RunDirectory:
    """Make the directory of a new run called after `name`, with its frozen inputs; raises TunewrightError."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = (folder or runs_folder()) / f"{stamp}-{slug}-{secrets.token_hex(2)}"
    making = RunDirectory(place.with_name(f".{place.name}"))  # nobody sees a run before it is whole
    try:
        making.path.mkdir(parents=True)
        making.checkpoints.mkdir()
        making.exports.mkdir()
        hold_reserve(making)
        write_atomically(making.recipe_file, recipe.to_toml())
        write_plan(plan, making.plan_file)
        log = EventLog(making.events_file)
        log.append(Status(state="starting"))
        log.close()
        making.path.rename(place)
    except (OSError, TunewrightError) as error:
        shutil.rmtree(making.path, ignore_errors=True)
        if isinstance(error, TunewrightError):
            raise
        raise explain_os_error(error, place, "Making the run's folder") from error
    return RunDirectory(place)


def list_runs(folder: Path | None = None) -> list[RunDirectory]:
    """Return the runs, newest first; whatever is no folder is left out."""
    try:
        found = [RunDirectory(entry) for entry in (folder or runs_folder()).iterdir() if os.path.isdir(entry)]
    except OSError:
        return []
    return sorted((run for run in found if not run.id.startswith(".")), key=lambda run: run.id, reverse=True)


def find_run(name: str, folder: Path | None = None) -> RunDirectory:
    """Return the run called `name`: its id, a part of it that only one has, a path, or `last`; raises TunewrightError."""
    runs = list_runs(folder)
    if name == "last" and runs:
        return runs[0]
    if "/" in name and Path(name).is_dir():
        return RunDirectory(Path(name).absolute())
    exact = [run for run in runs if run.id == name]
    matches = exact or [run for run in runs if name in run.id]
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(run.id for run in matches[:5])
        raise TunewrightError(
            "Run not clear", f"{len(matches)} runs are called like {name!r}: {shown}.", "Give more of it."
        )
    close = nearest(name, [run.id for run in runs])
    hint = f"Did you mean {close}? " if close else ""
    raise TunewrightError(
        "Run not found", f"There is no run {one_line(name, 80)!r}.", f"{hint}`tunewright runs` lists them."
    )
