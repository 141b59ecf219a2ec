"""On a GPU, too, every field of a recipe is the one that the trainer uses, behind both backends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run
from tunewright.engine.runs.supervise import read_history, trainer_environment
from tunewright.recipes.registry import open_registry

from .. import fields

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

UNUSUAL = [
    "training.learning_rate=0.0007", "training.weight_decay=0.03", "training.max_grad_norm=0.6", "training.seed=7",
    'training.warmup={"kind": "steps", "value": 2}', "training.schedule=linear",
]  # fmt: skip
CASES = {
    "lora": UNUSUAL,
    "qlora": ["method.double_quantisation=false", "training.optimizer=adamw_8bit", "method.lora_plus_ratio=2"],
    "full": UNUSUAL,
    "lora, unusual": ["method.rank=4", "method.alpha=12", "method.dropout=0.05", "method.rslora=true",
                      'method.targets=["v_proj", "q_proj", "up_proj"]', "method.lora_plus_ratio=8"],
    "lora, DoRA": ["method.dora=true", "method.dropout=0.1"],
    "qlora, DoRA": ["method.dora=true"],
}  # fmt: skip
SAVED = {
    "lora, saved": ['method.modules_to_save=["embed_tokens", "norm"]'],
    "qlora, saved": ['method.modules_to_save=["lm_head"]', "method.dora=true"],
}


def prepared_run(method: str, changes: list[str], backend: Any, folder: Path) -> RunDirectory:
    """Return a new run of a few steps, planned for this machine and the backend."""
    with open_registry() as registry:
        recipe = registry.get(f"starter-{method}").recipe
    recipe = change_recipe(recipe, ["training.steps=4", *changes])
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    return create_run(recipe, plan_recipe(recipe, inspect_machine(folder), backend=backend), "fields")


def trained(run: RunDirectory) -> dict[str, Any]:
    """Take the run to its end in a process of its own, and return what was used and what was meant."""
    command = [sys.executable, fields.__file__, str(run.path)]
    environment = trainer_environment(run.plan())
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("backend", "case"),
    [*((backend, case) for backend in ("unsloth", "transformers") for case in CASES), *(("transformers", case) for case in SAVED)],
)  # fmt: skip
def test_the_trainer_uses_what_the_recipe_says(
    backend: Any, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    run = prepared_run(case.partition(",")[0], (CASES | SAVED)[case], backend, tmp_path)
    told, plan = trained(run), run.plan()
    print(
        json.dumps(
            {"backend": backend, "case": case, "rows": plan.micro_batch, "batching": plan.batching, **told["seen"]}
        )
    )
    if backend == "unsloth" and case == "full":  # it keeps norms in 32 bits, and has an autocast of its own
        del told["meant"]["trained_types"], told["meant"]["bf16"]
    assert fields.departures(told["seen"], told["meant"]) == []


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_one_backend_goes_on_where_the_other_stopped(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    losses: list[list[float]] = []
    adapter: list[str] = []
    for backend in ("transformers", "unsloth", "transformers"):
        run = prepared_run(
            method, [*adapter, "training.warmup.value=0", "training.schedule=constant"], backend, tmp_path
        )
        trained(run)
        losses.append([step.loss for step in read_history(run).steps])
        adapter = [f"base.adapter={json.dumps(str(run.adapter))}"]
    print(json.dumps(losses))
    # The same rows in the same order: what is gone on from has learned from them already.
    assert losses[1][0] < 0.9 * losses[0][0]
    assert losses[2][0] < 0.9 * losses[1][0]
