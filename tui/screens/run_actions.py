"""What can be done with a run, the same in the list and in the monitor."""

from __future__ import annotations

from functools import partial

from textual import on

from ...engine.runs.directory import RunDirectory, is_live, standing
from ...foundation.text import one_line
from ..background import background, deliver
from ..messages import CircumstancesChanged, RunChanged
from ..widgets.confirm_dialog import ConfirmDialog
from .frame import FramedScreen


class RunActionScreen(FramedScreen):
    """A screen on which one run is chosen that can be stopped, resumed and talked to."""

    def chosen_run(self) -> RunDirectory | None:
        """Return the run that the keys act on."""
        raise NotImplementedError

    def action_stop(self) -> None:
        if (run := self.chosen_run()) is None:
            return
        if not is_live(run):
            self._stop(run)  # whose error says how the run stands
            return
        text = "It saves at its next step and then stops. It can be resumed from there, with r."
        if standing(run) == "queued":
            text = "It leaves the queue. With r it takes a place at the end of it."
        self.app.push_screen(ConfirmDialog("Stop the run?", text, "Stop"), partial(self._stop_if_agreed, run))

    def _stop_if_agreed(self, run: RunDirectory, agreed: bool | None) -> None:
        if agreed:
            self._stop(run)

    @background("change")
    def _stop(self, run: RunDirectory) -> None:
        from ...engine.runs.launch import stop

        waits = standing(run) == "queued"
        stop(run)
        deliver(
            self, RunChanged("The run leaves the queue." if waits else "The run saves at its next step, then stops.")
        )

    def action_front(self) -> None:
        if (run := self.chosen_run()) is not None:
            self._to_front(run)

    @background("change")
    def _to_front(self, run: RunDirectory) -> None:
        from ...engine.runs.queue import to_front

        to_front(run.id)
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

    @background("change")
    def _resume(self, run: RunDirectory, agreed: bool = False) -> None:
        from ...engine.runs.circumstances import OtherCircumstances
        from ...engine.runs.launch import resume

        try:
            step = resume(run, agreed)
        except OtherCircumstances as other:
            deliver(self, CircumstancesChanged(run, tuple(map(str, other.differences))))
            return
        deliver(self, RunChanged(f"The run goes on from step {step}." if step else "The run begins from its start."))

    @on(CircumstancesChanged)
    def _ask_about_changes(self, message: CircumstancesChanged) -> None:
        told = [one_line(each, 200) for each in message.differences]
        text = "\n".join(("It would not go on as the run that it was:", "", *told))
        answered = partial(self._resume_if_agreed, message.run)
        self.app.push_screen(ConfirmDialog("Not the same circumstances", text, "Go on"), answered)

    def _resume_if_agreed(self, run: RunDirectory, agreed: bool | None) -> None:
        if agreed:
            self._resume(run, agreed=True)

    @on(RunChanged)
    def _tell_change(self, message: RunChanged) -> None:
        self.notify(message.said, markup=False)

    def action_chat(self) -> None:
        if (run := self.chosen_run()) is not None:
            from .chat import ChatScreen

            self.app.push_screen(ChatScreen(run))
