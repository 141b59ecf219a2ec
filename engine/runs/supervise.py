"""The supervisor: one small process a run, without torch, that outlives the terminal and looks after the trainer.

`python -m tunewright.engine.runs.supervise RUN_DIRECTORY`
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO

from ...foundation.errors import EXIT_CODE, TunewrightError, explain_os_error
from ...foundation.files import write_atomically
from ...foundation.home import home
from ...foundation.text import clean
from ..plan import Plan
from ..remedies import smaller_recipes
from . import outcome
from .checkpoint import newest_good, sweep
from .command import PAUSE_SIGNAL, STOP_SIGNAL
from .console import Console
from .directory import InsistentLog, Processes, ProcessIdentity, RunDirectory, boot_id, hold_reserve, release_reserve
from .events import Notice, State, Status
from .fold import Fold, read_history
from .history import History
from .ladder import AFTER_TRAINING, BEFORE_TRAINING, Rung, ladder, next_rung, remember_rung, remembered_rung
from .preemption import CLOUDS, Warned, Watch, find_cloud
from .queue import Place
from .shortage import KILLED, Shortage, kernel_kills, take_shortage
from .telling import Teller
from .terms import Terms, give_way, read_terms
from .waiting import Patience, needed_gib

SHOWN_CHANGES = 3
LOOK_SECONDS = 5.0
"""Between two looks at the run's own files."""
GIVE_UP_SECONDS = 60.0
"""How long the trainer may take to save and end when its supervisor cannot go on."""
SEVERAL_GPUS = {
    # NVLink's multicast needs rights over the switch that shared machines withhold: a program that tries it there can
    # hang, or take the GPUs out of service. Rings over the same links cost little more.
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
    # All processes are on this host: they find each other whatever its name resolves to, and nobody else does.
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, STOP_SIGNAL, PAUSE_SIGNAL)
"""INT is how people stop a run, TSTP how they pause it; TERM and USR1 come when a machine goes down, or a queue wants its place.

HUP, which a closed terminal sends, is none of them: a run has nothing to do with its terminal.
"""


