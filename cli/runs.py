"""`tunewright runs`: every run on this machine and how it stands."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ..engine.runs.directory import RunDirectory, list_runs, standing
from ..engine.runs.supervise import read_history
from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from .parser import add_json, print_json
from .table import percent_text, render_table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="show every run, not only the newest 20")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    runs = list_runs()
    shown = runs if arguments.all else runs[:20]
    described = [describe(each) for each in shown]
    if arguments.json:
        print_json({"runs": described})
        return 0
    if not described:
        print("There are no runs yet. `tunewright demo` makes one; `tunewright train RECIPE` starts your own.")
        return 0
    rows = [
        (
            each["id"],
            each["standing"],
            f"{each['step']}/{each['total_steps'] or '?'}",
            "" if each["loss"] is None else f"{each['loss']:.3f}",
            "" if each["exact_match_after"] is None
            else f"{percent_text(each['exact_match_before'])} → {percent_text(each['exact_match_after'])}",
            f"{each['size_mib']:.0f} MiB",
        )
        for each in described
    ]  # fmt: skip
    print(render_table(("RUN", "STATE", "STEP", "LOSS", "EXACT MATCH", "DISK"), rows, right=(2, 3, 5)))
    if len(runs) > len(shown):
        print(f"{len(runs) - len(shown)} older ones: `tunewright runs --all`")
    return 0


def describe(run: RunDirectory) -> dict[str, Any]:
    """Return one run as plain data; never raises, whatever the directory holds."""
    described: dict[str, Any] = {
        "id": one_line(run.id, 120),
        "folder": str(run.path),
        "standing": standing(run),
        "method": None,
        "title": None,
        "size_mib": sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file()) / 2**20,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.path.stat().st_ctime)),
    }
    try:
        recipe, plan = run.recipe(), run.plan()
        described |= {"method": recipe.method.kind, "title": recipe.card.title, "total_steps": plan.total_steps}
    except TunewrightError:
        described |= {"total_steps": None}
    history = read_history(run)
    return described | {
        "step": history.step,
        "loss": history.steps[-1].loss if history.steps else None,
        "seconds_left": history.seconds_left(),
        "exact_match_before": history.exact_match_before,
        "exact_match_after": history.exact_match_after,
        "reason": history.reason,
    }
