"""Following one run: a thread reads its files from where it left off and posts what is new, at most four times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..engine.runs.directory import RunDirectory, Standing, standing
from ..engine.runs.events import MIB, Event, read_events
from ..engine.runs.fold import Fold, glance
from ..engine.runs.history import History
from ..engine.runs.waiting import Wait, read_wait
from ..foundation.files import Stamp, stamp_of
from ..foundation.text import clean

INTERVAL_SECONDS, LONGEST_INTERVAL_SECONDS = 0.25, 5.0
FOLLOWING_SHARE = 0.01
"""Of one core: where reading and drawing take more, a run that goes on is looked at less often; the core is the trainer's."""
STANDING_SECONDS = 1.0
"""Between two looks at what no file of the run tells, such as whether its processes live; on a network's disk also its files."""
ENDED_INTERVAL_SECONDS = 1.0
"""An ended run is looked at less often: it may be resumed from another terminal."""
BATCH_EVENTS = 2000
BATCH_SECONDS = 0.1
BEHIND_SECONDS = 0.02
"""Between two readings of a long history: the screen paints meanwhile."""
BLOCK_BYTES = 384 * 1024
LONG_BYTES = 1 * MIB
"""Of a history that is longer than this beyond its kept fold, the newest events are shown while the rest is read."""
CONSOLE_LINES = 200

ENDED: tuple[Standing, ...] = ("finished", "stopped", "paused", "failed", "lost", "damaged")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at a run's directory brought."""

    run: RunDirectory
    history: History | None
    """All that was before the events, where this is the first reading of them; it is the receiver's."""
    events: tuple[Event, ...]
    standing: Standing
    console: str | None
    """The console's last lines, cleaned; None when they are as before."""
    share_read: float
    """How much of the events file is read, 0 to 1."""
    ended: float | None
    """When the run ended, None while it has not."""
    wait: Wait | None = None
    """What it waits for, None when it does not."""


class Follower:
    """Reads a run's history, and then its events from a byte offset that only moves on; a torn last line waits for its end."""

    def __init__(self, run: RunDirectory, deliver: Callable[[Reading], None]) -> None:
        self.run = run
        self.deliver = deliver
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        """Whether anybody sees what is read."""
        self._wanted.set()
        self._fold: Fold | None = None
        """The history while it is being read."""
        self._begun = False
        self._offset = 0
        self._console_stamp: Stamp | None = None
        self._stamps: tuple[Stamp | None, ...] | None = None
        """How the run's files were when all that they told was read."""
        self._looked = 0.0
        self._last_standing: Standing | None = None
        self._last_wait: Wait | None = None

    def stop(self) -> None:
        """Have `follow` return soon."""
        self._stopped.set()
        self._wanted.set()

    def pause(self) -> None:
        """Have `follow` read nothing until `go_on`: nobody sees the run."""
        self._wanted.clear()

    def go_on(self) -> None:
        """Have `follow` read on, at once where it was paused."""
        self._wanted.set()

    def follow(self) -> None:
        """Deliver readings until stopped; blocks, so it wants a thread of its own."""
        while self._wanted.wait() and not self._stopped.is_set():
            began = time.monotonic(), time.process_time()
            reading = self.read()
            if reading is not None:
                self.deliver(reading)
            if reading is not None and reading.share_read < 1:
                self._stopped.wait(BEHIND_SECONDS)
            elif self._last_standing in ENDED:
                self._stopped.wait(ENDED_INTERVAL_SECONDS)
            else:
                self._rest(*began)

    def _rest(self, began: float, computed: float) -> None:
        """Wait until what this process has computed since it `began`, at which it had `computed` so much, is a small share of the time."""
        wait = INTERVAL_SECONDS
        while wait > 0 and not self._stopped.wait(max(wait, INTERVAL_SECONDS)):
            passed, spent = time.monotonic() - began, time.process_time() - computed
            wait = min(LONGEST_INTERVAL_SECONDS, spent / FOLLOWING_SHARE) - passed

    def read(self) -> Reading | None:
        """Return what is new since the last call, None when nothing is."""
        files = (self.run.events_file, self.run.result_file, self.run.console_file, self.run.waiting_file)
        stamps = tuple(map(stamp_of, files))  # looked up first: what is written from here on changes them
        if stamps == self._stamps and time.monotonic() - self._looked < STANDING_SECONDS:
            return None
        # The standing is looked up before the events: whatever an ended run has written is then read after its end.
        now = standing(self.run)
        history = self._read_history()
        events = () if self._fold else self._read_events()
        console = self._console(stamps[2])
        wait = read_wait(self.run) if now == "queued" else None
        all_read = self._fold is None and (stamps[0] is None or self._offset >= stamps[0].size)
        self._stamps, self._looked = stamps if all_read else None, time.monotonic()
        stands = now == self._last_standing and wait == self._last_wait
        if history is None and self._fold is None and not events and console is None and stands:
            return None
        self._last_standing, self._last_wait = now, wait
        ended = _modified(self.run.result_file)
        return Reading(self.run, history, events, now, console, self._share_read(), ended, wait)

    def _read_history(self) -> History | None:
        """Return the history once it is read, and before that, of a long one, what its newest events tell."""
        newest: History | None = None
        if not self._begun:
            self._begun, self._fold = True, Fold(self.run)
            if self._fold.behind > LONG_BYTES:
                newest = glance(self.run)
        fold = self._fold
        if fold is None:
            return None
        deadline = time.monotonic() + BATCH_SECONDS
        while fold.advance(BLOCK_BYTES):
            self._offset = fold.offset
            if time.monotonic() > deadline and fold.behind > BLOCK_BYTES:
                return newest
        self._offset, self._fold = fold.offset, None
        fold.keep()
        return fold.history

    def _read_events(self) -> tuple[Event, ...]:
        events: list[Event] = []
        deadline = time.monotonic() + BATCH_SECONDS
        while len(events) < BATCH_EVENTS and time.monotonic() < deadline:
            found, onward = read_events(self.run.events_file, self._offset, BLOCK_BYTES, all_samples=False)
            if onward == self._offset:
                break
            events += found
            self._offset = onward
        return tuple(events)

    def _share_read(self) -> float:
        """Return how much of the whole lines is read; what is torn at the end counts as read."""
        try:
            size = self.run.events_file.stat().st_size
        except OSError:
            return 1.0
        return 1.0 if self._fold is None and size - self._offset < BLOCK_BYTES else self._offset / max(1, size)

    def _console(self, stamp: Stamp | None) -> str | None:
        if stamp is None or stamp == self._console_stamp:
            return None
        self._console_stamp = stamp
        return clean(self.run.console_tail(CONSOLE_LINES))


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
