"""Recording: what a run came to goes into the registry, as evidence for its recipe and as a line of the index.

The run's folder is the truth. What is lost of the registry comes back from the folders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text
from ...foundation.text import one_line
from ...recipes.records import Evidence, IndexedRun
from ...recipes.registry import open_registry
from ..machine import Machine
from ..plan import Plan
from .circumstances import CIRCUMSTANCES_FILE, COMPUTING
from .directory import RunDirectory, list_runs, standing
from .fold import read_history
from .history import History

MOST_METRICS = 12


def hardware_name(machine: Machine) -> str:
    """Return what evidence of a run on one device of `machine` says that it ran on: the card's name, or the processor's."""
    return one_line(machine.freest_gpu.name if machine.gpus else machine.cpu, 120)


def record(run: RunDirectory) -> None:
    """Put what `run` came to into the registry; raises TunewrightError for a damaged run or registry."""
    history = read_history(run)
    found, index = evidence_of(run, history), indexed(run, history)
    with open_registry() as registry:
        registry.record_run(run.recipe(), found, index)


def record_at_the_end(run: RunDirectory) -> None:
    """Record `run` as its supervisor's last deed: what goes wrong is printed, for the run itself is over and whole."""
    try:
        record(run)
    except Exception as error:  # noqa: BLE001  # whatever the registry's trouble is, it is not the run's
        print(f"The run is not in the registry: {error} `tunewright runs --reindex` tries again.", file=sys.stderr)


def rebuild(folder: Path | None = None) -> tuple[int, int]:
    """Make the index anew from the runs' folders, with their evidence; returns how many are in it, and how many are not.

    A folder that is no run of this version is left as it is, and counted in the second number.
    """
    lines: list[IndexedRun] = []
    runs = list_runs(folder)
    with open_registry() as registry:
        for run in runs:
            try:
                history = read_history(run)
                line = indexed(run, history)
                registry.record_run(run.recipe(), evidence_of(run, history), line)
            except (TunewrightError, OSError):
                continue
            lines.append(line)
        registry.rebuild_runs(lines)
    return len(lines), len(runs) - len(lines)


def indexed(run: RunDirectory, history: History) -> IndexedRun:
    """Return the line of the index for `run`; raises TunewrightError for a damaged one."""
    recipe, plan, result = run.recipe(), run.plan(), run.result() or {}
    return IndexedRun(
        id=run.id,
        folder=str(run.path),
        recipe=recipe.hash(),
        title=recipe.card.title,
        method=recipe.method.kind,
        model=recipe.base.model,
        state=standing(run),
        created=history.started or run.path.stat().st_mtime,
        reason=one_line(str(result.get("reason", "")), 300),
        ended=_number(result.get("ended")),
        step=history.step,
        total_steps=plan.total_steps,
        loss=history.steps[-1].loss if history.steps else None,
        exact_match_before=history.exact_match_before,
        exact_match_after=history.exact_match_after,
        peak_gib=history.measured.get("peak_gib"),
    )


def evidence_of(run: RunDirectory, history: History) -> tuple[Evidence, ...]:
    """Return what `run` says about its recipe, the run as a whole first; nothing while it has not ended."""
    result = run.result()
    if result is None or result["state"] not in ("finished", "stopped", "failed"):
        return ()
    recipe, plan = run.recipe(), run.plan()
    error = cast("dict[str, Any]", result.get("error") or {})
    status = "out-of-memory" if error.get("title") == "Out of memory" else result["state"]
    circumstances = _circumstances(run)
    predicted, measured = plan.prediction, history.measured
    last = history.steps[-1] if history.steps else None
    first_loss, last_loss = losses(history)
    whole = Evidence(
        revision=recipe.hash(),
        kind="local",
        status=status,
        hardware=_hardware(plan, circumstances),
        predicted_peak_gib=predicted.peak_gib if predicted else None,
        measured_peak_gib=measured.get("peak_gib") or (last.peak_gib if last else None),
        predicted_seconds=predicted.total_seconds if predicted else None,
        measured_seconds=measured.get("total_seconds"),
        seed=recipe.training.seed,
        versions={name: circumstances[name] for name in COMPUTING if name in circumstances},
        run=run.id,
        created=_number(result.get("ended")) or 0.0,
        reason=one_line(str(result.get("reason", "")), 300),
        steps=history.step,
        first_loss=first_loss,
        last_loss=last_loss,
        validation_loss=next((each.loss for each in reversed(history.evals) if each.loss is not None), None),
        predicted_tokens_per_second=predicted.tokens_per_second if predicted else None,
        measured_tokens_per_second=measured.get("tokens_per_second") or history.tokens_per_second(),
    )
    return (
        whole,
        *(replace(whole, metric=name, value=value) for name, value in _metrics(history)),
    )


def losses(history: History) -> tuple[float | None, float | None]:
    """Return the mean loss of the first and of the last tenth of the steps; None of both where there were fewer than two.

    Of a run of thousands of steps, as many as its curve has places, evenly drawn.
    """
    taken = history.curves.loss.firsts
    if len(taken) < 2:
        return None, None
    tenth = max(1, len(taken) // 10)
    return sum(taken[:tenth]) / tenth, sum(taken[-tenth:]) / tenth


def _metrics(history: History) -> Iterator[tuple[str, float]]:
    """Yield what was measured on held-out rows, the last of each."""
    found: dict[str, float] = {}
    for each in history.evals:
        if each.step and each.exact_match is not None:
            found["exact_match"] = each.exact_match
        if each.step:
            found |= {one_line(name, 60): value for name, value in each.metrics.items()}
    yield from list(found.items())[:MOST_METRICS]


def _hardware(plan: Plan, circumstances: dict[str, str]) -> str:
    """Return the cards of the run by their name, or its processor."""
    if plan.device == "cpu":
        return circumstances.get("processor", plan.machine)
    cards = circumstances.get("cards", plan.machine).split(", ")
    return cards[0] if len(cards) == 1 else f"{len(cards)}× {cards[0]}"


def _circumstances(run: RunDirectory) -> dict[str, str]:
    place = run.path / CIRCUMSTANCES_FILE
    try:
        kept: Any = json.loads(read_text(place)) if place.exists() else {}
        return {one_line(name, 60): one_line(str(value), 120) for name, value in cast("dict[str, Any]", kept).items()}
    except (OSError, ValueError, AttributeError, TunewrightError):
        return {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
