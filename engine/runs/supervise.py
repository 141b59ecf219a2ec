"""The supervisor: one small process a run, without torch, that outlives the terminal and looks after the trainer.

`python -m tunewright.engine.runs.supervise RUN_DIRECTORY`
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO

from ...foundation.files import write_atomically
from ...foundation.home import home
from ...foundation.text import clean
from ..plan import Plan
from . import outcome
from .checkpoint import newest_good, sweep
from .directory import Processes, ProcessIdentity, RunDirectory, boot_id, hold_reserve, release_reserve
from .events import EventLog, Notice, State, Status, read_events
from .history import History
from .ladder import ladder

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Supervisor:
    """Runs the trainer of one run until it has finished, stopped or failed."""

    def __init__(self, run: RunDirectory, detached_by: str) -> None:
        self.run = run
        self.detached_by = detached_by
        self.log = EventLog(run.events_file)
        self.trainer: subprocess.Popen[bytes] | None = None
        self.stop_asked = False
        self.started = time.time()

    def supervise(self) -> int:
        """Train to the end, and write `result.json` last; returns the exit status."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._write_processes(None)
        sweep(self.run.checkpoints)
        hold_reserve(self.run)
        rungs = ladder(self.run.plan())
        rung = 0
        while True:
            code = self._train(rungs[rung].plan, rung)
            if code == outcome.OUT_OF_MEMORY and rung + 1 < len(rungs) and not self.stop_asked:
                rung += 1
                self.log.append(
                    Notice(
                        level="warning",
                        title="Out of memory",
                        message=f"Going on from the last checkpoint with {rungs[rung].change}; the global batch stays the same.",
                    )
                )
                continue
            return self._conclude(code)

    def _train(self, plan: Plan, rung: int) -> int:
        """Run the trainer once, from the newest good checkpoint, and return how it ended."""
        checkpoint, faults = newest_good(self.run.checkpoints)
        for fault in faults:
            self.log.append(
                Notice(
                    level="warning",
                    title="Checkpoint damaged",
                    message=f"{fault}. The one before it is used.",
                    remedy="Check the disk.",
                )
            )
        command = [sys.executable, "-m", "tunewright.engine.training.trainer", str(self.run.path)]
        command += ["--rung", str(rung)]
        if checkpoint is not None:
            command += ["--checkpoint", str(checkpoint.path)]
        self.log.append(Status(state="running", reason=f"from step {checkpoint.step}" if checkpoint else ""))
        with self.run.console_file.open("ab") as console:
            self.trainer = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=trainer_environment(plan)
            )
        self._write_processes(ProcessIdentity.of(self.trainer.pid))
        if self.stop_asked:  # asked for between two trainers
            self.trainer.send_signal(signal.SIGTERM)
        return self.trainer.wait()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Have the trainer save at its next step and stop."""
        if not self.stop_asked:
            self.stop_asked = True
            self.log.append(Status(state="stopping", reason=signal.Signals(number).name))
        if self.trainer is not None and self.trainer.returncode is None:
            self.trainer.send_signal(signal.SIGTERM)

    def _write_processes(self, trainer: ProcessIdentity | None) -> None:
        own = ProcessIdentity.of(os.getpid())
        assert own is not None, "this process is alive"
        processes = Processes(socket.gethostname(), boot_id(), own, trainer, self.detached_by)
        write_atomically(self.run.process_file, processes.to_json())

    def _conclude(self, code: int) -> int:
        """Say how the run ended: a last event, then the result."""
        release_reserve(self.run)
        sweep(self.run.checkpoints)
        history = read_history(self.run)
        state: State
        error: Notice | None = None
        match code:
            case outcome.FINISHED:
                state, reason = "finished", "all steps were taken"
            case outcome.STOPPED:
                state, reason = "stopped", "on request, after a save"
            case outcome.REFUSED:
                error = next((notice for notice in reversed(history.notices) if notice.level == "error"), None)
                state, reason = "failed", error.title if error else "refused"
            case _:
                error = self._explain(code)
                state, reason = "failed", error.title
                self.log.append(error)
        self.log.append(Status(state=state, reason=reason))
        plan = self.run.plan()
        result = {
            "state": state,
            "reason": reason,
            "exit_code": code if code >= 0 else None,
            "signal": signal.Signals(-code).name if code < 0 else None,
            "started": history.started or self.started,
            "ended": time.time(),
            "step": history.step,
            "total_steps": plan.total_steps,
            "predicted": asdict(plan.prediction) if plan.prediction else None,
            "measured": history.measured,
            "exact_match_before": history.exact_match_before,
            "exact_match_after": history.exact_match_after,
            "error": None
            if error is None
            else {"title": error.title, "message": error.message, "remedy": error.remedy},
        }
        write_atomically(self.run.result_file, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        return 0 if state in ("finished", "stopped") else 1

    def _explain(self, code: int) -> Notice:
        """Tell an unexpected end in words, with the last lines that the trainer printed."""
        if code == outcome.OUT_OF_MEMORY:
            return Notice(
                level="error",
                title="Out of memory",
                message="Even one row at a time does not fit.",
                remedy="Use QLoRA, a shorter max_length, or a GPU with more memory; `tunewright plan` compares them.",
            )
        if code == -signal.SIGKILL:
            return Notice(
                level="error",
                title="The trainer was killed",
                message="It got SIGKILL: by a person, or by the system when memory ran out.",
                remedy=f"`tunewright resume {self.run.id}` goes on from the last checkpoint; `dmesg` may say who killed it.",
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        tail = clean("\n".join(self.run.console_tail(12).splitlines()), 2000)
        return Notice(
            level="error",
            title="The trainer failed",
            message=f"It ended with {how}. Its last lines:\n{tail}",
            remedy=f"{self.run.console_file} holds all it printed; `tunewright resume {self.run.id}` tries again.",
        )


def trainer_environment(plan: Plan) -> dict[str, str]:
    """Return the environment of the trainer: ours, with what the plan fixes.

    It sees the GPUs of its plan alone, which NVML and, in this order, CUDA count alike.
    """
    return {
        **os.environ,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, plan.gpu_indices)) if plan.device == "cuda" else "",
        "OMP_NUM_THREADS": str(plan.threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve each other on a busy machine
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(home() / "unsloth_compiled"),
        "PYTHONUNBUFFERED": "1",
    }


def read_history(run: RunDirectory) -> History:
    """Return the fold of all events that `run` has written so far."""
    history, offset = History(), 0
    while True:
        events, onward = read_events(run.events_file, offset)
        if onward == offset:
            return history
        history.add(events)
        offset = onward


def lock(run: RunDirectory) -> IO[str] | None:
    """Return the run's lock, held as long as the file is open; None when another supervisor holds it."""
    file = (run.path / "lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def main(arguments: list[str]) -> int:
    """Supervise the run whose directory is the first argument."""
    run = RunDirectory(Path(arguments[0]).absolute())
    held = lock(run)
    if held is None:
        return 0  # another supervisor looks after this run already
    return Supervisor(run, detached_by=arguments[1] if len(arguments) > 1 else "by hand").supervise()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
