"""What happens to a run on a card beside training: it waits for the card, is extended, calls, and takes the same steps again."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright import starter
from tunewright.engine.runs.directory import RunDirectory, is_live
from tunewright.engine.runs.supervise import read_history
from tunewright.engine.runs.waiting import read_wait

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CARD = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
FILLS_THE_CARD = """
import sys, torch
free, _ = torch.cuda.mem_get_info(int(sys.argv[1]))
held = torch.empty(int(free * 0.995), dtype=torch.uint8, device=f"cuda:{sys.argv[1]}")
print("filled", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))


def tunewright(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def train(recipe: str, steps: int, *arguments: str, backend: str = "transformers") -> RunDirectory:
    printed = tunewright(
        "train", recipe, "--backend", backend, "--gpus", f"{CARD},", "--set", f"training.steps={steps}",
        "--set", "evaluation.source=null", *arguments, "--json",
    )  # fmt: skip
    return RunDirectory(Path(json.loads(printed)["folder"]))


def until(holds: Callable[[], Any], seconds: float = 180.0) -> None:
    ending = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ending, "it did not come to that"
        time.sleep(0.05)


def result(run: RunDirectory) -> str:
    until(lambda: not is_live(run))
    found = run.result()
    assert found, run.console_tail(40)
    return found["state"]


def test_runs_take_turns_on_a_card_are_extended_and_call(tmp_path: Path) -> None:
    called = tmp_path / "called"
    writes = f"import sys; open({str(called)!r}, 'a').write(sys.argv[1] + '\\n')"
    tunewright("alerts", "--command", shlex.join([sys.executable, "-c", writes, "{about} {run}"]))
    first = train("starter-lora", 40)
    second = train("starter-lora", 4, "--queue")
    until(lambda: read_wait(second))
    assert is_live(first) and first.id in json.dumps(json.loads(tunewright("queue", "--json")))
    assert (result(first), result(second)) == ("finished", "finished")
    assert read_history(second).steps[0].time > read_history(first).steps[-1].time
    tunewright("extend", first.id, "--steps", "6", "--schedule", "constant", "--follow")
    (extended,) = [each for each in first.path.parent.iterdir() if each.name not in (first.id, second.id)]
    assert [each.step for each in read_history(RunDirectory(extended)).steps] == list(range(41, 47))
    assert sorted(called.read_text().split()[1::2]) == sorted([first.id, second.id, extended.name])


def test_a_run_waits_until_another_program_has_left_the_card() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FILLS_THE_CARD, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": CARD},
    ) as other:  # fmt: skip
        assert other.stdout and other.stdout.readline() == "filled\n"
        run = train("starter-lora", 3, "--wait")
        until(lambda: read_wait(run))
        wait = read_wait(run)
        print(wait)
        time.sleep(3)
        assert not read_history(run).steps and is_live(run)
        other.kill()
    assert result(run) == "finished"


def test_the_same_run_by_unsloth_gives_the_same_digits() -> None:
    """Its compiled layers add up the gradient of an embedding in any order, unless they are asked for one."""
    losses: set[str] = set()
    for _ in range(3):
        run = train("starter-full", 12, backend="unsloth")
        assert result(run) == "finished"
        losses.add(repr([(each.loss, each.grad_norm) for each in read_history(run).steps]))
    assert len(losses) == 1


@pytest.mark.parametrize("name", ["starter-lora", "starter-qlora", "starter-full"])
def test_an_exported_script_trains_with_unsloth_alone(tmp_path: Path, name: str) -> None:
    script = tmp_path / "run.py"
    tunewright("recipes", "export", name, "--to", "python-unsloth", "--out", str(script))
    environment = {key: value for key, value in os.environ.items() if key != "TUNEWRIGHT_HOME"}
    done = subprocess.run(
        [sys.executable, str(script), "--model", str(starter.MODEL), "--data", str(starter.TRAINING_DATA), "--steps", "2",
         "--output", str(tmp_path / "out")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'loss'" in done.stdout or '"loss"' in done.stdout, done.stdout[-2000:]
    assert list((tmp_path / "out").glob("*.safetensors"))
    print(name, [line for line in done.stdout.splitlines() if "loss" in line][:3])
