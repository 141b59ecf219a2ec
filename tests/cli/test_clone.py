"""A run like another one: what is changed is shown in meaning, and where it came from is kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run, find_run
from tunewright.engine.runs.lineage import LINEAGE_FILE, Lineage, lineage_of, plain_name, write_lineage
from tunewright.recipes.model import read_recipe
from tunewright.recipes.registry import open_registry


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    with open_registry() as registry:
        recipe = change_recipe(registry.get("starter-lora").recipe, ["training.steps=5", "method.rank=8"])
    return create_run(recipe, plan_recipe(recipe, inspect_machine(tmp_path)), "first try")


def clone(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tunewright", "clone", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, json.loads(ended.stdout)


def end(run: RunDirectory) -> None:
    processes = run.processes()
    assert processes is not None
    for each in (processes.supervisor, processes.trainer):
        with contextlib.suppress(ProcessLookupError):
            if each is not None:
                os.kill(each.pid, signal.SIGKILL)


def test_changes_are_shown_and_nothing_is_started(run: RunDirectory, tmp_path: Path) -> None:
    saved = tmp_path / "next.toml"
    code, told = clone(
        run.id, "--set", "training.learning_rate=1e-4", "--set", "training.steps=9", "--save", str(saved)
    )
    assert code == 0
    assert {each["path"] for each in told["differences"]} == {"training.learning_rate", "training.steps"}
    assert told["hash_before"] == run.recipe().hash() != told["hash"] == read_recipe(saved).hash()
    assert told["total_steps"] == 9 and told["run"] is None
    assert [each.name for each in run.path.parent.iterdir()] == [run.id]


def test_a_started_clone_keeps_where_it_came_from(run: RunDirectory) -> None:
    code, told = clone(run.id, "--set", "training.learning_rate=1e-4", "--start")
    assert code == 0
    made = find_run(told["run"])
    end(made)
    lineage = lineage_of(made)
    assert lineage is not None and (lineage.parent, lineage.how, lineage.step) == (run.id, "clone", 0)
    assert any("training.learning_rate" in each for each in lineage.changes)
    assert made.recipe().training.learning_rate == 1e-4 and made.recipe().method == run.recipe().method
    assert plain_name(made) == plain_name(run) == "first-try"
    shown = subprocess.run(
        [sys.executable, "-m", "tunewright", "runs", "show", made.id], capture_output=True, text=True, check=True
    )
    assert f"Lineage: made from {run.id}: training.learning_rate" in shown.stdout


def test_a_change_that_is_none_is_said_and_a_wrong_one_refused(run: RunDirectory) -> None:
    code, told = clone(run.id)
    assert code == 0 and told["differences"] == [] and told["hash"] == told["hash_before"]
    code, told = clone(run.id, "--set", "training.learning_rat=1")
    assert code == 2 and "learning_rat" in told["error"]["message"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"parent": "x"}', '{"parent": "x", "how": "rm", "changes": [], "step": 0}',
     '{"parent": "x", "how": "clone", "changes": "abc", "step": 0}', '{"parent": "x", "how": "clone", "changes": [], "step": null}'],
)  # fmt: skip
def test_a_lineage_that_cannot_be_read_is_none(run: RunDirectory, text: str) -> None:
    (run.path / LINEAGE_FILE).write_text(text)
    assert lineage_of(run) is None


def test_hostile_words_of_a_lineage_are_cleaned(run: RunDirectory) -> None:
    write_lineage(run, Lineage("\x1b[2J", "clone", ("\x1b]0;x\x07" * 9,)))
    lineage = lineage_of(run)
    assert lineage is not None and "\x1b" not in lineage.said
