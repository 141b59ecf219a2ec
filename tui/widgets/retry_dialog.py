"""Trying a failed run again: why it failed, and where it is to begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from ...foundation.text import clean, one_line
from .choice_line import Choice, ChoiceLine
from .form_dialog import FormDialog

if TYPE_CHECKING:
    from ...engine.runs.retry import Failure

BEGINNINGS = (
    Choice("checkpoint", "the last good checkpoint", "as a resume does"),
    Choice("start", "the start", "what it had saved is put aside and kept"),
)


class RetryDialog(FormDialog[str | None]):
    """Shows the failure; the answer is `checkpoint` or `start`."""

    verb = "Try again"

    def __init__(self, failure: Failure) -> None:
        parts = [clean(failure.message, 1500), clean(failure.remedy, 600), failure.advice]
        words = Content("\n").join(Content(each) for each in parts if each)
        super().__init__("Try the run again?", Content.styled(one_line(failure.said, 200), "bold") + "\n" + words)

    def compose_form(self) -> Iterator[Widget]:
        yield ChoiceLine("begin at", BEGINNINGS, "checkpoint", id="begin")

    def action_accept(self) -> None:
        self.dismiss(self.query_one("#begin", ChoiceLine).value)
