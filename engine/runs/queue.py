"""The queue of a machine: one ticket a run, in a folder that all its users share; no process looks after it.

A ticket is a small file that the run's own supervisor keeps locked while it lives. The kernel lets go of the lock with the
process, so a kill or a restart leaves nothing behind that counts. Tickets of runs that go on say what they hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.home import home
from ...foundation.text import one_line
from ...foundation.users import user_name
from ..plan import Plan
from .directory import RunDirectory, boot_id

SHARED_FOLDERS = (Path("/run/lock"), Path("/tmp"))
"""Where every user may write and nobody may remove what is another's, the first that there is."""
PREFIX = "tunewright-ticket-"
LOCK_SECONDS = 10.0
"""How long the queue may be locked by others before that is an error; it takes them a few milliseconds."""
TICKET_BYTES = 4096
MOST_TICKETS = 4096
MOST_WORDS = 160
SHOWN_HOLDERS = 3
_NAME = re.compile(PREFIX + r"(\d{8})-([0-9a-f]{8})")

TicketState = Literal["waiting", "sharing", "running"]
"""`waiting` is for a turn of its own; `sharing` for free memory alone, and holds nobody up; `running` holds what it takes."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One run in the queue, or one that goes on, as its ticket tells; `uid` is the file's and cannot be made up."""

    number: int
    """Its turn: the lowest comes first."""
    token: str
    uid: int
    inode: tuple[int, int]
    run: str
    state: TicketState
    resources: frozenset[str]
    """What it takes: `gpu0` and so on, or `cpu`."""
    needed_gib: float
    """The predicted peak on each of them."""
    since: float
    """When it took its ticket, or began, in seconds since the epoch."""
    pid: int
    waits_for: str

    @property
    def order(self) -> tuple[int, str]:
        """What tickets are sorted by."""
        return self.number, self.token

    @property
    def user(self) -> str:
        """The name of its user, or the number where there is no name."""
        return user_name(self.uid)

    @property
    def is_mine(self) -> bool:
        """Whether this user may move or drop it."""
        return self.uid == os.getuid()

    @property
    def name(self) -> str:
        """The ticket's file."""
        return f"{PREFIX}{self.number:08d}-{self.token}"


def resources_of(plan: Plan) -> frozenset[str]:
    """Return what a plan takes of the machine: its cards, or the one place on the processor."""
    return frozenset(f"gpu{index}" for index in plan.gpu_indices) if plan.device == "cuda" else frozenset({"cpu"})


def resource_name(resource: str) -> str:
    """Return what people call a resource."""
    return f"GPU {resource[3:]}" if resource.startswith("gpu") else "the processor"


