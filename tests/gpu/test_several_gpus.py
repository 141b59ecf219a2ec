"""What only several NVIDIA GPUs can show: copies (DDP) and split weights (FSDP2) learn what one GPU learns."""

import dataclasses
import json
from pathlib import Path

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Parallelism
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, is_live
from tunewright.engine.runs.events import Step, follow
from tunewright.engine.runs.launch import launch, resume, stop
from tunewright.engine.runs.supervise import read_history
from tunewright.recipes.registry import open_registry

GPUS = len(inspect_machine(Path("/tmp")).gpus)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(GPUS < 2, reason="there are not two GPUs here"),
]

STEPS = 12


def start(method: str, gpus: int, parallelism: Parallelism) -> RunDirectory:
    with open_registry() as registry:
        recipe = registry.get(f"starter-{method}").recipe
    recipe = change_recipe(recipe, [f"training.steps={STEPS}", "training.global_batch=8"])
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = plan_recipe(recipe, inspect_machine(Path("/tmp")), backend="transformers", wish=gpus)
    plan = dataclasses.replace(
        plan, parallelism=parallelism, micro_batch=2, accumulation=4 // gpus, liger=False, compiled=False,
        gradient_checkpointing="on", recompute_every=1, evaluate_every_steps=6, checkpoint_every_steps=4,
        sample_every_steps=8, merge=False,
    )  # fmt: skip
    return launch(recipe, plan, f"{method}-{parallelism}")


def finish(run: RunDirectory) -> list[Step]:
    for _ in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.05):
        pass
    result = run.result()
    assert result and result["state"] == "finished", run.console_tail(40)
    return list({each.step: each for each in read_history(run).steps}.values())


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_two_gpus_take_the_steps_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    alone = finish(start(method, 1, "one"))
    for parallelism in ("ddp", "fsdp2"):
        run = start(method, 2, parallelism)
        steps = finish(run)
        print(json.dumps({"method": method, "how": parallelism, "losses": [each.loss for each in steps]}))
        for ours, theirs in zip(steps, alone, strict=True):
            assert ours.tokens == theirs.tokens
            assert ours.loss == pytest.approx(theirs.loss, rel=0.02)
        assert set(read_history(run).gpus) == {each.index for each in inspect_machine(Path("/tmp")).gpus[:2]}
        folder = run.model if method == "full" else run.adapter
        assert list(folder.glob("*.safetensors"))


@pytest.mark.parametrize(("method", "parallelism"), [("lora", "ddp"), ("full", "fsdp2"), ("qlora", "fsdp2")])
def test_a_stopped_run_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, parallelism: Parallelism
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    whole = finish(start(method, 2, parallelism))
    run = start(method, 2, parallelism)
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.02):
        if isinstance(event, Step) and event.step == 5:
            stop(run)
    result = run.result()
    assert result and result["state"] == "stopped", run.console_tail(40)
    resume(run)
    again = finish(run)
    assert [each.loss for each in again] == pytest.approx([each.loss for each in whole], rel=1e-3)
