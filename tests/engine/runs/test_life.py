"""A run owns itself: stopped, killed or left by its terminal, it goes on as the same run, bit for bit."""

import dataclasses
import hashlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Plan
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import ProcessIdentity, RunDirectory, create_run, find_run, is_live, standing
from tunewright.engine.runs.events import Event, Status, Step, follow, read_events
from tunewright.engine.runs.launch import launch, pause, resume, stop, was_interrupted
from tunewright.engine.runs.retry import retry
from tunewright.engine.runs.supervise import read_history
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry
from tunewright.starter import TRAINING_DATA

from ...mounting import can_mount

pytestmark = pytest.mark.slow

STEPS = 12


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


def start(
    method: str,
    more: list[str] | None = None,
    after_planning: Callable[[], None] | None = None,
    begin: Callable[[Recipe, Plan, str], RunDirectory] = launch,
) -> RunDirectory:
    """Start a short run with dropout, so that a lost random state would show."""
    with open_registry() as registry:
        recipe = registry.get(f"starter-{method}").recipe
    changes = [f"training.steps={STEPS}", 'data.validation={"kind": "rows", "value": 20}']
    if method != "full":
        changes.append("method.dropout=0.1")
    recipe = change_recipe(recipe, changes + (more or []))
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = plan_recipe(recipe, inspect_machine(Path("/tmp")))
    plan = dataclasses.replace(
        plan, evaluate_every_steps=4, checkpoint_every_steps=4, sample_every_steps=6, threads=1, merge=False
    )
    if after_planning:
        after_planning()
    return begin(recipe, plan, f"life-{method}")


def wait(run: RunDirectory, reached: Callable[[Event], bool]) -> None:
    """Follow `run` until an event for which `reached` is true."""
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.02):
        if reached(event):
            return
    raise AssertionError(f"the run ended first: {run.console_tail(20)}")


def wait_for_end(run: RunDirectory) -> None:
    for _ in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.05):
        pass


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_step(number: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Step) and event.step >= number


def losses(run: RunDirectory) -> list[tuple[int, str, str, str]]:
    return [(s.step, repr(s.loss), repr(s.grad_norm), repr(s.learning_rate)) for s in read_history(run).steps]


def weights(run: RunDirectory) -> str:
    (file,) = [*run.adapter.glob("*.safetensors"), *run.model.glob("*.safetensors")]
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def uninterrupted() -> tuple[list[tuple[int, str, str, str]], str]:
    """What a run that nobody disturbs gives; trained once a test process."""
    run = start("lora")
    wait_for_end(run)
    assert standing(run) == "finished", run.console_tail(20)
    assert len(read_history(run).evals) == 3
    return losses(run), weights(run)


@pytest.mark.parametrize(("end", "ended"), [(stop, "stopped"), (pause, "paused")], ids=["stop", "pause"])
def test_a_stopped_or_paused_run_resumes_as_the_same_run(end: Callable[[RunDirectory], None], ended: str) -> None:
    """What processes do is the same for every method; `training/test_methods.py` resumes the others."""
    run = start("lora")
    wait(run, at_step(5))
    processes = run.processes()
    assert processes is not None and processes.trainer is not None
    end(run)
    wait_for_end(run)
    assert standing(run) == ended
    wait_until(lambda: not processes.supervisor.alive)
    assert not processes.trainer.alive  # what it held is free
    assert not was_interrupted(run)
    result = run.result()
    assert result is not None
    assert 5 <= result["step"] < STEPS
    assert resume(run) == result["step"]
    wait_for_end(run)
    assert standing(run) == "finished", run.console_tail(20)
    assert (losses(run), weights(run)) == uninterrupted()


def test_a_killed_trainer_is_told_and_the_run_resumes_as_the_same_run() -> None:
    run = start("lora")
    wait(run, at_step(7))
    processes = run.processes()
    assert processes is not None and processes.trainer is not None
    os.kill(processes.trainer.pid, signal.SIGKILL)
    wait_for_end(run)
    assert standing(run) == "failed"
    result = run.result()
    assert result is not None
    assert result["signal"] == "SIGKILL"
    assert result["error"]["title"] == "The trainer was killed"
    tried = retry(run)
    assert (tried.failure.title, tried.step) == ("The trainer was killed", 4)
    wait_for_end(run)
    assert (losses(run), weights(run)) == uninterrupted()


