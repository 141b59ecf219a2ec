"""Alerts reach their owner's command and webhook once, with nobody following, and nothing of a secret is written down."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.alerts import change_alerts, read_alerts, redacted
from tunewright.engine.runs import telling
from tunewright.engine.runs.circumstances import CIRCUMSTANCES_FILE, OtherCircumstances, observe
from tunewright.engine.runs.command import commanding
from tunewright.engine.runs.directory import Processes, ProcessIdentity, RunDirectory, boot_id, is_live, standing
from tunewright.engine.runs.events import Alert, EventLog, Notice, Status, Told, read_events
from tunewright.engine.runs.launch import resume_interrupted, start
from tunewright.engine.runs.retry import retry
from tunewright.engine.runs.telling import Teller
from tunewright.foundation.errors import TunewrightError
from tunewright.foundation.files import write_atomically
from tunewright.tui import listening

SECRET = "T0KEN-of-the-owner"


class Receiver:
    """A real server that keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, json.loads(body)))
                status = receiver.answers.pop(0) if receiver.answers else 204
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def ids(self) -> list[str]:
        return [body["id"].partition("/")[2] for _, body in self.got]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(telling, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(telling, "LOOK_SECONDS", 0.02)
    return tmp_path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that is only told of."""
    made = RunDirectory(tmp_path / "runs" / "20260101-000000-told")
    made.path.mkdir(parents=True)
    made.events_file.touch()
    return made


@pytest.fixture
def failing(without_data: Callable[[str], RunDirectory]) -> RunDirectory:
    return without_data("told")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alert(key: str, about: Any = "failed", title: str = "The run has failed", message: str = "Step 1 of 4.") -> Alert:
    return Alert(about=about, key=key, title=title, message=message)


def told_by(run: RunDirectory, events: list[Alert | Status]) -> None:
    """Let a supervisor's teller look at a run that writes `events`, and end with it."""
    log = EventLog(run.events_file)
    teller = Teller(run, log, 4)
    teller.start()
    for event in events:
        log.append(event)
    teller.conclude()
    teller.last_words()
    log.close()


def notices(run: RunDirectory) -> str:
    return " ".join(each.message for each in read_events(run.events_file)[0] if isinstance(each, Notice))


def test_every_failure_reaches_webhook_and_command_once_with_nobody_following(
    failing: RunDirectory, receiver: Receiver, tmp_path: Path
) -> None:
    run, heard = failing, tmp_path / "heard"
    code = 'import json,os,sys; d=json.load(sys.stdin); print("heard",sys.argv[1:],os.environ["TUNEWRIGHT_TITLE"]); '
    code += f'open({str(heard)!r},"a").write(d["id"]+"\\n")'
    change_alerts({"webhook": f"{receiver.url}/{SECRET}", "command": (sys.executable, "-c", code, "{title}; rm {run}")})
    start(run)
    wait_until(lambda: len(receiver.got) == 1 and run.result_file.exists())
    path, body = receiver.got[0]
    assert path == f"/{SECRET}"
    assert body["about"] == "failed" and body["run"] == run.id and "Data not found" in body["message"]
    supervisor = run.processes()
    assert supervisor is not None
    wait_until(lambda: not supervisor.supervisor.alive)
    retry(run)
    wait_until(lambda: len(receiver.got) == 2)
    wait_until(lambda: not is_live(run))
    assert receiver.ids == ["failed-1", "failed-2"]
    wait_until(lambda: len(heard.read_text().splitlines()) == 2)
    console = run.console_file.read_text()
    assert f"heard ['The run has failed; rm {run.id}'] The run has failed" in console
    wait_until(lambda: sum(isinstance(each, Told) and each.well for each in read_events(run.events_file)[0]) == 4)
    for file in run.path.rglob("*"):
        assert not file.is_file() or SECRET not in file.read_text(errors="replace"), file


def lose(run: RunDirectory, boot: str) -> None:
    """Leave the run as a restart of the machine, or a kill, leaves it."""
    gone = ProcessIdentity(os.getpid(), 1)
    write_atomically(run.process_file, Processes(socket.gethostname(), boot, gone, None, "by hand").to_json())
    assert standing(run) == "lost"


def test_a_run_lost_with_its_machine_calls_its_people_once_when_it_goes_on(
    failing: RunDirectory, receiver: Receiver
) -> None:
    change_alerts({"webhook": receiver.url})
    lose(failing, "another boot")
    (found,) = resume_interrupted()
    assert found.error is None
    wait_until(lambda: len(receiver.got) == 2)
    lost, failed = (body for _, body in receiver.got)
    assert (lost["about"], failed["about"]) == ("interrupted", "failed")
    assert "the machine has restarted since" in lost["message"]
    assert "It goes on by itself, from its start." in lost["message"]
    wait_until(lambda: not is_live(failing))
    told_by(failing, [])
    assert resume_interrupted() == [] and len(receiver.got) == 2


def test_a_lost_run_that_stays_calls_its_people_once(failing: RunDirectory, receiver: Receiver) -> None:
    change_alerts({"webhook": receiver.url})
    (failing.path / CIRCUMSTANCES_FILE).write_text(json.dumps(observe(failing) | {"torch": "1.0"}))
    lose(failing, boot_id())
    for _ in range(2):  # at two boots
        (found,) = resume_interrupted()
        assert isinstance(found.error, OtherCircumstances)
    ((_, body),) = receiver.got
    assert "they were killed" in body["message"] and "does not go on by itself: Not the same" in body["message"]
    told = [each for each in read_events(failing.events_file)[0] if isinstance(each, Alert | Told)]
    assert [type(each) for each in told] == [Alert, Told]


def test_the_interface_that_lists_a_lost_run_rings_once(
    failing: RunDirectory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LOST_SECONDS", 0.0)
    change_alerts({"webhook": receiver.url, "terminal": "bell"})
    one, other = listening.Listener(), listening.Listener()
    assert one.hear() == other.hear() == ""
    lose(failing, "another boot")
    with commanding(failing, "resume"):  # who brings it back tells of it
        assert one.hear() == ""
    assert other.hear() != ""
    wait_until(lambda: len(receiver.got) == 1)
    assert one.hear() != ""  # on its own terminal
    assert one.hear() == other.hear() == listening.Listener().hear() == ""
    assert f"tunewright resume {failing.id}" in receiver.got[0][1]["message"]
    wait_until(lambda: any(isinstance(each, Told) for each in read_events(failing.events_file)[0]))
    assert len(receiver.got) == 1


def test_an_alert_is_told_once_over_restarts_of_the_supervisor(run: RunDirectory, receiver: Receiver) -> None:
    change_alerts({"webhook": receiver.url})
    log = EventLog(run.events_file)
    for key in ("failed-1", "failed-2"):
        log.append(Status(state="failed", reason="x"))
        log.append(alert(key))  # the first one's supervisor was killed before it could tell
    log.append(Told(key="failed-2", by="webhook", well=True))
    log.close()
    told_by(run, [])
    told_by(run, [Status(state="failed", reason="y")])
    told_by(run, [])
    assert receiver.ids == ["failed-1", "failed-3"]


@pytest.mark.parametrize(
    ("answers", "tries", "said"),
    [
        ([500, 503], 3, ""),
        ([500] * 9, 3, "answered 500"),
        ([302], 1, "not followed"),
        ([404], 1, "answered 404"),
        ([429, 204], 2, ""),
    ],
)
def test_a_webhook_is_tried_a_few_times_and_never_followed_elsewhere(
    run: RunDirectory, receiver: Receiver, answers: list[int], tries: int, said: str
) -> None:
    change_alerts({"webhook": f"{receiver.url}/{SECRET}?key={SECRET}"})
    receiver.answers = list(answers)
    told_by(run, [Status(state="finished", reason="all steps were taken")])
    assert [path for path, _ in receiver.got] == [f"/{SECRET}?key={SECRET}"] * tries
    assert said in notices(run)
    assert bool(said) == ("was not told" in notices(run))
    assert SECRET not in run.events_file.read_text()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nonexistent/program",), "could not be started"),
        (("sh", "-c", "exit 3"), "status 3"),
        (("sh", "-c", "sleep 60 & sleep 60"), "took longer"),
        (("true",), ""),
    ],
)
def test_a_command_that_fails_is_a_notice(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(telling, "COMMAND_SECONDS", 0.3)
    change_alerts({"command": command})
    told_by(run, [Status(state="finished", reason="all steps were taken")])
    assert said in notices(run)
    assert bool(said) == ("was not told" in notices(run))


def test_nobody_is_there(run: RunDirectory) -> None:
    change_alerts({"webhook": f"http://127.0.0.1:9/{SECRET}"})
    told_by(run, [Status(state="finished")])
    assert "could not be reached" in notices(run) and SECRET not in run.events_file.read_text()


def test_what_is_not_wanted_is_not_told(run: RunDirectory, receiver: Receiver) -> None:
    change_alerts({"webhook": receiver.url, "about": ("finished",)})
    told_by(run, [Status(state="failed", reason="x"), Status(state="finished", reason="y")])
    assert receiver.ids == ["finished"]


def test_settings_are_for_their_owners_eyes_and_counted_in_no_file_of_others(home: Path) -> None:
    file = home / "settings.toml"
    file.write_text('# mine\n[other]\nkept = 1\n\n[alerts]\nterminal = "bell" # loud\n')
    change_alerts({"webhook": f"https://example.org/{SECRET}"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert "# mine" in text and "kept = 1" in text and "# loud" in text
    assert redacted(read_alerts().webhook) == "https://example.org/…"
    file.chmod(0o666)
    with pytest.raises(TunewrightError, match="not safe"):
        read_alerts()


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/x", "ftp://example.org", "https://", "example.org", "https://me:pw@example.org/",
        "https://example.org/a b", "https://exa\x1bmple.org", "http://127.0.0.1.evil.org/", "https://h:99999999/",
    ],
)  # fmt: skip
def test_an_unsafe_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(TunewrightError) as refused:
        change_alerts({"webhook": address})
    assert "pw" not in str(refused.value) and "\x1b" not in str(refused.value)
    assert not read_alerts().webhook


@pytest.mark.parametrize("text", ["[alerts]\nsound = 1", "[alerts", "alerts = 3", '[alerts]\ncommand = "rm -rf /"'])
def test_settings_that_cannot_be_read_are_told(home: Path, text: str, run: RunDirectory) -> None:
    (home / "settings.toml").write_text(text)
    with pytest.raises(TunewrightError, match="Settings not valid"):
        read_alerts()
    told_by(run, [Status(state="finished")])  # the run has its end, and says why nobody was told
    assert "Settings not valid" in notices(run)


def test_the_command_shows_changes_and_tries(receiver: Receiver) -> None:
    def alerts(*arguments: str, given: str = "") -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "tunewright", "alerts", *arguments, "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, input=given, check=False)
        return ended.returncode, json.loads(ended.stdout)

    secret = f"{receiver.url}/{SECRET}"
    code, told = alerts("--webhook", "-", "--command", "printf '%s\\n' {title}", "--about", "failed,heat", given=secret)
    assert code == 0
    assert told["webhook"] == f"{receiver.url}/…" and told["command"] == ["printf", "%s\\n", "{title}"]
    assert told["about"] == ["failed", "heat"]
    code, told = alerts("--test")
    assert code == 0 and [each["well"] for each in told["test"]] == [True, True]
    assert receiver.ids == ["test"]
    assert alerts("--terminal", "off", "--webhook", "", "--command", "")[1]["terminal"] == "off"
    code, told = alerts("--about", "everything")
    assert code == 2 and told["error"]["title"] == "Not a valid setting"


@pytest.mark.parametrize("follower", ["attach", "interface"])
def test_whoever_follows_is_told_through_the_terminal_and_history_stays_silent(
    failing: RunDirectory, follower: str
) -> None:
    """A real pty stands for kitty behind SSH."""
    run = failing
    log = EventLog(run.events_file)
    log.append(alert("plateau", "plateau", "The loss was flat"))
    plain = ["attach", run.id, "--plain"]
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "tunewright", *(plain if follower == "attach" else [])],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env=os.environ | {"TERM": "xterm-kitty", "COLUMNS": "100", "LINES": "30"},
    )  # fmt: skip
    os.close(slave)

    def read_to(mark: bytes) -> bytes:
        got, deadline = b"", time.monotonic() + 60
        while mark not in got:
            assert time.monotonic() < deadline, got[-2000:]
            if select.select([master], [], [], 0.05)[0]:
                got += os.read(master, 65536)
            log.append(Status(state="running", reason="still"))  # so that there is always something to be read
            for number in range(2 if mark == b"]99;" else 0):
                log.append(alert(f"heat-{number}", "heat", "GPU 1 is too hot", "for 30 s\x1b[2J"))
        return got

    try:
        before = read_to(b"still" if follower == "attach" else b"Help")
        assert b"]99;" not in before
        got = read_to(b"]99;")
        got += read_to(b"p=body")
        assert b"\x1b]99;i=heat-0:d=0;Tunewright: GPU 1 is too hot\x1b\\" in got
        assert b"was flat" not in got.partition(b"]99;")[2]
    finally:
        child.kill()
        child.wait()
        os.close(master)
