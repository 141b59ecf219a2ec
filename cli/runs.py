"""`tunewright runs`: every run on this machine and how it stands; `runs show RUN`: one of them with what it measured."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..engine.machine import GpuDevice, sample_gpus
from ..engine.plan import Prediction
from ..engine.runs.directory import RunDirectory, find_run, list_runs, standing
from ..engine.runs.fold import glance, read_history
from ..engine.runs.lineage import lineage_of
from ..engine.runs.terms import read_terms
from ..engine.runs.unit import inspect_unit, install_unit, remove_unit, unit_path, unit_text
from ..engine.runs.waiting import read_wait
from ..foundation.errors import EXIT_CODE, TunewrightError
from ..foundation.text import one_line
from .parser import add_json, print_json
from .table import gib_text, paragraph, percent_text, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("show", nargs="?", choices=("show",), help="tell one run with what it predicted and measured")
    parser.add_argument("name", nargs="?", metavar="RUN", help="its id, a part of it, or `last`")
    parser.add_argument("--all", action="store_true", help="show every run, not only the newest 20")
    parser.add_argument(
        "--resume-interrupted",
        action="store_true",
        help="go on with all runs that a restart of the machine, a queue or a kill has ended",
    )
    parser.add_argument(
        "--reindex", action="store_true", help="read every run's folder into the registry again, with its evidence"
    )
    unit = parser.add_mutually_exclusive_group()
    unit.add_argument("--show-unit", action="store_true", help="show the systemd unit that does so at every boot")
    unit.add_argument(
        "--install-unit", action="store_true", help="show that unit, write it for this user, and enable it"
    )
    unit.add_argument("--remove-unit", action="store_true", help="disable that unit and remove it")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.resume_interrupted:
        return _resume_interrupted(arguments.json)
    if arguments.reindex:
        from ..engine.runs.recording import rebuild

        kept, left = rebuild()
        if arguments.json:
            print_json({"indexed": kept, "left_out": left})
        else:
            print(f"{kept} runs are in the registry" + (f"; {left} folders cannot be read." if left else "."))
        return 0
    if arguments.show_unit or arguments.install_unit or arguments.remove_unit:
        return _unit(arguments)
    if arguments.show:
        described = explain(find_run(arguments.name or "last"))
        if arguments.json:
            print_json(described)
        else:
            print(run_text(described))
        return 0
    runs = list_runs()
    shown = runs if arguments.all else runs[:20]
    described = [describe(each) for each in shown]
    if arguments.json:
        print_json({"runs": described, "gpus": [asdict(gpu) for gpu in sample_gpus()]})
        return 0
    if not described:
        print("There are no runs yet. `tunewright demo` makes one; `tunewright train RECIPE` starts your own.")
        return 0
    rows = [
        (
            each["id"],
            each["standing"],
            each["wait"]["short"] if each["wait"] else f"{each['step']}/{each['total_steps'] or '?'}",
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
    for each in described:
        if each["wait"]:
            print(paragraph(f"{each['id']} waits: {each['wait']['said']}."))
    for gpu in sample_gpus():
        print(paragraph(f"{held_by(gpu)}."))
    return 0


def held_by(gpu: GpuDevice) -> str:
    """Say how much of a GPU's memory is free, and who holds the rest."""
    held = ", ".join(process.said for process in gpu.processes)
    free = f"GPU {gpu.index}: {gpu.memory_free_gib:.1f} of {gpu.memory_total_gib:.1f} GiB free"
    return f"{free}; held: {held}" if held else free


def _unit(arguments: argparse.Namespace) -> int:
    """Show, install or remove the unit that brings interrupted runs back at boot."""
    installs, removes, as_json = arguments.install_unit, arguments.remove_unit, arguments.json
    if not as_json and not removes:
        print(f"{unit_path()}:\n\n{unit_text()}", flush=True)
    unit = install_unit() if installs else remove_unit() if removes else inspect_unit()
    if as_json:
        print_json(asdict(unit))
        return 0
    stands = "installed" if unit.installed else "not installed"
    enabled = ", and enabled" if unit.enabled else ", not enabled" if unit.installed else ""
    print(f"{unit.path} is {stands}{enabled}.")
    for note in unit.notes:
        print(note)
    return 0


def _resume_interrupted(as_json: bool) -> int:
    """Resume what was interrupted, tell what became of each, and return an error's status where one could not go on."""
    from ..engine.runs.launch import resume_interrupted  # not for those who only look

    found = resume_interrupted()
    if as_json:
        print_json(
            {
                "resumed": [
                    {"run": each.run.id, "from_step": each.step, "error": each.error and each.error.to_json()}
                    for each in found
                ]
            }
        )
    elif not found:
        print("No run was interrupted.")
    else:
        for each in found:
            told = str(each.error) if each.error else f"goes on from step {each.step}"
            print(f"{one_line(each.run.id, 120)}: {told}")
    return EXIT_CODE if any(each.error for each in found) else 0


