"""The memory ladder on a card: CUDA itself has no more memory, and the run goes on in half the micro-batch."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run, is_live, standing
from tunewright.engine.runs.events import follow
from tunewright.engine.runs.launch import start
from tunewright.engine.runs.supervise import read_history
from tunewright.recipes.registry import open_registry

from ..trainer_hook import before_each_micro_batch

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

ROWS = 256
SMALLER_CARD = before_each_micro_batch(
    """
    file = FOLDER / "bytes"
    if taken == 6 and not file.exists():
        file.write_text(str(int(0.75 * torch.cuda.max_memory_allocated())))
    if file.exists():
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(int(file.read_text()) / total)
    """
)
"""After five steps the card shrinks to three quarters of what they took, for this trainer and those that follow."""


def new_run() -> RunDirectory:
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    changes = ["training.steps=12", 'data.validation={"kind": "rows", "value": 8}', f"training.global_batch={ROWS}"]
    recipe = change_recipe(recipe, changes)
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = plan_recipe(recipe, inspect_machine(Path("/tmp")), backend="transformers")
    usual: dict[str, Any] = {"micro_batch": ROWS, "accumulation": 1, "merge": False, "sample_every_steps": 100}
    usual |= {"evaluate_every_steps": 4, "checkpoint_every_steps": 4, "gradient_checkpointing": "off"}
    return create_run(recipe, dataclasses.replace(plan, **usual), "smaller-card")


def finish(run: RunDirectory) -> list[float]:
    start(run)
    for _ in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.1):
        pass
    assert standing(run) == "finished", run.console_tail(20)
    return [step.loss for step in read_history(run).steps]


def test_a_run_on_a_card_that_shrinks_goes_on_in_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    whole = finish(new_run())
    (tmp_path / "smaller").mkdir()
    (tmp_path / "smaller" / "sitecustomize.py").write_text(SMALLER_CARD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "smaller"), prepend=os.pathsep)
    run = new_run()
    losses = finish(run)
    notices = [each.message for each in read_history(run).notices if each.title == "Out of memory"]
    print(json.dumps({"notices": notices, "whole": whole, "short": losses}))
    assert notices
    assert "Memory ran out in step 6: Tried to allocate" in notices[0]
    assert f"from step 4 with micro-batches of {ROWS // 2} rows and 2 accumulation steps" in notices[0]
    assert len(losses) == 12
    assert losses == pytest.approx(whole, rel=0.02)  # bf16 rounds sums of other lengths otherwise
