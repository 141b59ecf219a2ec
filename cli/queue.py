"""`tunewright queue`: who holds what of the machine and which runs wait; `front`, `now` and `drop` change one's own."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from ..engine.runs.directory import RunDirectory, find_run, is_live, standing
from ..engine.runs.events import follow
from ..engine.runs.launch import begin_now, bring_forward, stop
from ..engine.runs.queue import Ticket, names_told, shared_folder, tickets
from ..foundation.errors import TunewrightError
from .parser import add_json, print_json
from .table import gib_text, paragraph, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "verb",
        nargs="?",
        choices=("front", "now", "drop"),
        help="front: the first of your places; now: begin as things are; drop: leave the queue",
    )
    parser.add_argument("name", nargs="?", metavar="RUN", help="its id, a part of it, or `last`")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.verb is None:
        _show(arguments.json)
        return 0
    found = _waiting_run(arguments.name)
    match arguments.verb:
        case "front":
            bring_forward(found)
            said = "has the first of your places in the queue"
        case "now":
            begin_now(found)
            _follow(found, lambda: standing(found) != "queued")
            said = "begins"
        case _:
            stop(found)
            _follow(found, lambda: not is_live(found))
            said = f"left the queue; `tunewright resume {found.id}` puts it back"
    if arguments.json:
        print_json({"run": found.id, "standing": standing(found), "queue": _described()})
    else:
        print(f"{found.id} {said}.")
    return 0


def _waiting_run(name: str | None) -> RunDirectory:
    """Return the waiting run called `name`; raises TunewrightError where it does not wait."""
    if name is None:
        raise TunewrightError("Which run?", "No run is named.", "`tunewright queue` lists what waits.")
    found = find_run(name)
    if (now := standing(found)) != "queued":
        raise TunewrightError("Not in the queue", f"{found.id} is {now}.", "`tunewright queue` lists what waits.")
    return found


def _follow(run: RunDirectory, reached: Any) -> None:
    for _ in follow(run.events_file, ended=reached, seconds=0.1):
        pass


def _described() -> list[dict[str, Any]]:
    return [describe(ticket) for ticket in tickets()]


def describe(ticket: Ticket) -> dict[str, Any]:
    """Return a ticket as plain data."""
    return {
        "run": ticket.run,
        "user": ticket.user,
        "mine": ticket.uid == os.getuid(),
        "state": ticket.state,
        "takes": sorted(ticket.resources),
        "needed_gib": ticket.needed_gib,
        "since": ticket.since,
        "pid": ticket.pid,
        "waits_for": ticket.waits_for,
    }


def _show(as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(shared_folder()), "queue": _described()})
        return
    found = sorted(tickets(), key=lambda ticket: (ticket.state != "running", ticket.order))
    if not found:
        print(
            "No run holds this machine, and none waits. `tunewright train RECIPE --queue` begins when its turn comes."
        )
        return
    place, rows = 0, list[tuple[str, ...]]()
    for ticket in found:
        place += ticket.state == "waiting"
        stands = {"running": "runs", "sharing": "memory"}.get(ticket.state, str(place))
        takes = names_told(ticket.resources)
        since = seconds_text(max(0.0, time.time() - ticket.since))
        rows.append((stands, ticket.user, ticket.run, takes, gib_text(ticket.needed_gib), since))
    print(render_table(("PLACE", "USER", "RUN", "TAKES", "NEEDS", "SINCE"), rows, right=(4, 5)))
    for ticket in found:
        if ticket.waits_for:
            print(paragraph(f"{ticket.run}: {ticket.waits_for}."))
