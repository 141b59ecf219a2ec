"""What takes time in the data step: reading, showing rows, auditing and mending, in child processes and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from textual.message import Message
from textual.widget import Widget

from ...foundation.errors import TunewrightError
from ..background import background, deliver, superseded
from ..draft import Draft

if TYPE_CHECKING:
    from ...engine.data.child import DataProcess
    from ...engine.data.preview import Inspection, ShownRow, Want
    from ...engine.data.statistics import FixReport, Progress, Report
    from ...engine.hub.needs import Need
    from ...recipes.model import Data
    from ..data_report import DataReport

Answer = TypeVar("Answer")
ALONE_BYTES = 2**20
"""Up to this size one process is done before more of them have started."""


@dataclass
class Inspected(Message):
    """What the data and the model are that the wizard names at the moment."""

    number: int
    """Which question this answers; older ones than the newest are of no interest."""
    report: DataReport


@dataclass
class Previewed(Message):
    """A row, or None where there is no such one, or why there is none."""

    number: int
    want: Want
    row: ShownRow | None
    problem: TunewrightError | None


@dataclass
class AuditProgressed(Message):
    """How far the audit is."""

    number: int
    progress: Progress

    def can_replace(self, message: Message) -> bool:
        """The newest progress is enough, where several wait."""
        return isinstance(message, AuditProgressed) and message.number == self.number


@dataclass
class Audited(Message):
    """The whole audit, or why there is none."""

    number: int
    report: Report | None
    problem: TunewrightError | None


@dataclass
class Mended(Message):
    """A new file was written."""

    done: FixReport
    target: Path


class Process:
    """A child process that answers one question at a time, whichever thread asks."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: DataProcess | None = None
        self._closed = False

    def ask(self, question: Callable[[DataProcess], Answer], wanted: Callable[[], bool]) -> Answer | None:
        """Return the answer; None when it was no longer `wanted` once its turn came; raises TunewrightError."""
        from ...engine.data.child import DataProcess

        with self._turn:
            if self._closed or not wanted():
                return None
            if self._process is None:
                self._process = DataProcess()
            try:
                return question(self._process)
            except Exception:
                if self._closed:
                    return None  # its process was ended under it
                raise

    def close(self) -> None:
        """End the child, in the middle of its answer if need be."""
        self._closed = True
        if self._process is not None:
            self._process.close()


