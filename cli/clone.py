"""`tunewright clone RUN`: a run like another one, with changes that are shown before it starts."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ..engine.machine import inspect_machine
from ..engine.planner import plan_recipe
from ..engine.runs.directory import find_run
from ..engine.runs.launch import launch
from ..engine.runs.lineage import clone_of, plain_name
from ..engine.runs.terms import Terms
from ..engine.runs.waiting import machine_in_turn
from ..foundation.clock import process_age_seconds
from ..foundation.files import write_atomically
from ..foundation.home import runs_folder
from ..recipes.comparing import Difference, differences
from .attach import exit_status, follow_in_lines
from .fetch import fetch_rest, make_plannable
from .gpus_argument import add_gpus, wished_gpus
from .parser import add_json, print_json
from .recipe_argument import add_changes, changed_by
from .table import gib_text, render_table, seconds_text
from .terms_argument import add_terms, when_told, wished_terms


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    add_changes(parser)
    parser.add_argument("--start", action="store_true", help="start it; without this it is only shown")
    parser.add_argument("--save", metavar="FILE", help="write its recipe into this TOML file")
    parser.add_argument("--fetch", action="store_true", help="fetch what is on the Hub and not here, without asking")
    add_gpus(parser)
    add_terms(parser)
    parser.add_argument("--follow", action="store_true", help="print the started run's lines until it ends")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    parent = find_run(arguments.name)
    before = parent.recipe()
    recipe = changed_by(arguments, before)
    found = differences(before, recipe)
    waiting = make_plannable(recipe, arguments.fetch)
    machine = inspect_machine(runs_folder())
    terms = wished_terms(arguments, Terms())
    if terms.waits:
        machine = machine_in_turn(machine)
    plan = plan_recipe(recipe, machine, wish=wished_gpus(arguments, machine))
    if not arguments.json:
        print(changes_text(found))
        print(f"recipe {before.hash()[:12]} → {recipe.hash()[:12]}" if found else f"recipe {before.hash()[:12]}")
        if prediction := plan.prediction:
            print(
                f"{plan.total_steps} steps, about {seconds_text(prediction.total_seconds)}, peak {gib_text(prediction.peak_gib)}",
                flush=True,
            )
    if arguments.save:
        write_atomically(Path(arguments.save).expanduser(), recipe.to_toml())
    started = None
    if arguments.start:
        fetch_rest(waiting, arguments.fetch)
        seconds = None if waiting else process_age_seconds()
        started = launch(recipe, plan, plain_name(parent), seconds, terms, clone_of(parent, recipe))
    if arguments.json:
        print_json(
            {
                "parent": parent.id,
                "differences": [asdict(each) for each in found],
                "hash_before": before.hash(),
                "hash": recipe.hash(),
                "total_steps": plan.total_steps,
                "predicted": plan.prediction and asdict(plan.prediction),
                "run": started and started.id,
                "terms": asdict(terms),
            }
        )
    elif started:
        print(f"{started.id} begins{when_told(terms)}. Follow it: tunewright attach {started.id}")
    else:
        print("Nothing is started yet: the same with --start does.")
    if arguments.follow and started and not arguments.json:
        follow_in_lines(started)
        return exit_status(started)
    return 0


def changes_text(found: tuple[Difference, ...]) -> str:
    """Return what differs in a recipe as a table."""
    if not found:
        return "Nothing is changed: it would be the same run again."
    rows = [
        (each.path, each.before, each.after, each.effect if each.changes_result else "changes no result")
        for each in found
    ]
    return render_table(("CHANGED", "BEFORE", "AFTER", ""), rows)
