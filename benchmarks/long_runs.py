"""Measures how soon a run of a million steps opens, what following a run costs, and what followers cost the trainer.

`python benchmarks/long_runs.py [--steps 1000000] [--seconds 20] [--followers 8] [--out long_runs.json]`; `make bench-runs`

The run is written here: steps, GPU samples twice a second, evaluations, answers and checkpoints, as a trainer writes them.
It is opened by the commands as people call them, the start of Python included, and by the monitor in a terminal of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from terminal import Terminal
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import Processes, ProcessIdentity, RunDirectory, boot_id, create_run
from tunewright.engine.runs.events import Checkpoint, Eval, Event, EventLog, Gpu, Phase, Sample, Status, Step, encode
from tunewright.engine.runs.fold import Fold, read_history
from tunewright.foundation.files import write_atomically
from tunewright.recipes.registry import open_registry

STEP_SECONDS = 0.05
LAG_SHARE = 0.009
"""Of the steps, taken since the fold was last kept: about the most that there can be."""
BLOCK = bytes(2**20)
"""What the stand-in for a trainer hashes, over and over, in as many threads as it keeps cores busy."""
ROUNDS = 10
ROUND_SHARE = 0.25
"""Of what is followed at a time: how long followers go on, or are held, in one round."""
SETTLING_SECONDS = 1.0
"""After followers were let go on or held, before it counts."""


def main(arguments: list[str]) -> int:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long is followed at a time")
    parser.add_argument("--followers", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tunewright-long-") as home:
        os.environ["TUNEWRIGHT_HOME"] = home
        run = make_run(options.steps)
        report = {"machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", "steps": options.steps}
        report |= opening(run, options.steps)
        report |= following(run, options.steps, options.seconds)
        cores = tuple(sorted({1, os.cpu_count() or 1}))
        report["beside"] = [
            interference(run, options.steps, options.seconds, options.followers, each) for each in cores
        ]
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def make_run(steps: int) -> RunDirectory:
    """Return a run that goes on in this very process, and has taken most of its steps."""
    with open_registry() as registry:
        recipe = change_recipe(registry.get("starter-lora").recipe, [f"training.steps={steps + 10**6}"])
    run = create_run(recipe, plan_recipe(recipe, inspect_machine(Path(tempfile.gettempdir()))), "long")
    own = ProcessIdentity.of(os.getpid())
    assert own is not None, "this process is alive"
    write_atomically(run.process_file, Processes(socket.gethostname(), boot_id(), own, None, "by hand").to_json())
    kept = steps - int(steps * LAG_SHARE)
    write(run, events_between(0, kept, steps))
    return run


def events_between(first: int, last: int, total: int) -> Iterator[Event]:
    """Yield what a run tells from step `first` on, up to `last`."""
    began = time.time() - total * STEP_SECONDS
    if first == 0:
        yield Status(time=began, state="running")
        yield Phase(time=began, name="training")
    for number in range(first + 1, last + 1):
        now = began + number * STEP_SECONDS
        yield Step(
            time=now, step=number, total_steps=total, epoch=number / 5000, loss=1.5 + (number * 7919 % 1000) / 2000,
            learning_rate=2e-4 * (1 - number / (total + 1)), grad_norm=0.4 + (number * 104729 % 1000) / 5000, tokens=16384,
            seconds=STEP_SECONDS, peak_gib=61.25, reserved_gib=63.5, mfu=0.4321,
        )  # fmt: skip
        if number % int(0.5 / STEP_SECONDS) == 0:
            yield Gpu(time=now, index=0, utilisation_percent=98.0, memory_used_gib=64.5, memory_total_gib=139.8,
                      temperature_celsius=61.0, power_watts=688.0, clock_mhz=1710.0)  # fmt: skip
        if number % 500 == 0:
            yield Eval(time=now, step=number, loss=1.4, rows=200, seconds=2.0)
        if number % 1000 == 0:
            yield Sample(time=now, step=number, prompt="Two mugs, please.", completion='{"item":"mug","count":2}')
            yield Checkpoint(time=now, step=number, name=f"step-{number:06}", size_bytes=10**9, seconds=2.0)


def write(run: RunDirectory, events: Iterator[Event]) -> None:
    """Append `events` at once."""
    with run.events_file.open("a", encoding="utf-8") as file:
        file.writelines(f"{encode(event)}\n" for event in events)


def opening(run: RunDirectory, steps: int) -> dict[str, Any]:
    """Return how long it takes until a run can be seen, on the clock and in processor time, without and with the kept fold."""
    newest = timed(lambda: call("attach", run.id, "--plain", until=b"MiB of events"))
    anew = timed(lambda: fold_up(run), 1)
    history = read_history(run)
    write(run, events_between(history.step, steps, steps))
    lag = Fold(run).behind
    kept = timed(lambda: fold_up(run))
    start, show = timed(lambda: call("--help")), timed(lambda: call("runs", "show", run.id))
    attach = timed(lambda: call("attach", run.id, "--plain", until=b"step "))
    monitor = timed(lambda: open_monitor(run, steps))
    return {
        "events_mib": round(run.events_file.stat().st_size / 2**20),
        "fold_kib": round(run.fold_file.stat().st_size / 2**10) if run.fold_file.exists() else 0,
        "events_after_the_kept_fold_kib": round(lag / 2**10),
        **named("fold_anew", anew),
        **named("fold_kept", kept),
        **named("attach_without_fold", newest),
        **named("help", start),
        **named("runs_show", show),
        **named("attach", attach),
        **named("monitor", monitor),
        **named("monitor_from_list", timed(lambda: open_from_list(run, steps))),
    }


Taken = tuple[float, float]
"""Seconds on the clock, and seconds of a core."""


def named(what: str, taken: Taken) -> dict[str, float]:
    return {f"{what}_seconds": round(taken[0], 3), f"{what}_cpu_seconds": round(taken[1], 3)}


def timed(measure: Callable[[], Taken], times: int = 5) -> Taken:
    """Return the medians of several measurements."""
    found = [measure() for _ in range(times)]
    return statistics.median(clock for clock, _ in found), statistics.median(core for _, core in found)


def fold_up(run: RunDirectory) -> Taken:
    """Read the whole history in this process."""
    clock, core = time.perf_counter(), time.process_time()
    fold = Fold(run)
    while fold.advance():
        pass
    return time.perf_counter() - clock, time.process_time() - core


def call(*arguments: str, until: bytes | None = None) -> Taken:
    """Call a command to its end, or until it has printed something."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "tunewright", *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until is not None and until in line:
                break
        taken = time.perf_counter() - began
        if until is not None:
            os.kill(process.pid, signal.SIGKILL)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return taken, used.ru_utime + used.ru_stime


