"""Waiting: a run whose turn has not come, or whose memory is not free, says for what and for whom, and looks again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text, write_atomically
from ...foundation.text import one_line
from ...foundation.units import GIB
from ..gpu_memory import CUDA_CONTEXT_GIB
from ..machine import GpuDevice, GpuProcess, Machine, largest_processes, sample_gpus
from ..plan import Plan
from .directory import RunDirectory
from .events import EventLog, Measured, Status
from .queue import Place, Ticket, before, held_told, resource_name, run_told
from .terms import Terms, read_terms

TELL_SECONDS = 60.0
"""Between two events about memory, which comes and goes."""
SHOW_SECONDS = 10.0
"""Between two figures of the same wait."""
SHOWN_HOLDERS = 3
SYSTEM_SHARE = 0.15
"""Of the host's memory, what the system and small programs keep when a run's turn comes."""
DRIVER_SHARE = 0.01
"""Of a card's memory, what its driver keeps of an idle one."""
TIE_SHARE = 0.001
"""Of what others hold, how much a card counts as smaller, so that the freest still comes first."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Memory that a run needs in one place and that is not free there."""

    place: str
    needed_gib: float
    free_gib: float
    holders: tuple[GpuProcess, ...]
    promised_gib: float = 0.0
    """What other runs that go on will take there at their peak."""

    @property
    def said(self) -> str:
        """What is short, and who holds it."""
        place = "The machine" if self.place == "the machine" else self.place
        text = f"{place} has {max(0.0, self.free_gib):.1f} GiB free of the {self.needed_gib:.1f} needed"
        if self.promised_gib:
            text += f", {self.promised_gib:.1f} promised to other runs"
        if self.holders:
            return f"{text}; held: {', '.join(holder.said for holder in self.holders[:SHOWN_HOLDERS])}"
        return f"{text}; its holders are hidden from this user or container" if not self.promised_gib else text


@dataclass(frozen=True, slots=True)
class Wait:
    """What a waiting run waits for, as its folder tells."""

    what: str
    """`turn`, `memory`, or `steady` for memory that has to stay free for a moment."""
    said: str
    place: int | None = None
    """Its place among those that wait for the same, 1 for the next; None where it waits for memory alone."""
    of: int | None = None
    since: float = 0.0

    @property
    def short(self) -> str:
        """The wait in a few words."""
        return f"place {self.place} of {self.of}" if self.place else "for memory"


def read_wait(run: RunDirectory) -> Wait | None:
    """Return what a run waits for, None when it does not wait or that cannot be read."""
    try:
        values: Any = json.loads(read_text(run.waiting_file, limit_bytes=64 * 1024))
        place, of = values["place"], values["of"]
        return Wait(
            what=one_line(str(values["what"]), 20),
            said=one_line(str(values["said"]), 1000),
            place=None if place is None else int(place),
            of=None if of is None else int(of),
            since=float(values["since"]),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, TunewrightError):
        return None


def needed_gib(plan: Plan) -> float:
    """Return the free memory that a plan's run must find on each of its cards, or of the machine without one, in GiB."""
    prediction = plan.prediction
    if prediction is None:
        return 0.0
    peak = max(prediction.peak_gib, prediction.reserved_gib, prediction.evaluation_gib, prediction.saving_gib)
    return peak + CUDA_CONTEXT_GIB if plan.device == "cuda" else max(peak, prediction.host_gib)


def machine_in_turn(machine: Machine) -> Machine:
    """Return `machine` as a run that waits may find it: what others hold of its cards, or of its memory, given back.

    Cards on which more is free now are still taken first, and of the host's memory the system keeps its share.
    """
    if not machine.gpus:
        return replace(
            machine, memory_free_gib=max(machine.memory_free_gib, machine.memory_total_gib * (1 - SYSTEM_SHARE))
        )
    return replace(machine, gpus=tuple(replace(gpu, memory_free_gib=_given_back(gpu)) for gpu in machine.gpus))


def _given_back(gpu: GpuDevice) -> float:
    held = gpu.memory_total_gib - gpu.memory_free_gib
    return max(gpu.memory_free_gib, gpu.memory_total_gib * (1 - DRIVER_SHARE) - TIE_SHARE * held)


def shortfalls(plan: Plan, others: Iterable[Ticket] = ()) -> tuple[Shortfall, ...]:
    """Return where the plan's memory is not free now; what `others` that go on will take counts before they have it."""
    needed = needed_gib(plan)
    running = [ticket for ticket in others if ticket.state == "running"]
    if plan.device != "cuda":
        promised = sum(ticket.needed_gib for ticket in running if "cpu" in ticket.resources)
        return tuple(_host_shortfall(needed, promised))
    found: list[Shortfall] = []
    cards = {gpu.index: gpu for gpu in sample_gpus()}
    for index in plan.gpu_indices:
        gpu = cards.get(index)
        promised = sum(ticket.needed_gib for ticket in running if f"gpu{index}" in ticket.resources)
        name = resource_name(f"gpu{index}")
        if gpu is None:
            found.append(Shortfall(f"{name}, which does not answer,", needed, 0.0, ()))
            continue
        free = min(gpu.memory_free_gib, gpu.memory_total_gib - promised)
        if free < needed:
            found.append(Shortfall(name, needed, free, gpu.processes, promised))
    return (*found, *_host_shortfall(plan.prediction.host_gib if plan.prediction else 0.0, 0.0))


