"""The four panes of the data step: all at once on a large terminal, a row above one of the others, or one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import DescendantFocus

from ..widgets.findings_list import FindingsList, summary
from ..widgets.pane import FixedText, ScrollPane
from ..widgets.row_preview import RowPreview
from . import data_words as words

if TYPE_CHECKING:
    from ..data_report import DataReport

PaneName = Literal["rows", "findings", "tokens", "file"]
PANES: dict[PaneName, str] = {"rows": "Row", "findings": "Findings", "tokens": "Tokens", "file": "File and options"}
FOCUSED: dict[PaneName, str] = {"rows": "row", "findings": "findings", "tokens": "tokens", "file": "file"}
"""What gets the keys in each pane."""


class DataPanes(Vertical):
    """A row, the findings, the tokens, and the file with its options; `pane` is the one that is looked at."""

    def __init__(self) -> None:
        super().__init__(id="data-panes")
        self.pane: PaneName = "rows"
        self._lower: PaneName = "findings"

    def compose(self) -> ComposeResult:
        yield FixedText(id="data-tabs")
        yield RowPreview(id="rows")
        with Vertical(id="data-lower"):
            yield FixedText(id="lower-tabs")
            yield FindingsList(id="findings")
            yield ScrollPane("Tokens", id="tokens", said="The audit counts the tokens.")
            yield ScrollPane("File and options", id="file", said="Reading…")

    @property
    def row(self) -> RowPreview:
        """The pane with the row."""
        return self.query_one(RowPreview)

    @property
    def findings(self) -> FindingsList:
        """The list of findings."""
        return self.query_one(FindingsList)

    def show(self, report: DataReport, audit: words.AuditState, changes: Mapping[str, object]) -> None:
        """Show what is known of the data in every pane but the row's."""
        self.query_one("#tokens", ScrollPane).show(lambda width: words.tokens_text(report, width))
        self.query_one("#file", ScrollPane).show(lambda width: words.file_text(report, changes, width))
        self.findings.show(report.audit.findings if report.audit else (), words.no_findings_text(audit))
        self._paint_tabs()

    def bring(self, name: PaneName) -> None:
        """Bring a pane into view, where not all of them have room."""
        self.pane = name
        self._lower = name if name != "rows" else self._lower
        for each in PANES:
            self.set_class(each == name, f"show-{each}")
            self.set_class(each == self._lower, f"lower-{each}")
        self._paint_tabs()

    def focus_pane(self) -> None:
        """Give the keys to the pane that is looked at."""
        self.query_one(f"#{FOCUSED[self.pane]}").focus()

    def reveal(self, name: PaneName) -> None:
        """Bring a pane into view; where it is there beside the one with the keys, that one keeps them."""
        hidden = not self.query_one(f"#{name}").display
        self.bring(name)
        if hidden:
            self.focus_pane()

    def _paint_tabs(self) -> None:
        titles: dict[PaneName, Content] = {each: Content(title) for each, title in PANES.items()}
        titles["findings"] += summary(self.findings.findings)
        self.query_one("#data-tabs", FixedText).show(_tabs(titles, self.pane))
        del titles["rows"]
        self.query_one("#lower-tabs", FixedText).show(_tabs(titles, self._lower))

    @on(DescendantFocus)
    def _remember(self, event: DescendantFocus) -> None:
        """Follow the focus, wherever the mouse puts it."""
        for name, focused in FOCUSED.items():
            if event.widget.id == focused and name != self.pane:
                self.bring(name)


def _tabs(titles: Mapping[PaneName, Content], shown: PaneName) -> Content:
    tabs = [
        (Content(" ") + title + " ").stylize("bold $foreground on $soft" if each == shown else "$muted")
        for each, title in titles.items()
    ]
    return Content(" ").join(tabs)
