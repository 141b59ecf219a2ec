"""`tunewright stop RUN`: save at the next step, then stop."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..engine.runs.directory import RunDirectory, find_run, is_live, standing
from ..engine.runs.events import follow
from ..engine.runs.launch import stop
from .parser import add_json, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until it has saved and ended")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    return ask(arguments, stop, "stop")


def ask(arguments: argparse.Namespace, command: Callable[[RunDirectory], None], verb: str) -> int:
    """Ask a run to stop or to pause, wait until it has, and tell what became of it."""
    found = find_run(arguments.name)
    command(found)
    if not arguments.no_wait:
        for _ in follow(found.events_file, ended=lambda: not is_live(found)):
            pass
    state = standing(found)
    if arguments.json:
        print_json({"run": found.id, "standing": state})
    elif arguments.no_wait:
        print(f"{found.id} was asked to save and {verb}.")
    elif state in ("stopped", "paused"):
        print(f"{found.id} is {state}. `tunewright resume {found.id}` goes on from where it saved.")
    else:
        print(f"{found.id} is {state}. `tunewright attach {found.id}` shows how it ended.")
    return 0
