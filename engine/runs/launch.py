"""Starting, stopping, pausing and resuming runs, from whichever terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ...foundation.errors import TunewrightError, explain_os_error
from ...recipes.model import Recipe
from ..hub.needs import require_here
from ..plan import Plan
from .checkpoint import newest_good
from .circumstances import OtherCircumstances, differences, remember
from .command import PAUSE_SIGNAL, STOP_SIGNAL, asked_to, commanding, signal_supervisor
from .directory import RunDirectory, create_run, is_live, list_runs, standing
from .events import EventLog, Measured, Notice
from .lineage import Lineage, write_lineage
from .lost import note_loss, tell_of_loss
from .pinned import commits_of, pin
from .queue import shared_folder, to_front
from .terms import Terms, read_terms, write_terms
from .unit import OWN_UNITS

START_SECONDS = 20.0
"""How long a supervisor may take to say that it is there."""


def launch(
    recipe: Recipe,
    plan: Plan,
    name: str,
    planning_seconds: float | None = None,
    terms: Terms | None = None,
    lineage: Lineage | None = None,
) -> RunDirectory:
    """Make a new run called after `name` and start its supervisor, at once or as its `terms` say; raises TunewrightError.

    What its user waited for the plan, `planning_seconds`, is kept with what else goes before the first step. What the
    recipe names on the Hub has to be here whole: a run neither waits for the network nor asks. `lineage` names the run that
    it was made from.
    """
    require_here(recipe)
    require_queue(terms)
    run = create_run(recipe, plan, name)
    parent = RunDirectory(run.path.with_name(lineage.parent)) if lineage else None
    pin(run, recipe, commits_of(parent) if parent else None)
    if lineage:
        write_lineage(run, lineage)
        log = EventLog(run.events_file)
        log.append(Notice(level="info", title="Made from another run", message=f"It was {lineage.said}."))
        log.close()
    remember(run)
    if terms is not None:
        write_terms(run, terms)
    if planning_seconds is not None:
        log = EventLog(run.events_file)
        log.append(Measured(values={"seconds_planning": planning_seconds}))
        log.close()
    start(run)
    return run


def require_queue(terms: Terms | None) -> None:
    """Raise TunewrightError where a run is to wait, and there is no folder to keep its place in."""
    if terms is not None and terms.waits:
        shared_folder()


def start(run: RunDirectory) -> None:
    """Start a supervisor for `run`, free of this terminal; raises TunewrightError when it does not come up."""
    before = run.processes()
    command = [sys.executable, "-m", "tunewright.engine.runs.supervise", str(run.path)]
    prefix, detached_by = _detaching(run)
    with run.console_file.open("ab") as console:
        child = subprocess.Popen(
            [*prefix, *command, detached_by],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            close_fds=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while run.processes() == before:
        if child.poll() not in (None, 0) or time.monotonic() > deadline:
            raise TunewrightError(
                "The run did not start",
                f"Its supervisor did not come up:\n{run.console_tail(8)}",
                f"{run.console_file} holds all it printed.",
            )
        time.sleep(0.02)


def stop(run: RunDirectory) -> None:
    """Ask `run` to save at its next step and stop; raises TunewrightError when nobody is working on it."""
    _ask(run, "stop", STOP_SIGNAL)


def pause(run: RunDirectory) -> None:
    """Ask `run` to save at its next step and give its memory back until it is resumed; raises TunewrightError.

    Its processes end, for what only sleeps keeps its GPU's memory. Unlike a stopped run it is listed as one that its
    user means to go on with, and unlike an interrupted one it goes on only when they say so.
    """
    _ask(run, "pause", PAUSE_SIGNAL)


def _ask(run: RunDirectory, doing: str, number: signal.Signals) -> None:
    with commanding(run, doing):
        if not is_live(run) or run.processes() is None:
            raise TunewrightError(
                "Run not running", f"{run.id} is {standing(run)}.", f"`tunewright attach {run.id}` shows how it ended."
            )
        already = asked_to(run)
        if already == "stopping" or (already and doing == "pause"):
            raise TunewrightError(
                f"Run is {already} already",
                f"{run.id} saves at its next step.",
                f"`tunewright attach {run.id}` shows when it has.",
            )
        signal_supervisor(run, number)


def resume(run: RunDirectory, agreed: bool = False, terms: Terms | None = None, unattended: bool = False) -> int:
    """Go on with `run` from its newest good checkpoint, and return that step (0: from the start); raises TunewrightError.

    It keeps to the terms that it was started with, unless others are given. Of a lost run that goes on `unattended`, its people are
    called. Where its circumstances are not what they were, somebody has to have `agreed`: raises OtherCircumstances.
    """
    with commanding(run, "resume"):
        require_resumable(run)
        require_same(run, agreed)
        return start_again(run, terms, unattended and standing(run) == "lost")


def require_resumable(run: RunDirectory) -> None:
    """Refuse a run that is going on, that is done, or whose files cannot be read here; raises TunewrightError."""
    now = standing(run)
    if now in ("damaged", "elsewhere"):
        raise TunewrightError(
            "Run cannot be resumed here",
            f"{run.id} is {now}.",
            "Its recipe may be started anew: `tunewright train RECIPE`."
            if now == "damaged"
            else "Resume it on the machine that started it.",
        )
    if is_live(run):
        raise TunewrightError("Run is running", f"{run.id} is {now}.", f"`tunewright attach {run.id}` follows it.")
    if now == "finished":
        raise TunewrightError(
            "Run is finished", f"{run.id} has taken all its steps.", "Start a new one from its recipe."
        )


def require_same(run: RunDirectory, agreed: bool, command: str = "") -> None:
    """Refuse to go on under other circumstances that nobody has `agreed` to: raises OtherCircumstances, which names the `command`."""
    for read in (run.recipe, run.plan):  # a supervisor could not tell that they cannot be read
        read()
    if changed := differences(run):
        if not agreed:
            raise OtherCircumstances(run, changed, command)
        log = EventLog(run.events_file)
        told = "; ".join(map(str, changed))
        log.append(
            Notice(level="warning", title="Going on under other circumstances", message=f"{told}. That was agreed to.")
        )
        log.close()
        remember(run)


def start_again(run: RunDirectory, terms: Terms | None = None, tell_loss: bool = False) -> int:
    """Start a supervisor for a run that has ended, and return the step that it goes on from; raises TunewrightError.

    The supervisor reads the checkpoint through once more: it may begin hours later, when the run's turn has come, and what
    is told here has to be a step whose bytes are whole. It also hands over what is told of the run's loss.
    """
    require_queue(terms)
    checkpoint, _ = newest_good(run.checkpoints)
    if tell_loss:
        note_loss(run, f"It goes on by itself, from {f'step {checkpoint.step:,}' if checkpoint else 'its start'}.")
    if terms is not None:
        write_terms(run, terms)
    if run.result_file.exists():
        run.result_file.rename(run.path / f"result-{time.strftime('%Y%m%d-%H%M%S')}.json")
    start(run)
    return checkpoint.step if checkpoint else 0


def begin_now(run: RunDirectory) -> None:
    """Let a waiting run begin as things are, at its next look; raises TunewrightError when it does not wait."""
    with commanding(run, "begin"):
        if (now := standing(run)) != "queued":
            raise TunewrightError("Run does not wait", f"{run.id} is {now}.", "`tunewright queue` lists what waits.")
        write_terms(run, replace(read_terms(run), queue=False, wait_for_memory=False))


def bring_forward(run: RunDirectory) -> None:
    """Give a waiting run the first place that its user has in the queue; raises TunewrightError."""
    with commanding(run, "move"):
        to_front(run.id)


@dataclass(frozen=True, slots=True)
class Resumption:
    """What became of an interrupted run."""

    run: RunDirectory
    step: int | None
    """From which it goes on; None where it could not."""
    error: TunewrightError | None = None


def resume_interrupted(folder: Path | None = None) -> list[Resumption]:
    """Go on with every run of this machine that nobody meant to end, oldest first, and return what became of each.

    These are runs whose processes are gone without a word, and runs that saved and stopped because a signal came from
    outside. Runs of other users are left alone, and so is what would go on under other circumstances.
    """
    found: list[Resumption] = []
    for run in reversed(list_runs(folder)):
        if not was_interrupted(run):
            continue
        try:
            found.append(Resumption(run, resume(run, unattended=True)))
        except TunewrightError as error:
            found.append(Resumption(run, None, error))
        except OSError as error:
            found.append(Resumption(run, None, explain_os_error(error, run.path, "Resuming")))
    for each in found:
        if each.error is not None:
            _tell_that_it_stays(each.run, each.error)
    return found


def _tell_that_it_stays(run: RunDirectory, error: TunewrightError) -> None:
    """Call the people of a lost run that does not go on by itself; one that somebody commands meanwhile is theirs."""
    alert = None
    with contextlib.suppress(TunewrightError, OSError), commanding(run, "tell of"):
        if standing(run) == "lost":
            alert = note_loss(run, f"It does not go on by itself: {error.title}. {error.remedy}")
    if alert is not None:
        tell_of_loss(run, alert)


def was_interrupted(run: RunDirectory) -> bool:
    """Tell whether a run of this user's ended though neither its work was done nor anybody asked for it."""
    try:
        if run.path.stat().st_uid != os.getuid():
            return False
        now = standing(run)
        return now == "lost" or (now == "stopped" and bool((run.result() or {}).get("interrupted")))
    except (OSError, TunewrightError):
        return False


