"""Drops the terminals of runs that are followed, again and again, and holds what comes out against a run left alone.

`python benchmarks/dropped.py [--drops 50] [--seed 1] [--out dropped.json]`; `make torture`

Each drop is one of: the line is gone (the terminal closed, as by sshd when a connection breaks), the network is cut with the
terminal held (nobody reads it any more, and it fills), the interface gets SIGKILL, the login shell is logged out of, or
tmux's server is killed. The run is started from such a terminal, and followed anew from another after each drop.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from losses import losses

STEPS = 240
STEPS_BETWEEN = 3
"""So many steps the run has to take after each drop before it is followed again."""
LONGEST_SECONDS = 300.0


def main(arguments: list[str]) -> int:
    """Drop terminals, print what became of the runs, and return 0 when none noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drops", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    report = drop_all(options.drops, random.Random(options.seed))
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if report["runs_ended_early"] or report["other_losses"] or report["restarted"] else 0


def drop_all(drops: int, drawn: random.Random, steps: int = STEPS) -> dict[str, Any]:
    """Return what became of runs whose terminals were dropped so often together."""
    began, dropped, runs = time.monotonic(), list[str](), 0
    early = other = restarted = 0
    with tempfile.TemporaryDirectory(prefix="tunewright-dropped-", ignore_cleanup_errors=True) as home:
        os.environ["TUNEWRIGHT_HOME"] = home
        undisturbed = losses(left_alone(steps))
        names = drawn.sample(list(WAYS), len(WAYS))
        while len(dropped) < drops:
            runs += 1
            run, ways = follow_and_drop(steps, names, dropped, drops)
            dropped += ways
            wait(lambda run=run: not live(run))
            early += standing_of(run) != "finished"
            other += losses(run) != undisturbed
            restarted += starts(run) != 1
    return {
        "drops": len(dropped),
        "runs": runs,
        "by_way": dict(Counter(dropped).most_common()),
        "runs_ended_early": early,
        "restarted": restarted,
        "other_losses": other,
        "seconds": round(time.monotonic() - began),
    }


def follow_and_drop(steps: int, names: list[str], before: list[str], most: int) -> tuple[Any, list[str]]:
    """Start a run from a terminal that is dropped, follow it from others while it goes on, and return both."""
    from tunewright.engine.runs.directory import list_runs

    known, ways = {each.id for each in list_runs()}, list[str]()
    command = start_command(steps)
    while len(before) + len(ways) < most:
        way = names[(len(before) + len(ways)) % len(names)]
        terminal = WAYS[way](command)
        wait(lambda: any(each.id not in known for each in list_runs()))
        run = next(each for each in list_runs() if each.id not in known)
        seen = last_step(run)
        wait(lambda run=run, seen=seen: last_step(run) >= max(1, seen) or not live(run))
        wait(terminal.shows_something)
        if last_step(run) > steps - 2 * STEPS_BETWEEN or not live(run):
            terminal.drop()
            return run, ways
        terminal.drop()
        ways.append(way)
        at = last_step(run)
        wait(lambda run=run, at=at: last_step(run) >= at + STEPS_BETWEEN or not live(run))
        terminal.clear_away()
        command = [sys.executable, "-m", "tunewright", "attach", run.id]
    return run, ways


class Terminal:
    """A command in a terminal of its own, as behind SSH."""

    def __init__(self, command: list[str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # 24 lines of 80 columns
        self.child = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.read_bytes = 0
        self._reading = threading.Event()
        self._reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        os.set_blocking(self.master, False)
        while self._reading.is_set():
            try:
                self.read_bytes += len(os.read(self.master, 65536))
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                return

    def shows_something(self) -> bool:
        """Tell whether the command has painted, or is gone."""
        return self.read_bytes > 200 or self.child.poll() is not None

    def stop_reading(self) -> None:
        self._reading.clear()
        self._reader.join()

    def drop(self) -> None:
        """Close the terminal: what runs in it is hung up."""
        self.stop_reading()
        os.close(self.master)
        self.child.wait(timeout=60)

    def clear_away(self) -> None:
        """Take away what the drop has left."""


class KilledInterface(Terminal):
    def drop(self) -> None:
        self.child.kill()
        super().drop()


class HeldTerminal(Terminal):
    """Nobody reads it any more, and it stays open until it is cleared away."""

    def drop(self) -> None:
        self.stop_reading()

    def clear_away(self) -> None:
        os.close(self.master)
        try:
            self.child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class LoginShell(Terminal):
    """An interactive shell, from which the command is called; logging out hangs its jobs up."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(["bash", "--norc", "-i", "-c", f"{' '.join(map(quoted, command))}; exit"])

    def drop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGHUP)
        super().drop()


class Tmux(Terminal):
    """A server of tmux's with the command in its only window, and this terminal as its client."""

    def __init__(self, command: list[str]) -> None:
        self.socket = Path(tempfile.mkdtemp(prefix="tunewright-tmux-")) / "socket"
        super().__init__(["tmux", "-S", str(self.socket), "-f", "/dev/null", "new-session", *map(str, command)])

    def drop(self) -> None:
        subprocess.run(["tmux", "-S", str(self.socket), "kill-server"], check=False, capture_output=True)
        super().drop()
        shutil.rmtree(self.socket.parent, ignore_errors=True)


WAYS: dict[str, Callable[[list[str]], Terminal]] = {
    "terminal closed": Terminal,
    "network cut, terminal held": HeldTerminal,
    "interface killed": KilledInterface,
    "logged out": LoginShell,
    **({"tmux killed": Tmux} if shutil.which("tmux") else {}),
}


def quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def start_command(steps: int) -> list[str]:
    changes = [f"training.steps={steps}", "evaluation.rows=1", "evaluation.max_new_tokens=4"]
    command = [sys.executable, "-m", "tunewright", "train", "starter-lora", "--follow"]
    return [*command, *(word for change in changes for word in ("--set", change))]


def left_alone(steps: int) -> Any:
    """Return the same run, followed from no terminal."""
    from tunewright.engine.runs.directory import list_runs

    subprocess.run(start_command(steps), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    (run,) = list_runs()
    return run


def wait(reached: Callable[[], bool]) -> None:
    """Wait until `reached` is true; raises TimeoutError."""
    ending = time.monotonic() + LONGEST_SECONDS
    while not reached():
        if time.monotonic() > ending:
            raise TimeoutError("the run hangs")
        time.sleep(0.02)


def live(run: Any) -> bool:
    from tunewright.engine.runs.directory import is_live

    return is_live(run)


def standing_of(run: Any) -> str:
    from tunewright.engine.runs.directory import standing

    return standing(run)


def last_step(run: Any) -> int:
    from tunewright.engine.runs.supervise import read_history

    return read_history(run).step


def starts(run: Any) -> int:
    """Return how often a trainer was started for the run."""
    from tunewright.engine.runs.events import Status, read_events

    return sum(
        isinstance(each, Status) and each.state == "running" for each in read_events(run.events_file, 0, 2**30)[0]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
