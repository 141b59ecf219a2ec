"""The memory ladder: a run that runs out of memory goes on in less, as the same run, and says what it did."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.plan import Plan
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs import outcome
from tunewright.engine.runs.directory import RunDirectory, create_run, is_live, standing
from tunewright.engine.runs.events import EventLog, Notice, Phase, Step, follow
from tunewright.engine.runs.ladder import ladder, next_rung, remember_rung, remembered_rung
from tunewright.engine.runs.launch import start
from tunewright.engine.runs.shortage import Shortage, kernel_kills, leave_shortage, take_shortage
from tunewright.engine.runs.supervise import Supervisor, read_history
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry

from ...trainer_hook import before_each_micro_batch

SHORT_OF_MEMORY = before_each_micro_batch(
    """
    if taken == 9 and self.args.per_device_train_batch_size == 4:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")
    """
)
"""The first trainer of a run finds no memory for its ninth step; so does any micro-batch of four rows."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


@cache
def recipe_and_plan() -> tuple[Recipe, Plan]:
    """Return a short training of the starter model in micro-batches of four rows; planned once a test process."""
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    changes = ["training.steps=12", 'data.validation={"kind": "rows", "value": 8}', "training.global_batch=4"]
    recipe = change_recipe(recipe, changes)
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = dataclasses.replace(
        plan_recipe(recipe, inspect_machine(Path("/tmp"))),
        micro_batch=4,
        accumulation=1,
        threads=1,
        merge=False,
        evaluate_every_steps=4,
        checkpoint_every_steps=4,
        sample_every_steps=100,
    )
    return recipe, plan


def new_run() -> RunDirectory:
    return create_run(*recipe_and_plan(), "ladder")


def wait_for_end(run: RunDirectory) -> None:
    for _ in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.05):
        pass


