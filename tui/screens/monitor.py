"""The monitor: one run, going on or ended, drawn from its directory alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content

from ...engine.plan import Plan
from ...engine.runs.directory import RunDirectory
from ..background import background, deliver
from ..follow import Follower
from ..keys import bindings
from ..messages import RunRead
from ..run_state import RunState
from ..widgets.chart import Chart, Line
from ..widgets.pane import FixedText, Pane, ScrollPane
from . import run_words
from .run_actions import RunActionScreen
from .sample_words import samples
from .start_words import start

if TYPE_CHECKING:
    from ...recipes.model import Recipe

PaneName = Literal["samples", "rates", "start", "notices", "console"]
READING_SECONDS = 0.4
"""How often a history that is still being read is drawn."""
SHORT_FACTS, TALL_FACTS = 4, 10
"""Rows of what was predicted and measured on terminals of few and of many lines."""
PANES: tuple[PaneName, ...] = ("samples", "rates", "start", "notices", "console")


class MonitorScreen(RunActionScreen):
    """Follows one run; leaving it changes nothing for the run."""

    BINDINGS = bindings("Monitor")  # pyright: ignore[reportAssignmentType]
    where = "Monitor"
    mode = "runs"
    title_path = ("Runs",)

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run = run
        self.state = RunState()
        self.pane: PaneName = "samples"
        self.zoomed = False
        self._chosen = False
        """Whether the pane was chosen by a key, rather than by what the run does."""
        self._follower = Follower(run, lambda reading: deliver(self, RunRead(reading)))
        self._ended_shown = False
        self._shown = 0.0
        self._answered: object = None
        """What the samples were when they were last shown: it is much to lay out, and seldom new."""

    def chosen_run(self) -> RunDirectory:
        return self.run

    def compose_body(self) -> ComposeResult:
        curves = self.state.curves
        yield FixedText("Reading the run…", id="head")
        with Horizontal(id="upper"):
            yield Chart(
                "Loss",
                [
                    Line("", curves.loss, "faint"),
                    Line("train", curves.smooth, "accent"),
                    Line("◆ validation", curves.validation, "warning", marker="◆"),
                ],
                id="loss",
            )
            with Vertical(id="side"):
                yield Pane("Predicted and measured", id="facts", said="No figures yet.")
                yield Pane("Machine", id="gauges", said="No sample yet.")
        yield FixedText(id="tabs")
        with Horizontal(id="rates"):
            yield Chart("Learning rate", [Line("", curves.learning_rate, "accent")], id="learning-rate")
            yield Chart("Gradient norm", [Line("", curves.grad_norm, "accent")], from_zero=True, id="grad-norm")
            yield Chart("Tokens a second", [Line("", curves.tokens_per_second, "accent")], from_zero=True, id="speed")
            yield Chart("MFU %", [Line("", curves.mfu, "accent")], from_zero=True, id="mfu")
            yield Chart(
                "Preferred %",
                [
                    Line("train", curves.preferred, "accent"),
                    Line("◆", curves.preferred_held_out, "warning", marker="◆"),
                ],
                from_zero=True,
                id="preferred",
            )
            yield Chart(
                "Margin",
                [Line("train", curves.margin, "accent"), Line("◆", curves.margin_held_out, "warning", marker="◆")],
                id="margin",
            )
        with Horizontal(id="words"):
            yield ScrollPane("Samples", id="samples", said="The model answers fixed prompts as it learns.")
            with Vertical(id="told"):
                yield ScrollPane("To the first step", id="start", said="Nothing was timed yet.")
                yield ScrollPane("Notices", id="notices", said="Nothing to tell.")
            yield ScrollPane("Console", id="console", said="Nothing printed yet.", at_end=True)

    def on_mount(self) -> None:
        self.show_title("Runs", run_words.run_name(self.run))
        self._show_pane("samples")
        self._read_inputs()
        self._follow()
        self.set_interval(1.0, self._tick)

    def on_unmount(self) -> None:
        self._follower.stop()

    def on_screen_resume(self) -> None:
        self._follower.go_on()
        if self.state.share_read:
            self._show()

    def on_screen_suspend(self) -> None:
        if not self.is_seen:
            self._follower.pause()

    @work(thread=True, exclusive=True, exit_on_error=False, group="follow")
    def _follow(self) -> None:
        self._follower.follow()

    @background("inputs")
    def _read_inputs(self) -> None:
        recipe, plan = self.run.recipe(), self.run.plan()
        self.app.call_from_thread(self._know_inputs, recipe, plan)

    def _know_inputs(self, recipe: Recipe, plan: Plan) -> None:
        self.state.recipe, self.state.plan = recipe, plan
        self._show()

    @on(RunRead)
    def _fold(self, message: RunRead) -> None:
        self.state.add(message.reading)
        if self.state.share_read < 1 and time.monotonic() - self._shown < READING_SECONDS:
            return  # a long history is read faster than it can be drawn
        self._show()
        self._shown = time.monotonic()

    def _tick(self) -> None:
        """Let the clock go on between two readings."""
        if self.state.live and self.is_seen:
            self._show_head()
            if not self.state.history.steps:
                self._show_start()

    def _show(self) -> None:
        """Bring every pane to the present state; each paints only when its content changed, and where it can be seen."""
        if not self.is_seen:
            return
        state = self.state
        with self.app.batch_update():
            self._show_head()
            for chart in self.query(Chart):
                chart.show(x_end=state.total_steps)
            self.query_one("#facts", Pane).show(
                run_words.facts(state, SHORT_FACTS if self.has_class("-short") else TALL_FACTS)
            )
            self.query_one("#gauges", Pane).show(lambda width: run_words.gauges(state, width))
            answered = (len(state.history.samples), state.history.samples[-1] if state.history.samples else None)
            if answered != self._answered:
                self._answered = answered
                self.query_one("#samples", ScrollPane).show(lambda width: samples(state.history.samples, width))
            self._show_start()
            self.set_class(len(state.curves.mfu) > 0, "-measured")
            self.set_class(len(state.curves.preferred) + len(state.curves.margin) > 0, "-preferring")
            self.query_one("#notices", ScrollPane).show(lambda width: run_words.notices(state, width))
            self.query_one("#console", ScrollPane).show(Content(state.console or "Nothing printed yet."))
            if state.standing in ("failed", "lost") and not self._ended_shown and state.share_read >= 1:
                self._ended_shown = True
                self._show_pane("notices")
            elif not self._chosen and not self._ended_shown and state.share_read >= 1:
                starting = state.live and not state.history.steps
                self._show_pane("start" if starting else "samples")
            self._show_tabs()

    def _show_start(self) -> None:
        self.query_one("#start", ScrollPane).show(lambda width: start(self.state, width))

    def _show_head(self) -> None:
        self.query_one("#head", FixedText).show(run_words.head(self.state, self.size.width - 2))

    def _show_tabs(self) -> None:
        notices = len(self.state.history.notices)
        names = {
            "samples": "Samples",
            "rates": "Rates",
            "start": "Start",
            "notices": f"Notices {notices or ''}",
            "console": "Console",
        }
        tabs = [
            Content.styled(f" {names[name].strip()} ", "bold $foreground on $soft" if name == self.pane else "$muted")
            for name in PANES
        ]
        self.query_one("#tabs", FixedText).show(Content(" ").join(tabs))

    def _show_pane(self, name: PaneName) -> None:
        """Show one of the lower panes, where there is room for one only."""
        self.pane = name
        for each in PANES:
            self.set_class(each == name, f"show-{each}")
        self._show_tabs()

    def on_resize(self) -> None:
        if self.state.share_read:
            self._show_head()

    @property
    def _has_tabs(self) -> bool:
        return bool(self.query_one("#tabs").display)

    def action_next_pane(self) -> None:
        self._move_pane(1)

    def action_previous_pane(self) -> None:
        self._move_pane(-1)

    def _move_pane(self, by: int) -> None:
        if self._has_tabs:
            self._chosen = True
            self._show_pane(PANES[(PANES.index(self.pane) + by) % len(PANES)])
            self._focus_pane()
        elif by > 0:
            self.focus_next()
        else:
            self.focus_previous()

    def _focus_pane(self) -> None:
        if self.pane != "rates":
            self.query_one(f"#{self.pane}").focus()

    def action_zoom(self) -> None:
        """Give the pane that is focused, or else the last one shown, the whole window."""
        focused = self.focused.id if self.focused is not None else None
        if not self.zoomed and not self._has_tabs and focused in PANES:
            self._show_pane(focused)
        self.zoomed, self._chosen = not self.zoomed, True
        self.set_class(self.zoomed, "-zoomed")
        self._focus_pane()

    def action_log_scale(self) -> None:
        chart = self.query_one("#loss", Chart)
        chart.logarithmic = not chart.logarithmic

    def action_back(self) -> None:
        self.app.pop_screen()
