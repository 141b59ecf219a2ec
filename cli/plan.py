"""`tunewright plan RECIPE`: the fastest plan that fits this machine, with its reasons and the plans that lost."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..engine.anatomy import read_anatomy
from ..engine.data.counting import count_rows
from ..engine.defaults import default_recipe
from ..engine.hub.needs import is_on_hub
from ..engine.machine import inspect_machine
from ..engine.plan import Plan, Prediction, Reason
from ..engine.planner import plan_recipe
from ..engine.sources import BUILT_IN_MODELS, find_model
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from ..recipes.model import Recipe
from .estimate import memory_text
from .fetch import describe_model, make_plannable, values_of, waiting_text
from .gpus_argument import add_gpus, wished_gpus
from .parser import add_json, print_json
from .recipe_argument import absolute_source, add_recipe, change_recipe, find_recipe, is_recipe
from .table import gib_text, paragraph, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_recipe(parser)
    parser.epilog = "A model in the place of RECIPE (a folder, or a name on the Hub) is planned with default values."
    parser.add_argument("--rate", type=float, metavar="MONEY", help="what an hour of this machine costs, any currency")
    add_gpus(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan that `arguments` ask for and return the exit status."""
    if arguments.rate is not None and not 0 <= arguments.rate < 1e6:
        raise TunewrightError("Rate out of range", f"{arguments.rate:g} is no price of an hour.", "Such as --rate 2.5.")
    recipe = _recipe_for_model(arguments) if _is_model(arguments.recipe) else find_recipe(arguments)[1]
    waiting = make_plannable(recipe, allowed=False, run_follows=False)
    machine = inspect_machine(runs_folder())
    plan = plan_recipe(recipe, machine, arguments.rate, wish=wished_gpus(arguments, machine))
    if arguments.json:
        values: dict[str, Any] = json.loads(plan.to_json())
        print_json({**values, "to_fetch": [values_of(each, with_files=False) for each in waiting]})
    else:
        print("\n\n".join(filter(None, (plan_text(plan), waiting_text(waiting)))))
    return 0


def _is_model(name: str) -> bool:
    """Tell whether `name` is a model rather than a recipe."""
    if name in BUILT_IN_MODELS or (Path(name).expanduser() / "config.json").exists():
        return True
    try:
        return "/" in name and not name.endswith(".toml") and bool(find_model(name))
    except TunewrightError:
        return is_on_hub(name) and not is_recipe(name)


def _recipe_for_model(arguments: argparse.Namespace) -> Recipe:
    """Return the default LoRA recipe for a model and the rows in `--data`."""
    if arguments.data is None:
        raise TunewrightError("No data", "A model alone cannot be planned.", "Add --data FILE, a JSONL file of rows.")
    rows = count_rows(arguments.data).rows
    if is_on_hub(arguments.recipe):
        describe_model(arguments.recipe)
    anatomy = read_anatomy(find_model(arguments.recipe))
    recipe, _ = default_recipe("lora", arguments.recipe, absolute_source(arguments.data), rows, anatomy)
    return change_recipe(recipe, arguments.changes)


def plan_text(plan: Plan) -> str:
    """Return `plan` as text: figures, memory, reasons, plans that lost, notes."""
    gpus = f" × {plan.gpus} GPUs" if plan.gpus > 1 else ""
    parts = [f"{plan.total_steps} steps of {plan.micro_batch} × {plan.accumulation}{gpus} rows on {plan.machine}"]
    parts[0] += f"\n{_layout(plan)}"
    if plan.prediction:
        parts += [_figures(plan.prediction), _memory(plan.prediction)]
    if plan.reasons:
        parts.append("\n".join(map(_reason, plan.reasons)))
    if plan.alternatives:
        lost = [
            (a.summary, gib_text(a.peak_gib), seconds_text(a.total_seconds), a.lost_because) for a in plan.alternatives
        ]
        parts.append(render_table(("LOST", "PEAK", "TIME", "BECAUSE"), lost, right=(1, 2)))
    if plan.notes:
        parts.append("\n".join(map(paragraph, plan.notes)))
    return "\n\n".join(parts)


def _layout(plan: Plan) -> str:
    """Return what only changes the cost, in one line."""
    words = [plan.backend, plan.precision, plan.batching, f"{plan.attention} attention"]
    words.append("torch.compile" if plan.compiled else "not compiled")
    if plan.gpus > 1:
        words.append(f"GPUs {', '.join(map(str, plan.gpu_indices))} by {plan.parallelism}")
    return ", ".join(words)


def _reason(reason: Reason) -> str:
    """Return a choice with its value, and the reason indented below."""
    return f"{reason.choice}: {reason.value}\n{paragraph(reason.because, indent='    ')}"


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
    if prediction.reserved_gib > prediction.peak_gib:  # on a GPU
        lines.append(
            f"{gib_text(prediction.reserved_gib)} reserved by the allocator, {gib_text(prediction.evaluation_gib)} while "
            f"evaluating, {gib_text(prediction.saving_gib)} while saving, {gib_text(prediction.host_gib)} of the host's memory"
        )
    if prediction.cost is not None:
        lines.append(f"{prediction.cost:,.2f} at your rate")
    return "\n".join(lines)


def _memory(prediction: Prediction) -> str:
    terms = sorted(prediction.memory_terms.items(), key=lambda term: -term[1])
    return render_table(("MEMORY", "PEAK"), [(name, memory_text(gib)) for name, gib in terms], right=(1,))
