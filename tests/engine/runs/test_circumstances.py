"""Circumstances: a run goes on with other rows, libraries or cards only when somebody agrees, and its losses prove how."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.circumstances import CIRCUMSTANCES_FILE, OtherCircumstances, differences, remember
from tunewright.engine.runs.directory import RunDirectory, create_run, is_live, standing
from tunewright.engine.runs.events import Step, follow
from tunewright.engine.runs.launch import launch, resume
from tunewright.engine.runs.supervise import read_history
from tunewright.recipes.registry import open_registry
from tunewright.starter import MODEL, TRAINING_DATA


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path


def prepared(folder: Path) -> tuple[Any, Any]:
    """Return the starter's recipe over a model and rows of its own, and a plan for a few steps of it."""
    shutil.copytree(MODEL, folder / "model")
    shutil.copy(TRAINING_DATA, folder / "rows.jsonl")
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    changes = [f"base.model={folder / 'model'}", f"data.source={folder / 'rows.jsonl'}", "training.steps=10"]
    changes.append('data.validation={"kind": "none"}')
    recipe = change_recipe(recipe, changes)
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = plan_recipe(recipe, inspect_machine(folder))
    return recipe, dataclasses.replace(plan, checkpoint_every_steps=3, sample_every_steps=100, threads=1, merge=False)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = create_run(*prepared(tmp_path), "circumstances")
    remember(run)
    run.result_file.write_text('{"state": "stopped"}')
    return run


def kept(run: RunDirectory) -> dict[str, str]:
    return json.loads((run.path / CIRCUMSTANCES_FILE).read_text())


def test_what_is_kept_names_rows_text_hardware_and_libraries(run: RunDirectory) -> None:
    assert {"recipe", "plan", "rows", "tokenizer and template", "processor", "torch", "peft"} <= kept(run).keys()
    assert differences(run) == ()


def add_a_row(folder: Path, run: RunDirectory) -> None:
    with (folder / "rows.jsonl").open("a") as rows:
        rows.write('{"prompt": "One more", "completion": "row"}\n')


def lose_the_rows(folder: Path, run: RunDirectory) -> None:
    (folder / "rows.jsonl").unlink()


def change_the_template(folder: Path, run: RunDirectory) -> None:
    place = folder / "model" / "chat_template.jinja"
    place.write_text(place.read_text() + " ")


def change_the_weights(folder: Path, run: RunDirectory) -> None:
    with (folder / "model" / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        last = weights.read(1)
        weights.seek(-1, os.SEEK_END)
        weights.write(bytes([last[0] ^ 1]))


def edit_the_recipe(folder: Path, run: RunDirectory) -> None:
    run.recipe_file.write_text(change_recipe(run.recipe(), ["training.learning_rate=0.5"]).to_toml())


def edit_the_plan(folder: Path, run: RunDirectory) -> None:
    run.plan_file.write_text(run.plan_file.read_text() + "\n")


def use_another_library(folder: Path, run: RunDirectory) -> None:
    (run.path / CIRCUMSTANCES_FILE).write_text(json.dumps(kept(run) | {"torch": "1.0"}))


def miss_a_library(folder: Path, run: RunDirectory) -> None:
    (run.path / CIRCUMSTANCES_FILE).write_text(json.dumps(kept(run) | {"unsloth": "2025.1"}))


def break_the_file(folder: Path, run: RunDirectory) -> None:
    (run.path / CIRCUMSTANCES_FILE).write_text("[1]")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (add_a_row, "rows"), (lose_the_rows, "rows"), (change_the_template, "tokenizer and template"),
        (change_the_weights, "weights"), (edit_the_recipe, "recipe"),
        (edit_the_plan, "plan"), (use_another_library, "torch"), (miss_a_library, "unsloth"),
        (break_the_file, "what is known of its start"),
    ],
)  # fmt: skip
def test_what_has_changed_is_named_and_needs_consent(
    run: RunDirectory, tmp_path: Path, change: Callable[[Path, RunDirectory], None], what: str
) -> None:
    change(tmp_path, run)
    assert [each.what for each in differences(run)] == [what]
    with pytest.raises(OtherCircumstances, match=what) as refused:
        resume(run)
    assert f"`tunewright resume {run.id} --accept-changes`" in refused.value.remedy
    assert not is_live(run)


def test_a_run_of_an_earlier_version_is_not_asked_about(run: RunDirectory, tmp_path: Path) -> None:
    (run.path / CIRCUMSTANCES_FILE).unlink()
    add_a_row(tmp_path, run)
    assert differences(run) == ()


def test_an_agreed_run_goes_on_and_its_losses_are_compared(tmp_path: Path) -> None:
    run = launch(*prepared(tmp_path), "agreed")
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.02):
        if isinstance(event, Step) and event.step == 5 and (processes := run.processes()) and processes.trainer:
            os.kill(processes.trainer.pid, signal.SIGKILL)
    use_another_library(tmp_path, run)
    assert resume(run, agreed=True) == 3
    for _ in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.05):
        pass
    assert standing(run) == "finished", run.console_tail(20)
    history = read_history(run)
    (told,) = [each for each in history.notices if each.title == "Going on under other circumstances"]
    assert "torch: 1.0 when the run began" in told.message
    assert differences(run) == ()
    assert history.continuity is not None
    assert (history.continuity.step, history.continuity.largest_difference) == (3, 0.0)
    assert history.continuity.compared >= 2
    assert "to the last digit" in history.continuity.said
