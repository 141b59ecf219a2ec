"""Listening for alerts: the events that runs write while the interface is open, whichever screen is shown."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from pathlib import Path

from ..engine.alerts import read_alerts, terminal_words
from ..engine.runs.directory import list_runs, standing
from ..engine.runs.events import Alert, parse, read_lines
from ..foundation.errors import TunewrightError
from ..foundation.terminal import Terminal, detect

ALERT = f'"event":"{Alert.kind}"'.encode()
"""What every alert's line holds; of the others, which a run that goes on writes all the time, none is parsed."""

LOST_SECONDS = 30.0
"""How long a run is seen to be lost before it is told here: what brings runs back at boot or at login tells more."""


class Listener:
    """Reads what every run has written since the last call; what was there at first is history."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._since = time.time()
        self._read: dict[str, int] = {}
        self._first = True
        self._terminal: Terminal | None = None
        self._lost: dict[str, float] = {}
        """Since when each lost run has been seen to be lost; infinity once it is told."""

    def hear(self) -> str:
        """Return what the terminal is to be told, in the way its user has set; nothing when nothing has happened."""
        self._tell_losses()
        alerts = self._new_alerts()
        if not alerts:
            return ""
        try:
            settings = read_alerts()
        except TunewrightError:  # the settings' own dialog tells what is wrong with them
            return ""
        self._terminal = self._terminal or detect()
        return "".join(terminal_words(settings, alert, self._terminal) for alert in alerts)

    def _tell_losses(self) -> None:
        """Write down which runs of this user's were lost, for this and every other interface; their owner's command is run."""
        for run in list_runs(self.folder):
            if os.path.lexists(run.result_file) or standing(run) != "lost":
                self._lost.pop(run.id, None)
                continue
            now = time.monotonic()
            if now - self._lost.setdefault(run.id, now) < LOST_SECONDS:
                continue
            from ..engine.runs.command import commanding
            from ..engine.runs.lost import note_loss, tell_of_loss

            alert = None
            with contextlib.suppress(TunewrightError, OSError):  # whoever commands it may bring it back: look again
                if run.path.stat().st_uid == os.getuid():
                    with commanding(run, "tell of"):
                        if standing(run) == "lost":
                            alert = note_loss(run, f"`tunewright resume {run.id}` goes on with it.")
                self._lost[run.id] = math.inf
            if alert is not None:
                threading.Thread(target=tell_of_loss, args=(run, alert), daemon=True).start()

    def _new_alerts(self) -> list[Alert]:
        found: list[Alert] = []
        for run in list_runs(self.folder):
            try:
                size = run.events_file.stat().st_size
            except OSError:
                continue
            offset = self._read.get(run.id, size if self._first else 0)
            while offset < size:
                block, onward = read_lines(run.events_file, offset)
                if onward == offset:
                    break
                offset = onward
                events = parse(block, all_samples=False) if ALERT in block else ()
                found += [event for event in events if isinstance(event, Alert) and event.time >= self._since]
            self._read[run.id] = offset
        self._first = False
        return found
