"""`tunewright plan RECIPE`: the fastest plan that fits this machine, with its reasons and the plans that lost."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..engine.machine import inspect_machine
from ..engine.plan import Plan, Prediction
from ..engine.planner import plan_recipe
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from .parser import add_json, print_json
from .recipe_argument import add_recipe, find_recipe
from .table import gib_text, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_recipe(parser)
    parser.add_argument("--rate", type=float, metavar="MONEY", help="what an hour of this machine costs, any currency")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan that `arguments` ask for and return the exit status."""
    if arguments.rate is not None and not 0 <= arguments.rate < 1e6:
        raise TunewrightError("Rate out of range", f"{arguments.rate:g} is no price of an hour.", "Such as --rate 2.5.")
    _, recipe = find_recipe(arguments)
    plan = plan_recipe(recipe, inspect_machine(runs_folder()), arguments.rate)
    if arguments.json:
        values: dict[str, Any] = json.loads(plan.to_json())
        print_json(values)
    else:
        print(plan_text(plan))
    return 0


def plan_text(plan: Plan) -> str:
    """Return `plan` as text: figures, memory, reasons, plans that lost, notes."""
    parts = [f"{plan.total_steps} steps of {plan.micro_batch} × {plan.accumulation} rows on {plan.machine}"]
    if plan.prediction:
        parts += [_figures(plan.prediction), _memory(plan.prediction)]
    if plan.reasons:
        rows = [(each.choice, each.value, each.because) for each in plan.reasons]
        parts.append(render_table(("CHOICE", "VALUE", "BECAUSE"), rows))
    if plan.alternatives:
        lost = [
            (a.summary, gib_text(a.peak_gib), seconds_text(a.total_seconds), a.lost_because) for a in plan.alternatives
        ]
        parts.append(render_table(("LOST", "PEAK", "TIME", "BECAUSE"), lost, right=(1, 2)))
    if plan.notes:
        parts.append("\n".join(plan.notes))
    return "\n\n".join(parts)


def _figures(prediction: Prediction) -> str:
    low, high = prediction.total_seconds_range
    lines = [
        f"{prediction.trainable_parameters:,} of {prediction.total_parameters:,} parameters are trained, on "
        f"{prediction.tokens:,} tokens",
        f"{seconds_text(prediction.total_seconds)} in all ({seconds_text(low)} to {seconds_text(high)}), "
        f"{seconds_text(prediction.seconds_to_first_step)} to the first step, "
        f"{prediction.tokens_per_second:,.0f} tokens/s",
        f"{gib_text(prediction.peak_gib)} of memory, {gib_text(prediction.disk_gib)} of disk",
    ]
    if prediction.cost is not None:
        lines.append(f"{prediction.cost:,.2f} at your rate")
    return "\n".join(lines)


def _memory(prediction: Prediction) -> str:
    terms = sorted(prediction.memory_terms.items(), key=lambda term: -term[1])
    return render_table(("MEMORY", "PEAK"), [(name, gib_text(gib)) for name, gib in terms], right=(1,))
