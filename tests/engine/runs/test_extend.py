"""More steps for a finished run: the very steps that the longer run would have taken, and the old run as it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.circumstances import CIRCUMSTANCES_FILE, observe
from tunewright.engine.runs.directory import RunDirectory, create_run, find_run, is_live, standing
from tunewright.engine.runs.events import Notice, Step, follow, read_events
from tunewright.engine.runs.extend import look_at
from tunewright.engine.runs.launch import launch
from tunewright.engine.runs.lineage import lineage_of
from tunewright.engine.runs.supervise import read_history
from tunewright.engine.runs.terms import read_terms
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry

pytestmark = pytest.mark.slow

STEPS, MORE = 6, 4
CADENCE = {
    "evaluate_every_steps": 3,
    "checkpoint_every_steps": 3,
    "sample_every_steps": 50,
    "threads": 1,
    "merge": False,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


def prepared(changes: list[str]) -> Recipe:
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    recipe = change_recipe(
        recipe,
        [f"training.steps={STEPS}", 'data.validation={"kind": "rows", "value": 20}', "method.dropout=0.1", *changes],
    )
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})


def train(recipe: Recipe, name: str) -> RunDirectory:
    plan = dataclasses.replace(plan_recipe(recipe, inspect_machine(Path("/tmp"))), **CADENCE)
    run = launch(recipe, plan, name)
    return wait(run)


def wait(run: RunDirectory) -> RunDirectory:
    for _ in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.05):
        pass
    assert standing(run) == "finished", run.console_tail(20)
    return run


def losses(run: RunDirectory) -> list[tuple[int, str, str, str]]:
    return [(s.step, repr(s.loss), repr(s.grad_norm), repr(s.learning_rate)) for s in read_history(run).steps]


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "command.json"
    }


def extend(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tunewright", "extend", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_an_extended_run_takes_the_steps_of_the_longer_one_and_leaves_the_old_one_alone() -> None:
    """The old run's schedule had come to nearly nothing; the added steps rise again and fall along a cosine."""
    parent = train(prepared(['training.finish_with="best"']), "short")
    before = fingerprint(parent.path)

    code, told = extend(parent.id, "--steps", str(MORE))  # no schedule is chosen: shown, and nothing is started
    assert code == 2 and "Schedule not chosen" in told
    for name in ("continue", "constant", "rewarm"):
        assert name in told
    code, told = extend(
        parent.id, "--steps", str(MORE), "--schedule", "rewarm", "--warmup-steps", "2", "--nice", "1", "--json"
    )
    assert code == 0, told
    described = json.loads(told)
    made = wait(find_run(described["run"]))
    assert described["terms"]["nice"] == read_terms(made).nice == 1
    assert described["hash"] == made.recipe().hash() != described["hash_before"] == parent.recipe().hash()

    whole = train(made.recipe(), "whole")  # the recipe alone says all
    assert losses(made) == losses(whole)[STEPS:]
    assert [step for step, *_ in losses(made)] == [7, 8, 9, 10]
    (one,), (other,) = (list(run.adapter.glob("*.safetensors")) for run in (made, whole))
    assert one.read_bytes() == other.read_bytes()
    assert losses(parent) == losses(whole)[:STEPS]

    rates = {step: float(rate) for step, _, _, rate in losses(made)}
    assert rates[8] == max(rates.values()) == pytest.approx(parent.recipe().training.learning_rate)
    assert rates[7] == pytest.approx(described["schedules"]["rewarm"]["first"])
    assert rates[10] == pytest.approx(described["schedules"]["rewarm"]["last"])
    assert fingerprint(parent.path) == before
    lineage = lineage_of(made)
    assert lineage is not None and (lineage.parent, lineage.how, lineage.step) == (parent.id, "extend", STEPS)
    assert [each.step for each in read_history(made).evals] == [each.step for each in read_history(whole).evals]
    notices = [event for event in read_events(made.events_file)[0] if isinstance(event, Notice)]
    assert any(f"after step {STEPS} of {parent.id}" in each.message for each in notices)


@pytest.mark.parametrize("state", ["stopped", "failed", "paused"])
def test_only_what_has_come_to_its_end_is_extended(tmp_path: Path, state: str) -> None:
    recipe = prepared([])
    run = create_run(recipe, plan_recipe(recipe, inspect_machine(tmp_path)), "x")
    run.result_file.write_text(json.dumps({"state": state}))
    with pytest.raises(TunewrightError, match="not finished"):
        look_at(run)
    run.result_file.write_text('{"state": "finished"}')
    with pytest.raises(TunewrightError, match="no step on record"):
        look_at(run)
    line = Step(step=5, total_steps=6, epoch=0.1, loss=1.0, learning_rate=1.0, grad_norm=1.0, tokens=1, seconds=1.0,
                peak_gib=1.0)  # fmt: skip
    from tunewright.engine.runs.events import encode

    with run.events_file.open("a") as file:
        file.write(encode(line) + "\n")
    found = look_at(run)
    assert (found.after, found.steps_of(None, 1.0)) == (5, 50)
    for steps, epochs in ((None, None), (1, 1.0), (0, None), (None, 0.001)):
        with pytest.raises(TunewrightError, match="How much more"):
            found.steps_of(steps, epochs)
    (run.path / CIRCUMSTANCES_FILE).write_text(json.dumps(observe(run) | {"torch": "1.0"}))
    code, told = extend(run.id, "--steps", "2", "--schedule", "constant")
    assert code == 2 and "torch: 1.0 when the run began" in told
    agreed = shlex.split(" ".join(told.split()).partition("or agree: `")[2].partition("`")[0])
    assert agreed[:3] == ["tunewright", "extend", run.id] and agreed[-1] == "--accept-changes"
    code, told = extend(*agreed[2:])
    assert code == 2 and "no checkpoint any more" in told
    assert [each.name for each in run.path.parent.iterdir()] == [run.id]
