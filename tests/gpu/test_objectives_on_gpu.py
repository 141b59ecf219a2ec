"""The objectives that learn from preferences on an NVIDIA GPU, by both backends over the same rows."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

STEPS = 10
BACKENDS = ("transformers", "unsloth")


def train(home: Path, backend: str, *changes: str) -> list[dict[str, Any]]:
    """Train on pairs as a user does, and return the steps' events."""
    command = [sys.executable, "-m", "tunewright", "train", "starter-dpo", "--backend", backend, "--follow"]
    for change in (f"training.steps={STEPS}", "evaluation.rows=2", *changes):
        command += ["--set", change]
    ended = subprocess.run(
        command, env={**os.environ, "TUNEWRIGHT_HOME": str(home)}, stdout=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
    (run,) = (home / "runs").iterdir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    print(json.dumps({"backend": backend, "steps": [[each["loss"], each["metrics"]] for each in steps]}))
    assert len(steps) == STEPS
    assert all(each["tokens"] > 0 for each in steps)
    return steps


@pytest.mark.parametrize(
    ("objective", "method"),
    [("dpo", "lora"), ("dpo", "qlora"), ("dpo", "full"), ("kto", "lora"), ("kto", "qlora"), ("orpo", "lora")],
    ids=["dpo-lora", "dpo-qlora", "dpo-full", "kto-lora", "kto-qlora", "orpo-lora"],
)
def test_both_backends_learn_what_is_preferred(tmp_path: Path, objective: str, method: str) -> None:
    changes = [f'training.objective="{objective}"', "data.validation.value=8"]
    changes.append('method={"kind": "full"}' if method == "full" else f'method.kind="{method}"')
    if method == "full":
        changes.append("training.learning_rate=2e-4")
    found = {backend: train(tmp_path / backend, backend, *changes) for backend in BACKENDS}
    for steps in found.values():
        margins = [each["metrics"]["rewards/margins"] for each in steps if "rewards/margins" in each["metrics"]]
        assert margins[-1] > margins[0]
        if objective == "dpo":  # the model is its own reference before the first update
            assert steps[0]["loss"] == pytest.approx(math.log(2), abs=0.03)
    ours, theirs = (steps[0]["loss"] for steps in found.values())
    assert ours == pytest.approx(theirs, rel=0.05)  # before the first update, only bf16 noise
