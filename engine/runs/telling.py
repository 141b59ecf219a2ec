"""Telling alerts: the watch beside the trainer writes them as events, and hands them to their owner's command and webhook.

All of it happens in threads of the supervisor, so that nobody has to follow the run. Whatever goes wrong here is a
notice; the run goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ..alerts import AlertSettings, read_alerts, redacted
from .console import Console
from .directory import RunDirectory
from .events import Alert, EventLog, Notice, Step, Told, read_events
from .watch import Watch

LOOK_SECONDS = 1.0
BLOCK_BYTES = 4 * 2**20
DISK_SECONDS = 30.0
COMMAND_SECONDS = 30.0
WEBHOOK_SECONDS = 10.0
"""Of one try."""
TRIES = 3
FIRST_WAIT_SECONDS = 1.0
"""Before the second try; it doubles."""
LAST_WORDS_SECONDS = 60.0
"""How long the supervisor stays for alerts on its run's end."""
REMEMBERED_SECONDS = 3600.0
"""An alert that a killed supervisor left untold for longer than this is no news."""
NOTICED = ("plateau", "heat", "disk")
"""What the run has not told by itself as a notice."""


MARKS = re.compile(r"\{(title|message|run|about)\}")
"""What is filled in in a command's arguments."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How handing over an alert went."""

    by: Literal["command", "webhook"]
    well: bool
    detail: str


class Teller:
    """Watches one run for its supervisor, from `start` to `last_words`."""

    def __init__(self, run: RunDirectory, log: EventLog, total_steps: int) -> None:
        self.run = run
        self.log = log
        self._watch = Watch(total_steps)
        self._ended = threading.Event()
        self._due: queue.SimpleQueue[Alert | None] = queue.SimpleQueue()
        self._done: set[tuple[str, str]] = set()
        """Alerts by their keys, and by what they were told."""
        self._step = 0
        self._offset = 0
        self._begin = run.events_file.stat().st_size
        """Where the events of this supervisor begin."""
        self._told_settings = False
        self._watcher = threading.Thread(target=self._guarded, args=(self._look_on,), daemon=True)
        self._messenger = threading.Thread(target=self._guarded, args=(self._hand_over,), daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._watcher.start()
        self._messenger.start()

    def conclude(self) -> None:
        """Read to the end of the events, write the alerts that are due, and return; what is to be told is told meanwhile."""
        self._ended.set()
        self._watcher.join(LAST_WORDS_SECONDS)
        self._due.put(None)

    def last_words(self) -> None:
        """Wait until the last alerts are handed over, or could not be."""
        self._messenger.join(LAST_WORDS_SECONDS)

    def _guarded(self, work: Any) -> None:
        """Do the work of a thread; whatever nobody expected is told, and ends the telling alone."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a run does not end because nobody can be told of it
            self._say(f"Alerts have stopped: {type(error).__name__}: {error}")

    def _look_on(self) -> None:
        for alert in self._catch_up():
            self._due.put(alert)
        looked = -DISK_SECONDS
        while True:
            over = self._ended.is_set()
            if time.monotonic() - looked >= DISK_SECONDS:
                looked = time.monotonic()
                with contextlib.suppress(OSError):
                    space = os.statvfs(self.run.path)
                    self._watch.add_free_space(space.f_bavail * space.f_frsize)
            self._read()
            for alert, remedy in self._watch.take():
                if alert.about in NOTICED:
                    self.log.append(Notice(level="warning", title=alert.title, message=alert.message, remedy=remedy))
                self.log.append(alert)
                self._due.put(alert)
            if over:
                return
            self._ended.wait(LOOK_SECONDS)

    def _catch_up(self) -> list[Alert]:
        """Fold in what earlier supervisors saw, and return the alerts that they gave and told nobody of."""
        given: dict[str, Alert] = {}
        for event in self._read(self._begin):
            if isinstance(event, Alert):
                given[event.key] = event
            elif isinstance(event, Told):
                self._done.add((event.key, event.by))
        self._watch.forget_endings()
        recent = time.time() - REMEMBERED_SECONDS
        return [alert for alert in given.values() if alert.time > recent]

    def _read(self, end: int | None = None) -> list[Any]:
        """Fold in the events that are new, up to byte `end` without devices' samples; return what tells of alerts."""
        found: list[Any] = []
        while True:
            room = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - self._offset)
            events, onward = read_events(self.run.events_file, self._offset, room, all_samples=end is None)
            if onward == self._offset:
                return found
            self._offset = onward
            self._watch.add(events)
            found += [event for event in events if isinstance(event, Alert | Told)]
            self._step = next((each.step for each in reversed(events) if isinstance(each, Step)), self._step)

    def _hand_over(self) -> None:
        while (alert := self._due.get()) is not None:
            try:
                settings = read_alerts()
            except TunewrightError as error:
                if not self._told_settings:
                    self._told_settings = True
                    self._say(str(error))
                continue
            if alert.about not in settings.about:
                continue
            facts = facts_of(self.run, alert, self._step, self._watch.total_steps)
            with printing(self.run if settings.command else None) as console:
                for outcome in tell(facts, settings, console, {by for key, by in self._done if key == alert.key}):
                    self._done.add((alert.key, outcome.by))
                    self.log.append(Told(key=alert.key, by=outcome.by, well=outcome.well, detail=outcome.detail))
                    if not outcome.well:
                        self._say(f"{alert.title}: the {outcome.by} was not told. {outcome.detail}")

    def _say(self, message: str) -> None:
        with contextlib.suppress(OSError):
            remedy = "`tunewright alerts --test` tries all ways."
            self.log.append(
                Notice(level="warning", title="Alert not delivered", message=clean(message, 1000), remedy=remedy)
            )


