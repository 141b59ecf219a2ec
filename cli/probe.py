"""`tunewright probe RECIPE`: a few real steps of the recipe's plan on its longest rows, beside what was predicted."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..engine.machine import inspect_machine
from ..engine.probe import LIMIT_SECONDS, Finding, probe_recipe
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from ..foundation.units import GIB
from .estimate import memory_text
from .gpus_argument import add_gpus, wished_gpus
from .parser import add_json, print_json
from .recipe_argument import add_recipe, find_recipe
from .table import render_table, seconds_text

WIDEST = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--backend", choices=("unsloth", "transformers"), help="probe this one instead of the plan's choice"
    )
    add_gpus(parser)
    parser.epilog = "What it finds corrects later plans for this model shape and method, until a run has ended here."
    parser.add_argument(
        "--limit", type=float, default=LIMIT_SECONDS, metavar="SECONDS", help=f"give up after this ({LIMIT_SECONDS:g})"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the probe that `arguments` ask for found and return the exit status."""
    if not 0 < arguments.limit < float("inf"):
        raise TunewrightError("Limit out of range", f"{arguments.limit:g} s is no time.", "Such as --limit 600.")
    name, recipe = find_recipe(arguments)
    machine = inspect_machine(runs_folder())
    stream = sys.stderr if arguments.json else sys.stdout

    def say(words: str) -> None:
        print(words, file=stream, flush=True)

    say(f"{name} on {machine.short_name}")
    found = probe_recipe(
        recipe, machine, arguments.limit, say, backend=arguments.backend, wish=wished_gpus(arguments, machine)
    )
    if arguments.json:
        print_json(values_of(found, name))
    else:
        print(f"\n{finding_text(found)}")
    return 0


def values_of(found: Finding, name: str) -> dict[str, Any]:
    """Return the object that `probe --json` prints."""
    plan = found.plan
    return {
        "recipe": name,
        "machine": plan.machine,
        "backend": plan.backend,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "rows": found.rows,
        "longest_tokens": found.longest_tokens,
        "fits": found.measured is not None,
        "predicted": asdict(found.predicted),
        "measured": None if found.measured is None else asdict(found.measured),
        "failure": found.failure or None,
        "correction": {"before": asdict(found.earlier), "after": asdict(found.later)},
        "notes": list(found.notes),
    }


def finding_text(found: Finding) -> str:
    """Return what a probe found as text: the verdict, each figure predicted and measured, what is corrected by it."""
    parts = [_wrapped(found.verdict)]
    if found.measured is not None:
        parts.append(render_table(("", "PREDICTED", "MEASURED"), list(_rows(found)), right=(1, 2)))
        if found.later.because:
            because = found.later.because
            parts.append(_wrapped(f"Later plans are {because[0].lower()}{because[1:]}"))
    return "\n\n".join([*parts, *map(_wrapped, found.notes)])


def _rows(found: Finding) -> Iterator[tuple[str, str, str]]:
    """Yield each figure with its name."""
    predicted, measured = found.predicted, found.measured
    assert measured is not None, "a probe that ran out of memory has no figures"

    def memory(gib: float | None) -> str:
        return "?" if gib is None else memory_text(gib)

    yield "peak memory", memory(predicted.peak_gib), memory(measured.peak_gib)
    if found.plan.device == "cuda":
        yield "reserved", memory(predicted.reserved_gib), memory(measured.reserved_gib)
    yield "a step on these rows", _seconds(predicted.step_seconds), _seconds(measured.step_seconds)
    yield "first step, beyond that", _seconds(predicted.first_step_seconds), _seconds(measured.first_step_seconds)
    if measured.evaluation_gib is not None:
        yield "evaluation peak", memory(predicted.evaluation_gib), memory(measured.evaluation_gib)
        yield "an evaluation batch", _seconds(predicted.evaluation_seconds), _seconds(measured.evaluation_seconds)
    yield "saving a checkpoint", _seconds(predicted.saving_seconds), _seconds(measured.saving_seconds)
    yield "its size", memory(predicted.checkpoint_bytes / GIB), memory(measured.checkpoint_bytes / GIB)
    if found.plan.device == "cuda":
        yield "power of the GPU", _watts(predicted.watts), _watts(measured.watts)


def _seconds(seconds: float | None) -> str:
    """Return a duration, short ones in milliseconds."""
    return f"{1000 * seconds:.0f} ms" if seconds is not None and seconds < 1 else seconds_text(seconds)


def _watts(watts: float | None) -> str:
    return "?" if watts is None else f"{watts:.0f} W"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, max(40, min(WIDEST, shutil.get_terminal_size((80, 24)).columns)))
