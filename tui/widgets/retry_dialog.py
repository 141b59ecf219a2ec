"""Trying a failed run again: why it failed, and where it is to begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from ...foundation.text import clean, one_line
from .choice_line import Choice, ChoiceLine
from .form_dialog import FormDialog
from .terms_dialog import BEGIN, begin_of, beginning

if TYPE_CHECKING:
    from ...engine.runs.retry import Failure
    from ...engine.runs.terms import Terms

BEGINNINGS = (
    Choice("checkpoint", "the last good checkpoint", "as a resume does"),
    Choice("start", "the start", "what it had saved is put aside and kept"),
)


@dataclass(frozen=True, slots=True)
class Retrying:
    """How a run is tried again."""

    from_start: bool
    terms: Terms


class RetryDialog(FormDialog[Retrying | None]):
    """Shows the failure; the answer is where the run begins, and when."""

    verb = "Try again"

    def __init__(self, failure: Failure, terms: Terms) -> None:
        parts = [clean(failure.message, 1500), clean(failure.remedy, 600), failure.advice]
        words = Content("\n").join(Content(each) for each in parts if each)
        super().__init__("Try the run again?", Content.styled(one_line(failure.said, 200), "bold") + "\n" + words)
        self.terms = terms

    def compose_form(self) -> Iterator[Widget]:
        yield ChoiceLine("from", BEGINNINGS, "checkpoint", id="place")
        yield ChoiceLine("begin", BEGIN, begin_of(self.terms), id="begin")

    def action_accept(self) -> None:
        place, begin = (self.query_one(f"#{name}", ChoiceLine).value for name in ("place", "begin"))
        self.dismiss(Retrying(place == "start", beginning(self.terms, begin)))
