"""Several terminals, one run: one at a time commands it, the next is told which, and a retry keeps what was before."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.runs.command import COMMAND_FILE, PAUSE_SIGNAL, STOP_SIGNAL, Commander, asked_to, commanding
from tunewright.engine.runs.directory import Processes, ProcessIdentity, RunDirectory, boot_id, is_live
from tunewright.engine.runs.events import EventLog, Notice, Status, read_events
from tunewright.engine.runs.launch import pause, stop
from tunewright.engine.runs.retry import ATTEMPTS, retry, why_failed
from tunewright.engine.runs.supervise import Supervisor
from tunewright.foundation.errors import TunewrightError
from tunewright.foundation.files import write_atomically
from tunewright.foundation.users import user_name

HOLDER = """
import sys
from pathlib import Path
from tunewright.engine.runs.command import commanding
from tunewright.engine.runs.directory import RunDirectory
with commanding(RunDirectory(Path(sys.argv[1])), "stop"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(without_data: Callable[[str], RunDirectory]) -> RunDirectory:
    return without_data("commanded")


def tunewright(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunewright", *arguments, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )


def answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    told, _ = process.communicate(timeout=60)
    return json.loads(told)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end(run: RunDirectory, result: dict[str, Any]) -> None:
    write_atomically(run.result_file, json.dumps(result))


def go_on(run: RunDirectory) -> None:
    """Let this very process stand as the run's supervisor."""
    own = ProcessIdentity.of(os.getpid())
    assert own is not None
    write_atomically(run.process_file, Processes(socket.gethostname(), boot_id(), own, None, "by hand").to_json())


def test_the_second_terminal_is_told_who_commands_and_a_killed_one_commands_no_longer(run: RunDirectory) -> None:
    end(run, {"state": "stopped"})
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    for verb in ("resume", "stop", "pause", "retry"):
        second = tunewright(verb, run.id)
        error = answer(second)["error"]
        assert second.returncode == 2
        assert error["title"] == "Another terminal commands this run"
        assert f"{user_name(os.getuid())} (pid {holder.pid}, " in error["message"]
        assert "is about to stop it" in error["message"]
    holder.kill()
    holder.wait()
    with commanding(run, "look"):
        pass


def test_of_two_resumes_at_the_same_moment_one_goes_on(run: RunDirectory) -> None:
    """Whoever is second meets the lock, or finds the run going on."""
    end(run, {"state": "stopped"})
    both = [tunewright("resume", run.id) for _ in range(2)]
    told = [answer(each) for each in both]
    wait_until(lambda: run.result_file.exists() and not is_live(run))
    assert sorted(each.returncode for each in both) in ([0, 2], [0, 0])
    running = [event for event in read_events(run.events_file)[0] if isinstance(event, Status)]
    begun = sum(event.state == "running" for event in running)
    assert begun == sum(each.returncode == 0 for each in both)  # two only when the first had ended before
    for each in told:
        assert "from_step" in each or each["error"]["title"] in (
            "Another terminal commands this run",
            "Run is running",
        )


def test_a_wish_is_not_repeated_and_a_stop_comes_after_a_pause(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(run, "by hand")
    received: list[signal.Signals] = []

    def take(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        supervisor._ask_to_stop(number, None)

    before = {number: signal.signal(number, take) for number in (STOP_SIGNAL, PAUSE_SIGNAL)}
    try:
        go_on(run)
        pause(run)
        wait_until(lambda: asked_to(run) == "pausing")
        with pytest.raises(TunewrightError, match="pausing already"):
            pause(run)
        stop(run)
        wait_until(lambda: asked_to(run) == "stopping")
        for again in (stop, pause):
            with pytest.raises(TunewrightError, match="stopping already"):
                again(run)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert received == [PAUSE_SIGNAL, STOP_SIGNAL]
    assert supervisor.stopped_by == STOP_SIGNAL


def test_hostile_and_torn_words_of_a_commander_are_only_words(run: RunDirectory) -> None:
    place = run.path / COMMAND_FILE
    with commanding(run, "stop"):
        kept = json.loads(place.read_text())
        assert Commander(**kept).pid == os.getpid()
        for text in (json.dumps(kept | {"user": "\x1b[2J\x1b]0;x\x07"}), '{"user": "am', "[]"):
            place.write_text(text)
            second = tunewright("resume", run.id)
            message = answer(second)["error"]["message"]
            assert second.returncode == 2 and "\x1b" not in message and run.id in message


def test_trying_again_from_the_start_keeps_what_was_before(run: RunDirectory) -> None:
    error = {"title": "Not a number", "message": "At step 3 the loss is NaN.", "remedy": "Lower the rate."}
    end(run, {"state": "failed", "step": 3, "reason": "Not a number", "error": error})
    (run.checkpoints / "step-000002").mkdir()
    (run.checkpoints / "step-000002" / "weights").write_bytes(b"saved")
    with run.events_file.open("ab") as file:
        before = file.tell()
    tried = answer(tunewright("retry", run.id, "--from-start"))
    assert tried["from_step"] == 0
    assert tried["failure"] == error | {"step": 3}
    assert "tunewright clone" in tried["advice"]  # the same steps lead there again
    wait_until(lambda: run.result_file.exists() and not is_live(run))
    (kept,) = (run.path / ATTEMPTS).iterdir()
    assert (kept / "checkpoints" / "step-000002" / "weights").read_bytes() == b"saved"
    assert list(run.checkpoints.iterdir()) == []
    assert len(list(run.path.glob("result-*.json"))) == 1
    events, _ = read_events(run.events_file, before)
    assert next(each for each in events if isinstance(each, Notice)).title == "Tried again"
    assert why_failed(run).title == "Data not found"  # another reason than the first attempt's


@pytest.mark.parametrize("state", ["finished", "stopped", "paused"])
def test_only_what_failed_is_tried_again(run: RunDirectory, state: str) -> None:
    end(run, {"state": state})
    with pytest.raises(TunewrightError, match="has not failed"):
        retry(run)
    end(run, {"state": "failed", "error": ["\x1b[2J"], "reason": "\x1b[31mred", "step": "x"})
    assert "\x1b" not in str(why_failed(run))


def test_the_last_word_on_a_runs_state_counts(run: RunDirectory) -> None:
    log = EventLog(run.events_file)
    assert asked_to(run) == ""
    log.append(Status(state="pausing"))
    assert asked_to(run) == "pausing"
    log.append(Status(state="running"))
    assert asked_to(run) == ""