def adapter(run: RunDirectory) -> Any:
    from safetensors.numpy import load_file

    return load_file(run.adapter / "adapter_model.safetensors")


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory_goes_on_as_the_same_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it one that has the memory: losses and weights agree but for the order in which numbers are added."""
    pytest.importorskip("torch")
    (home / "short").mkdir()
    (home / "short" / "sitecustomize.py").write_text(SHORT_OF_MEMORY)
    whole = new_run()
    start(whole)
    monkeypatch.setenv("PYTHONPATH", str(home / "short"))
    short = new_run()
    start(short)
    wait_for_end(whole)
    wait_for_end(short)
    assert standing(short) == standing(whole) == "finished", short.console_tail(20)

    (notice,) = read_history(short).notices
    assert (notice.level, notice.title) == ("warning", "Out of memory")
    assert notice.message.startswith("Memory ran out in step 9: Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")
    assert "from step 8 with micro-batches of 2 rows and 2 accumulation steps" in notice.message
    assert "the global batch and the result stay the same" in notice.message
    assert remembered_rung(short, ladder(short.plan())) == 1

    ours, theirs = read_history(short).steps, read_history(whole).steps
    assert [step.step for step in ours] == [step.step for step in theirs] == [*range(1, 13)]
    for one, other in zip(ours, theirs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.tokens == other.tokens
    found, expected = adapter(short), adapter(whole)
    assert max(abs(found[name] - expected[name]).max() for name in expected) < 1e-4


CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Path]:
    """A control group whose processes share 150 MB: enough for a supervisor, too little for torch."""
    groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    own = next((line.split(":", 2)[2] for line in groups if line.split(":")[1] == "memory"), None)
    if own is None:
        pytest.skip("needs control groups, version 1")
    group = CGROUP / own.lstrip("/") / f"short-of-memory-{tmp_path.name}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(150 * 10**6))
    except OSError:
        pytest.skip("needs the right to make a control group")
    yield group
    group.rmdir()


@pytest.mark.slow
def test_a_trainer_that_the_kernel_ended_for_want_of_memory_is_told_as_such(small_group: Path) -> None:
    """A real kernel kills it while it imports torch: no rung helps there, and the page says what does."""
    run = new_run()
    supervisor = "from tunewright.engine.runs.supervise import main; import sys; sys.exit(main(sys.argv[1:]))"
    inside = f"import os; open({str(small_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n{supervisor}"
    ended = subprocess.run([sys.executable, "-c", inside, str(run.path)], capture_output=True, text=True, timeout=120)
    result = run.result()
    assert result is not None and result["state"] == "failed", ended.stderr
    error = result["error"]
    assert error["title"] == "Out of memory"
    assert "its kernel ended the trainer" in error["message"]
    assert "smaller batches would not help" in error["message"]
    assert "data.max_length" in error["remedy"]


def test_the_kernels_count_can_be_read() -> None:
    assert kernel_kills() >= 0


def on_a_gpu(**changes: Any) -> Plan:
    return dataclasses.replace(
        recipe_and_plan()[1], device="cuda", micro_batch=6, accumulation=2, gradient_checkpointing="off", **changes
    )


def test_the_ladder_goes_down_from_the_micro_batch_to_the_host() -> None:
    rungs = ladder(on_a_gpu())
    assert [rung.plan.micro_batch for rung in rungs] == [6, 3, 1, 1, 1, 1]
    assert {rung.plan.global_batch for rung in rungs} == {12}
    assert [rung.plan.gradient_checkpointing for rung in rungs[2:]] == ["off", "on", "offloaded", "offloaded"]
    assert [rung.plan.optimizer_placement for rung in rungs[3:]] == ["device", "device", "paged"]
    assert all(rung.change and rung.cost for rung in rungs[1:])


def test_what_is_in_use_already_is_no_rung() -> None:
    offloaded = on_a_gpu(optimizer_placement="paged")
    offloaded = dataclasses.replace(offloaded, gradient_checkpointing="offloaded", micro_batch=1, accumulation=12)
    assert len(ladder(offloaded)) == 1
    thinned = dataclasses.replace(offloaded, gradient_checkpointing="on", recompute_every=2)
    assert [rung.plan.recompute_every for rung in ladder(thinned)] == [2, 1, 1]
    sharded = dataclasses.replace(on_a_gpu(parallelism="fsdp2"), gradient_checkpointing="on", micro_batch=1)
    assert len(ladder(sharded)) == 1


@pytest.mark.parametrize(
    ("phase", "rung", "killed", "onward"),
    [
        ("training", 0, False, 1),
        ("compiling", 2, False, 3),
        ("training", 5, False, None),
        ("loading", 0, False, None),
        ("judging before", 0, True, None),
        ("evaluating", 0, False, 5),
        ("evaluating", 0, True, 1),
        ("saving", 5, False, None),
        ("exporting", 0, False, None),
    ],
)
def test_only_a_rung_that_helps_where_memory_ran_out_is_taken(
    phase: Any, rung: int, killed: bool, onward: int | None
) -> None:
    assert next_rung(ladder(on_a_gpu()), rung, phase, killed) == onward


def test_the_rung_is_remembered_and_what_cannot_be_read_is_the_top() -> None:
    run = new_run()
    rungs = ladder(run.plan())
    assert remembered_rung(run, rungs) == 0
    remember_rung(run, 1)
    assert remembered_rung(run, rungs) == 1
    remember_rung(run, 99)
    assert remembered_rung(run, rungs) == len(rungs) - 1
    run.rung_file.write_text("{")
    assert remembered_rung(run, rungs) == 0


def test_what_ran_out_is_taken_once() -> None:
    run = new_run()
    leave_shortage(run, Shortage("Tried to allocate\x1b[31m 2 GiB.\n"))
    assert take_shortage(run) == Shortage("Tried to allocate 2 GiB.")
    assert take_shortage(run) == Shortage("")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield Supervisor(new_run(), "by a test")
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_out(supervisor: Supervisor, phase: Any, rung: int, message: str = "Tried to allocate 1 GiB.") -> int | None:
    supervisor.shortage = Shortage(message)
    supervisor.log.append(Phase(name=phase))
    return supervisor._step_down(ladder(supervisor.run.plan()), rung)  # pyright: ignore[reportPrivateUsage]


def told(supervisor: Supervisor) -> list[Notice]:
    return [*read_history(supervisor.run).notices]


def test_without_a_checkpoint_it_goes_on_from_the_start(supervisor: Supervisor) -> None:
    assert run_out(supervisor, "training", 0) == 1
    (notice,) = told(supervisor)
    assert (
        "in step 1: Tried to allocate 1 GiB. The run goes on from the start with micro-batches of 2" in notice.message
    )


def test_after_the_last_step_a_new_process_is_tried_once(supervisor: Supervisor) -> None:
    assert run_out(supervisor, "judging after", 0) == 0
    assert "in a new process, which holds nothing of the training" in told(supervisor)[0].message
    assert run_out(supervisor, "judging after", 0) is None
    assert remembered_rung(supervisor.run, ladder(supervisor.run.plan())) == 0


def test_at_the_end_of_the_ladder_the_page_says_what_would_help(supervisor: Supervisor) -> None:
    rungs = ladder(supervisor.run.plan())
    supervisor.log.append(
        Step(step=3, total_steps=12, epoch=0, loss=1, learning_rate=1, grad_norm=1, tokens=1, seconds=1, peak_gib=1)
    )
    assert run_out(supervisor, "training", len(rungs) - 1) is None
    assert supervisor._conclude(outcome.OUT_OF_MEMORY) == 1  # pyright: ignore[reportPrivateUsage]
    result = supervisor.run.result()
    assert result is not None
    message, remedy = result["error"]["message"], result["error"]["remedy"]
    assert message.startswith("Memory ran out in step 4: Tried to allocate 1 GiB.")
    assert "Everything that saves memory without changing the result is in use" in message
    assert 'training.optimizer = "adamw_8bit"' in remedy and 'method.kind = "qlora"' in remedy
    assert f"tunewright resume {supervisor.run.id}" in remedy


def test_events_of_the_ladder_are_appended_to_those_of_the_run(supervisor: Supervisor) -> None:
    EventLog(supervisor.run.events_file).append(Phase(name="evaluating"))
    assert run_out(supervisor, "evaluating", 0) is None, "on a processor nothing can be moved to a host"
    supervisor.shortage = Shortage("", killed=True)
    rungs = ladder(supervisor.run.plan())
    assert supervisor._step_down(rungs, 0) == 1  # pyright: ignore[reportPrivateUsage]
    assert "while evaluating after step 0. The run goes on" in told(supervisor)[0].message
    assert os.path.exists(supervisor.run.rung_file)
