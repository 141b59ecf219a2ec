"""Runs that ended without a word, with their machine or by a kill: whoever finds one of them has it told, once.

All other alerts come from a run's own processes. What is told is an event of the run, by a key of that very attempt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ...foundation.errors import TunewrightError
from ..alerts import read_alerts
from .command import TAIL_BYTES
from .directory import RunDirectory, boot_id
from .events import Alert, EventLog, Notice, Told, newest_events
from .fold import glance
from .telling import facts_of, printing, tell


def note_loss(run: RunDirectory, becomes: str) -> Alert | None:
    """Write down that the processes of a lost run are gone and what `becomes` of it; None where that was done before.

    Whoever calls holds the right to command the run. Raises TunewrightError for a damaged one.
    """
    processes = run.processes()
    key, why = "lost-before-its-start", "they ended before they could say anything"
    if processes is not None:
        key = f"lost-{processes.boot_id[:8]}-{processes.supervisor.pid}-{processes.supervisor.started}"
        why = "they were killed" if processes.boot_id == boot_id() else "the machine has restarted since"
    if any(isinstance(each, Alert) and each.key == key for each in newest_events(run.events_file, TAIL_BYTES)):
        return None
    history = glance(run)
    where = f"Step {history.step:,} of {history.total_steps:,}" if history.total_steps else "Before its first step"
    message = f"{where}: they ended without a word; {why}. {becomes}"
    alert = Alert(about="interrupted", key=key, title="The run's processes are gone", message=message)
    with contextlib.suppress(OSError):  # on a full disk it is told all the same
        _append(run, [alert])
    return alert


def tell_of_loss(run: RunDirectory, alert: Alert) -> None:
    """Hand what `note_loss` returned to its owner's command and webhook, where they are set; what goes wrong is a notice.

    A run that goes on does so by itself: its supervisor hands over what it finds untold.
    """
    found: list[Told | Notice] = []
    try:
        settings = read_alerts()
        if alert.about not in settings.about:
            return
        history = glance(run)
        facts = facts_of(run, alert, history.step, history.total_steps or 0)
        with printing(run if settings.command else None) as console:
            found += [
                Told(key=alert.key, by=outcome.by, well=outcome.well, detail=outcome.detail)
                for outcome in tell(facts, settings, console)
            ]
        failed = [each.detail for each in found if isinstance(each, Told) and not each.well]
    except (TunewrightError, OSError) as error:
        failed = [str(error)]
    if failed:
        remedy = "`tunewright alerts --test` tries all ways."
        found.append(Notice(level="warning", title="Alert not delivered", message=" ".join(failed), remedy=remedy))
    with contextlib.suppress(OSError):
        _append(run, found)


def _append(run: RunDirectory, events: Iterable[Alert | Told | Notice]) -> None:
    log = EventLog(run.events_file)
    try:
        for event in events:
            log.append(event)
    finally:
        log.close()
