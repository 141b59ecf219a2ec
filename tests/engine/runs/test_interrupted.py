"""Runs that nobody meant to end: after a kill, a restart or a queue's signal they go on, and what people stopped does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run, find_run, is_live, standing
from tunewright.engine.runs.events import Step, follow
from tunewright.engine.runs.launch import launch, resume_interrupted, stop, was_interrupted
from tunewright.recipes.registry import open_registry

STEPS = 14


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


def prepared() -> tuple[Any, Any]:
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    recipe = change_recipe(recipe, [f"training.steps={STEPS}", 'data.validation={"kind": "none"}'])
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    return recipe, plan_recipe(recipe, inspect_machine(Path("/tmp")))


def follow_to(run: RunDirectory, step: int) -> None:
    """Follow the run until it has taken this step, or to its end."""
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.02):
        if isinstance(event, Step) and event.step >= step:
            return


def pids(run: RunDirectory) -> list[int]:
    processes = run.processes()
    assert processes is not None
    return [each.pid for each in (processes.supervisor, processes.trainer) if each]


def test_what_was_interrupted_goes_on_and_what_was_stopped_does_not() -> None:
    killed, signalled, stopped = (launch(*prepared(), name) for name in ("killed", "signalled", "stopped"))
    for run in (killed, signalled, stopped):
        follow_to(run, 2)
    for pid in pids(killed):  # both at once, as when the power fails
        os.kill(pid, signal.SIGKILL)
    os.kill(pids(signalled)[0], signal.SIGTERM)  # as systemd does before a restart, and queues before they take a place
    stop(stopped)
    for run in (killed, signalled, stopped):
        follow_to(run, STEPS + 1)
    assert [standing(run) for run in (killed, signalled, stopped)] == ["lost", "stopped", "stopped"]
    result = signalled.result()
    assert result is not None and result["reason"] == "by SIGTERM from outside, after a save"
    assert [was_interrupted(run) for run in (killed, signalled, stopped)] == [True, True, False]

    command = [sys.executable, "-m", "tunewright", "runs", "--resume-interrupted", "--json"]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["resumed"]
    assert [(each["run"], each["error"]) for each in told] == [(killed.id, None), (signalled.id, None)]
    for run in (killed, signalled):
        follow_to(run, STEPS + 1)
        assert standing(run) == "finished", run.console_tail(20)
    assert resume_interrupted() == []
    assert standing(stopped) == "stopped"


def test_what_cannot_go_on_is_told_and_the_others_are_tried(tmp_path: Path) -> None:
    broken, other = create_run(*prepared(), "broken"), create_run(*prepared(), "other")
    for run in (broken, other):
        run.result_file.write_text('{"state": "stopped", "interrupted": true}')
    shutil.rmtree(other.checkpoints)
    broken.plan_file.write_text("{}")
    found = {each.run.id: each for each in resume_interrupted()}
    assert found.keys() == {broken.id, other.id}
    assert found[broken.id].error is not None
    for run in (each.run for each in found.values() if each.error is None):
        follow_to(run, STEPS + 1)


def test_hostile_results_are_not_taken_for_interrupted() -> None:
    run = create_run(*prepared(), "hostile")
    for text in (
        "[]",
        '{"state": "paused", "interrupted": true}',
        '{"state": "finished", "interrupted": true}',
        '{"state": "\\u001b", "interrupted": 1}',
        "{",
    ):
        run.result_file.write_text(text)
        assert not was_interrupted(find_run(run.id))