def test_a_killed_supervisor_leaves_no_trainer_behind_and_the_run_resumes() -> None:
    run = start("lora")
    wait(run, at_step(2))
    processes = run.processes()
    assert processes is not None and processes.trainer is not None
    os.kill(processes.supervisor.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while processes.trainer.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes.trainer.alive
    assert standing(run) == "lost"
    assert resume(run) >= 2  # the trainer had saved before it ended
    wait_for_end(run)
    assert (losses(run), weights(run)) == uninterrupted()


def test_a_hang_up_that_reaches_supervisor_and_trainer_ends_neither(home: Path) -> None:
    """Both in the foreground of a terminal, without what sets a run free of it; then the line drops."""
    run = start("lora", ["training.steps=6"], begin=create_run)
    master, slave = pty.openpty()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "tunewright.engine.runs.supervise", str(run.path)],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    wait(run, at_step(2))
    processes = run.processes()
    assert processes is not None and processes.trainer is not None
    assert os.getsid(processes.trainer.pid) == supervisor.pid  # the terminal's own session
    os.close(master)  # the kernel sends HUP, as when SSH ends
    os.kill(processes.trainer.pid, signal.SIGHUP)
    os.kill(supervisor.pid, signal.SIGHUP)
    assert supervisor.wait(timeout=120) == 0
    assert standing(run) == "finished", run.console_tail(20)
    assert [event.state for event in read_events(run.events_file)[0] if isinstance(event, Status)] == [
        "starting", "running", "finished",
    ]  # fmt: skip


def test_a_refusal_is_told_with_its_remedy_and_the_run_fails(tmp_path: Path) -> None:
    data = tmp_path / "orders.jsonl"
    data.write_bytes(TRAINING_DATA.read_bytes())
    run = start("lora", [f'data.source="{data}"'], after_planning=data.unlink)
    wait_for_end(run)
    assert standing(run) == "failed"
    result = run.result()
    assert result is not None
    assert result["error"]["title"] == "Data not found"
    assert [notice.level for notice in read_history(run).notices] == ["error"]


SMALL_DISK = """
import os, subprocess, sys
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=18m", "none", folder], check=True)
os.environ["TUNEWRIGHT_HOME"] = folder
from tunewright.engine.runs.checkpoint import newest_good
from tunewright.engine.runs.directory import list_runs, standing
from tunewright.__main__ import main
status = main(["train", "starter-full", "--follow", "--set", "training.steps=12", "--set", "evaluation.rows=1"])
(run,) = list_runs()
print(standing(run), run.result()["error"]["title"], status, sep=": ")
checkpoint, _ = newest_good(run.checkpoints)
print(checkpoint is None or checkpoint.step > 0, [path.name for path in run.checkpoints.glob(".*")])
"""


@pytest.mark.skipif(not can_mount(), reason="needs a file system of its own (unshare -rm, mount)")
def test_a_disk_that_fills_while_saving_stops_the_run_with_a_clear_word(tmp_path: Path) -> None:
    """A checkpoint of the full method takes 35 MB here, and the disk has 18."""
    command = ["unshare", "-rm", sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert ended.stdout.splitlines()[-2:] == ["failed: The disk is full: 2", "True []"], ended.stdout + ended.stderr


FULL_AS_THE_TRAINER_STARTS = """
import os, subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
os.environ["TUNEWRIGHT_HOME"] = str(folder)
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs import supervise
from tunewright.engine.runs.directory import create_run, standing
from tunewright.recipes.registry import open_registry
with open_registry() as registry:
    recipe = registry.get("starter-lora").recipe
run = create_run(recipe, plan_recipe(recipe, inspect_machine(folder)), "full")
trainers = []
class Supervisor(supervise.Supervisor):
    def _write_processes(self, trainer):
        if trainer is not None:
            trainers.append(trainer)
            try:
                with (folder / "filler").open("wb", buffering=0) as filler:
                    while filler.write(bytes(4096)):
                        pass
            except OSError:
                pass
        super()._write_processes(trainer)
supervise.Supervisor = Supervisor
status = supervise.main([str(run.path)])
result = run.result()
print(standing(run), result["error"]["title"], status, [each.alive for each in trainers], sep=": ")
"""


@pytest.mark.skipif(not can_mount(), reason="needs a file system of its own (unshare -rm, mount)")
def test_a_disk_that_is_full_as_the_trainer_starts_fails_the_run(tmp_path: Path) -> None:
    """Who trains cannot be written down: a trainer that nobody knows of would go on, and the run would count as lost."""
    command = ["unshare", "-rm", sys.executable, "-c", FULL_AS_THE_TRAINER_STARTS, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert ended.stdout.splitlines()[-1:] == ["failed: The disk is full: 2: [False]"], ended.stdout + ended.stderr


def test_a_finished_run_is_not_resumed_and_a_quiet_one_not_stopped(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "20260101-000000-x")
    with pytest.raises(TunewrightError, match="cannot be resumed"):
        resume(run)
    with pytest.raises(TunewrightError, match="not running"):
        stop(run)
    with pytest.raises(TunewrightError, match="Run not found"):
        find_run("nothing")


def test_a_number_given_to_another_process_is_not_the_same_process() -> None:
    own = ProcessIdentity.of(os.getpid())
    assert own is not None and own.alive
    assert not ProcessIdentity(own.pid, own.started - 1).alive
    child = subprocess.Popen([sys.executable, "-c", ""])
    while ProcessIdentity.of(child.pid) is not None:  # it ends as a zombie, for nobody has waited
        time.sleep(0.01)
    child.wait()