def _host_shortfall(needed: float, promised: float) -> Iterable[Shortfall]:
    import psutil

    memory = psutil.virtual_memory()
    free = min(memory.available, memory.total - promised * GIB) / GIB
    if free < needed:
        yield Shortfall("the machine", needed, free, largest_processes(SHOWN_HOLDERS), promised)


class Patience:
    """Waits for one run's start, tells what it waits for, and takes its place when it may begin."""

    def __init__(self, run: RunDirectory, plan: Plan, terms: Terms, log: EventLog) -> None:
        self.run, self.plan, self.terms, self.log = run, plan, terms, log
        self.place = Place(run, plan, needed_gib(plan), "waiting" if terms.queue else "sharing")
        self.began, self.began_at = time.monotonic(), time.time()
        self._free_since: float | None = None
        self._waited = False
        self._told: tuple[object, ...] = ()
        self._told_at = 0.0
        self._shown: tuple[object, ...] = ()
        self._shown_at = 0.0

    def wait(self, stopped: Callable[[], bool], wakened: int) -> bool:
        """Return True once the run may begin and holds its place, False when it was `stopped` before.

        Bytes on the descriptor `wakened` end a pause early. Raises TunewrightError after the longest time to wait.
        """
        try:
            while not stopped():
                if (wait := self._look()) is None:
                    self._say_goodbye()
                    return True
                self._waited = True
                self._tell(wait)
                self._give_up_in_time(wait)
                select.select([wakened], [], [], self.terms.check_seconds)
            self.place.leave()
            return False
        except BaseException:
            self.place.leave()
            raise
        finally:
            self.run.waiting_file.unlink(missing_ok=True)

    def _look(self) -> Wait | None:
        """Return what is still to be waited for; None when the run has its place and may begin."""
        self.terms = read_terms(self.run)  # its user may have changed them meanwhile
        try:
            self.place.look()
            with self.place.deciding() as found:
                if not self.terms.waits:
                    self.place.begin()
                    return None
                ahead = before(self.place.ticket, found)
                short = () if ahead else shortfalls(self.plan, [t for t in found if t.inode != self.place.ticket.inode])
                now = time.monotonic()
                if ahead or short:
                    self._free_since = None
                elif self._free_since is None:
                    self._free_since = now
                if self._free_since is not None and self._is_steady(now - self._free_since):
                    self.place.begin()
                    return None
                return self._wait_for(ahead, short, found)
        except (TunewrightError, OSError) as error:  # locked for a moment, or its folder is out of reach: look again
            said = error.message if isinstance(error, TunewrightError) else str(error)
            return Wait("turn", f"The queue cannot be read: {one_line(said, 200)}", None, None, self.began_at)

    def _is_steady(self, free_seconds: float) -> bool:
        """Tell whether memory has been free for long enough; at the first look nothing has shown that it comes and goes."""
        return not self._waited or free_seconds >= self.terms.steady_seconds

    def _wait_for(self, ahead: Sequence[Ticket], short: Sequence[Shortfall], found: Sequence[Ticket]) -> Wait:
        mine = self.place.ticket
        place = of = None
        if mine.state == "waiting":
            alike = [ticket for ticket in found if ticket.state == "waiting" and ticket.resources & mine.resources]
            place, of = 1 + sum(ticket.order < mine.order for ticket in alike), len(alike)
        if ahead:
            running = [ticket for ticket in ahead if ticket.state == "running"]
            said = held_told(running, mine.resources) if running else f"{run_told(ahead[-1])} comes before it"
            return Wait("turn", said, place, of, self.began_at)
        if short:
            return Wait("memory", "; ".join(each.said for each in short), place, of, self.began_at)
        return Wait("steady", "Its memory is free; it begins when that stays so", place, of, self.began_at)

    def _tell(self, wait: Wait) -> None:
        """Write down what is waited for; an event only when that is something else than before."""
        about = (wait.what, wait.place, wait.said if wait.what == "turn" else "")
        now = time.monotonic()
        with contextlib.suppress(TunewrightError, OSError):  # a full disk is no reason to lose one's turn
            self._show(wait, about, now)
            self.place.tell(wait.said)
        if about != self._told and (self._told_at + TELL_SECONDS < now or wait.what == "turn" or not self._told):
            self.log.append(Status(state="queued", reason=f"{wait.short}: {wait.said}" if wait.place else wait.said))
            self._told, self._told_at = about, now

    def _show(self, wait: Wait, about: tuple[object, ...], now: float) -> None:
        """Have the run's folder tell what is waited for, and that this process still looks."""
        file = self.run.waiting_file
        if about != self._shown or self._shown_at + SHOW_SECONDS < now or not file.exists():
            write_atomically(file, json.dumps(asdict(wait)))
            self._shown, self._shown_at = about, now
        else:
            os.utime(file)

    def _give_up_in_time(self, wait: Wait) -> None:
        hours = self.terms.wait_at_most_hours
        if hours is not None and time.monotonic() - self.began > hours * 3600:
            raise TunewrightError(
                "Waited too long",
                f"It waited for {hours:g} hours, as long as it was to. {wait.said}.",
                f"`tunewright resume {self.run.id} --wait-at-most HOURS` waits anew; `--now` starts it as things are.",
            )

    def _say_goodbye(self) -> None:
        if self._waited:
            seconds = time.monotonic() - self.began
            self.log.append(Measured(values={"waited_seconds": seconds}))
            self.log.append(
                Status(state="starting", reason="its turn has come" if self.terms.queue else "its memory is free")
            )
