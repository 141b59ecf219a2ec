"""One line about a run, from its files: read again only when one of them has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..engine.runs.directory import RunDirectory, Standing, list_runs, standing
from ..engine.runs.events import Eval, Event, Phase, Status, Step, newest_events, read_events
from ..engine.runs.waiting import Wait, read_wait
from ..foundation.errors import TunewrightError
from ..foundation.files import Stamp, stamp_of
from ..foundation.text import one_line
from .run_state import LIVE

Kind = TypeVar("Kind", bound=Event)

TAIL_BYTES = 64 * 1024
HEAD_BYTES = 256 * 1024
LARGEST_NUMBER = 1e15


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the list of runs shows of one of them."""

    run: RunDirectory
    title: str
    method: str
    standing: Standing
    phase: str
    step: int
    total_steps: int
    loss: float | None
    """The last validation loss; the last training loss before the first one."""
    exact_match_before: float | None
    exact_match_after: float | None
    started: float | None
    wait: Wait | None = None
    """What it waits for, while it is queued."""

    @property
    def progress(self) -> float:
        """The share of the steps that are taken, 0 to 1."""
        return self.step / self.total_steps if self.total_steps else 0.0


@dataclass(frozen=True, slots=True)
class _Known:
    """A summary, and what it was made from."""

    stamps: tuple[Stamp | None, ...]
    standing: Standing
    """How the run stood as its processes tell it; only what goes on can change without its files."""
    summary: RunSummary


class RunShelf:
    """All runs of a folder, summarised; what has not changed since the last look is not read again."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[str, _Known] = {}

    def look(self) -> tuple[RunSummary, ...]:
        """Return the runs as they are now, newest first."""
        summaries: list[RunSummary] = []
        for run in list_runs(self.folder):
            files = (
                run.events_file, run.result_file, run.recipe_file, run.plan_file, run.waiting_file, run.process_file,
            )  # fmt: skip
            stamps = tuple(map(stamp_of, files))
            known = self._known.get(run.id)
            if known is None or known.stamps != stamps or known.standing in LIVE:
                now = standing(run)
                if known is None or known.stamps != stamps or known.standing != now:
                    known = _Known(stamps, now, summarise(run, now, known.summary if known else None))
                    self._known[run.id] = known
            summaries.append(known.summary)
        return tuple(summaries)


def summarise(run: RunDirectory, now: Standing, before: RunSummary | None = None) -> RunSummary:
    """Return the summary of `run`, which stands as `now` says; a damaged run has one too.

    What does not change is taken from the summary `before`.
    """
    title, method = _recipe_words(run)
    tail = newest_events(run.events_file, TAIL_BYTES)
    last_step = _last(tail, Step)
    phase = _last(tail, Phase)
    status = _last(tail, Status)
    loss = next((event.loss for event in reversed(tail) if isinstance(event, Eval) and event.loss is not None), None)
    if now == "running" and status is not None and status.state in ("stopping", "pausing"):
        now = status.state
    if before is not None and before.step > 0:  # what was judged before the first step is known
        started, match = before.started, before.exact_match_before
    else:
        head, _ = read_events(run.events_file, 0, HEAD_BYTES, all_samples=False)
        started = head[0].time if head else None
        match = next(
            (e.exact_match for e in head if isinstance(e, Eval) and e.step == 0 and e.exact_match is not None), None
        )
    after = next(
        (e.exact_match for e in reversed(tail) if isinstance(e, Eval) and e.step > 0 and e.exact_match is not None),
        None,
    )
    result = _result(run)
    return RunSummary(
        run=run,
        title=title,
        method=method,
        standing=now,
        phase=one_line(phase.name, 40) if phase else "",
        step=last_step.step if last_step else int(_number(result.get("step")) or 0),
        total_steps=last_step.total_steps if last_step else int(_number(result.get("total_steps")) or 0),
        loss=loss if loss is not None else last_step.loss if last_step else None,
        exact_match_before=match,
        exact_match_after=after if after is not None else _number(result.get("exact_match_after")),
        started=started,
        wait=read_wait(run) if now == "queued" else None,
    )


def _recipe_words(run: RunDirectory) -> tuple[str, str]:
    try:
        recipe = run.recipe()
    except TunewrightError:
        return one_line(run.id, 80), "—"
    return one_line(recipe.card.title, 80) or one_line(run.id, 80), recipe.method.kind


def _result(run: RunDirectory) -> dict[str, Any]:
    try:
        return run.result() or {}
    except TunewrightError:
        return {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < LARGEST_NUMBER else None


def _last(events: list[Event], kind: type[Kind]) -> Kind | None:
    return next((event for event in reversed(events) if isinstance(event, kind)), None)