class Supervisor:
    """Runs the trainer of one run until it has finished, stopped or failed."""

    def __init__(self, run: RunDirectory, detached_by: str) -> None:
        self.run = run
        self.detached_by = detached_by
        self.log = InsistentLog(run)
        self.trainer: subprocess.Popen[bytes] | None = None
        self.console: Console | None = None
        """What takes down the trainer's words, while there is one."""
        self.over = threading.Event()
        self.stopped_by: signal.Signals | None = None
        """The signal that asked for a stop: the first one, but for a stop that follows a pause."""
        self.shortage = Shortage("")
        """What the last trainer ran out of."""
        self.cut_short = False
        """Whether memory ran out before a stop that was asked for could be saved."""
        self.teller: Teller | None = None
        """Tells people what they want to be called for."""
        self.done_afresh = False
        """Whether what follows the training has had a process of its own."""
        self.started = time.time()
        self.place: Place | None = None
        """The run's ticket among those of all users of the machine."""

    def supervise(self) -> int:
        """Train to the end, and write `result.json` last; returns the exit status."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._write_processes(None)
        threading.Thread(target=self._look_after_files, name="files", daemon=True).start()
        sweep(self.run.checkpoints)
        hold_reserve(self.run)
        self.teller = Teller(self.run, self.log, self.run.plan().total_steps)
        self.teller.start()
        terms = read_terms(self.run)
        self._give_way(terms)
        self._watch_preemption(terms)
        try:
            begins = self._take_place(terms)
        except TunewrightError as error:
            self.log.append(Notice(level="error", title=error.title, message=error.message, remedy=error.remedy))
            return self._conclude(outcome.REFUSED)
        try:
            return self._train_to_the_end() if begins else self._conclude(outcome.STOPPED)
        finally:
            if self.place is not None:
                self.place.leave()

    def _give_way(self, terms: Terms) -> None:
        """Let the run give way to others as far as its terms say, and tell it."""
        if terms.nice:
            give_way(terms.nice)
            message = f"The run gives way to other programs, on the processor by nice {terms.nice} and on the disk."
            self.log.append(Notice(level="info", title="Gives way to others", message=message))

    def _watch_preemption(self, terms: Terms) -> None:
        """Listen for the cloud's warning that it takes this machine back, where it evidently is one's or that is asked for."""
        cloud = find_cloud()
        if cloud is None and not terms.watch_preemption:
            return
        Watch((cloud,) if cloud else CLOUDS, self._save_before_preemption).start()

    def _save_before_preemption(self, warned: Warned) -> None:
        """Tell the warning, and stop as after TERM; called from another thread."""
        self.log.append(
            Notice(
                level="warning",
                title="The machine is about to be taken back",
                message=f"{warned.cloud} says: {warned.said}. The run saves at its next step and stops.",
                remedy=f"`tunewright runs --resume-interrupted` goes on with it, or `tunewright resume {self.run.id}`.",
            )
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def _take_place(self, terms: Terms) -> bool:
        """Wait for the run's turn and memory where its terms say so, and say on a ticket what it holds; False when stopped.

        A run that does not wait goes on without a ticket where none can be had. Raises TunewrightError.
        """
        plan = self.run.plan()
        self.run.waiting_file.unlink(missing_ok=True)  # an earlier supervisor may have been killed while it waited
        if not terms.waits:
            with contextlib.suppress(TunewrightError, OSError):
                self.place = Place(self.run, plan, needed_gib(plan), "running")
            return True
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        try:
            patience = Patience(self.run, plan, terms, self.log)
            self.place = patience.place
            return patience.wait(lambda: self.stopped_by is not None, woken)
        finally:
            signal.set_wakeup_fd(-1)
            os.close(woken)
            os.close(waker)

    def _train_to_the_end(self) -> int:
        """Train, down the memory ladder where that is needed; returns the exit status."""
        rungs = ladder(self.run.plan())
        rung = remembered_rung(self.run, rungs)
        if rung:
            message = f"Memory ran out before, so the run goes on with {rungs[rung].change}."
            self.log.append(Notice(level="info", title="In less memory", message=message))
        while True:
            kills = kernel_kills()
            code = self._train(rungs[rung].plan, rung)
            self.shortage = take_shortage(self.run)
            if code in (-signal.SIGKILL, outcome.CRASHED) and kernel_kills() > kills:
                code, self.shortage = outcome.OUT_OF_MEMORY, KILLED
            onward = self._step_down(rungs, rung) if code == outcome.OUT_OF_MEMORY else None
            if onward is None:
                return self._conclude(code)
            if self.stopped_by:
                self.cut_short = True
                return self._conclude(outcome.STOPPED)
            rung = onward

    def _step_down(self, rungs: Sequence[Rung], rung: int) -> int | None:
        """Return the rung to go on with after memory ran out, told and remembered; None when nothing is left to try."""
        history = read_history(self.run)
        phase = history.phase.name if history.phase else "starting"
        checkpoint, _ = newest_good(self.run.checkpoints)
        begin = f"from step {checkpoint.step}" if checkpoint else "from the start"
        if phase in AFTER_TRAINING and not self.done_afresh:
            self.done_afresh = True
            onward, how = rung, "in a new process, which holds nothing of the training any more"
        else:
            number = next_rung(rungs, rung, phase, self.shortage.killed)
            if number is None:
                return None
            remember_rung(self.run, number)
            onward, how = number, " and ".join(rungs[each].change for each in range(rung + 1, number + 1))
            how = f"with {how}. {rungs[number].cost}; the global batch and the result stay the same"
        message = f"{shortage_told(history, self.shortage)} The run goes on {begin} {how}."
        self.log.append(Notice(level="warning", title="Out of memory", message=message))
        return onward

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
        command = [*trainer_command("trainer", self.run, plan), "--rung", str(rung)]
        if checkpoint is not None:
            command += ["--checkpoint", str(checkpoint.path)]
        self.log.append(Status(state="running", reason=f"from step {checkpoint.step}" if checkpoint else ""))
        self.console = console = Console(self.run.console_file)
        self.trainer = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console.printing,
            stderr=console.printing,
            env=trainer_environment(plan),
        )
        console.given()
        self._write_processes(ProcessIdentity.of(self.trainer.pid))
        if self.stopped_by:  # asked for between two trainers
            self.trainer.send_signal(stop_signal(plan))
        code = self.trainer.wait()
        self.console = None
        console.drain()
        return code

    def _look_after_files(self) -> None:
        """Keep what the events add up to, and whoever takes down what is printed, until the run is over."""
        fold = Fold(self.run)
        while not self.over.wait(LOOK_SECONDS):
            while fold.advance():
                pass
            fold.keep()
            if (console := self.console) is not None:
                console.look_after()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Have the trainer save at its next step and stop."""
        asked = signal.Signals(number)
        if self.stopped_by is None or (self.stopped_by, asked) == (PAUSE_SIGNAL, STOP_SIGNAL):
            self.stopped_by = asked
            self.log.append(Status(state="pausing" if asked == PAUSE_SIGNAL else "stopping", reason=asked.name))
        if self.trainer is not None and self.trainer.returncode is None:
            self.trainer.send_signal(stop_signal(self.run.plan()))

    def _write_processes(self, trainer: ProcessIdentity | None) -> None:
        own = ProcessIdentity.of(os.getpid())
        assert own is not None, "this process is alive"
        processes = Processes(socket.gethostname(), boot_id(), own, trainer, self.detached_by)
        write_atomically(self.run.process_file, processes.to_json())

    def give_up(self, error: TunewrightError) -> int:
        """End the trainer, if there is one, and have the run end as failed: its supervisor cannot go on; returns the exit status."""
        if self.trainer is not None and self.trainer.poll() is None:
            self.trainer.send_signal(stop_signal(self.run.plan()))
            try:
                self.trainer.wait(GIVE_UP_SECONDS)
            except subprocess.TimeoutExpired:
                self.trainer.kill()
                self.trainer.wait()
        release_reserve(self.run)
        self.log.append(Notice(level="error", title=error.title, message=error.message, remedy=error.remedy))
        try:
            self._conclude(outcome.REFUSED)
        except (TunewrightError, OSError) as another:  # the run's files take nothing at all
            print(another, file=sys.stderr)
        return EXIT_CODE

    def _conclude(self, code: int) -> int:
        """Say how the run ended: a last event, then the result."""
        self.over.set()
        release_reserve(self.run)
        sweep(self.run.checkpoints)
        history = read_history(self.run)
        state: State
        error: Notice | None = None
        match code:
            case outcome.FINISHED:
                state, reason = "finished", history.ending.reason if history.ending else "all steps were taken"
            case outcome.STOPPED:
                saved = "when memory ran out; what was saved before is there" if self.cut_short else "after a save"
                saved = saved if self.trainer else "while it waited to begin"
                state, reason = self._stopped_state, f"{self._stopped_how()}, {saved}"
            case outcome.REFUSED:
                error = next((notice for notice in reversed(history.notices) if notice.level == "error"), None)
                state, reason = "failed", error.title if error else "refused"
            case _ if self.stopped_by and code == -signal.SIGTERM:
                state, reason = self._stopped_state, f"{self._stopped_how()}, before there was anything to save"
            case _:
                error = self._explain(code)
                state, reason = "failed", error.title
                self.log.append(error)
        self.log.append(Status(state=state, reason=reason))
        if self.teller is not None:
            self.teller.conclude()
        plan = self.run.plan()
        result = {
            "state": state,
            "reason": reason,
            "exit_code": code if code >= 0 else None,
            "signal": signal.Signals(-code).name if code < 0 else None,
            "interrupted": state == "stopped" and self.stopped_by != STOP_SIGNAL,
            "started": history.started or self.started,
            "ended": time.time(),
            "step": history.step,
            "total_steps": plan.total_steps,
            "weights_step": history.ending.weights_step if history.ending and state == "finished" else None,
            "predicted": asdict(plan.prediction) if plan.prediction else None,
            "measured": history.measured,
            "exact_match_before": history.exact_match_before,
            "exact_match_after": history.exact_match_after,
            "error": None
            if error is None
            else {"title": error.title, "message": error.message, "remedy": error.remedy},
        }
        write_atomically(self.run.result_file, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        return 1 if state == "failed" else 0

    @property
    def _stopped_state(self) -> State:
        return "paused" if self.stopped_by == PAUSE_SIGNAL else "stopped"

    def _stopped_how(self) -> str:
        return (
            "on request"
            if self.stopped_by in (None, STOP_SIGNAL, PAUSE_SIGNAL)
            else f"by {self.stopped_by.name} from outside"
        )

    def _explain_shortage(self) -> Notice:
        """Tell where memory ran out for good, and what would help."""
        history = read_history(self.run)
        phase = history.phase.name if history.phase else "starting"
        if phase in BEFORE_TRAINING:
            why = "Nothing is trained yet, so that smaller batches would not help: this much is needed for the model alone."
        elif phase in AFTER_TRAINING:
            why = f"All steps are taken, and what was tuned is in {self.run.exports}."
        else:
            why = "Everything that saves memory without changing the result is in use."
        changes = [said for said, _ in smaller_recipes(self.run.recipe())][:SHOWN_CHANGES]
        remedy = f"Another program may hold memory: `tunewright doctor` shows what is free; then `tunewright resume {self.run.id}` goes on."
        if phase == "exporting":
            remedy = f"`tunewright export {self.run.id}` merges it where there is more memory."
        elif changes:
            remedy += f" A new run needs less with {', or '.join(changes)}; `tunewright plan` shows how much."
        return Notice(
            level="error",
            title="Out of memory",
            message=f"{shortage_told(history, self.shortage)} {why}",
            remedy=remedy,
        )

    def _explain(self, code: int) -> Notice:
        """Tell an unexpected end in words, with the last lines that the trainer printed."""
        if code == outcome.OUT_OF_MEMORY:
            return self._explain_shortage()
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


def shortage_told(history: History, shortage: Shortage) -> str:
    """Say in which phase memory ran out, at which step, and in the words of who could not have it."""
    phase = history.phase.name if history.phase else "starting"
    if phase in ("training", "compiling"):
        where = f"in step {history.step + 1}"
    elif phase in ("evaluating", "saving"):
        where = f"while {phase} after step {history.step}"
    else:
        where = f"while {phase}"
    return f"Memory ran out {where}: {shortage.message}" if shortage.message else f"Memory ran out {where}."


def trainer_command(module: str, run: RunDirectory, plan: Plan) -> list[str]:
    """Return the command that runs a module of `engine.training` over `run`: by itself, or a process for each GPU."""
    training = "tunewright.engine.training"
    several = [f"{training}.parallel.launcher", str(run.path), str(plan.gpus)] if plan.gpus > 1 else []
    return [sys.executable, "-m", *several, f"{training}.{module}", str(run.path)]


def stop_signal(plan: Plan) -> signal.Signals:
    """Return what asks the trainer to save and stop; torchrun takes TERM as the wish to end its ranks at once."""
    return signal.SIGUSR1 if plan.gpus > 1 else signal.SIGTERM


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
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(home() / "cache" / "compiled")),
        # The same sums twice: no compiled reduction is chosen by a stopwatch, and cuBLAS keeps to its workspaces.
        "TORCHINDUCTOR_DETERMINISTIC": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        "PYTHONUNBUFFERED": "1",
        **(SEVERAL_GPUS if plan.gpus > 1 else {}),
    }


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
    supervisor = Supervisor(run, detached_by=arguments[1] if len(arguments) > 1 else "by hand")
    try:
        code = supervisor.supervise()
    except (TunewrightError, OSError) as error:  # whoever starts the run shows what is printed last
        told = explain_os_error(error, run.path, "Writing") if isinstance(error, OSError) else error
        print(told, file=sys.stderr)
        code = supervisor.give_up(told)
    from .recording import record_at_the_end  # which reads histories by this module

    record_at_the_end(run)
    held.close()  # the run has ended, and may be taken up by another while people are told of it
    if supervisor.teller is not None:
        supervisor.teller.last_words()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
