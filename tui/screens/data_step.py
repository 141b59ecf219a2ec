"""The third step: the model to start from and the data, read as one types, with the tokens that are trained marked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ..background import background, deliver, superseded
from ..draft import STARTER_DATA, STARTER_MODEL, Draft
from ..figures import count, plural, share
from ..widgets.field import Field
from ..widgets.pane import Pane, ScrollPane
from ..widgets.path_field import PathSuggester
from .step import Step, StepChanged

if TYPE_CHECKING:
    from ..data_report import DataReport, ShownRow

TYPING_SECONDS = 0.15
"""Nothing is read before one has stopped typing for this long."""
SHOWN_FAULTS = 6


@dataclass
class DataReported(Message):
    """What the data looks like to the model."""

    report: DataReport


class DataStep(Step):
    """Two fields, what they lead to, and some rows in full."""

    name_in_rail = "data"

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._asked = ("", "")

    def compose(self) -> ComposeResult:
        with Horizontal(classes="field-row"):
            yield Static(Content.styled("model", "$muted"))
            yield Field(
                self.draft.model, "a folder, or owner/name from the Hub's cache", "model",
                PathSuggester((STARTER_MODEL,), suffix="/"),
            )  # fmt: skip
        with Horizontal(classes="field-row"):
            yield Static(Content.styled("data", "$muted"))
            yield Field(
                self.draft.source, "a JSONL file of messages", "source", PathSuggester((STARTER_DATA,), suffix=".jsonl")
            )
        yield Pane("What the model sees", id="figures", said="Reading…")
        yield ScrollPane("Rows, as they are trained", id="rows", said="Reading…")

    def enter(self) -> None:
        for name, value in (("#model", self.draft.model), ("#source", self.draft.source)):
            self.query_one(name, Field).value = value
        self.query_one("#rows").focus()
        self._read_anew()

    @on(Input.Changed)
    def _changed(self) -> None:
        self._read_anew()

    def _read_anew(self) -> None:
        model = clean(self.query_one("#model", Field).value).strip()
        source = clean(self.query_one("#source", Field).value).strip()
        if (model, source) == self._asked:
            return
        first = self._asked == ("", "")
        self._asked = (model, source)
        self.draft.model, self.draft.source, self.draft.report = model, source, None
        self.draft.plan = None
        self.query_one("#figures", Pane).show(Content.styled("Reading…", "$muted"))
        self._report(model, source, 0.0 if first else TYPING_SECONDS)

    @background("data")
    def _report(self, model: str, source: str, delay: float) -> None:
        time.sleep(delay)
        if superseded():
            return
        from ..data_report import report_data

        report = report_data(source, model, superseded)
        if report is not None:
            deliver(self, DataReported(report))

    @on(DataReported)
    def _show(self, message: DataReported) -> None:
        report = message.report
        if (report.model, report.source) != self._asked:
            return
        self.draft.report = report
        self.query_one("#model").set_class(report.model_problem is not None, "-invalid")
        self.query_one("#source").set_class(bool(report.data_problem or report.faults), "-invalid")
        self.query_one("#figures", Pane).show(figures_text(report))
        rows = self.query_one("#rows", ScrollPane)
        rows.show(rows_text(report.shown) if report.shown else Content.styled("No row to show.", "$muted"))
        self.post_message(StepChanged())

    def answer(self) -> str:
        rows = f"{plural(self.draft.report.rows, 'row')}, " if self.draft.report else ""
        return one_line(f"{rows}{self.draft.source.rstrip('/').rpartition('/')[2]}", 60)

    def obstacle(self) -> str | None:
        report = self.draft.report
        if report is None:
            return "Still reading the data."
        problem = report.data_problem or report.model_problem
        if problem is not None:
            return f"{problem.title}: {problem.remedy}"
        return "Mend or remove the lines that are no conversations." if report.faults else None


def figures_text(report: DataReport) -> Content:
    """Return the figures of the data, or what stands in the way, with line numbers."""
    lines: list[Content] = []
    for problem in (report.model_problem, report.data_problem):
        if problem is not None:
            lines.append(_problem(problem))
    for fault in report.faults[:SHOWN_FAULTS]:
        lines.append(Content.assemble(("✗ ", "$error"), (f"line {fault.line}  ", "bold"), one_line(fault.problem, 200)))
    if len(report.faults) > SHOWN_FAULTS:
        lines.append(Content.styled(f"  and {plural(len(report.faults) - SHOWN_FAULTS, 'more line')}", "$muted"))
    if report.anatomy is not None:
        anatomy = report.anatomy
        shape = f"{count(anatomy.total_parameters)} parameters · {anatomy.layers} layers · context {anatomy.context:,}"
        lines.append(
            Content.assemble(("✓ ", "$success"), (f"{one_line(anatomy.family, 40)} ", "bold"), (shape, "$muted"))
        )
    lengths = report.lengths
    if lengths is not None and not report.faults:
        rows = plural(report.rows, "row")
        if lengths.rows < report.rows:
            rows += f", the first {lengths.rows:,} measured"
        tokens = f"{count(lengths.total)} tokens, {share(lengths.supervised_share)} of them learned"
        lines.append(Content.assemble(("✓ ", "$success"), (rows, "bold"), (f" · {tokens}", "$muted")))
        from ..data_report import bars

        lines.append(
            Content.assemble(
                ("  tokens in a row  ", "$muted"),
                f"{lengths.least} ",
                (bars(lengths.histogram), "$accent"),
                f" {lengths.most:,}",
            )
        )
        spread = f"half up to {lengths.median:,} · 95 % up to {lengths.p95:,} · the longest {lengths.most:,}"
        lines.append(Content.styled(f"{'':<19}{spread}", "$muted"))
    return Content("\n").join(lines)


def _problem(problem: TunewrightError) -> Content:
    return Content.assemble(
        ("✗ ", "$error"), (one_line(problem.title, 100), "bold $error"), "  ", clean(problem.message, 600).strip(),
        ("\n  → ", "$accent"), (one_line(problem.remedy, 300), "$muted"),
    )  # fmt: skip


def rows_text(rows: tuple[ShownRow, ...]) -> Content:
    """Return rows in full; the tokens that are trained are underlined and coloured."""
    text = Content.assemble(("underlined", "underline $success"), (" is learned; the rest is only read\n\n", "$muted"))
    for row in rows:
        text += Content.styled(f"row {row.number}", "$accent")
        text += Content.styled(f"  {row.tokens} tokens, {row.trained_tokens} learned\n", "$muted")
        for piece in row.pieces:
            text += Content.styled(piece.text, "underline $success" if piece.trained else "$foreground")
        text += Content("\n\n")
    return text
