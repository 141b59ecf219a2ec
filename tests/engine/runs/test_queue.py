"""The queue of a machine: tickets of real processes, of several users, killed and removed, among what strangers plant."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import Machine, inspect_machine
from tunewright.engine.plan import Plan
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs import queue
from tunewright.engine.runs.command import commanding
from tunewright.engine.runs.directory import (
    ProcessIdentity,
    RunDirectory,
    create_run,
    find_run,
    is_live,
    list_runs,
    standing,
)
from tunewright.engine.runs.events import Event, Status, follow
from tunewright.engine.runs.launch import begin_now, bring_forward, launch, resume_interrupted, stop, was_interrupted
from tunewright.engine.runs.queue import PREFIX, Place, before, holders_of, holders_told, tickets, to_front
from tunewright.engine.runs.supervise import read_history
from tunewright.engine.runs.terms import Terms, read_terms
from tunewright.engine.runs.waiting import needed_gib, read_wait
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry

NOBODY = 65534
QUICK = Terms(queue=True, check_seconds=0.05, steady_seconds=0.1)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that all users may write to; what pytest makes is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="tunewright-queue-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEWRIGHT_QUEUE", str(shared))
    return tmp_path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Plan]:
    with open_registry(tmp_path_factory.mktemp("registry") / "registry.db") as registry:
        recipe = registry.get("starter-lora").recipe
    recipe = change_recipe(recipe, ["training.steps=3", 'data.validation={"kind": "none"}'])
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    plan = plan_recipe(recipe, inspect_machine(Path("/tmp")))
    return recipe, replace(plan, threads=1, merge=False)


HOLDER = """
import os, sys
from pathlib import Path
from tunewright.engine.machine import sample_gpus
from tunewright.engine.plan import read_plan
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.queue import Place, tickets
from tunewright.engine.runs.waiting import needed_gib
run, uid, state = RunDirectory(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
plan = run.plan()
if uid != os.getuid():
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
os.umask(0o077)
place = Place(run, plan, needed_gib(plan), state)
print(len(tickets()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(prepared: tuple[Recipe, Plan], home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Have a process of its own hold a ticket for a run that it calls by this name."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, state: str = "running", uid: int | None = None) -> subprocess.Popen[str]:
        run = create_run(*prepared, name)
        user = os.getuid() if uid is None else uid
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(run.path), str(user), state],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline().strip().isdigit()
        return child

    yield begin
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def begun() -> Iterator[list[RunDirectory]]:
    """Runs that are ended, however the test does."""
    runs: list[RunDirectory] = []
    yield runs
    for run in runs:
        processes = run.processes()
        if processes is not None and is_live(run):
            for each in (processes.supervisor, processes.trainer):
                if each is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each.pid, signal.SIGKILL)


def wait(run: RunDirectory, reached: Callable[[Event], bool]) -> Event:
    for event in follow(run.events_file, ended=lambda: not is_live(run), seconds=0.02):
        if reached(event):
            return event
    raise AssertionError(f"the run ended first: {run.console_tail(20)}")


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def is_queued(event: Event) -> bool:
    return isinstance(event, Status) and event.state == "queued"


def is_running(event: Event) -> bool:
    return isinstance(event, Status) and event.state == "running"


def names(found: tuple[queue.Ticket, ...]) -> list[str]:
    return [ticket.run.split("-")[2] for ticket in found]


def test_tickets_stand_in_their_order_and_end_with_their_process(hold: Callable[..., subprocess.Popen[str]]) -> None:
    first, second, third = hold("first"), hold("second", "waiting"), hold("third", "waiting")
    assert names(tickets()) == ["first", "second", "third"]
    assert [ticket.state for ticket in tickets()] == ["running", "waiting", "waiting"]
    last = tickets()[-1]
    assert names(before(last, tickets())) == ["first", "second"]
    second.kill()
    second.wait()
    assert names(before(last, tickets())) == ["first"]
    first.terminate()
    first.wait()
    assert before(last, tickets()) == ()
    assert third.poll() is None


def test_a_dead_ticket_is_swept_by_the_next_one(hold: Callable[..., subprocess.Popen[str]], shared: Path) -> None:
    dead = hold("dead")
    dead.kill()
    dead.wait()
    assert len(list(shared.iterdir())) == 1
    hold("next")
    assert [path.name.split("-")[2] for path in shared.iterdir()] == ["00000002"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_the_tickets_of_several_users_count_alike(
    hold: Callable[..., subprocess.Popen[str]], shared: Path, prepared: tuple[Recipe, Plan]
) -> None:
    theirs = hold("theirs", uid=NOBODY)
    ours = hold("ours", "waiting")
    hold("later", "waiting", uid=NOBODY)
    assert names(tickets()) == ["theirs", "ours", "later"]
    assert [ticket.uid for ticket in tickets()] == [NOBODY, 0, NOBODY]
    assert {path.stat().st_mode & 0o777 for path in shared.iterdir()} == {0o644}, "others could write, or not read"
    assert "nobody's run" in holders_told(holders_of(prepared[1]), prepared[1])
    theirs.kill()
    theirs.wait()
    assert names(tickets()) == ["ours", "later"]
    with pytest.raises(TunewrightError, match="waits for no turn"):
        to_front(tickets()[1].run)
    assert ours.poll() is None


def test_a_run_moved_to_the_front_takes_its_users_first_place(hold: Callable[..., subprocess.Popen[str]]) -> None:
    for name in ("a", "b", "c"):
        hold(name, "waiting")
    if os.getuid() == 0:
        hold("theirs", "waiting", NOBODY)
    hold("d", "waiting")
    last = next(ticket for ticket in tickets() if "-d-" in ticket.run)
    numbers = [ticket.number for ticket in tickets()]
    to_front(last.run)
    theirs = ["theirs"] if os.getuid() == 0 else []
    assert names(tickets()) == ["d", "a", "b", *theirs, "c"]
    assert [ticket.number for ticket in tickets()] == numbers
    with pytest.raises(TunewrightError):
        to_front("20200101-nothing-0000")


def test_what_strangers_plant_is_no_ticket(
    hold: Callable[..., subprocess.Popen[str]], shared: Path, home: Path, prepared: tuple[Recipe, Plan]
) -> None:
    real = hold("real")
    (ticket,) = shared.iterdir()
    text = ticket.read_text()
    secret = home / "secret"
    secret.write_text(text)
    (shared / f"{PREFIX}00000000-00000001").symlink_to(secret)
    (shared / f"{PREFIX}00000000-00000002").symlink_to("/dev/zero")
    os.mkfifo(shared / f"{PREFIX}00000000-00000003")
    (shared / f"{PREFIX}00000000-00000004").mkdir()
    hostile = {
        5: "", 6: "[" * 4096, 7: "{}", 8: "null", 9: '{"run": {}, "resources": 3}', 10: text.replace('"pid"', '"dip"'),
        11: text.replace('"needed_gib": ', '"needed_gib": -1e999, "x": '), 12: text,
    }  # fmt: skip
    held = []
    for number, content in hostile.items():
        path = shared / f"{PREFIX}00000000-{number:08x}"
        path.write_text(content)
        file = path.open()
        fcntl.flock(file, fcntl.LOCK_EX)
        held.append(file)
    os.link(ticket, shared / f"{PREFIX}00000000-0000000d")  # the same file under a number before its own
    (shared / f"{PREFIX}1-x").write_text("")
    found = tickets()
    # A copy of a ticket that somebody keeps locked is his own: it counts, under his name, and only once.
    assert {each.token for each in found} == {"0000000c", "0000000d"}
    place = Place(create_run(*prepared, "mine"), prepared[1], 1.0, "waiting")
    assert place.ticket.order > found[-1].order
    assert secret.read_text() == text, "a link was followed"
    for file in held:
        file.close()
    real.kill()
    real.wait()
    assert before(place.ticket, place.look()) == ()
    place.leave()
    place.leave()  # twice does no harm
    assert tickets() == ()


def test_escapes_in_a_ticket_never_reach_the_terminal(shared: Path, hold: Callable[..., subprocess.Popen[str]]) -> None:
    hold("plain")
    (ticket,) = shared.iterdir()
    values = json.loads(ticket.read_text()) | {"run": "\x1b]52;c;ZXZpbA==\x07run\x1b[2J", "waits_for": "\x9b2J\u202eab"}
    path = shared / f"{PREFIX}00000009-00000001"
    path.write_text(json.dumps(values))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        evil = tickets()[-1]
        assert (evil.run, evil.waits_for) == ("run", "ab")


def test_a_removed_ticket_is_taken_anew_at_the_end(
    hold: Callable[..., subprocess.Popen[str]], shared: Path, prepared: tuple[Recipe, Plan]
) -> None:
    place = Place(create_run(*prepared, "mine"), prepared[1], 1.0, "waiting")
    hold("other", "waiting")
    since = place.ticket.since
    (shared / place.ticket.name).unlink()
    assert names(place.look()) == ["other", "mine"]
    assert place.ticket.since == since
    place.leave()


def test_a_ticket_from_before_a_restart_does_not_count(
    hold: Callable[..., subprocess.Popen[str]], shared: Path
) -> None:
    hold("now")
    (ticket,) = shared.iterdir()
    ticket.write_text(json.dumps(json.loads(ticket.read_text()) | {"boot_id": "another"}))
    assert tickets() == ()


def test_a_queue_that_others_keep_locked_is_told(
    shared: Path, prepared: tuple[Recipe, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LOCK_SECONDS", 0.05)
    descriptor = os.open(shared, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TunewrightError, match="The queue is locked"):
        Place(create_run(*prepared, "mine"), prepared[1], 1.0, "waiting")
    os.close(descriptor)


def test_a_folder_of_strangers_is_refused_and_the_machines_own_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_QUEUE", str(home / "missing"))
    with pytest.raises(TunewrightError, match="No folder for the queue"):
        queue.shared_folder()
    if os.getuid() == 0:
        theirs = home / "theirs"
        theirs.mkdir()
        os.chown(theirs, NOBODY, NOBODY)
        monkeypatch.setenv("TUNEWRIGHT_QUEUE", str(theirs))
        with pytest.raises(TunewrightError, match="No folder for the queue"):
            queue.shared_folder()
    monkeypatch.delenv("TUNEWRIGHT_QUEUE")
    monkeypatch.setattr(queue, "SHARED_FOLDERS", (home / "missing", home))
    assert queue.shared_folder() == home / "home" / "queue"  # nothing that all share: a queue of this user's own
    assert queue.shared_folder().is_dir()
    if os.getuid() == 0:
        home.chmod(0o1777)
        assert queue.shared_folder() == home


def test_a_run_that_could_not_wait_is_not_made(
    prepared: tuple[Recipe, Plan], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_QUEUE", str(home / "missing"))
    with pytest.raises(TunewrightError, match="No folder for the queue"):
        launch(*prepared, "mine", terms=QUICK)
    assert list_runs() == []


def test_a_queued_run_begins_when_its_turn_comes(
    hold: Callable[..., subprocess.Popen[str]], prepared: tuple[Recipe, Plan], begun: list[RunDirectory]
) -> None:
    other = hold("other", uid=NOBODY if os.getuid() == 0 else None)
    run = launch(*prepared, "queued", terms=QUICK)
    begun.append(run)
    told = wait(run, is_queued)
    assert isinstance(told, Status)
    assert told.reason.startswith("place 1 of 1: The processor is held by ")
    assert standing(run) == "queued"
    shown = read_wait(run)
    assert shown is not None
    assert (shown.what, shown.place, shown.of) == ("turn", 1, 1)
    assert tickets()[-1].waits_for in told.reason

    other.kill()
    other.wait()
    wait(run, is_running)
    assert standing(run) == "running"
    assert not run.waiting_file.exists()
    assert [ticket.state for ticket in tickets()] == ["running"]
    stop(run)
    wait_until(lambda: not is_live(run))
    assert standing(run) == "stopped", run.console_tail(20)
    wait_until(lambda: tickets() == ())
    result = run.result()
    assert result is not None
    assert read_history(run).measured["waited_seconds"] > 0
    waited = next(event for event in follow(run.events_file, lambda: True) if is_queued(event))
    assert result["started"] > waited.time, "what a run waited for others was counted as its own time"


def test_a_waiting_run_is_stopped_killed_and_brought_back(
    hold: Callable[..., subprocess.Popen[str]], prepared: tuple[Recipe, Plan], begun: list[RunDirectory]
) -> None:
    hold("other")
    stopped, signalled, killed = (launch(*prepared, name, terms=QUICK) for name in ("stopped", "signalled", "killed"))
    begun += [stopped, signalled, killed]
    for run in begun:
        wait(run, is_queued)
    assert names(tickets()) == ["other", "stopped", "signalled", "killed"]
    stop(stopped)
    for run, number in ((signalled, signal.SIGTERM), (killed, signal.SIGKILL)):
        processes = run.processes()
        assert processes is not None
        os.kill(processes.supervisor.pid, number)
        supervisor: ProcessIdentity = processes.supervisor
        wait_until(lambda supervisor=supervisor: not supervisor.alive)
    wait_until(lambda: not is_live(stopped))
    assert [standing(run) for run in begun] == ["stopped", "stopped", "lost"]
    wait_until(lambda: names(tickets()) == ["other"])  # the last thread of a killed process takes its locks along
    result = stopped.result()
    assert result is not None
    assert result["reason"] == "on request, while it waited to begin"
    assert [was_interrupted(run) for run in begun] == [False, True, True]

    found = resume_interrupted()
    assert {(each.run.id, each.error) for each in found} == {(signalled.id, None), (killed.id, None)}
    wait_until(lambda: {"signalled", "killed"} <= {*names(tickets())})
    wait_until(lambda: [standing(run) for run in begun] == ["stopped", "queued", "queued"])


def test_a_waiting_run_begins_at_once_when_its_user_says_so(
    hold: Callable[..., subprocess.Popen[str]], prepared: tuple[Recipe, Plan], begun: list[RunDirectory]
) -> None:
    hold("other")
    run = launch(*prepared, "queued", terms=QUICK)
    begun.append(run)
    wait(run, is_queued)
    with commanding(run, "stop"):
        for verb in (begin_now, bring_forward, stop):
            with pytest.raises(TunewrightError, match="is about to stop it"):
                verb(run)
    begin_now(run)
    wait(run, is_running)
    with pytest.raises(TunewrightError, match="does not wait"):
        begin_now(run)
    assert [ticket.state for ticket in tickets()] == ["running", "running"]
    stop(run)
    wait_until(lambda: not is_live(run))
    assert standing(run) == "stopped"


@pytest.mark.parametrize("verb", ["clone", "retry", "resume"])
def test_every_way_to_start_a_run_can_wait_for_its_turn(
    hold: Callable[..., subprocess.Popen[str]], prepared: tuple[Recipe, Plan], begun: list[RunDirectory], verb: str
) -> None:
    hold("other")
    run = create_run(*prepared, "before")
    run.result_file.write_text(json.dumps({"state": "failed", "reason": "it was so"}))
    start = ["--start"] if verb == "clone" else []
    command = [sys.executable, "-m", "tunewright", verb, run.id, *start, "--queue", "--nice", "3", "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    begun.append(made := find_run(told["run"]))
    assert (told["terms"]["queue"], told["terms"]["nice"]) == (True, 3)
    assert read_terms(made) == Terms(queue=True, nice=3)
    wait(made, is_queued)
    stop(made)
    wait_until(lambda: not is_live(made))
    assert standing(made) == "stopped"


@pytest.mark.parametrize("job", [True, False], ids=["in-a-job", "elsewhere"])
def test_a_command_that_follows_passes_signals_on_within_a_slurm_job(
    hold: Callable[..., subprocess.Popen[str]], begun: list[RunDirectory], job: bool
) -> None:
    """So that a queued run of a job ends with it, and a look at a run changes nothing for it."""
    hold("other")
    command = [sys.executable, "-m", "tunewright", "train", "starter-lora", "--queue", "--follow"]
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    follower = subprocess.Popen(
        command, env=environment | ({"SLURM_JOB_ID": "7"} if job else {}), stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    for line in follower.stdout:
        if line.startswith("· queued"):
            break
    run = next(run for run in list_runs() if standing(run) == "queued")
    begun.append(run)
    follower.send_signal(signal.SIGUSR1)
    follower.stdout.read()
    assert follower.wait(60) == (0 if job else -signal.SIGUSR1)
    assert standing(run) == ("stopped" if job else "queued")
    assert was_interrupted(run) == job
    follower.stdout.close()


def test_a_wait_has_an_end(
    hold: Callable[..., subprocess.Popen[str]], prepared: tuple[Recipe, Plan], begun: list[RunDirectory]
) -> None:
    hold("other")
    run = launch(*prepared, "patient", terms=replace(QUICK, wait_at_most_hours=0.2 / 3600))
    begun.append(run)
    wait_until(lambda: not is_live(run))
    assert standing(run) == "failed"
    result = run.result()
    assert result is not None
    assert result["error"]["title"] == "Waited too long"
    assert "other" in result["error"]["message"]
    assert "--wait-at-most" in result["error"]["remedy"]
    assert names(tickets()) == ["other"]


HOG = """
import sys
held = bytearray(int(sys.argv[1]))
for place in range(0, len(held), 4096):
    held[place] = 1
print("held", flush=True)
sys.stdin.read()
"""


def free_gib() -> float:
    machine: Machine = inspect_machine(Path("/tmp"))
    return machine.memory_free_gib


def test_a_run_waits_for_memory_that_another_process_holds(
    prepared: tuple[Recipe, Plan], begun: list[RunDirectory]
) -> None:
    recipe, plan = prepared
    hog_gib = min(3.0, free_gib() / 3)
    hog = subprocess.Popen(
        [sys.executable, "-c", HOG, str(int(hog_gib * 2**30))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline().strip() == "held"
        assert plan.prediction is not None
        needed = free_gib() + hog_gib / 2  # others on this machine may take or give back nearly as much again
        plan = replace(plan, prediction=replace(plan.prediction, peak_gib=needed))
        assert needed_gib(plan) == needed
        run = launch(recipe, plan, "hungry", terms=replace(QUICK, queue=False, wait_for_memory=True))
        begun.append(run)
        told = wait(run, is_queued)
        assert isinstance(told, Status)
        assert f"GiB free of the {needed:.1f} needed" in told.reason
        assert f"pid {hog.pid}" in told.reason
        shown = read_wait(run)
        assert shown is not None
        assert (shown.what, shown.place) == ("memory", None)
        assert [ticket.state for ticket in tickets()] == ["sharing"]
    finally:
        hog.kill()
        hog.communicate()
    wait(run, is_running)
    stop(run)
    wait_until(lambda: not is_live(run))
