"""Within a Slurm job: the command that follows a run passes the job's signals on to it, for the run lives and ends with the job."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from ..engine.runs.directory import RunDirectory, is_live


def pass_signals_on(run: RunDirectory) -> None:
    """Have TERM and USR1 that reach this process save and stop `run` as interrupted, where this is part of a Slurm job.

    Elsewhere the command that follows a run is only a look at it, and its end changes nothing for the run.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        processes = run.processes()
        if processes is not None and is_live(run):
            with contextlib.suppress(ProcessLookupError):  # it ended this moment
                os.kill(processes.supervisor.pid, number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
