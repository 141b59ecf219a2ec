"""Verifying a recipe: some of its steps are run here, and its plan is held against what they took."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ...foundation.errors import TunewrightError
from ...recipes.model import Recipe
from ...recipes.records import Evidence
from ...recipes.registry import Registry
from ..plan import Plan
from .directory import RunDirectory
from .fold import read_history
from .history import History
from .recording import evidence_of

STEPS = 20
MEMORY_TOLERANCE = 0.10
SPEED_TOLERANCE = 1.5
"""A few steps are slower than many by this much at most, on a machine that does nothing else."""
SUPERVISOR_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was held against what was measured."""

    name: str
    expected: float | None
    measured: float | None
    holds: bool
    said: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a recipe at a small scale."""

    run: str
    state: str
    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Whether the run came to its end and every check holds."""
        return self.state == "finished" and all(each.holds for each in self.checks)


def small_recipe(recipe: Recipe, steps: int) -> Recipe:
    """Return `recipe` with `steps` steps, without what only longer runs are judged by."""
    if not 4 <= steps <= 10_000:
        raise TunewrightError("Steps out of range", f"{steps} steps cannot be verified.", "Such as --steps 20.")
    training = recipe.training.model_copy(
        update={"steps": steps, "epochs": None, "early_stopping": None, "finish_with": "last"}
    )
    validation = type(recipe.data.validation)(kind="none")
    return recipe.model_copy(
        update={
            "training": training,
            "data": recipe.data.model_copy(update={"validation": validation}),
            "evaluation": recipe.evaluation.model_copy(update={"source": None}),
        }
    )


def await_end(run: RunDirectory) -> None:
    """Wait until the supervisor of a run that has a result is gone, for it records the run last."""
    processes = run.processes()
    deadline = time.monotonic() + SUPERVISOR_SECONDS
    while processes is not None and processes.supervisor.alive and time.monotonic() < deadline:
        time.sleep(0.02)


def judge(run: RunDirectory) -> Verification:
    """Hold what `run` measured against its plan; raises TunewrightError for a damaged run."""
    history, plan = read_history(run), run.plan()
    result = run.result()
    state = str(result["state"]) if result else "lost"
    return Verification(run.id, state, tuple(_checks(plan, history, evidence_of(run, history))))


def _checks(plan: Plan, history: History, evidence: tuple[Evidence, ...]) -> list[Check]:
    if not evidence or plan.prediction is None:
        return []
    whole, predicted = evidence[0], plan.prediction
    slower = max(SPEED_TOLERANCE, predicted.total_seconds_range[1] / max(predicted.total_seconds, 1e-9))
    checks: list[Check] = []
    if whole.measured_peak_gib is not None:
        off = whole.measured_peak_gib / predicted.peak_gib - 1
        holds = abs(off) <= MEMORY_TOLERANCE
        said = f"{100 * off:+.0f} % of what was predicted; {100 * MEMORY_TOLERANCE:.0f} % are allowed"
        checks.append(Check("memory", predicted.peak_gib, whole.measured_peak_gib, holds, said))
    if whole.measured_tokens_per_second:
        off = predicted.tokens_per_second / whole.measured_tokens_per_second
        said = f"a step takes {off:.2f} times what was predicted; {slower:.2f} times is allowed"
        checks.append(
            Check("speed", predicted.tokens_per_second, whole.measured_tokens_per_second, off <= slower, said)
        )
    if whole.first_loss is not None and whole.last_loss is not None:
        fell = whole.last_loss < whole.first_loss
        said = "it falls" if fell else "it does not fall"
        checks.append(Check("loss", whole.first_loss, whole.last_loss, fell, said))
    return checks


def keep(registry: Registry, recipe: Recipe, run: RunDirectory) -> None:
    """Keep what `run` showed as smoke evidence for `recipe`, of which it took some steps."""
    found = evidence_of(run, read_history(run))
    for each in found[:1]:
        registry.record_evidence(replace(each, revision=recipe.hash(), kind="smoke", run=f"verify:{run.id}"))