def open_monitor(run: RunDirectory, steps: int) -> Taken:
    """Open the monitor, until the whole history is on the screen."""
    terminal = monitor_of(run)
    try:
        return terminal.wait(f"step {steps:,}"), terminal.cpu_seconds()
    finally:
        terminal.close()


def open_from_list(run: RunDirectory, steps: int) -> Taken:
    """Open the monitor from the list of runs of an interface that has been open for a while."""
    terminal = Terminal("-m", "tunewright")
    try:
        terminal.wait("This machine")
        terminal.rest()
        terminal.press(b"2")
        terminal.wait("Starter")
        terminal.rest()
        before = terminal.cpu_seconds()
        terminal.press(b"\r")
        return terminal.wait(f"step {steps:,}"), terminal.cpu_seconds() - before
    finally:
        terminal.close()


def monitor_of(run: RunDirectory) -> Terminal:
    return Terminal("-m", "tunewright", "attach", run.id)


class Writer:
    """What stands for a trainer: takes steps of a fixed work on so many cores, or sleeps as long, and tells each."""

    def __init__(self, run: RunDirectory, total: int, number: int, cores: int = 0) -> None:
        self.run, self.total, self.number, self.cores = run, total, number, cores
        self.threads = ThreadPoolExecutor(max(1, cores))
        self.blocks = 0
        """How many blocks each core hashes in a step."""
        if cores:
            began = time.thread_time()
            hash_blocks(20)
            self.blocks = round(20 * STEP_SECONDS / (time.thread_time() - began))

    def take_steps(self, seconds: float) -> list[float]:
        """Return the seconds of each step taken in so many seconds."""
        log, taken = EventLog(self.run.events_file), list[float]()
        end, sampled = time.perf_counter() + seconds, 0.0
        while (now := time.perf_counter()) < end:
            self.number += 1
            if self.blocks:  # a step is done when the slowest core is
                list(self.threads.map(hash_blocks, [self.blocks] * self.cores))
            else:
                time.sleep(STEP_SECONDS)
            for event in events_between(self.number - 1, self.number, self.total):
                if not isinstance(event, Gpu):
                    log.append(event)
            if now - sampled > 0.5:
                sampled = now
                log.append(Gpu(index=0, utilisation_percent=98.0, memory_used_gib=64.5, memory_total_gib=139.8,
                               temperature_celsius=61.0, power_watts=688.0))  # fmt: skip
            taken.append(time.perf_counter() - now)
        log.close()
        return taken


