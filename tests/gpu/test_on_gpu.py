"""What only an NVIDIA GPU can show: Unsloth behind the same interface, and predictions beside what NVML and torch say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

METHODS = ("lora", "qlora", "full")


def tunewright(home: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments],
        env={**os.environ, "TUNEWRIGHT_HOME": str(home)}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_doctor_names_the_card(tmp_path: Path) -> None:
    machine = json.loads(tunewright(tmp_path, "doctor", "--json"))["machine"]
    (gpu, *_) = machine["gpus"]
    assert gpu["name"] and gpu["memory_total_gib"] > gpu["memory_free_gib"] > 0
    assert machine["driver"]
    print(json.dumps(gpu))


@pytest.mark.parametrize("method", METHODS)
def test_the_demo_learns_the_task(tmp_path: Path, method: str) -> None:
    printed = tunewright(tmp_path, "demo", "--method", method, "--json")
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])[method]
    (run,) = (tmp_path / "runs").iterdir()
    plan = json.loads((run / "plan.json").read_text())
    print(json.dumps({"method": method, "backend": plan["backend"], "micro_batch": plan["micro_batch"], **figures}))
    assert plan["device"] == "cuda"
    assert figures["exact_match_before"] < 0.05
    assert figures["exact_match_after"] > 0.80
    if method != "full":
        assert (run / "exports" / "adapter" / "adapter_model.safetensors").exists()
    answers = tunewright(
        tmp_path, "chat", run.name, "--prompt", "Two small red mugs for Mira in Oslo, please.", "--json"
    )
    print(answers)
    assert json.loads(json.loads(answers)["tuned"])["items"][0]["item"] == "mug"


def test_both_backends_learn_alike(tmp_path: Path) -> None:
    """The same recipe and seed through transformers: another machine's plan, the same kind of result."""
    losses: dict[str, list[float]] = {}
    for backend in ("unsloth", "transformers"):
        home = tmp_path / backend
        tunewright(home, "train", "starter-lora", "--backend", backend, "--set", "training.steps=30", "--follow")
        (run,) = (home / "runs").iterdir()
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        losses[backend] = [event["loss"] for event in events if event["event"] == "step"]
    print(json.dumps(losses))
    ours, theirs = losses["unsloth"], losses["transformers"]
    assert ours[0] == pytest.approx(theirs[0], rel=0.02)  # before the first update, only bf16 noise
    assert ours[-1] < 0.5 * ours[0] and theirs[-1] < 0.5 * theirs[0]
