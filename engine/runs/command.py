"""Commanding a run: any number of interfaces follow it, one at a time commands it, and the next one is told which."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.text import one_line
from ...foundation.users import user_name
from .directory import RunDirectory
from .events import Status, newest_events

STOP_SIGNAL, PAUSE_SIGNAL = signal.SIGINT, signal.SIGTSTP
"""What people's wishes reach the supervisor as: Ctrl-C's and Ctrl-Z's own signals."""
COMMAND_FILE = "command.json"
TAIL_BYTES = 256 * 1024
"""Of the events, in which the last word on the run's state is looked for."""


@dataclass(frozen=True, slots=True)
class Commander:
    """Who commands a run at this moment, or did so last."""

    user: str
    pid: int
    terminal: str
    host: str
    doing: str
    """What for, as a verb."""
    since: float

    @classmethod
    def own(cls, doing: str) -> Commander:
        """Return this process as the one that commands."""
        return cls(user_name(os.getuid()), os.getpid(), _terminal(), socket.gethostname(), doing, time.time())

    def __str__(self) -> str:
        where = f"pid {self.pid}, {self.terminal}"
        if self.host != socket.gethostname():
            where += f" on {self.host}"
        return f"{self.user} ({where})"


@contextlib.contextmanager
def commanding(run: RunDirectory, doing: str) -> Generator[None]:
    """Hold the right to command `run` while the block goes on; raises TunewrightError while another process has it.

    The kernel takes the right away from a process that ends, however it ends.
    """
    try:
        file = (run.path / COMMAND_FILE).open("a+", encoding="utf-8")
    except FileNotFoundError:  # no folder, so there is nothing to collide on
        yield
        return
    except OSError as error:
        raise _not_ours(run, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _commanded(run) from None
        except OSError as error:
            raise explain_os_error(error, run.path / COMMAND_FILE, "Locking") from error
        with contextlib.suppress(OSError):  # on a full disk a run can still be stopped
            file.truncate(0)
            file.write(json.dumps(asdict(Commander.own(doing))))
            file.flush()
        yield


def last_commander(run: RunDirectory) -> Commander | None:
    """Return who commands the run, or did so last; None where nobody has, or where that cannot be read."""
    try:
        values: Any = json.loads((run.path / COMMAND_FILE).read_text(encoding="utf-8", errors="replace"))
        return Commander(
            one_line(str(values["user"]), 60),
            int(values["pid"]),
            one_line(str(values["terminal"]), 60),
            one_line(str(values["host"]), 100),
            one_line(str(values["doing"]), 40),
            float(values["since"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def asked_to(run: RunDirectory) -> str:
    """Return whether the run that is going on is `stopping` or `pausing`; empty when nobody has asked for that."""
    status = next(
        (each for each in reversed(newest_events(run.events_file, TAIL_BYTES)) if isinstance(each, Status)), None
    )
    return status.state if status is not None and status.state in ("stopping", "pausing") else ""


def signal_supervisor(run: RunDirectory, number: signal.Signals) -> None:
    """Send a signal to the run's supervisor, which has just been found alive; raises TunewrightError."""
    processes = run.processes()
    if processes is None:
        return
    try:
        os.kill(processes.supervisor.pid, number)
    except ProcessLookupError:
        pass  # it ended this moment
    except PermissionError as error:
        raise _not_ours(run, error) from error


def _commanded(run: RunDirectory) -> TunewrightError:
    found = last_commander(run)
    who = f"{found} is about to {found.doing} it" if found else "Another process commands it"
    return TunewrightError(
        "Another terminal commands this run",
        f"{who}: {run.id}.",
        f"Wait a moment and look again: `tunewright attach {run.id}` follows it.",
    )


def _not_ours(run: RunDirectory, error: OSError) -> TunewrightError:
    owner = os.getuid()
    with contextlib.suppress(OSError):
        owner = run.path.stat().st_uid
    if error.errno not in (errno.EACCES, errno.EPERM) or owner == os.getuid():
        return explain_os_error(error, run.path, "Commanding")
    return TunewrightError(
        "Run of another user",
        f"{run.id} belongs to {user_name(owner)}, and only they can command it.",
        f"`tunewright attach {run.path}` follows it.",
    )


def _terminal() -> str:
    """Return the name of this process's terminal, such as `pts/3`."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            return os.ttyname(descriptor).removeprefix("/dev/")
    return "no terminal"
