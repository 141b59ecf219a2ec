"""All runs of this machine, going on or ended."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList

from ...engine.runs.directory import RunDirectory
from ...foundation.text import one_line
from ..background import background, deliver
from ..figures import clock, number, share
from ..keys import bindings
from ..messages import RunChanged, RunsListed
from ..run_state import LIVE
from ..run_summary import RunShelf, RunSummary
from ..standing import face
from ..widgets.bar import bar
from ..widgets.row_list import Column, Row, RowList
from .run_actions import RunActionScreen

if TYPE_CHECKING:
    from ...engine.runs.unit import Unit

COLUMNS = (
    Column("standing", 11),
    Column("run", 20, weight=3),
    Column("method", 6, rank=3),
    Column("progress", 19, rank=1),
    Column("loss", 8, rank=4, right=True),
    Column("exact match", 15, rank=2, right=True),
    Column("started", 12, rank=5, right=True),
    Column("id", 36, rank=6, weight=1),
)


@dataclass
class UnitFound(Message):
    """How the unit stands that brings runs back at boot."""

    unit: Unit


EMPTY = "No run yet. Press 1 to start one: the built-in recipe takes about a minute and needs no GPU."


class RunsScreen(RunActionScreen):
    """The list of runs, read again every second from their directories."""

    BINDINGS = bindings("Runs")  # pyright: ignore[reportAssignmentType]
    where = "Runs"
    mode = "runs"
    title_path = ("Runs",)

    def __init__(self) -> None:
        super().__init__()
        self._shelf = RunShelf()
        self._runs: dict[str, RunDirectory] = {}

    def compose_body(self) -> ComposeResult:
        yield RowList(COLUMNS, EMPTY, id="runs")

    def on_mount(self) -> None:
        self.query_one(RowList).list.focus()
        self.set_interval(1.0, self._look_if_seen)

    def on_screen_resume(self) -> None:
        self._look()

    def _look_if_seen(self) -> None:
        if self.is_seen:
            self._look()

    @background("look")
    def _look(self) -> None:
        deliver(self, RunsListed(self._shelf.look()))

    @on(RunsListed)
    def _show(self, message: RunsListed) -> None:
        if not self.is_seen:
            return  # it is read anew when it is shown again
        self._runs = {summary.run.id: summary.run for summary in message.runs}
        live = sum(summary.standing in LIVE for summary in message.runs)
        self.show_title(aside=Content.styled(f"{live} going on · {len(message.runs)} in all", "$muted"))
        self.query_one(RowList).show([_row(summary) for summary in message.runs])

    def chosen_run(self) -> RunDirectory | None:
        return self._runs.get(self.query_one(RowList).chosen or "")

    @background("unit")
    def action_unit(self) -> None:
        """Show the unit that brings runs back at boot, and offer to install it, or to remove it."""
        from ...engine.runs.unit import inspect_unit

        deliver(self, UnitFound(inspect_unit()))

    @on(UnitFound)
    def _offer_unit(self, message: UnitFound) -> None:
        from ..widgets.confirm_dialog import ConfirmDialog

        unit = message.unit
        title = "Runs come back at every boot" if unit.installed else "Bring runs back at every boot?"
        text = "\n".join((f"{unit.path}", "", unit.text, *unit.notes))
        verb = "Remove" if unit.installed else "Install"
        answered = partial(self._change_unit_if_agreed, not unit.installed)
        self.app.push_screen(ConfirmDialog(title, text, verb), answered)

    def _change_unit_if_agreed(self, install: bool, agreed: bool | None) -> None:
        if agreed:
            self._change_unit(install)

    @background("unit")
    def _change_unit(self, install: bool) -> None:
        from ...engine.runs.unit import install_unit, remove_unit

        unit = install_unit() if install else remove_unit()
        said = "The unit is gone." if not install else "The unit is enabled." if unit.enabled else unit.notes[0]
        deliver(self, RunChanged(said))

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        if (run := self.chosen_run()) is not None:
            from .monitor import MonitorScreen

            self.app.push_screen(MonitorScreen(run))


def _row(summary: RunSummary) -> Row:
    before, after = summary.exact_match_before, summary.exact_match_after
    match = "" if before is None else share(before)
    if after is not None:
        match = f"{match} → {share(after)}"
    progress = bar(summary.progress, 8) + f" {summary.step:,}/{summary.total_steps:,}"
    if summary.standing in LIVE and not summary.step:
        progress = Content.styled(summary.phase, "$muted")
    if summary.wait is not None:
        progress = Content.styled(summary.wait.short, "$muted")
    return Row(
        summary.run.id,
        (
            face(summary.standing),
            Content(summary.title),
            Content(summary.method),
            progress,
            Content("" if summary.loss is None else number(summary.loss)),
            Content(match),
            Content.styled(clock(summary.started), "$muted"),
            Content.styled(one_line(summary.run.id, 80), "$muted"),
        ),
    )
