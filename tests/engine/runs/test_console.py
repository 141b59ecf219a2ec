"""The console: what is printed arrives in whole lines, redacted and bounded, whichever of the processes is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tunewright.engine.runs import console
from tunewright.engine.runs.console import Console, Log, ready

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2c"
KEY = b"-----BEGIN PRIVATE KEY-----\n" + b"MIIEowIBAAKCAQEA7bq3xk29fJ0sLmQwErTyUiOpAsDfGhJkLzXcVbNm1234567\n" * 3
KEY_END = b"-----END PRIVATE KEY-----\n"


def until(reached: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def content(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def test_what_is_printed_is_whole_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    taken = Console(path)
    program = f"""
import os, subprocess, sys
print("from Python", {TOKEN!r}, "é")
os.write(2, b"from below " + {TOKEN.encode()!r}[:20])
os.write(2, {TOKEN.encode()!r}[20:] + bytes([255]) + b"\\n")
subprocess.run(["sh", "-c", "echo from another: HF_TOKEN=some-words; printf torn"])
"""
    printer = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=taken.printing, stderr=taken.printing)
    taken.given()
    assert printer.wait() == 0
    taken.drain()
    found = path.read_bytes()
    mask = b"[Hugging Face token left out]"
    assert found == (
        b"from Python " + mask + " é\n".encode() + b"from below " + TOKEN.encode() + b"\xff\n"
        b"from another: HF_TOKEN=[secret left out]\ntorn"
    ).replace(TOKEN.encode(), mask)  # fmt: skip


def test_a_key_of_several_lines_is_waited_for() -> None:
    assert ready(b"one\ntwo") == 4
    assert ready(b"\r 10 %\r 20 %") == 7
    assert ready(b"one\n" + KEY) == 4
    assert ready(b"one\n" + KEY + KEY_END) == len(b"one\n" + KEY + KEY_END)


def test_somebody_who_waits_in_the_middle_of_a_line_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    taken = Console(path)
    os.write(taken.printing, b"Continue? ")
    until(lambda: content(path) == "Continue? ")
    taken.given()
    taken.drain()


def test_endless_printing_leaves_a_head_and_a_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LARGEST_BYTES", 64_000)
    monkeypatch.setattr(console, "HEAD_BYTES", 4_000)
    monkeypatch.setattr(console, "TAIL_BYTES", 16_000)
    path = tmp_path / "console.log"
    log = Log(path)
    printed = 0
    for number in range(20_000):
        line = f"line {number}\n".encode()
        printed += len(line)
        log.append(line)
        assert path.stat().st_size <= 64_000 + len(line)
    lines = content(path).splitlines()
    (mark,) = [index for index, line in enumerate(lines) if "left out" in line]
    assert lines[:mark] == [f"line {number}" for number in range(mark)]
    rest = lines[mark + 1 :]
    assert rest == [f"line {number}" for number in range(20_000 - len(rest), 20_000)]
    told = int(lines[mark].split()[1].replace(",", ""))
    assert told + path.stat().st_size - len(lines[mark].encode()) - 1 == printed


def test_a_trainer_that_prints_without_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    taken = Console(path)
    program = "import itertools\nfor n in itertools.count(): print(f'{n} ' + 200_000 * '.')"
    printer = subprocess.Popen([sys.executable, "-c", program], stdout=taken.printing, stderr=taken.printing)
    taken.given()
    until(lambda: "were left out here" in content(path))
    assert path.stat().st_size <= console.LARGEST_BYTES + 2 * (console.HELD_BYTES + console.READ_BYTES)
    printer.kill()
    printer.wait()
    taken.drain()


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def test_the_listener_is_deaf_to_signals_and_replaced_when_killed(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    before = {each.pid for each in children(os.getpid())}
    taken = Console(path)
    os.write(taken.printing, b"one\n")
    until(lambda: content(path) == "one\n")
    (first,) = [each for each in children(os.getpid()) if each.pid not in before]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        first.send_signal(number)
    os.write(taken.printing, b"two\n")
    until(lambda: content(path) == "one\ntwo\n")
    first.kill()
    until(lambda: first.status() == psutil.STATUS_ZOMBIE)
    os.write(taken.printing, b"three\n")  # into the pipe, which the supervisor holds open
    taken.look_after()
    until(lambda: content(path) == "one\ntwo\nthree\n")
    taken.given()
    taken.drain()


SUPERVISOR = """
import subprocess, sys, time
from pathlib import Path
from tunewright.engine.runs.console import Console
taken = Console(Path(sys.argv[1]))
trainer = subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdout=taken.printing, stderr=taken.printing)
taken.given()
print(taken._process.pid, trainer.pid, flush=True)
time.sleep(600)
"""
TRAINER = """
import sys, time
from pathlib import Path
from tunewright.engine.runs.console import print_without_fail
print_without_fail()
print("here", flush=True)
while not Path(sys.argv[1]).exists() if len(sys.argv) > 1 else not Path({go!r}).exists():
    time.sleep(0.01)
print("after", flush=True)
sys.stderr.write("and after\\n")
Path({done!r}).write_text("whole")
"""


@pytest.mark.parametrize("killed", ["supervisor", "both"])
def test_printing_survives_whoever_is_killed(tmp_path: Path, killed: str) -> None:
    path, go, done = tmp_path / "console.log", tmp_path / "go", tmp_path / "done"
    trainer = TRAINER.format(go=str(go), done=str(done))
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(path), trainer], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    listener = psutil.Process(int(supervisor.stdout.readline().split()[0]))
    until(lambda: content(path) == "here\n")
    supervisor.kill()
    supervisor.wait()
    if killed == "both":
        listener.kill()
        until(lambda: not listener.is_running() or listener.status() == psutil.STATUS_ZOMBIE)
    go.touch()
    until(lambda: content(done) == "whole")
    if killed == "supervisor":
        until(lambda: content(path) == "here\nafter\nand after\n")


def test_a_disk_that_takes_nothing_is_told_once_it_takes_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "console.log"
    log = Log(path)
    log.append(b"one\n")
    write, full = os.write, [True]

    def refuse(descriptor: int, data: bytes) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    log.append(b"lost\n")
    full[0] = False
    log.append(b"two\n")
    assert content(path) == "one\n… 5 bytes could not be written …\ntwo\n"


def test_a_kill_while_the_middle_is_left_out_loses_no_tail(tmp_path: Path) -> None:
    lines = [f"{number} {random.Random(number).random()}\n" for number in range(2000)]
    whole = "".join(lines)
    path = tmp_path / "console.log"
    path.write_text(whole)
    program = """
import os, sys
from pathlib import Path
from tunewright.engine.runs import console
console.LARGEST_BYTES, console.HEAD_BYTES, console.TAIL_BYTES = 10_000, 1_000, 4_000
os.ftruncate = lambda *arguments: os.kill(os.getpid(), 9)
console.Log(Path(sys.argv[1])).append(b"last\\n")
"""
    code = subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode
    assert code == -signal.SIGKILL
    found = content(path)
    assert found.startswith("".join(lines[:10]))
    assert found.endswith("".join(lines[-50:]) + "last\n")