def shared_folder() -> Path:
    """Return the folder of the tickets: TUNEWRIGHT_QUEUE, the machine's for locks, or one of this user's own.

    Raises TunewrightError for one that is named and does not exist or belongs to some other user, who could remove tickets.
    """
    if named := os.environ.get("TUNEWRIGHT_QUEUE"):
        folder = Path(named).expanduser().absolute()
        with contextlib.suppress(OSError):
            status = folder.stat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.getuid()):
                return folder
        raise TunewrightError(
            "No folder for the queue",
            f"TUNEWRIGHT_QUEUE is {one_line(named, 200)!r}, which is no folder of root's or of yours.",
            "Make it for all users: `mkdir -m 1777 FOLDER` as root; or unset the variable.",
        )
    for folder in SHARED_FOLDERS:
        with contextlib.suppress(OSError):
            status = folder.stat()
            shared = stat.S_ISVTX | stat.S_IWOTH
            if stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and status.st_mode & shared == shared:
                return folder
    folder = home() / "queue"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Keep everybody else from changing the queue; the lock is on the folder itself, so nobody can plant one."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explain_os_error(error, folder, "Opening") from error
    try:
        if not _lock(descriptor, LOCK_SECONDS):
            raise TunewrightError(
                "The queue is locked",
                f"Another process has held the lock on {folder} for {LOCK_SECONDS:.0f} s.",
                f"`fuser -v {folder}` shows who has it open.",
            )
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, seconds: float) -> bool:
    """Take the lock for this process alone; False when others keep it for longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)


def tickets(folder: Path | None = None) -> tuple[Ticket, ...]:
    """Return the tickets of all runs that live, in their order; what is none, or has no living owner, is left out."""
    return tuple(ticket for ticket, alive in _scan(folder or shared_folder()) if alive)


def living_tickets() -> tuple[Ticket, ...]:
    """Return the tickets of all runs that live; none where the queue cannot be read."""
    try:
        return tickets()
    except (TunewrightError, OSError):
        return ()


def _scan(folder: Path) -> list[tuple[Ticket, bool]]:
    """Return every ticket in `folder` in its order, and whether its owner lives."""
    found: dict[tuple[int, int], tuple[Ticket, bool]] = {}
    with contextlib.suppress(OSError):
        named = [match for entry in os.listdir(folder) if (match := _NAME.fullmatch(entry))]
        for match in sorted(named, key=lambda match: match[0])[:MOST_TICKETS]:
            if (read := _read(folder / match[0], int(match[1]), match[2])) is not None:
                found.setdefault(read[0].inode, read)  # a second name of the same file says nothing new
    return sorted(found.values(), key=lambda read: read[0].order)


def _read(path: Path, number: int, token: str) -> tuple[Ticket, bool] | None:
    """Return the ticket at `path` and whether it is held; None for links, pipes and whatever else strangers put there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        values: Any = json.loads(os.pread(descriptor, TICKET_BYTES, 0))
        if not isinstance(values, dict):
            return None
        told = cast("dict[str, Any]", values)
        names, needed, since = cast("list[Any]", told["resources"]), float(told["needed_gib"]), float(told["since"])
        if not (math.isfinite(needed) and math.isfinite(since)):
            return None
        ticket = Ticket(
            number=number,
            token=token,
            uid=status.st_uid,
            inode=(status.st_dev, status.st_ino),
            run=one_line(str(told["run"]), 120),
            state=told["state"] if told["state"] in ("running", "sharing") else "waiting",
            resources=frozenset(one_line(str(name), 20) for name in names[:64]),
            needed_gib=max(0.0, needed),
            since=since,
            pid=int(told["pid"]),
            waits_for=one_line(str(told["waits_for"]), MOST_WORDS),
        )
        return ticket, told["boot_id"] == boot_id() and _is_held(descriptor)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True


def before(ticket: Ticket, others: Iterable[Ticket]) -> tuple[Ticket, ...]:
    """Return the tickets that `ticket` has to wait for: those that hold what it takes, and those whose turn is earlier."""
    if ticket.state != "waiting":
        return ()
    return tuple(
        other
        for other in others
        if other.inode != ticket.inode
        and other.resources & ticket.resources
        and (other.state == "running" or (other.state == "waiting" and other.order < ticket.order))
    )


def holders_of(plan: Plan) -> tuple[Ticket, ...]:
    """Return the runs of all users that hold or wait for what `plan` takes; none where the queue cannot be read."""
    taken = resources_of(plan)
    return tuple(ticket for ticket in living_tickets() if ticket.resources & taken)


def holders_told(found: Sequence[Ticket], plan: Plan) -> str:
    """Say who holds, and who waits for, what `plan` takes; nothing where nobody does."""
    if not found:
        return ""
    running = [ticket for ticket in found if ticket.state == "running"]
    parts = [held_told(running, resources_of(plan))] if running else []
    waiting = len(found) - len(running)
    if waiting:
        parts.append(f"{waiting} {'run waits' if waiting == 1 else 'runs wait'} for it")
    return f"{', '.join(parts)}."


def held_told(running: Sequence[Ticket], wanted: frozenset[str]) -> str:
    """Say which of what is `wanted` is held by whose runs."""
    names = frozenset(name for ticket in running for name in ticket.resources & wanted)
    held = ", ".join(run_told(ticket) for ticket in running[:SHOWN_HOLDERS])
    more = f" and {len(running) - SHOWN_HOLDERS} more" if len(running) > SHOWN_HOLDERS else ""
    text = f"{names_told(names)} {'is' if len(names) == 1 else 'are'} held by {held}{more}"
    return text[0].upper() + text[1:]


def names_told(resources: frozenset[str]) -> str:
    """Return what people call these resources."""
    return " and ".join(resource_name(name) for name in sorted(resources))


def run_told(ticket: Ticket) -> str:
    """Return whose run a ticket is."""
    return f"{ticket.user}'s run {ticket.run}"


