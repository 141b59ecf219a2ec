"""What one can choose about the data, by keys and in dialogs; each choice is a change of the recipe's data section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...foundation.text import one_line
from ..draft import Draft
from ..figures import plural
from .data_panes import DataPanes
from .data_work import DataWork
from .step import Step

if TYPE_CHECKING:
    from ..data_report import DataReport

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""The maximum lengths that the keys go through."""
OF_THE_SHAPE = ("format", "columns", "split")
"""What makes another reading of the rows."""


class DataChoices(Step):
    """The choices of the data step, apart from what they lead to."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self.known: DataReport | None = None
        """The newest report on this model and source, also while another is made after a choice."""

    @property
    def work(self) -> DataWork:
        """What reads in the background."""
        return self.query_one(DataWork)

    @property
    def panes(self) -> DataPanes:
        """The panes that show it."""
        return self.query_one(DataPanes)

    def read_anew(self) -> None:
        """Read the data with what is chosen now."""
        raise NotImplementedError

    def read_again(self) -> None:
        """Read the data although the same was read last."""
        raise NotImplementedError

    def stop_audit(self) -> None:
        """Stop the audit, if one is going on."""
        raise NotImplementedError

    def change(self, **changes: object) -> None:
        """Take other values for the data section, and read and audit with them."""
        self.draft.data_changes.update(changes)
        self.read_anew()

    def fetch(self) -> None:
        """Fetch from the Hub what the fields name and what is not here."""
        from ..widgets.fetch_dialog import FetchDialog

        if self.known is not None and self.known.needs:
            self.app.push_screen(FetchDialog(self.known.needs), lambda done: self.read_again() if done else None)

    def action_leave_out(self) -> None:
        report = self.known
        if report is not None and report.data is not None:
            self.change(faulty="refuse" if report.data.faulty == "drop" else "drop")

    def action_change_length(self, by: int) -> None:
        report = self.known
        if report is None or report.data is None:
            return
        # Before the last press was answered, the next one counts on from it.
        present = int(str(self.draft.data_changes.get("max_length", report.data.max_length)))
        others = [each for each in LENGTHS if (each > present if by > 0 else each < present)]
        if others:
            self.panes.reveal("tokens")
            self.change(max_length=others[0] if by > 0 else others[-1])

    def action_choose_format(self) -> None:
        from ..widgets.data_dialogs import FormatDialog

        report = self.known
        if report is None or report.data is None:
            return
        found = report.inspection.format if report.inspection else None

        def take(chosen: str | None) -> None:
            if chosen is not None and report.data is not None and chosen != report.data.format:
                self.draft.data_changes.pop("columns", None)
                self.change(format=chosen)

        self.app.push_screen(FormatDialog(report.data.format, found), take)

    def action_map_columns(self) -> None:
        from ..widgets.column_dialog import ColumnDialog

        report = self.known
        if report is None or report.inspection is None:
            return
        shape = shape_of(self.draft.data_changes)

        def take(changes: dict[str, object] | None) -> None:
            if changes is not None:
                self.draft.data_changes.pop("columns", None)
                self.change(**changes)

        self.app.push_screen(
            ColumnDialog(report.inspection, shape, lambda other: self.work.read_as(report, other)), take
        )

    def action_choose_options(self) -> None:
        from ..widgets.options_dialog import OptionsDialog

        report = self.known
        if report is None or report.data is None or report.inspection is None:
            return

        def take(changes: dict[str, object] | None) -> None:
            if changes:
                against = changes.pop("against", None)
                if isinstance(against, tuple):
                    self.draft.against = cast("tuple[str, ...]", against)
                self.change(**changes)

        self.app.push_screen(OptionsDialog(report.data, report.inspection.columns, self.draft.against), take)

    def action_mend(self) -> None:
        from ..widgets.data_dialogs import FileNameDialog, free_name

        report, finding = self.known, self.panes.findings.chosen
        if report is None or report.data is None:
            return
        if finding is None or finding.kind.fix is None:
            self.panes.row.say("Nothing safe can be done about this finding; its remedy says what helps.")
            return
        text = f"{finding.kind.title}: {plural(finding.count, 'row')}. {report.source} stays as it is; its other columns are not carried over."
        dialog = FileNameDialog("Write a file that is mended", one_line(text, 300), free_name(report.source))
        code = finding.code

        def take(name: str | None) -> None:
            if name is not None:
                self.stop_audit()
                self.work.mend(report, (code,), Path(name).expanduser())

        self.app.push_screen(dialog, take)


def shape_of(changes: Mapping[str, object]) -> dict[str, object]:
    """Return the changes that make another reading of the rows."""
    return {name: changes[name] for name in OF_THE_SHAPE if name in changes}
