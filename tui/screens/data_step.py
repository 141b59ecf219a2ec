"""The third step: the model to start from and the data: what it is, its rows as they are trained, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from ...foundation.text import clean, one_line
from ..draft import STARTER_DATA, STARTER_MODEL, Draft
from ..figures import plural
from ..keys import bindings
from ..widgets.field import Field
from ..widgets.findings_list import FindingsList
from ..widgets.path_field import DATA_FILES, PathSuggester
from . import data_words as words
from .data_choices import DataChoices, shape_of
from .data_panes import PANES, DataPanes, PaneName
from .data_words import AuditState
from .data_work import Audited, AuditProgressed, DataWork, Inspected, Mended, Previewed
from .step import StepChanged

if TYPE_CHECKING:
    from ...engine.data.preview import Inspection, Want
    from ..data_report import DataReport

TYPING_SECONDS = 0.15
"""Nothing is read before one has stopped typing for this long."""
CHOOSING_SECONDS = 0.5
"""Nothing is audited anew before one has stopped changing options for this long."""
AUDITED_BYTES = 20 * 2**20
"""Sets up to this size are audited without being asked for."""
OF_THE_FILE = ("format", "columns", "faulty", "max_length", "validation")
"""What was chosen for one file and says nothing about another."""


class DataStep(DataChoices):
    """Two fields, what they lead to, and four panes: a row, the findings, the tokens, the file with its options."""

    name_in_rail = "data"
    where = "Data"
    BINDINGS = bindings("Data")  # pyright: ignore[reportAssignmentType]

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._number = 0
        """Counts the questions, so that answers to older ones are passed over."""
        self._asked: tuple[str, str, dict[str, object], tuple[str, ...]] | None = None
        self._inspection: Inspection | None = None
        """What the shape of the present source is known to be."""
        self._audit = AuditState()
        self._want: Want | None = None
        self._index = 0
        """The row that is shown."""
        self._hit = -1
        """The row behind which a search goes on."""

    def compose(self) -> ComposeResult:
        with Horizontal(classes="field-row"):
            yield Static(Content.styled("model", "$muted"))
            yield Field(
                self.draft.model, "a folder, or owner/name on the Hub", "model",
                PathSuggester((STARTER_MODEL,), suffix="/"),
            )  # fmt: skip
        with Horizontal(classes="field-row"):
            yield Static(Content.styled("data", "$muted"))
            named = "a file, a folder, a glob, or owner/name on the Hub"
            yield Field(self.draft.source, named, "source", PathSuggester((STARTER_DATA,), DATA_FILES))
        yield Static(Content.styled("Reading…", "$muted"), id="data-status", markup=False)
        yield DataPanes()
        yield DataWork()

    @property
    def _report(self) -> DataReport | None:
        return self.draft.report

    def enter(self) -> None:
        self.panes.row.remove_class("-searching")
        for name, value in (("#model", self.draft.model), ("#source", self.draft.source)):
            self.query_one(name, Field).value = value
        self.panes.bring(self.panes.pane)
        self.panes.focus_pane()
        self.read_anew()

    def on_mount(self) -> None:
        self.watch(self.screen, "focused", self._keep_keys, init=False)

    def _keep_keys(self, focused: Widget | None) -> None:
        """Give the keys back to the panes when they went to nothing, as after a click beside everything."""
        if focused is None and self.display and self.screen.is_current:
            self.call_after_refresh(self._refocus)

    def _refocus(self) -> None:
        if self.screen.focused is None and self.display:
            self.panes.focus_pane()

    def on_resize(self) -> None:
        self._paint_status()

    @on(Input.Changed, "#model")
    @on(Input.Changed, "#source")
    def _typed(self) -> None:
        self.read_anew()

    def read_anew(self) -> None:
        """Read what the fields and the draft name, unless that is what was read last."""
        draft = self.draft
        model = clean(self.query_one("#model", Field).value).strip()
        source = clean(self.query_one("#source", Field).value).strip()
        if self._asked is not None and source != self._asked[1]:
            for name in OF_THE_FILE:
                draft.data_changes.pop(name, None)
        asked = (model, source, dict(draft.data_changes), draft.against)
        if asked == self._asked:
            return
        before, self._asked = self._asked, asked
        same_shape = before is not None and before[1] == source and shape_of(before[2]) == shape_of(asked[2])
        self._inspection = self._inspection if same_shape else None
        if before is None or before[1] != source:
            self._index, self._want = 0, None
        if before is None or before[:2] != asked[:2]:
            self.known = None
        self._number += 1
        self.work.stop()
        self._audit = AuditState()
        draft.model, draft.source, draft.report, draft.plan = model, source, None, None
        typing = before is not None and before[:2] != asked[:2]
        self._paint_status()
        snapshot = replace(draft, data_changes=dict(draft.data_changes))
        self.work.inspect(self._number, snapshot, self._inspection, TYPING_SECONDS if typing else 0.0)

    def read_again(self) -> None:
        self._asked = None
        self.read_anew()

    @on(Inspected)
    def _take(self, message: Inspected) -> None:
        if message.number != self._number:
            return
        report = self.known = self.draft.report = message.report
        self._inspection = report.inspection
        found = report.inspection
        self.query_one("#model").set_class(report.model_problem is not None, "-invalid")
        unread = report.data_problem is not None or (found is not None and found.format is None)
        self.query_one("#source").set_class(unread, "-invalid")
        if found is None or report.data is None or found.format is None:
            self.panes.row.empty(lambda width: Content.styled("No row to show.", "$muted"))
        else:
            self._show_row(self._wanted("row", self._index))
            if found.total_bytes <= AUDITED_BYTES:
                self._begin_audit(CHOOSING_SECONDS if self.draft.data_changes else 0.0)
            else:
                self._audit = AuditState("offered")
        self._paint()

    def _paint(self) -> None:
        """Show what is known in every pane."""
        self._paint_status()
        report = self._report
        if report is None:
            return
        self.panes.show(report, self._audit, dict(self.draft.data_changes))
        self.panes.row.count(report.rows)
        self.post_message(StepChanged())

    def _paint_status(self) -> None:
        width = self.size.width - 2
        if width > 0:
            self.query_one("#data-status", Static).update(
                words.status_text(self._report or self.known, self._audit, width)
            )

    # The audit.

    def _begin_audit(self, delay: float = 0.0) -> None:
        report = self._report
        if report is not None and report.data is not None:
            self._audit = AuditState("running")
            self.work.audit(self._number, report, delay)

    def action_audit(self) -> None:
        if self._audit.kind == "running":
            self.stop_audit()
        elif self._report is not None and self._report.inspection is not None:
            self._begin_audit()
        self._paint()

    def stop_audit(self) -> None:
        self.work.stop()
        self._audit = AuditState("stopped", self._audit.progress)
        self._paint()

    def back(self) -> bool:
        """Leave the search, or stop the audit, before the step is left."""
        if self.panes.row.has_class("-searching"):
            self.panes.row.end_search()
        elif self._audit.kind == "running" and not isinstance(self.screen.focused, Input):
            self.stop_audit()
        else:
            return False
        return True

    @on(AuditProgressed)
    def _audit_goes_on(self, message: AuditProgressed) -> None:
        if message.number != self._number or self._audit.kind != "running" or self._report is None:
            return
        self._audit = AuditState("running", message.progress)
        if message.progress.report is not None:
            self.known = self.draft.report = replace(self._report, audit=message.progress.report)
            self._paint()
        else:
            self._paint_status()

    @on(Audited)
    def _audit_ended(self, message: Audited) -> None:
        if message.number != self._number or self._report is None:
            return
        if message.report is None:
            self._audit = AuditState("failed" if message.problem else "stopped", self._audit.progress, message.problem)
        else:
            self._audit = AuditState("done")
            self.known = self.draft.report = replace(self._report, audit=message.report)
        self._paint()

    # Rows.

    def _wanted(
        self, kind: Literal["row", "longest", "worst", "random", "search"], index: int = 0, text: str = ""
    ) -> Want:
        from ...engine.data.preview import Want

        audit = self._report.audit if self._report else None
        indexes = (
            () if audit is None else audit.longest if kind == "longest" else audit.worst if kind == "worst" else ()
        )
        return Want(kind, index, text, indexes)

    def _show_row(self, want: Want) -> None:
        report = self._report
        if report is not None and report.data is not None and report.inspection is not None:
            self._want = want
            self.work.show_row(self._number, report, want)

    @on(Previewed)
    def _row_shown(self, message: Previewed) -> None:
        if message.number != self._number or self._report is None:
            return
        pane, want = self.panes.row, message.want
        if (problem := message.problem) is not None:
            pane.empty(lambda width: words.problem_text(problem, width))
        elif message.row is not None:
            self._index = self._hit = message.row.index
            said = words.why_this_row(want)
            if message.row.kept < message.row.tokens and self._report.data and self._report.data.overlong == "drop":
                said = "left out, for its length"
            pane.show(message.row, self._report.rows, said)
        elif want.kind == "search":
            pane.say(f"no “{one_line(want.text, 20)}” behind it; enter begins at the first row")
            self._hit = -1
        elif pane.row is None:
            pane.empty(lambda width: Content.styled("No row to show.", "$muted"))
        else:
            pane.say("that was the last row")

    def action_show_row(self, by: int) -> None:
        if by > 0 or self._index > 0:
            self.panes.reveal("rows")
            self._show_row(self._wanted("row", max(0, self._index + by)))
        else:
            self.panes.row.say("this is the first row")

    def action_show_longest(self) -> None:
        self._show_ranked("longest")

    def action_show_worst(self) -> None:
        self._show_ranked("worst")

    def _show_ranked(self, kind: Literal["longest", "worst"]) -> None:
        """Show the first of a ranking, or the next when the last shown was of it."""
        self.panes.reveal("rows")
        place = self._want.index + 1 if self._want is not None and self._want.kind == kind else 0
        self._show_row(self._wanted(kind, place))

    def action_show_random(self) -> None:
        self.panes.reveal("rows")
        self._show_row(self._wanted("random"))

    def action_show_tokens(self) -> None:
        self.panes.reveal("rows")
        self.panes.row.toggle_tokens()

    def action_search_rows(self) -> None:
        self.panes.bring("rows")
        self.panes.row.search()

    @on(Input.Submitted, "#search")
    def _search(self, event: Input.Submitted) -> None:
        event.stop()
        if text := clean(event.value, 200).strip():
            searched = self._want is not None and self._want.kind == "search" and self._want.text == text
            self._show_row(self._wanted("search", self._hit if searched else -1, text))

    @on(FindingsList.Jumped)
    def _jump(self, message: FindingsList.Jumped) -> None:
        if message.shown is None or message.shown.index is None:
            self._say("This row cannot be read, so there is nothing to show of it.")
        else:
            self.panes.reveal("rows")
            self._show_row(self._wanted("row", message.shown.index))

    def _say(self, said: str) -> None:
        self.panes.row.say(said)

    @on(Mended)
    def _use_mended(self, message: Mended) -> None:
        done = message.done
        self.app.notify(f"{done.rows_written:,} of {done.rows_read:,} rows are in {one_line(str(message.target), 200)}")
        self.query_one("#source", Field).value = str(message.target)

    # Going from part to part.

    def action_next_part(self) -> None:
        self._move_part(1)

    def action_previous_part(self) -> None:
        self._move_part(-1)

    def _move_part(self, by: int) -> None:
        """Go through the fields and the panes, whether they are in view or not."""
        focused = self.screen.focused.id if self.screen.focused else None
        parts: list[str] = ["model", "source", *PANES]
        here = focused if focused in ("model", "source") else self.panes.pane
        part = parts[(parts.index(here) + by) % len(parts)]
        if part == "model" or part == "source":
            self._edit(part)
        else:
            self.panes.bring(cast("PaneName", part))
            self.panes.focus_pane()

    def _edit(self, field: str) -> None:
        found = self.query_one(f"#{field}", Field)
        found.focus()
        found.action_select_all()

    def action_name_model(self) -> None:
        self._edit("model")

    def action_name_source(self) -> None:
        self._edit("source")

    # What the wizard asks.

    def answer(self) -> str:
        rows = f"{plural(self._report.rows, 'row')}, " if self._report and self._report.inspection else ""
        return one_line(f"{rows}{self.draft.source.rstrip('/').rpartition('/')[2]}", 60)

    def obstacle(self) -> str | None:
        report = self._report
        return "Still reading the data." if report is None else report.obstacle()