def hash_blocks(number: int) -> None:
    """Keep one core busy; the lock of the interpreter is free meanwhile."""
    for _ in range(number):
        hashlib.sha256(BLOCK).digest()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def monitors(run: RunDirectory, number: int) -> Generator[list[Terminal]]:
    """Yield terminals that show the run, once all of them do."""
    terminals = [monitor_of(run) for _ in range(number)]
    try:
        for each in terminals:
            each.wait("running")
        yield terminals
    finally:
        for each in terminals:
            each.close()


def following(run: RunDirectory, steps: int, seconds: float) -> dict[str, Any]:
    """Return which share of one core the monitor and `attach --plain` take while a run takes 20 steps a second."""
    writer = Writer(run, steps + 10**6, read_history(run).step)
    with monitors(run, 1) as (monitor,):
        command = [sys.executable, "-m", "tunewright", "attach", run.id, "--plain"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as lines:
            writer.take_steps(3.0)  # until both are there and at rest
            followers = {"monitor": monitor.process, "attach": psutil.Process(lines.pid)}
            before = {name: cpu_seconds(each) for name, each in followers.items()}
            taken = writer.take_steps(seconds)
            shares = {name: (cpu_seconds(each) - before[name]) / sum(taken) for name, each in followers.items()}
            lines.kill()
    return {
        "steps_per_second_followed": round(len(taken) / sum(taken), 1),
        "monitor_share_of_a_core": round(shares["monitor"], 4),
        "attach_share_of_a_core": round(shares["attach"], 4),
    }


def interference(run: RunDirectory, steps: int, seconds: float, number: int, cores: int) -> dict[str, Any]:
    """Return what followers take of the cores, and how much longer a step on so many cores takes beside them.

    They are held (SIGSTOP) and let go on in turns, and each round with them is compared with the two around it without: the
    load of others drifts. The clock tells all that a step loses, the trainer's processor time what it loses to colder caches.
    """
    writer = Writer(run, steps + 10**6, read_history(run).step, cores)
    rounds: list[tuple[float, float]] = []
    shares: list[float] = []
    with monitors(run, number) as terminals:
        for turn in range(2 * ROUNDS + 1):
            follows = turn % 2 == 1
            for each in terminals:
                each.process.send_signal(signal.SIGCONT if follows else signal.SIGSTOP)
            writer.take_steps(SETTLING_SECONDS)
            before, own = sum(cpu_seconds(each.process) for each in terminals), time.process_time()
            taken = writer.take_steps(seconds * ROUND_SHARE)
            rounds.append((statistics.mean(taken), (time.process_time() - own) / len(taken)))
            if follows:
                after = sum(cpu_seconds(each.process) for each in terminals)
                shares.append((after - before) / sum(taken) / number)
    clock, own = ([each[way] for each in rounds] for way in (0, 1))
    return {
        "cores": cores,
        "followers": number,
        "each_follower_share_of_a_core": round(statistics.mean(shares), 4),
        "steps_per_second_alone": round(1 / statistics.median(clock[::2]), 2),
        "steps_per_second_followed": round(1 / statistics.median(clock[1::2]), 2),
        **slowdown("slower_on_the_clock", clock),
        **slowdown("slower_in_processor_time", own),
    }


def slowdown(what: str, rounds: list[float]) -> dict[str, float]:
    """Return by which share rounds with followers took longer, the mean without the most extreme quarters, and its standard error."""
    found = sorted(2 * rounds[turn] / (rounds[turn - 1] + rounds[turn + 1]) - 1 for turn in range(1, len(rounds), 2))
    middle = found[len(found) // 4 : len(found) - len(found) // 4]
    error = statistics.stdev(found) / len(found) ** 0.5
    return {what: round(statistics.mean(middle), 4), f"{what}_error": round(error, 4)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