@contextlib.contextmanager
def printing(run: RunDirectory | None) -> Generator[int]:
    """Yield where the owner's command prints: into the run's console log, with secrets left out, or nowhere."""
    if run is None:
        yield subprocess.DEVNULL
        return
    console = Console(run.console_file)
    try:
        yield console.printing
    finally:
        console.given()
        console.drain()


def tell(
    facts: dict[str, Any], settings: AlertSettings, console: IO[Any] | int, done: Collection[str] = ()
) -> Iterator[Outcome]:
    """Hand facts to the owner's command, which prints to `console`, and webhook, but those in `done`; yield how it went."""
    if settings.command and "command" not in done:
        yield run_command(settings.command, facts, console)
    if settings.webhook and "webhook" not in done:
        yield post(settings.webhook, facts)


def facts_of(run: RunDirectory, alert: Alert, step: int, total_steps: int) -> dict[str, Any]:
    """Return what a command and a webhook are told; `id` is the same whenever the same alert is told."""
    said = f"{alert.title}: {alert.message} ({run.id} on {socket.gethostname()})"
    return {
        "id": f"{run.id}/{alert.key}",
        "about": alert.about,
        "title": one_line(alert.title, 200),
        "message": one_line(alert.message, 2000),
        "run": one_line(run.id, 120),
        "folder": str(run.path),
        "host": socket.gethostname(),
        "step": step,
        "total_steps": total_steps,
        "time": alert.time,
        "text": one_line(said, 2000),  # what Slack and Mattermost show
        "content": one_line(said, 2000),  # what Discord shows
    }


def run_command(command: tuple[str, ...], facts: dict[str, Any], console: IO[Any] | int) -> Outcome:
    """Run the owner's command, without a shell, with the facts in its environment and on its standard input."""
    # In one pass: what a fact holds is never looked at again.
    placed = [MARKS.sub(lambda mark: str(facts[mark[1]]), each) for each in command]
    told = {
        f"TUNEWRIGHT_{name.upper()}": str(value) for name, value in facts.items() if name not in ("text", "content")
    }
    try:
        process = subprocess.Popen(
            placed,
            stdin=subprocess.PIPE,
            stdout=console,
            stderr=console,
            env=os.environ | told,
            start_new_session=True,
            cwd="/",
        )
    except (OSError, ValueError) as error:
        return Outcome("command", False, f"{command[0]} could not be started: {one_line(str(error), 200)}")
    try:
        process.communicate(json.dumps(facts, ensure_ascii=False).encode(), timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Outcome("command", False, f"{command[0]} took longer than {COMMAND_SECONDS:.0f} s and was ended.")
    except OSError:  # it does not read what it is told
        process.wait()
    code = process.returncode
    return Outcome("command", code == 0, "" if code == 0 else f"{command[0]} ended with status {code}.")


def post(address: str, facts: dict[str, Any]) -> Outcome:
    """Post the facts as JSON to the owner's webhook, a few times; nothing of its path is told to anybody."""
    wait, detail = FIRST_WAIT_SECONDS, ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(wait)
            wait *= 2
        status, detail = _post_once(address, json.dumps(facts, ensure_ascii=False).encode())
        if 200 <= status < 300:
            return Outcome("webhook", True, f"{redacted(address)} answered {status}.")
        if 300 <= status < 500 and status not in (408, 429):
            break
    return Outcome("webhook", False, f"{redacted(address)} {detail}.")


def _post_once(address: str, body: bytes) -> tuple[int, str]:
    """Return the status of one try, 0 where there was no answer, and what happened in words."""
    import http.client
    import urllib.error
    import urllib.request

    class Staying(urllib.request.HTTPRedirectHandler):
        """Goes nowhere else: the address is its user's, and where it leads to need not be."""

        def redirect_request(self, *arguments: Any, **named: Any) -> None:
            return None

    headers = {"Content-Type": "application/json", "User-Agent": "tunewright"}
    request = urllib.request.Request(address, body, headers, method="POST")
    try:
        with urllib.request.build_opener(Staying).open(request, timeout=WEBHOOK_SECONDS) as answer:
            return answer.status, f"answered {answer.status}"
    except urllib.error.HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            return error.code, "wanted to send it elsewhere, which is not followed"
        return error.code, f"answered {error.code}"
    except urllib.error.URLError as error:
        reason = error.reason.strerror if isinstance(error.reason, OSError) else str(error.reason)
        return 0, f"could not be reached: {_without(address, reason or type(error.reason).__name__)}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return 0, f"did not answer: {type(error).__name__}"


def _without(address: str, text: str) -> str:
    return one_line(text.replace(address, redacted(address)), 200)
