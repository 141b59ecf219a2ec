"""`tunewright demo`: tune the built-in model on this machine, and show what it could do before and after."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..engine.machine import inspect_machine
from ..engine.measuring import measure, unmeasured
from ..engine.planner import plan_recipe
from ..engine.runs.directory import RunDirectory, is_live
from ..engine.runs.launch import launch
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from ..recipes.registry import open_registry
from .attach import follow_in_lines
from .parser import add_json, print_json
from .recipe_argument import change_recipe
from .table import gib_text, percent_text, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method", choices=("lora", "qlora", "full"), default="lora", help="how to tune (default: lora)"
    )
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--plain", action="store_true", help="print lines instead of opening the monitor")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    stream = sys.stderr if arguments.json else sys.stdout
    name = f"starter-{arguments.method}"
    with open_registry() as registry:
        recipe = registry.get(name).recipe
    if arguments.seed is not None:
        recipe = change_recipe(recipe, [f"training.seed={arguments.seed}"])
    machine = inspect_machine(runs_folder())
    print(f"{recipe.card.title} on {machine.short_name}", file=stream, flush=True)
    if (device := unmeasured(machine)) is not None:
        print(f"measuring this {device} once, for the predictions", file=stream, flush=True)
        try:
            measure(machine)
        except TunewrightError as error:
            print(f"{error.title}: {error.message}", file=stream, flush=True)
    started = launch(recipe, plan_recipe(recipe, machine), f"demo-{arguments.method}")
    print(f"run {started.id}", file=stream, flush=True)
    if arguments.json or arguments.plain or not sys.stdout.isatty():
        follow_in_lines(started, stream)
    else:
        from ..tui.app import open_app

        open_app(run=started)
        if is_live(started):
            print(f"The run goes on. `tunewright attach {started.id}` follows it.")
            return 0
    return _conclude(started, arguments.method, arguments.json)


def _conclude(run: RunDirectory, method: str, as_json: bool) -> int:
    """Print what the run predicted, measured and learned; raises TunewrightError when it failed."""
    result = run.result()
    if result is None or result["state"] != "finished":
        error: dict[str, str] = (result or {}).get("error") or {}
        raise TunewrightError(
            error.get("title") or "The demo did not finish",
            error.get("message") or f"{run.id} is {result['state'] if result else 'lost'}.",
            error.get("remedy") or f"`tunewright resume {run.id}` goes on with it.",
        )
    figures = summary(result)
    if as_json:
        print_json({method: figures})
        return 0
    row = (
        method,
        f"{figures['trainable_parameters']:,}",
        gib_text(figures["peak_predicted_gib"]),
        gib_text(figures["peak_measured_gib"]),
        seconds_text(figures["seconds_predicted"]),
        seconds_text(figures["seconds_measured"]),
        percent_text(figures["exact_match_before"]),
        percent_text(figures["exact_match_after"]),
    )
    header = ("METHOD", "TRAINABLE", "PEAK PREDICTED", "MEASURED", "TIME PREDICTED", "MEASURED", "BEFORE", "AFTER")
    print(f"\n{render_table(header, [row], right=range(1, 8))}\n")
    print(
        "Peak is the trainer's memory; time is that of training; before and after are exact matches on held-out rows."
    )
    print(f"Talk to both models: tunewright chat {run.id}")
    return 0


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that `demo --json` prints for one method."""
    predicted: dict[str, Any] = result["predicted"] or {}
    measured: dict[str, Any] = result["measured"]
    return {
        "trainable_parameters": int(measured["trainable_parameters"]),
        "peak_predicted_gib": predicted.get("peak_gib"),
        "peak_measured_gib": measured["peak_gib"],
        "seconds_predicted": predicted.get("training_seconds"),
        "seconds_measured": measured["training_seconds"],
        "exact_match_before": result["exact_match_before"],
        "exact_match_after": result["exact_match_after"],
    }
