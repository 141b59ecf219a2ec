"""Extending a finished run: how much more, and how the learning rate goes on, with its figures before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from ...engine.runs.terms import Terms
from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from .choice_line import Choice, ChoiceLine
from .field import Field
from .form_dialog import FormDialog, labelled
from .terms_dialog import BEGIN, beginning

if TYPE_CHECKING:
    from ...engine.runs.extend import Extensible
    from ...engine.schedule import Choice as Way

SCHEDULES = (
    Choice("continue", "continue", "as if it had been this long from the start"),
    Choice("constant", "constant", "one rate to the end"),
    Choice("rewarm", "rewarm", "up to the recipe's rate again, then down"),
)


class ExtendDialog(FormDialog["tuple[Way, Terms] | None"]):
    """Shows what the learning rate would do; the answer is the chosen way, and when the run begins."""

    verb = "Extend"

    def __init__(self, found: Extensible) -> None:
        training = found.recipe.training
        said = (
            f"It took {found.after:,} steps; its learning rate, {training.schedule} with a peak of "
            f"{training.learning_rate:.3g}, had come to {found.rate:.3g}."
        )
        super().__init__("Extend the run?", Content.styled(said, "$muted"))
        self.found = found

    def compose_form(self) -> Iterator[Widget]:
        yield labelled("more steps", Field(str(max(1, round(self.found.steps_an_epoch))), "such as 100", "steps"))
        yield ChoiceLine("rate", SCHEDULES, "continue", id="schedule")
        yield labelled("peak", Field("", "its own, or such as 1e-4", "peak"))
        yield labelled("warm-up", Field("", "its own, or a number of steps", "warmup"))
        yield ChoiceLine("begin", BEGIN, "now", id="begin")

    def on_mount(self) -> None:
        self._show()

    @on(ChoiceLine.Changed)
    @on(Input.Changed)
    def _show(self) -> None:
        way = self._way()
        if isinstance(way, str):
            self.say(way)
            return
        self.text = Content.styled(f"Learning rate: {way.said}.", "bold")
        self.say("")

    def _typed(self, name: str) -> str:
        return clean(self.query_one(f"#{name}", Field).value).strip()

    def _way(self) -> Way | str:
        """Return what was filled in as a way to go on, or what is wrong with it."""
        try:
            peak, warmup = self._typed("peak"), self._typed("warmup")
            steps = self.found.steps_of(int(self._typed("steps")), None)
            ways = self.found.choices(steps, float(peak) if peak else None, int(warmup) if warmup else None)
        except ValueError:
            return "Steps and warm-up are whole numbers, the peak is a rate such as 1e-4."
        except TunewrightError as error:
            return one_line(error.message, 140)
        chosen = self.query_one("#schedule", ChoiceLine).value
        return next(way for way in ways if way.name == chosen)

    def action_accept(self) -> None:
        way = self._way()
        if isinstance(way, str):
            self.say(way)
        else:
            self.dismiss((way, beginning(Terms(), self.query_one("#begin", ChoiceLine).value)))
