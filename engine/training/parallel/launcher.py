"""The launcher of a trainer on several GPUs: torchrun, which ends as the rank ended that failed first.

`python -m tunewright.engine.training.parallel.launcher RUN_DIRECTORY RANKS MODULE [ARGUMENT …]`

A rank asks for nothing but its exit status to be passed on; of several that fail, one after the other because the
first is missing, only the first is told.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ...runs import outcome
from ...runs.directory import RunDirectory
from . import FAILURE, STOP_SIGNAL, TOLD, end_with_parent

THEIRS = (outcome.REFUSED, outcome.STOPPED, outcome.OUT_OF_MEMORY)
"""Exit statuses that a rank ends with of its own accord."""


def main(arguments: list[str]) -> int:
    """Run a module in as many processes as the second argument says, and return or die as they did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("ranks", type=int)
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    run = RunDirectory(options.run)
    for number in range(options.ranks):
        (run.path / FAILURE.format(number)).unlink(missing_ok=True)
    end_with_parent(STOP_SIGNAL)
    signal.signal(STOP_SIGNAL, pass_on)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(
            [
                "--standalone",
                "--local-addr",
                "127.0.0.1",
                "--nproc-per-node",
                str(options.ranks),
                "-m",
                options.module,
                *options.arguments,
            ]
        )
    except ChildFailedError as error:
        return conclude(run, options.ranks, {number: failure.exitcode for number, failure in error.failures.items()})
    finally:
        (run.path / TOLD.format(os.getpid())).unlink(missing_ok=True)
    return outcome.FINISHED


def pass_on(number: int, frame: FrameType | None) -> None:
    """Ask every rank to save and stop; without any yet, end as a trainer does that is stopped before it listens."""
    import psutil

    ranks = psutil.Process().children()
    if not ranks:
        die(signal.SIGTERM)
    for rank in ranks:
        rank.send_signal(STOP_SIGNAL)


def conclude(run: RunDirectory, ranks: int, codes: dict[int, int]) -> int:
    """Return how the rank ended that failed first, after printing what it printed; die as it died."""
    told = {number: failure for number in codes if (failure := read_failure(run, number)) is not None}
    own = [code for code in codes.values() if code in THEIRS]
    died = [-code for code in codes.values() if code < 0 and code != -signal.SIGTERM]
    if own:
        return own[0]
    if died:
        if STOP_SIGNAL in died:  # before it listened
            die(signal.SIGTERM)
        number = next(number for number, code in codes.items() if code == -died[0])
        print(f"Rank {number} of {ranks} died by {signal.Signals(died[0]).name}.", file=sys.stderr, flush=True)
        die(died[0])
    if told:
        number = min(told, key=lambda each: told[each][0])
        print(f"\nRank {number} of {ranks} failed first:\n{told[number][1]}", file=sys.stderr, flush=True)
    return outcome.CRASHED


def read_failure(run: RunDirectory, number: int) -> tuple[float, str] | None:
    """Return when rank `number` failed, and what it said."""
    try:
        moment, _, text = (run.path / FAILURE.format(number)).read_text(encoding="utf-8").partition("\n")
        return float(moment), text.strip()
    except (OSError, ValueError):
        return None


def die(number: int) -> Any:
    """End this process by a signal, as the rank ended: the supervisor sees one trainer."""
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable: the signal ends this process")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
