"""`tunewright train RECIPE`: plan a recipe for this machine and start its run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from ..engine.machine import inspect_machine
from ..engine.planner import plan_recipe
from ..engine.runs.launch import launch
from ..engine.runs.queue import holders_of, holders_told
from ..engine.runs.terms import Terms
from ..engine.runs.waiting import machine_in_turn
from ..foundation.clock import process_age_seconds
from ..foundation.home import runs_folder
from .attach import exit_status, follow_in_lines
from .fetch import fetch_rest, make_plannable
from .gpus_argument import add_gpus, wished_gpus
from .parser import add_json, print_json
from .recipe_argument import add_recipe, find_recipe
from .slurm import pass_signals_on
from .table import gib_text, seconds_text
from .terms_argument import add_terms, wished_terms


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--backend", choices=("unsloth", "transformers"), help="train with this instead of what the plan would choose"
    )
    parser.add_argument("--fetch", action="store_true", help="fetch what is on the Hub and not here, without asking")
    add_gpus(parser)
    add_terms(parser)
    parser.add_argument("--follow", action="store_true", help="print the run's lines until it ends")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    name, recipe = find_recipe(arguments)
    waiting = make_plannable(recipe, arguments.fetch)
    machine = inspect_machine(runs_folder())
    terms = wished_terms(arguments, Terms())
    if terms.waits:
        machine = machine_in_turn(machine)
    plan = plan_recipe(recipe, machine, backend=arguments.backend, wish=wished_gpus(arguments, machine))
    if not arguments.json and (prediction := plan.prediction):
        low, high = prediction.total_seconds_range
        print(
            f"{plan.total_steps} steps, about {seconds_text(prediction.total_seconds)} "
            f"({seconds_text(low)} to {seconds_text(high)}), peak {gib_text(prediction.peak_gib)}",
            flush=True,
        )
    fetch_rest(waiting, arguments.fetch)
    others = holders_told(holders_of(plan), plan)
    if others and not terms.waits:
        print(f"{others} `--queue` begins when it is free.", file=sys.stderr, flush=True)
    started = launch(recipe, plan, name, None if waiting else process_age_seconds(), terms)
    processes = started.processes()
    if arguments.json:
        print_json(
            {
                "run": started.id,
                "folder": str(started.path),
                "detached_by": processes and processes.detached_by,
                "terms": asdict(terms),
                "beside": others,
            }
        )
    else:
        doing = "waits for its start" if terms.waits else "is running"
        print(f"{started.id} {doing}, in {processes.detached_by if processes else 'a process of its own'}.")
        print(f"Follow it: tunewright attach {started.id}")
    if arguments.follow:
        pass_signals_on(started)
        follow_in_lines(started, sys.stderr if arguments.json else None)
        return exit_status(started)
    return 0
