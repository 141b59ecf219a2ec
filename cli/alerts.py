"""`tunewright alerts`: what one is called for and how; show it, change it, try it."""

from __future__ import annotations

import argparse
import shlex
import socket
import sys
from typing import Any

from ..engine.alerts import AlertSettings, change_alerts, read_alerts, redacted, terminal_words
from ..engine.runs.directory import RunDirectory
from ..engine.runs.events import ABOUT, Alert
from ..foundation.errors import EXIT_CODE, TunewrightError
from ..foundation.home import runs_folder, settings_path
from ..foundation.terminal import NAMED, WAYS, Terminal, detect
from ..foundation.text import one_line
from .parser import add_json, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--terminal", choices=("auto", "off", *WAYS),
        help="how a terminal that follows a run tells: auto takes what it knows, off is silent",
    )  # fmt: skip
    parser.add_argument(
        "--about", metavar="LIST", help=f"what is told, separated by commas: all, or of {', '.join(ABOUT)}"
    )
    parser.add_argument(
        "--command", metavar="COMMAND",
        help="a program that is run for each alert, without a shell; {title}, {message}, {run} and {about} are filled in; '' for none",
    )  # fmt: skip
    parser.add_argument(
        "--webhook", metavar="URL", help="an address that gets each alert as JSON; - reads it from stdin, '' is none"
    )
    parser.add_argument("--test", action="store_true", help="send one alert in every way that is set")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    changes = _changes(arguments)
    settings = change_alerts(changes) if changes else read_alerts()
    terminal = detect()
    tried = _try_out(settings, terminal, arguments.json) if arguments.test else []
    if arguments.json:
        print_json(_described(settings, terminal) | ({"test": tried} if arguments.test else {}))
    else:
        print(_text(settings, terminal))
        for each in tried:
            print(f"test: {each['by']}: {'done' if each['well'] else 'failed'}. {each['detail']}".rstrip())
    return EXIT_CODE if any(not each["well"] for each in tried) else 0


def _changes(arguments: argparse.Namespace) -> dict[str, object]:
    changes: dict[str, object] = {}
    if arguments.terminal is not None:
        changes["terminal"] = arguments.terminal
    if arguments.about is not None:
        named = tuple(each.strip() for each in arguments.about.split(",") if each.strip())
        changes["about"] = ABOUT if named == ("all",) else named
    if arguments.command is not None:
        try:
            changes["command"] = tuple(shlex.split(arguments.command))
        except ValueError as error:
            raise TunewrightError("Command not understood", f"{error}.", "Close what is quoted.") from None
    if arguments.webhook is not None:
        changes["webhook"] = sys.stdin.readline().strip() if arguments.webhook == "-" else arguments.webhook
    return changes


def _try_out(settings: AlertSettings, terminal: Terminal, quiet: bool) -> list[dict[str, Any]]:
    """Send one alert in every way that is set, and return how each went."""
    from ..engine.runs.telling import facts_of, tell

    about = settings.about[0] if settings.about else "finished"
    alert = Alert(
        about=about, key="test", title="This is a test", message=f"Alerts from {socket.gethostname()} arrive."
    )
    tried: list[dict[str, Any]] = []
    stream = next((each for each in (sys.stdout, sys.stderr) if each.isatty()), None)
    words = terminal_words(settings, alert, terminal)
    if words and stream is not None and not (quiet and stream is sys.stdout):
        stream.write(words)
        stream.flush()
        tried.append({"by": "terminal", "well": True, "detail": terminal.advice})
    place = RunDirectory(runs_folder() / "test")
    for outcome in tell(facts_of(place, alert, 0, 0), settings, sys.stderr):
        tried.append({"by": outcome.by, "well": outcome.well, "detail": outcome.detail})
    return tried


def _described(settings: AlertSettings, terminal: Terminal) -> dict[str, Any]:
    return {
        "file": str(settings_path()),
        "terminal": settings.terminal,
        "detected": {
            "terminal": terminal.name,
            "way": terminal.way,
            "multiplexer": terminal.multiplexer or None,
            "passes": terminal.passes,
            "advice": terminal.advice or None,
        },
        "about": list(settings.about),
        "command": list(settings.command),
        "webhook": redacted(settings.webhook) or None,
    }


def _text(settings: AlertSettings, terminal: Terminal) -> str:
    found = f"{terminal.name}, which gets {NAMED[terminal.way]}"
    if terminal.multiplexer:
        found = f"{terminal.multiplexer} in {found}"
    command = " ".join(shlex.quote(one_line(each, 200)) for each in settings.command)
    lines = [
        f"terminal  {settings.terminal} (this is {found})",
        f"about     {', '.join(settings.about) or 'nothing'}",
        f"command   {command or 'none'}",
        f"webhook   {redacted(settings.webhook) or 'none'}",
        f"kept in   {settings_path()}",
    ]
    if terminal.advice and settings.is_on:
        lines.append(f"! {terminal.advice}")
    return "\n".join(lines)
