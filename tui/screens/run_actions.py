"""What can be done with a run, the same in the list and in the monitor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from textual import on

from ...engine.runs.directory import RunDirectory, is_live, standing
from ...foundation.text import one_line
from ..background import background, deliver
from ..messages import CircumstancesChanged, RunChanged, RunCloned, RunFailedBefore, RunLaunched, RunLookedAt
from ..widgets.confirm_dialog import ConfirmDialog
from .frame import FramedScreen

if TYPE_CHECKING:
    from ...engine.runs.extend import Extensible
    from ...engine.runs.terms import Terms
    from ...engine.schedule import Choice
    from ..widgets.retry_dialog import Retrying


class RunActionScreen(FramedScreen):
    """A screen on which one run is chosen that can be commanded and talked to."""

    def chosen_run(self) -> RunDirectory | None:
        """Return the run that the keys act on."""
        raise NotImplementedError

    def action_stop(self) -> None:
        text = "It saves at its next step and then stops. It can be resumed from there, with r."
        if (run := self.chosen_run()) is not None and standing(run) == "queued":
            text = "It leaves the queue. With r it takes a place at the end of it."
        self._ask_to_end("stop", ConfirmDialog("Stop the run?", text, "Stop"))

    def action_pause(self) -> None:
        text = (
            "It saves at its next step and gives its memory back; its processes end. It stands in the list as paused "
            "until you resume it, with r: a restart of the machine does not."
        )
        self._ask_to_end("pause", ConfirmDialog("Pause the run?", text, "Pause"))

    def _ask_to_end(self, verb: Literal["stop", "pause"], dialog: ConfirmDialog) -> None:
        if (run := self.chosen_run()) is None:
            return
        if not is_live(run):
            self._end(run, verb)  # whose error says how the run stands
            return
        self.app.push_screen(dialog, partial(self._end_if_agreed, run, verb))

    def _end_if_agreed(self, run: RunDirectory, verb: Literal["stop", "pause"], agreed: bool | None) -> None:
        if agreed:
            self._end(run, verb)

    @background("change")
    def _end(self, run: RunDirectory, verb: Literal["stop", "pause"]) -> None:
        from ...engine.runs import launch

        waits = standing(run) == "queued"
        if verb == "stop":
            launch.stop(run)
        else:
            launch.pause(run)
        what = "then stops" if verb == "stop" else "then gives its memory back"
        deliver(self, RunChanged("The run leaves the queue." if waits else f"The run saves at its next step, {what}."))

    def action_front(self) -> None:
        if (run := self.chosen_run()) is not None:
            self._to_front(run)

    @background("change")
    def _to_front(self, run: RunDirectory) -> None:
        from ...engine.runs.launch import bring_forward

        bring_forward(run)
        deliver(self, RunChanged("The run has the first of your places in the queue."))

    def action_begin(self) -> None:
        if (run := self.chosen_run()) is not None:
            self._begin(run)

    @background("change")
    def _begin(self, run: RunDirectory) -> None:
        from ...engine.runs.launch import begin_now

        begin_now(run)
        deliver(self, RunChanged("The run begins, whatever it waited for."))

    def action_resume(self) -> None:
        if (run := self.chosen_run()) is not None:
            self._resume(run)

    def action_resume_when(self) -> None:
        """Ask when the run is to go on, and how it is to give way."""
        from ...engine.runs.terms import read_terms
        from ..widgets.terms_dialog import TermsDialog

        if (run := self.chosen_run()) is None:
            return

        def answered(terms: Terms | None) -> None:
            if terms is not None:
                self._resume(run, terms)

        self.app.push_screen(TermsDialog(read_terms(run), verb="Resume"), answered)

    @background("change")
    def _resume(self, run: RunDirectory, terms: Terms | None = None, agreed: bool = False) -> None:
        from ...engine.runs.launch import resume

        self._go_on(lambda: resume(run, agreed, terms), lambda: self._resume(run, terms, True), terms)

    @background("why")
    def action_retry(self) -> None:
        from ...engine.runs.retry import why_failed

        if (run := self.chosen_run()) is not None:
            deliver(self, RunFailedBefore(run, why_failed(run)))

    @on(RunFailedBefore)
    def _ask_where_to_begin(self, message: RunFailedBefore) -> None:
        from ...engine.runs.terms import read_terms
        from ..widgets.retry_dialog import RetryDialog

        def answered(how: Retrying | None) -> None:
            if how is not None:
                self._retry(message.run, how)

        self.app.push_screen(RetryDialog(message.failure, read_terms(message.run)), answered)

    @background("change")
    def _retry(self, run: RunDirectory, how: Retrying, agreed: bool = False) -> None:
        from ...engine.runs.retry import retry

        begin = partial(retry, run, how.from_start, terms=how.terms)
        self._go_on(lambda: begin(agreed=agreed).step, lambda: self._retry(run, how, True), how.terms)

    def _go_on(self, begin: Callable[[], int], agreed: Callable[[], object], terms: Terms | None) -> None:
        """Have a run go on, and say from which step; under other circumstances `agreed` is called once they are."""
        from ...engine.runs.circumstances import OtherCircumstances

        try:
            step = begin()
        except OtherCircumstances as other:
            deliver(self, CircumstancesChanged(tuple(map(str, other.differences)), agreed))
            return
        when = (
            " once its turn has come"
            if terms and terms.queue
            else " once its memory is free"
            if terms and terms.waits
            else ""
        )
        deliver(
            self,
            RunChanged(f"The run goes on from step {step}{when}." if step else f"The run begins from its start{when}."),
        )

    @on(CircumstancesChanged)
    def _ask_about_changes(self, message: CircumstancesChanged) -> None:
        told = [one_line(each, 200) for each in message.differences]
        text = "\n".join(("It would not go on as the run that it was:", "", *told))

        def answered(agreed: bool | None) -> None:
            if agreed:
                message.agreed()

        self.app.push_screen(ConfirmDialog("Not the same circumstances", text, "Go on"), answered)

    @background("look at")
    def action_extend(self) -> None:
        from ...engine.runs.extend import look_at

        if (run := self.chosen_run()) is not None:
            deliver(self, RunLookedAt(look_at(run)))

    @on(RunLookedAt)
    def _ask_how_to_extend(self, message: RunLookedAt) -> None:
        from ..widgets.extend_dialog import ExtendDialog

        def answered(wished: tuple[Choice, Terms] | None) -> None:
            if wished is not None:
                self._extend(message.found, *wished)

        self.app.push_screen(ExtendDialog(message.found), answered)

    @background("change")
    def _extend(self, found: Extensible, way: Choice, terms: Terms, agreed: bool = False) -> None:
        from ...engine.runs.circumstances import OtherCircumstances
        from ...engine.runs.extend import extend

        try:
            made = extend(found, way, agreed, terms)
        except OtherCircumstances as other:
            told = tuple(map(str, other.differences))
            deliver(self, CircumstancesChanged(told, lambda: self._extend(found, way, terms, True)))
            return
        deliver(self, RunLaunched(made))

    @background("clone")
    def action_clone(self) -> None:
        if (run := self.chosen_run()) is not None:
            deliver(self, RunCloned(run, run.recipe()))

    def action_chat(self) -> None:
        if (run := self.chosen_run()) is not None:
            from .chat import ChatScreen

            self.app.push_screen(ChatScreen(run))