class DataWork(Widget):
    """Asks two children, one for rows and one for the audit; the answers go up to the step as messages."""

    DEFAULT_CSS = "DataWork { display: none; }"

    def __init__(self) -> None:
        super().__init__()
        self._reader, self._auditor = Process(), Process()
        self._stopped = threading.Event()
        self._asked_row: Callable[[], object] | None = None
        """The newest question for a row, which waits for the answer to the one before."""
        self._showing = False

    def on_unmount(self) -> None:
        self._stopped.set()
        self._reader.close()
        self._auditor.close()

    @background("data")
    def inspect(self, number: int, draft: Draft, known: Inspection | None, delay: float) -> None:
        """Find out what the model and the data of `draft` are; `known` is the inspection where only options changed."""
        time.sleep(delay)
        if superseded():
            return
        report = self._report(draft, known)
        if report is not None:
            deliver(self, Inspected(number, report))

    def _report(self, draft: Draft, known: Inspection | None) -> DataReport | None:
        from ...engine.anatomy import read_anatomy
        from ...engine.sources import find_model
        from ...recipes.model import Data, validate_section
        from ..data_report import DataReport
        from ..proposal import propose_recipe

        report = DataReport(draft.source, draft.model, needs=needs_of(draft))
        try:
            report = replace(report, anatomy=read_anatomy(find_model(draft.model)))
        except TunewrightError as error:
            report = replace(report, model_problem=error)
        try:
            shape = {
                name: draft.data_changes[name] for name in ("format", "columns", "split") if name in draft.data_changes
            }
            if draft.entry is not None and draft.entry.recipe.data.source == draft.source:
                shape = draft.entry.recipe.data.model_dump(include={"format", "columns", "split"}) | shape
            data = validate_section(Data, {"source": draft.source, **shape}, "the data step")
            source = located(draft.source)
            found = known or self._reader.ask(lambda process: process.inspect(source, data), lambda: not superseded())
            if found is None:
                return None
            report = replace(report, inspection=found)
            if report.anatomy is not None:
                draft.report = report
                recipe = propose_recipe(draft).recipe
                judged = [recipe.evaluation.source] if recipe.evaluation.source else []
                return replace(report, data=recipe.data, against=tuple(dict.fromkeys((*judged, *draft.against))))
            data = validate_section(Data, {"source": draft.source, **draft.data_changes}, "the data step")
            return replace(report, data=data, against=draft.against)
        except TunewrightError as error:
            return replace(report, data_problem=error)

    def show_row(self, number: int, report: DataReport, want: Want) -> None:
        """Read and render one row; of several questions that wait only the newest is asked."""
        self._asked_row = lambda: self._show(number, report, want)
        if not self._showing:
            self._next_row()

    def _next_row(self) -> None:
        ask, self._asked_row = self._asked_row, None
        self._showing = ask is not None
        if ask is not None:
            ask()

    @background("row")
    def _show(self, number: int, report: DataReport, want: Want) -> None:
        row: ShownRow | None = None
        problem: TunewrightError | None = None
        try:
            data, model = _data(report), _model(report)
            row = self._reader.ask(
                lambda process: process.preview(located(report.source), data, model, want), lambda: True
            )
        except TunewrightError as error:
            problem = error
        finally:
            self.post_message(Previewed(number, want, row, problem))

    def on_previewed(self, message: Previewed) -> None:
        """Ask what was asked meanwhile."""
        self._next_row()

    def audit(self, number: int, report: DataReport, delay: float) -> None:
        """Audit the whole set, after `delay` seconds in which nothing else was asked."""
        self.stop()
        self._stopped = threading.Event()
        self._audit(number, report, self._stopped, delay)

    def stop(self) -> None:
        """Stop the audit, if one is going on."""
        self._stopped.set()

    @background("audit")
    def _audit(self, number: int, report: DataReport, stopped: threading.Event, delay: float) -> None:
        if stopped.wait(delay):
            return
        from ...engine.data.statistics import AuditRequest

        def tell(progress: Progress) -> None:
            if not stopped.is_set():
                self.post_message(AuditProgressed(number, progress))

        small = report.inspection is not None and report.inspection.total_bytes <= ALONE_BYTES
        against = tuple(map(located, report.against))
        request = AuditRequest(
            located(report.source), _data(report), _model(report), against, workers=0 if small else None
        )
        found: Report | None = None
        problem: TunewrightError | None = None
        try:
            found = self._auditor.ask(
                lambda process: process.audit(request, tell, stopped.is_set), lambda: not stopped.is_set()
            )
        except TunewrightError as error:
            problem = error
        if not stopped.is_set():
            deliver(self, Audited(number, found, problem))

    @background("mending")
    def mend(self, report: DataReport, codes: tuple[str, ...], target: Path) -> None:
        """Write the data to the new file `target` with these findings mended."""
        self.stop()
        data, model = _data(report), _model(report)
        done = self._auditor.ask(
            lambda process: process.fix(located(report.source), data, codes, target, model), lambda: True
        )
        if done is not None:
            deliver(self, Mended(done, target))

    def read_as(self, report: DataReport, changes: dict[str, object]) -> Inspection | None:
        """Return the inspection under other `changes`, for a background method of a dialog; raises TunewrightError."""
        from ...recipes.model import Data, validate_section

        data = validate_section(Data, {"source": report.source, **changes}, "the columns")
        return self._reader.ask(lambda process: process.inspect(located(report.source), data), lambda: not superseded())


def needs_of(draft: Draft) -> tuple[Need, ...]:
    """Return what the fields name on the Hub that is not whole here."""
    from ...engine.hub.needs import Need, missing

    entry = draft.entry.recipe if draft.entry is not None else None
    revision = entry.base.revision if entry is not None and entry.base.model == draft.model else None
    split = entry.data.split if entry is not None and entry.data.source == draft.source else "train"
    split = str(draft.data_changes.get("split", split))
    return missing([Need("model", draft.model, revision), Need("dataset", draft.source, None, split)])


def located(source: str) -> str:
    """Return `source`, or the file of the built-in data that it names."""
    from ...engine.sources import BUILT_IN_DATA

    return str(BUILT_IN_DATA.get(source, source))


def _data(report: DataReport) -> Data:
    assert report.data is not None, "only data that could be inspected is shown and audited"
    return report.data


def _model(report: DataReport) -> str | None:
    """Return the model's folder; None where there is no model, so that the tokens are estimated."""
    from ...engine.sources import find_model

    return str(find_model(report.model)) if report.anatomy is not None else None