class Place:
    """A run's own ticket, held until `leave` or the end of this process."""

    def __init__(self, run: RunDirectory, plan: Plan, needed_gib: float, state: TicketState) -> None:
        """Take a ticket behind all others; raises TunewrightError and OSError where there is no place for one."""
        self.folder = shared_folder()
        self._run, self._resources, self._needed_gib = run.id, resources_of(plan), needed_gib
        self._descriptor = -1
        self.ticket = self._take(state, time.time())

    def _take(self, state: TicketState, since: float) -> Ticket:
        with _alone(self.folder):
            found = _scan(self.folder)
            for ticket, alive in found:
                if not alive and ticket.is_mine:
                    (self.folder / ticket.name).unlink(missing_ok=True)
            number = max((ticket.number for ticket, _ in found), default=0) + 1
            if number > 99_999_999:
                raise TunewrightError(
                    "The queue has no number left", f"In {self.folder} the last one is taken.", "Remove that ticket."
                )
            token = secrets.token_hex(4)
            path = self.folder / f"{PREFIX}{number:08d}-{token}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)
            os.fchmod(self._descriptor, 0o644)  # others read it, whatever this user's umask
            if not _lock(self._descriptor, 1.0):
                raise TunewrightError("The ticket is locked", f"{path} is held by another process.", "Try again.")
            status = os.fstat(self._descriptor)
            ticket = Ticket(
                number, token, status.st_uid, (status.st_dev, status.st_ino), self._run, state, self._resources,
                self._needed_gib, since, os.getpid(), "",
            )  # fmt: skip
            self._write(ticket)
        return ticket

    def _write(self, ticket: Ticket) -> None:
        """Write the ticket in place, in one piece of one size, for the lock is the file's."""
        values = {
            "run": ticket.run,
            "state": ticket.state,
            "resources": sorted(ticket.resources),
            "needed_gib": ticket.needed_gib,
            "since": ticket.since,
            "pid": ticket.pid,
            "boot_id": boot_id(),
            "waits_for": ticket.waits_for,
        }
        os.pwrite(self._descriptor, json.dumps(values).encode("ascii").ljust(TICKET_BYTES), 0)
        self.ticket = ticket

    def look(self) -> tuple[Ticket, ...]:
        """Return all living tickets, this one as it stands now; a ticket that somebody removed is taken anew, at the end."""
        found = tickets(self.folder)
        mine = next((ticket for ticket in found if ticket.inode == self.ticket.inode), None)
        if mine is None:
            os.close(self._descriptor)
            self.ticket = self._take(self.ticket.state, self.ticket.since)
            return tickets(self.folder)
        self.ticket = replace(self.ticket, number=mine.number)  # its user may have moved it
        return found

    def tell(self, waits_for: str) -> None:
        """Say on the ticket what the run waits for, and that it is not forgotten."""
        waits_for = one_line(waits_for, MOST_WORDS)
        if waits_for != self.ticket.waits_for:
            with _alone(self.folder):
                self._write(replace(self.ticket, waits_for=waits_for))
        else:
            os.utime(self._descriptor)

    @contextlib.contextmanager
    def deciding(self) -> Generator[tuple[Ticket, ...]]:
        """Yield all living tickets while nobody else can change one, so that two runs never begin on the same word."""
        with _alone(self.folder):
            yield tickets(self.folder)

    def begin(self) -> None:
        """Say that the run goes on from now; within `deciding` where it waited for its turn."""
        self._write(replace(self.ticket, state="running", since=time.time(), waits_for=""))

    def leave(self) -> None:
        """Give the ticket back."""
        with contextlib.suppress(OSError):
            status = os.fstat(self._descriptor)
            for ticket, _ in _scan(self.folder):
                if ticket.inode == (status.st_dev, status.st_ino):
                    (self.folder / ticket.name).unlink(missing_ok=True)
            os.close(self._descriptor)


def to_front(run: str) -> Ticket:
    """Give the waiting run the first place that its user has in the queue, and return its ticket; raises TunewrightError.

    The user's other runs move back by one each, so nobody else's turn changes.
    """
    folder = shared_folder()
    with _alone(folder):
        waiting = [ticket for ticket in tickets(folder) if ticket.is_mine and ticket.state == "waiting"]
        chosen = next((ticket for ticket in waiting if ticket.run == run), None)
        if chosen is None:
            raise TunewrightError(
                "Not in the queue", f"{one_line(run, 120)} waits for no turn.", "`tunewright queue` lists what does."
            )
        first = waiting.index(chosen)
        moved = [chosen, *waiting[:first]]
        numbers = [ticket.number for ticket in waiting[: first + 1]]
        for ticket, number in zip(moved, numbers, strict=True):
            os.rename(folder / ticket.name, folder / replace(ticket, number=number).name)
    return replace(chosen, number=numbers[0])
