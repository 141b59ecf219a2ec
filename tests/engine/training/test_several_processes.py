"""Several processes train as one: the same losses step by step, stopped, killed and resumed, copied (DDP) or split (FSDP2)."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Parallelism
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, is_live
from tunewright.engine.runs.events import Checkpoint, Event, Step, follow
from tunewright.engine.runs.history import History
from tunewright.engine.runs.launch import launch, resume, stop
from tunewright.engine.runs.supervise import read_history
from tunewright.recipes.registry import open_registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS, SAVED_EVERY = 8, 3
CLOSE = 1e-5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(home))


def start(method: str, processes: int, parallelism: Parallelism) -> RunDirectory:
    """Start a short run over rows that do not make whole steps, so that the last of an epoch is short."""
    with open_registry() as registry:
        recipe = registry.get(f"starter-{method}").recipe
    changes = [f"training.steps={STEPS}", "training.global_batch=4", "data.share=0.0135"]
    recipe = change_recipe(recipe, [*changes, 'data.validation={"kind": "rows", "value": 5}'])
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = dataclasses.replace(
        plan_recipe(recipe, inspect_machine(Path("/tmp"))),
        micro_batch=2, accumulation=2 // processes, gpu_indices=tuple(range(processes)), parallelism=parallelism,
        evaluate_every_steps=STEPS, checkpoint_every_steps=SAVED_EVERY, sample_every_steps=STEPS + 1, threads=1,
        merge=False,
    )  # fmt: skip
    return launch(recipe, plan, f"{method}-{parallelism}")


def wait(run: RunDirectory, reached: Callable[[Event], bool] = lambda event: False) -> None:
    """Follow `run` to its end, or to an event for which `reached` is true."""
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.02):
        if reached(event):
            return


def result(run: RunDirectory) -> dict[str, Any]:
    found = run.result()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def alone(home: Path) -> dict[str, History]:
    """What one process makes of each method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_HOME", str(home))
        runs = {method: start(method, 1, "one") for method in ("lora", "full")}
        for run in runs.values():
            wait(run)
            assert result(run)["state"] == "finished", run.console_tail(20)
    return {method: read_history(run) for method, run in runs.items()}


def assert_alike(run: RunDirectory, alone: History) -> None:
    """Assert that `run` took the steps that one process takes, each of them once."""
    history = read_history(run)
    assert result(run)["state"] == "finished", run.console_tail(30)
    taken = {each.step: each for each in history.steps}
    assert list(taken) == [each.step for each in alone.steps] == list(range(1, STEPS + 1))
    for theirs in alone.steps:
        ours = taken[theirs.step]
        assert ours.loss == pytest.approx(theirs.loss, abs=CLOSE)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, abs=1e-3)
        assert (ours.tokens, ours.learning_rate) == (theirs.tokens, theirs.learning_rate)
    assert history.evals[-1].loss == pytest.approx(alone.evals[-1].loss, abs=CLOSE)
    assert not [each for each in run.checkpoints.iterdir() if each.name.startswith(".")]


def test_copies_stop_together_and_go_on_as_if_they_had_not(alone: dict[str, History]) -> None:
    run = start("lora", 2, "ddp")
    wait(run, lambda event: isinstance(event, Step) and event.step == 4)
    stop(run)
    wait(run)
    assert result(run)["state"] == "stopped", run.console_tail(30)
    stopped_at = result(run)["step"]
    assert 4 <= stopped_at < STEPS
    assert (run.checkpoints / f"step-{stopped_at:06d}").exists()
    resume(run)
    wait(run)
    assert_alike(run, alone["lora"])
    assert (run.adapter / "adapter_model.safetensors").exists()


def test_a_killed_rank_ends_the_run_and_split_weights_are_taken_up_again(alone: dict[str, History]) -> None:
    run = start("full", 2, "fsdp2")
    wait(run, lambda event: isinstance(event, Checkpoint))
    processes = run.processes()
    assert processes and processes.trainer
    ranks = psutil.Process(processes.trainer.pid).children()
    assert len(ranks) == 2
    victim = next(rank for rank in ranks if rank.environ()["RANK"] == "1")
    victim.send_signal(signal.SIGKILL)
    wait(run)
    assert not any(rank.is_running() for rank in ranks)
    error = result(run)["error"]
    assert result(run)["state"] == "failed"
    assert error["title"] == "The trainer was killed"
    assert "Rank 1 of 2 died by SIGKILL" in run.console_tail(5)
    resume(run)
    wait(run)
    assert_alike(run, alone["full"])
    assert {file.name for file in (run.checkpoints / f"step-{STEPS:06d}").glob("weights-*")} == {
        "weights-rank-0.safetensors", "weights-rank-1.safetensors",
    }  # fmt: skip
    from safetensors import safe_open

    with safe_open(run.model / "model.safetensors", framework="np") as saved:
        whole = saved.get_slice("model.layers.0.mlp.up_proj.weight").get_shape()
    assert whole == [512, 256]


SPLIT = """
import json, sys
from pathlib import Path
import torch, torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from tunewright.engine.training.parallel import sharding
from tunewright.engine.training.parallel.split_training import average_gradients, put_away, whole_parameters
from tunewright.engine.training.transformers import keep_unpacked

folder = Path(sys.argv[1])
dist.init_process_group("gloo")
torch.set_num_threads(1)
rank, found = dist.get_rank(), {}
tokens = torch.arange(48).reshape(2, 24) % 500 + 5
for kind in ("lora", "qlora"):
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    quantised = four_bits if kind == "qlora" else None
    split = sharding.load_sharded(folder, torch.float32, "sdpa", torch.device("cpu"), quantised)
    whole = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=quantised
    )
    keep_unpacked(whole)
    models = []
    for model in (split, whole):
        torch.manual_seed(1)
        settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        models.append(get_peft_model(model.requires_grad_(False), settings).train())
    for each in models:
        each.gradient_checkpointing_enable({"use_reentrant": False})
    loss = models[0](input_ids=tokens[rank : rank + 1], labels=tokens[rank : rank + 1]).loss
    loss.backward()
    average_gradients(whole_parameters(models[0]))
    # one process over both rows: their mean
    losses = [models[1](input_ids=row[None], labels=row[None]).loss for row in tokens]
    (sum(losses) / 2).backward()
    theirs = {name: each.grad for name, each in models[1].named_parameters() if each.requires_grad}
    ours = {name: each.grad for name, each in models[0].named_parameters() if each.requires_grad}
    furthest = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    put_away(models[0])
    held = sum(each.to_local().numel() for each in models[0].parameters() if hasattr(each, "to_local"))
    total = sum(each.numel() for each in models[0].parameters() if hasattr(each, "to_local"))
    found[kind] = {"loss": abs(float(loss) - float(losses[rank])), "gradient": furthest, "held": held / total}
if rank == 0:
    print("FOUND", json.dumps(found))
dist.destroy_process_group()
"""


def test_split_frozen_weights_give_the_gradients_of_whole_ones(tmp_path: Path) -> None:
    script = tmp_path / "split.py"
    script.write_text(SPLIT, encoding="utf-8")
    folder = Path(__file__).resolve().parents[3] / "starter" / "model"
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
         "--nproc-per-node", "2", str(script), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("FOUND ")]
    for kind, measured in json.loads(line.removeprefix("FOUND ")).items():
        assert measured["loss"] < CLOSE, kind
        assert measured["gradient"] < CLOSE, kind
        assert measured["held"] == pytest.approx(0.5, abs=0.01), kind
