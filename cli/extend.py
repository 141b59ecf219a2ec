"""`tunewright extend RUN`: more steps for a finished run, with the learning rate stated before it starts."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..engine.runs.directory import find_run
from ..engine.runs.extend import Extensible, extend, look_at
from ..engine.runs.terms import Terms
from ..engine.schedule import Choice
from ..foundation.errors import TunewrightError
from .attach import exit_status, follow_in_lines
from .parser import add_json, print_json
from .table import render_table, seconds_text
from .terms_argument import add_terms, when_told, wished_terms


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    parser.add_argument("--steps", type=int, help="how many more optimizer steps")
    parser.add_argument("--epochs", type=float, help="how often more the data is seen")
    parser.add_argument(
        "--schedule", choices=("continue", "constant", "rewarm"),
        help="continue: on from where the schedule would be if it had been this long; constant: one rate; rewarm: up to the "
        "recipe's rate again; without it the three are shown with their figures, and nothing is started",
    )  # fmt: skip
    parser.add_argument("--peak", type=float, metavar="RATE", help="the highest learning rate of the added steps")
    parser.add_argument("--warmup-steps", type=int, metavar="N", help="over how many steps the rate rises to it")
    parser.add_argument(
        "--accept-changes", action="store_true", help="extend although rows, libraries or cards are not what they were"
    )
    add_terms(parser)
    parser.add_argument("--follow", action="store_true", help="print its lines until it ends")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = look_at(find_run(arguments.name))
    steps = found.steps_of(arguments.steps, arguments.epochs)
    ways = found.choices(steps, arguments.peak, arguments.warmup_steps)
    terms = wished_terms(arguments, Terms())
    chosen = next((way for way in ways if way.name == arguments.schedule), None)
    if not arguments.json:
        print(_text(found, ways if chosen is None else (chosen,), steps))
    started = extend(found, chosen, arguments.accept_changes, terms) if chosen else None
    if arguments.json:
        print_json(_described(found, ways, chosen, steps) | {"run": started and started.id, "terms": asdict(terms)})
    elif started:
        print(f"{started.id} goes on{when_told(terms)}. Follow it: tunewright attach {started.id}")
    else:
        raise TunewrightError(
            "Schedule not chosen",
            "Nothing is started: the learning rate can go on in these ways.",
            "Choose: --schedule NAME.",
        )
    if arguments.follow and started and not arguments.json:
        follow_in_lines(started)
        return exit_status(started)
    return 0


def _text(found: Extensible, ways: tuple[Choice, ...], steps: int) -> str:
    training = found.recipe.training
    head = (
        f"{found.run.id} took {found.after:,} steps; {steps:,} more are {found.after + steps:,} in all, about "
        f"{seconds_text(steps * found.step_seconds)}.\nIts learning rate, {training.schedule} with a peak of "
        f"{training.learning_rate:.3g}, had come to {found.rate:.3g} at the last step."
    )
    return head + "\n" + render_table(("SCHEDULE", "LEARNING RATE"), [(way.name, way.said) for way in ways])


def _described(found: Extensible, ways: tuple[Choice, ...], chosen: Choice | None, steps: int) -> dict[str, Any]:
    recipe = found.extended(chosen.extension)[0] if chosen else None
    return {
        "parent": found.run.id,
        "after": found.after,
        "steps": steps,
        "total_steps": found.after + steps,
        "rate_at_end": found.rate,
        "schedules": {way.name: asdict(way) | {"extension": way.extension.model_dump()} for way in ways},
        "chosen": chosen and chosen.name,
        "hash_before": found.recipe.hash(),
        "hash": recipe and recipe.hash(),
    }
