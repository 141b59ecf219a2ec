"""Trainings in this process: the trainer's own code from its first line to its last, without the ten seconds of imports."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run
from tunewright.engine.runs.history import History
from tunewright.engine.runs.supervise import read_history
from tunewright.recipes.registry import open_registry

VALIDATION = 'data.validation={"kind": "rows", "value": 8}'


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a trainer ended, and all it told."""

    run: RunDirectory
    outcome: int
    history: History

    @property
    def losses(self) -> list[tuple[int, str, str]]:
        return [(step.step, repr(step.loss), repr(step.grad_norm)) for step in self.history.steps]


class Trainings:
    """Makes runs of the starter model, and trains them here."""

    def new(self, method: str, changes: list[str], **plan_changes: Any) -> RunDirectory:
        """Return a new run of twelve steps that evaluates and saves every fourth, unless changed."""
        with open_registry() as registry:
            recipe = registry.get(f"starter-{method}").recipe
        recipe = change_recipe(recipe, ["training.steps=12", VALIDATION, *changes])
        recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
        plan = plan_recipe(recipe, inspect_machine(Path("/tmp")))
        usual = {
            "evaluate_every_steps": 4,
            "checkpoint_every_steps": 4,
            "sample_every_steps": 100,
            "threads": 1,
            "merge": False,
        }
        return create_run(recipe, dataclasses.replace(plan, **{**usual, **plan_changes}), "trained-here")

    def train(self, run: RunDirectory, rung: int = 0, checkpoint: Path | None = None) -> Trained:
        """Take `run` to its end, as its trainer's process would."""
        pytest.importorskip("torch")
        from tunewright.engine.training import trainer
        from tunewright.engine.training.stages import TimedLog

        log = TimedLog(run.events_file)
        try:
            ended = trainer.guard(run, log, lambda: trainer.train(run, log, rung, checkpoint))
        finally:
            log.close()
        return Trained(run, ended, read_history(run))


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Trainings in a home of their own; the signals that a trainer listens to are given back."""
    taken: dict[signal.Signals, Callable[..., Any] | int | None] = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Trainings()
    for number, handler in taken.items():
        signal.signal(number, handler)
