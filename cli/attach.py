"""`tunewright attach RUN`: follow a run, or read one that has ended."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TextIO

from ..engine.runs.directory import RunDirectory, find_run, is_live
from ..engine.runs.events import (
    MIB,
    Alert,
    Checkpoint,
    Continuity,
    Eval,
    Event,
    Notice,
    Phase,
    Sample,
    Status,
    Step,
    Told,
    encode,
    follow,
)
from ..engine.runs.fold import Fold
from ..engine.runs.history import History
from ..foundation.errors import EXIT_CODE, TunewrightError
from ..foundation.text import clean, inert, one_line
from .parser import add_json
from .table import gib_text, percent_text, seconds_text

LONG_BYTES = 4 * MIB
"""Of events: more are not told one by one."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    parser.add_argument("--plain", action="store_true", help="print lines instead of opening the monitor")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = find_run(arguments.name)
    if arguments.json:
        for event in follow(found.events_file, ended=lambda: not is_live(found)):
            print(inert(encode(event)), flush=True)
    elif arguments.plain or not sys.stdout.isatty():
        follow_in_lines(found)
    else:
        from ..tui.app import open_app

        return open_app(run=found)
    return exit_status(found)


def exit_status(run: RunDirectory) -> int:
    """Return the status of an error for a run that has failed, else 0."""
    result = run.result()
    return EXIT_CODE if result is not None and result["state"] == "failed" else 0


def follow_in_lines(run: RunDirectory, stream: TextIO | None = None) -> History:
    """Print the run's events as plain lines until it ends, and return what they add up to.

    Of a long run, what it has come to is told in one line, and then the newest events.
    """
    ringing = Ringing(stream or sys.stdout)
    fold = Fold(run)
    history, offset = History(), 0
    if fold.offset or fold.behind > LONG_BYTES:
        fold.skip_to_newest()
        history, offset = fold.history, fold.offset
        told = f"; up to step {history.step:,}" if history.steps else ""
        print(
            f"· {offset / MIB:,.0f} MiB of events before these{told}: --json prints them all", file=stream, flush=True
        )
    for event in follow(run.events_file, ended=lambda: not is_live(run), offset=offset):
        history.add([event])
        line = describe(event, history)
        if line:
            print(line, file=stream, flush=True)
        ringing.ring(event)
    return history


class Ringing:
    """Tells the terminal of alerts as its user wants it; alerts from before it began are history."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = next((each for each in (stream, sys.stderr) if each.isatty()), None)
        self._since = time.time()

    def ring(self, event: Event) -> None:
        """Ring where `event` is an alert that has just been given, and where there is a terminal."""
        if not isinstance(event, Alert) or event.time < self._since or self._stream is None:
            return
        from ..engine.alerts import read_alerts, terminal_words

        try:
            words = terminal_words(read_alerts(), event)
        except TunewrightError as error:
            print(error, file=sys.stderr)
            return
        self._stream.write(words)
        self._stream.flush()


def describe(event: Event, history: History) -> str | None:
    """Return one line for `event`, None for what would only make noise."""
    match event:
        case Phase(name=name, detail=detail, done=None) if not _is_passing(name, detail):
            return f"· {one_line(name, 40)}{f': {one_line(detail, 80)}' if detail else ''}"
        case Step() if _is_told(event):
            left = history.seconds_left()
            return (
                f"  step {event.step}/{event.total_steps}  loss {event.loss:.4f}  lr {event.learning_rate:.2e}  "
                f"grad {event.grad_norm:.2f}  {history.tokens_per_second() or 0:,.0f} tokens/s"
                + (f" ({percent_text(event.mfu)} MFU)" if event.mfu is not None else "")
                + f"  {gib_text(event.peak_gib)}"
                + (f"  {seconds_text(left)} left" if left else "")
            )
        case Eval():
            parts = [f"loss {event.loss:.4f}"] if event.loss is not None else []
            parts += [f"exact match {percent_text(event.exact_match)}"] if event.exact_match is not None else []
            return f"  on {event.rows} held-out rows after step {event.step}: {', '.join(parts)}"
        case Sample():
            return f"    {one_line(event.prompt, 70)}\n      → {one_line(event.completion, 100)}"
        case Checkpoint():
            return f"  saved {one_line(event.name, 60)} ({event.size_bytes / 2**20:.1f} MiB in {seconds_text(event.seconds)})"
        case Continuity():
            return f"  {event.said}"
        case Notice():
            remedy = f"\n  {clean(event.remedy)}" if event.remedy else ""
            return f"! {one_line(event.title)}: {clean(event.message)}{remedy}"
        case Told():
            return f"  alert handed to the {event.by}" if event.well else None
        case Status(state=state, reason=reason):
            return f"· {one_line(state, 40)}{f': {one_line(reason, 100)}' if reason else ''}"
        case _:
            return None


def _is_passing(name: str, detail: str) -> bool:
    """Tell whether a phase comes and goes while training; a checkpoint is told once it is saved."""
    return name in ("training", "evaluating") or (name == "saving" and bool(detail))


def _is_told(step: Step) -> bool:
    """Tell whether `step` is one of the about twenty that are worth a line."""
    every = max(1, step.total_steps // 20)
    return step.step == 1 or step.step == step.total_steps or step.step % every == 0
