"""`tunewright recipes verify`: some steps of a recipe on this machine, held against what was predicted."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ...foundation.errors import EXIT_CODE
from ...foundation.home import runs_folder
from ...foundation.text import one_line
from ...recipes.registry import open_registry
from ..parser import add_json, print_json
from ..table import paragraph, render_table

if TYPE_CHECKING:
    from ...engine.runs.verification import Verification

STEPS = 20


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("recipe", metavar="NAME", help="a recipe's name, or a part of its hash")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"take N steps ({STEPS})")
    parser.add_argument("--fetch", action="store_true", help="fetch what is on the Hub and not here, without asking")
    parser.epilog = (
        "Memory and speed are held against the plan, and the loss has to fall. What is found is kept as evidence, whichever "
        "way it went; the exit status is 2 when it does not hold."
    )
    add_json(parser)


def run_verify(arguments: argparse.Namespace) -> int:
    """Run some steps, tell what they showed, and return the exit status."""
    from ...engine.machine import inspect_machine
    from ...engine.planner import plan_recipe
    from ...engine.runs import verification
    from ...engine.runs.launch import launch
    from ..attach import follow_in_lines
    from ..fetch import fetch_rest, make_plannable

    with open_registry() as registry:
        entry = registry.get(arguments.recipe)
    entry.require_accepted()
    small = verification.small_recipe(entry.recipe, arguments.steps)
    waiting = make_plannable(small, arguments.fetch)
    plan = plan_recipe(small, inspect_machine(runs_folder()))
    fetch_rest(waiting, arguments.fetch)
    run = launch(small, plan, f"verify-{entry.name.rpartition('/')[2]}")
    follow_in_lines(run, sys.stderr if arguments.json else None)
    verification.await_end(run)
    found = verification.judge(run)
    with open_registry() as registry:
        verification.keep(registry, entry.recipe, run)
    if arguments.json:
        print_json(
            {
                "recipe": entry.name,
                "hash": entry.hash,
                "run": found.run,
                "state": found.state,
                "steps": arguments.steps,
                "verified": found.verified,
                "checks": [asdict(each) for each in found.checks],
            }
        )
    else:
        print(_text(entry.name, found))
    return 0 if found.verified else EXIT_CODE


def _text(name: str, found: Verification) -> str:
    rows = [
        (
            each.name,
            _figure(each.expected),
            _figure(each.measured),
            "holds" if each.holds else "does not hold",
            each.said,
        )
        for each in found.checks
    ]
    word = "holds here" if found.verified else "does not hold here"
    parts = [paragraph(f"{one_line(name, 100)} {word}: its run {found.run} {found.state}.")]
    if rows:
        parts.insert(0, render_table(("", "EXPECTED", "MEASURED", "", ""), rows, right=(1, 2)))
    return "\n\n".join(parts)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}"
