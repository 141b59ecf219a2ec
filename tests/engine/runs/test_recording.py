"""Recording: what runs come to is in the registry, failures too, and comes back from their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Plan
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run
from tunewright.engine.runs.events import Eval, EventLog, Measured, Step
from tunewright.engine.runs.recording import rebuild, record, record_at_the_end
from tunewright.foundation.files import write_atomically
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.finding import Query
from tunewright.recipes.model import Recipe, parse_recipe
from tunewright.recipes.registry import open_registry

RECIPE = parse_recipe(built_in()["starter-lora"].replace("rank = 16", "rank = 6"), "a recipe of no name")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_recipe(RECIPE, inspect_machine(Path("/tmp")))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))


def make_run(plan: Plan, recipe: Recipe = RECIPE, steps: int = 20, **result: Any) -> RunDirectory:
    """Make the folder of a run that has ended."""
    run = create_run(recipe, plan, "recorded")
    log = EventLog(run.events_file)
    for step in range(1, steps + 1):
        log.append(
            Step(
                step=step, total_steps=steps, epoch=0.0, loss=4.0 / step, learning_rate=1e-4, grad_norm=1.0, tokens=100,
                seconds=0.5, peak_gib=0.5,
            )
        )  # fmt: skip
    log.append(Eval(step=steps, loss=0.5, exact_match=0.25, metrics={"rewards/accuracies": 0.75, "bad\x1b[31m": 1.0}))
    log.append(Measured(values={"peak_gib": 0.75, "total_seconds": 12.0}))
    log.close()
    ended = {"state": "finished", "reason": "all steps were taken", "ended": 2000.0, "error": None} | result
    write_atomically(run.result_file, json.dumps(ended))
    write_atomically(
        run.path / "circumstances.json", json.dumps({"processor": "Some CPU", "torch": "2.13.0", "rows": "0123"})
    )
    return run


def test_a_run_is_evidence_though_its_recipe_has_no_name(plan: Plan) -> None:
    run = make_run(plan)
    record(run)
    record(run)
    with open_registry() as registry:
        whole, *metrics = sorted(registry.evidence(RECIPE.hash()), key=lambda each: each.metric or "")
        assert {each.metric: each.value for each in metrics} == {
            "exact_match": 0.25, "rewards/accuracies": 0.75, "bad": 1.0
        }  # fmt: skip
        assert (whole.kind, whole.status, whole.hardware, whole.run) == ("local", "finished", "Some CPU", run.id)
        assert (whole.seed, whole.steps, whole.measured_peak_gib, whole.validation_loss) == (42, 20, 0.75, 0.5)
        assert (whole.first_loss, whole.last_loss) == (pytest.approx(3.0), pytest.approx((4 / 19 + 4 / 20) / 2))
        assert whole.versions == {"torch": "2.13.0"}
        assert plan.prediction and whole.predicted_peak_gib == plan.prediction.peak_gib
        (line,) = registry.runs()
        assert (line.id, line.state, line.recipe, line.step) == (run.id, "finished", RECIPE.hash(), 20)
        assert registry.find(Query(hardware="Some CPU")).total == 0  # nothing that is listed means that recipe


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"state": "failed", "reason": "Out of memory", "error": {"title": "Out of memory"}}, "out-of-memory"),
        ({"state": "failed", "reason": "Loss is NaN", "error": {"title": "Loss is NaN"}}, "failed"),
        ({"state": "stopped", "reason": "on request"}, "stopped"),
    ],
    ids=["out-of-memory", "failed", "stopped"],
)
def test_failures_are_evidence_too(plan: Plan, result: dict[str, Any], status: str) -> None:
    record(make_run(plan, **result))
    with open_registry() as registry:
        assert {(each.status, each.reason) for each in registry.evidence(RECIPE.hash())} == {(status, result["reason"])}


def test_the_index_comes_back_from_the_folders(plan: Plan, tmp_path: Path) -> None:
    first, second = make_run(plan), make_run(plan, state="failed", reason="Killed")
    unfinished = create_run(RECIPE, plan, "going on")
    broken = make_run(plan)
    broken.recipe_file.write_text("[base]\nmodl = 1", encoding="utf-8")
    (tmp_path / "home" / "registry.db").unlink(missing_ok=True)
    assert rebuild() == (3, 1)
    with open_registry() as registry:
        assert {line.id for line in registry.runs()} == {first.id, second.id, unfinished.id}
        assert {each.run for each in registry.evidence(RECIPE.hash())} == {first.id, second.id}
    assert rebuild() == (3, 1)


def test_a_registry_that_cannot_be_written_is_not_the_runs_trouble(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(plan)
    (tmp_path / "home" / "registry.db").write_bytes(b"no database at all")
    record_at_the_end(run)
    assert "runs --reindex" in capsys.readouterr().err
    assert run.result() is not None