def describe(run: RunDirectory) -> dict[str, Any]:
    """Return one run as plain data; never raises, whatever the directory holds."""
    described: dict[str, Any] = {
        "id": one_line(run.id, 120),
        "folder": str(run.path),
        "standing": standing(run),
        "method": None,
        "title": None,
        "size_mib": run.size_bytes() / 2**20,
        "started": _started(run),
    }
    try:
        recipe, plan = run.recipe(), run.plan()
        described |= {"method": recipe.method.kind, "title": recipe.card.title, "total_steps": plan.total_steps}
    except TunewrightError:
        described |= {"total_steps": None}
    history = glance(run)
    wait = read_wait(run) if described["standing"] == "queued" else None
    return described | {
        "step": history.step,
        "loss": history.steps[-1].loss if history.steps else None,
        "seconds_left": history.seconds_left(),
        "exact_match_before": history.exact_match_before,
        "exact_match_after": history.exact_match_after,
        "reason": history.reason,
        "wait": None if wait is None else asdict(wait) | {"short": wait.short},
        "terms": asdict(read_terms(run)),
    }


def _started(run: RunDirectory) -> str | None:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.path.stat().st_ctime))
    except OSError:
        return None


def explain(run: RunDirectory) -> dict[str, Any]:
    """Return one run as plain data, with what was predicted and measured and what went before its first step."""
    history = read_history(run)
    prediction: Prediction | None = None
    with contextlib.suppress(TunewrightError):
        prediction = run.plan().prediction
    last = history.steps[-1] if history.steps else None
    lineage = lineage_of(run)
    return describe(run) | {
        "lineage": lineage and asdict(lineage) | {"said": lineage.said},
        "measured": history.measured,
        "predicted": None if prediction is None else asdict(prediction),
        "to_first_step": history.to_first_step(),
        "tokens_per_second": history.measured.get("tokens_per_second") or history.tokens_per_second(),
        "mfu": history.mfu(),
        "peak_gib": history.measured.get("peak_gib") or (last.peak_gib if last else None),
        "reserved_gib": (last.reserved_gib or None) if last else None,
        "continuity": None
        if history.continuity is None
        else asdict(history.continuity) | {"said": history.continuity.said},
        "metrics": next((each.metrics for each in reversed(history.evals) if each.metrics), dict[str, float]()),
    }


def run_text(described: dict[str, Any]) -> str:
    """Return what `explain` found as text."""
    predicted: dict[str, Any] = described["predicted"] or {}
    measured: dict[str, Any] = described["measured"]
    rows = [
        ("memory", _text(predicted.get("peak_gib"), gib_text), _text(described["peak_gib"], gib_text)),
        ("reserved", _text(predicted.get("reserved_gib"), gib_text), _text(described["reserved_gib"], gib_text)),
        ("tokens/s", _text(predicted.get("tokens_per_second"), _count), _text(described["tokens_per_second"], _count)),
        ("MFU", "", _text(described["mfu"], percent_text)),
        ("first step", _text(predicted.get("seconds_to_first_step"), seconds_text),
         _text(measured.get("seconds_to_first_step"), seconds_text)),
        ("time", _text(predicted.get("total_seconds"), seconds_text), _text(measured.get("total_seconds"), seconds_text)),
    ]  # fmt: skip
    parts = [
        f"{described['id']}: {described['standing']}, step {described['step']} of {described['total_steps'] or '?'}",
        render_table(("", "PREDICTED", "MEASURED"), [row for row in rows if row[2]], right=(1, 2)),
    ]
    if described["lineage"]:
        parts.insert(1, one_line(f"Lineage: {described['lineage']['said']}."))
    if described["wait"]:
        parts.append(paragraph(f"It waits: {described['wait']['said']}."))
    if nice := described["terms"]["nice"]:
        parts.append(f"It gives way to other programs: nice {nice}.")
    if described["to_first_step"]:
        phases = [(name, seconds_text(seconds)) for name, seconds in described["to_first_step"].items()]
        parts.append(render_table(("TO THE FIRST STEP", "TIME"), phases, right=(1,)))
    if described["continuity"]:
        parts.append(f"Resumed: {described['continuity']['said']}.")
    if described["metrics"]:
        metrics = [(one_line(name, 60), f"{value:.4g}") for name, value in described["metrics"].items()]
        parts.append(render_table(("ON HELD-OUT ROWS", ""), metrics, right=(1,)))
    return "\n\n".join(parts)


def _text(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"
