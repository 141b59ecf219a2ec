"""Trying a failed run again: from its last good checkpoint or from the start, with the reason why it had failed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.text import clean, one_line
from .command import commanding
from .directory import RunDirectory, is_live, standing
from .events import EventLog, Notice
from .launch import require_same, start_again
from .terms import Terms

ATTEMPTS = "attempts"
"""The folder for the checkpoints and exports of attempts that were not gone on from."""
REPEATED = frozenset(
    {"Not a number", "fp16 overflows", "The gradient explodes", "The training has diverged", "Nothing is learned"}
)
"""Failures that the recipe and its rows lead to: the same steps meet them again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, in the three parts of every error, and at which step."""

    title: str
    message: str
    remedy: str
    step: int | None

    @property
    def said(self) -> str:
        """The failure in one line."""
        where = f" at step {self.step:,}" if self.step else ""
        return f"It had failed{where}: {self.title}"

    @property
    def advice(self) -> str:
        """What to consider before it is tried again; nothing where another attempt may well go through."""
        if self.title not in REPEATED:
            return ""
        return (
            "The same rows and rates led there, and they are likely to lead there again: "
            "`tunewright clone` makes a run with other values."
        )


@dataclass(frozen=True, slots=True)
class Retrial:
    """What became of trying again."""

    failure: Failure
    step: int
    """From which the run goes on; 0 is the start."""


def why_failed(run: RunDirectory) -> Failure:
    """Return why `run` failed; raises TunewrightError for a run that has not."""
    now = standing(run)
    if now == "lost":
        message = "They ended without a word: the machine went down, or they were killed."
        return Failure("The run's processes are gone", message, "", None)
    if now != "failed":
        raise _not_failed(run, now)
    result = run.result() or {}
    error: Any = result.get("error")
    told = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    title, message, remedy = (clean(str(told.get(name) or ""), 4000) for name in ("title", "message", "remedy"))
    step = result.get("step")
    reason = one_line(str(result.get("reason") or "for a reason that it could not tell"), 200)
    return Failure(one_line(title, 200) or reason, message, remedy, step if isinstance(step, int) else None)


def retry(run: RunDirectory, from_start: bool = False, agreed: bool = False, terms: Terms | None = None) -> Retrial:
    """Try a failed run again and return why it had failed and where it goes on; raises TunewrightError.

    From the start, what it had saved is put aside and kept. It keeps to the terms that it was started with, unless others are given. Where circumstances are not what they were, somebody has to
    have `agreed`: raises OtherCircumstances.
    """
    with commanding(run, "retry"):
        failure = why_failed(run)
        require_same(run, agreed, f"retry {run.id}{' --from-start' if from_start else ''}")
        try:
            if from_start:
                set_aside(run)
        except OSError as error:
            raise explain_os_error(error, run.path, "Putting aside what was saved in") from error
        log = EventLog(run.events_file)
        how = "from its start" if from_start else "from its last good checkpoint"
        log.append(Notice(level="info", title="Tried again", message=f"{failure.said}. It is tried again {how}."))
        log.close()
        return Retrial(failure, start_again(run, terms))


def set_aside(run: RunDirectory) -> None:
    """Move the checkpoints and exports of `run` into a folder of their own, and leave empty ones; raises OSError."""
    place = run.path / ATTEMPTS / time.strftime("%Y%m%d-%H%M%S")
    for folder in (run.checkpoints, run.exports):
        if folder.is_dir() and any(folder.iterdir()):
            place.mkdir(parents=True, exist_ok=True)
            folder.rename(place / folder.name)
        folder.mkdir(exist_ok=True)


def _not_failed(run: RunDirectory, now: str) -> TunewrightError:
    remedies = {
        "finished": f"`tunewright extend {run.id}` adds steps to it, `tunewright clone {run.id}` makes one like it.",
        "stopped": f"`tunewright resume {run.id}` goes on with it.",
        "paused": f"`tunewright resume {run.id}` goes on with it.",
    }
    follow = f"`tunewright attach {run.id}` shows it."
    remedy = follow if is_live(run) else remedies.get(now, follow)
    return TunewrightError("Run has not failed", f"{run.id} is {now}.", remedy)
