"""The stages of a run: every phase is timed as it is told, and what went before the first step is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...foundation.clock import process_age_seconds
from ..runs.events import Event, EventLog, Measured, Phase, Status, newest_events

TOLD_SECONDS = 0.5
"""How often progress is told at most."""
TAIL_BYTES = 64 * 1024


class TimedLog(EventLog):
    """The event log of a trainer, which also measures how long each phase takes until the first step is done."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.phase: Phase | None = None
        self._told = 0.0
        self._lock = threading.Lock()
        began = time.time() - process_age_seconds()
        self._seconds = _before(began, path)
        """Up to now by phase, in order; None once the first step is done."""
        self._since = began
        self._current = "starting"

    def append(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._enter(event)
        super().append(event)

    def progress(self, done: float, total: float | None = None) -> None:
        """Tell how far the phase is, at most twice a second; nothing where it is not known how much there is to do."""
        phase, now = self.phase, time.time()
        if phase is None or now - self._told < TOLD_SECONDS or not (whole := total or phase.total):
            return
        self._told = now
        super().append(Phase(name=phase.name, detail=phase.detail, done=min(done, whole), total=whole))

    def first_step(self) -> None:
        """The first step is done: tell what the time up to here went to, by phase and in all. Later calls do nothing."""
        with self._lock:
            if self._seconds is None:
                return
            seconds, self._seconds = self._seconds, None
        _add(seconds, self._current, time.time() - self._since)
        total = sum(seconds.values())
        super().append(Measured(values={**seconds, "seconds_to_first_step": total}))

    def _enter(self, phase: Phase) -> None:
        with self._lock:
            now = time.time()
            if self._seconds is not None and phase.name != self._current:
                _add(self._seconds, self._current, now - self._since)
                self._current, self._since = phase.name, now
            self.phase, self._told = phase, now


def _add(seconds: dict[str, float], phase: str, taken: float) -> None:
    name = "seconds_first_step" if phase == "training" else f"seconds_{phase.replace(' ', '_')}"
    seconds[name] = seconds.get(name, 0.0) + max(0.0, taken)


def _before(began: float, path: Path) -> dict[str, float]:
    """Return what the events in `path` say was taken before this process `began`: planning, and starting a supervisor."""
    seconds: dict[str, float] = {}
    started = None
    for event in newest_events(path, TAIL_BYTES):
        if isinstance(event, Status) and (event.state == "starting" or (event.state == "running" and started is None)):
            started = event.time
        if isinstance(event, Measured) and "seconds_planning" in event.values:
            seconds["seconds_planning"] = event.values["seconds_planning"]
        if isinstance(event, Phase) or (isinstance(event, Status) and event.state in ("stopped", "paused", "failed")):
            started, seconds = None, {}  # that was an earlier trainer of this run
    if started is not None:
        _add(seconds, "launching", began - started)
    return seconds


@contextmanager
def loading_told(log: TimedLog) -> Generator[None]:
    """Tell how many of a model's tensors are loaded, as transformers counts them, while the block runs."""
    from tqdm.std import tqdm
    from transformers.utils import logging

    class Told(tqdm):  # pyright: ignore[reportMissingTypeArgument]
        """A progress bar that is drawn nowhere but in the run's events."""

        def display(self, *arguments: Any, **named: Any) -> None:
            log.progress(float(self.n), float(self.total) if self.total else None)

    def make(factory: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if str(named.get("desc", "")).startswith("Loading"):
            return Told(*arguments, **{**named, "disable": False})
        return factory(*arguments, **named)

    before = logging.set_tqdm_hook(make)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)