def _detaching(run: RunDirectory) -> tuple[list[str], str]:
    """Return the command that sets a supervisor free of this login, and how, in words.

    A new session survives a closed terminal. Where systemd ends all of a user's processes at logout, only a unit
    of the user's own manager survives that.
    """
    if "SLURM_JOB_ID" in os.environ:
        return [], "a new session within the Slurm job, with which it ends"
    survives = "a new session; it survives closing the terminal and logging out"
    kills = _logout_kills()
    if not kills and OWN_UNITS not in os.environ:
        return [], survives
    manager = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")) / "systemd" / "private"
    if not (shutil.which("systemd-run") and manager.exists()):
        if not kills:
            return [], survives
        return [], "a new session; this machine ends a user's processes at logout, so stay logged in"
    unit = f"tunewright-{run.id}"
    settings = [f"--setenv={name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ]
    output = f"append:{run.console_file}"
    prefix = ["systemd-run", "--user", "--collect", "--quiet", f"--unit={unit}", *settings]
    # The supervisor goes on when the kernel ends the trainer, and is the one that is asked to save and stop.
    prefix += ["--property=OOMPolicy=continue", "--property=KillMode=mixed"]
    prefix += [f"--property=StandardOutput={output}", f"--property=StandardError={output}", "--"]
    lingering = Path("/var/lib/systemd/linger", os.environ.get("USER", "")).is_file()
    survival = (
        "it survives logging out" if lingering else "run `loginctl enable-linger` so that it survives logging out"
    )
    return prefix, f"systemd-run --user; {survival}"


_PASSED_ON = (
    "PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "TUNEWRIGHT_HOME",
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TUNEWRIGHT_QUEUE",
)  # fmt: skip


def _logout_kills() -> bool:
    """Tell whether systemd-logind ends a user's processes at logout (KillUserProcesses)."""
    busctl = shutil.which("busctl")
    if busctl is None or not Path("/run/systemd/system").exists():
        return False
    try:
        answer = subprocess.run(
            [busctl, "get-property", "org.freedesktop.login1", "/org/freedesktop/login1",
             "org.freedesktop.login1.Manager", "KillUserProcesses"],
            capture_output=True, text=True, timeout=2, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == "b true"
