"""When a run begins, and how it gives way to others on its machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from textual.content import Content
from textual.widget import Widget

from ...engine.runs.terms import Terms
from .choice_line import Choice, ChoiceLine
from .form_dialog import FormDialog

BEGIN = (
    Choice("now", "now", "whatever else is on the machine"),
    Choice("queue", "in turn", "when no other run holds its cards"),
    Choice("wait", "when free", "when the plan's memory is free"),
)
LONGEST = (
    Choice("", "no end", "it waits for as long as it takes"),
    Choice("1", "an hour", "then it gives up, and says why"),
    Choice("12", "12 hours", "then it gives up, and says why"),
    Choice("72", "3 days", "then it gives up, and says why"),
)
NICE = (
    Choice("0", "0", "as every other program"),
    Choice("5", "5", "gives way a little"),
    Choice("10", "10", "gives way to what people do"),
    Choice("19", "19", "takes what others leave"),
)
PREEMPTION = (
    Choice("", "where it looks so", "a cloud's warnings are asked for on its machines"),
    Choice("always", "always", "a cloud's warnings are asked for"),
)


def begin_of(terms: Terms) -> str:
    """Return the choice of `BEGIN` that stands for `terms`."""
    return "queue" if terms.queue else "wait" if terms.wait_for_memory else "now"


def beginning(terms: Terms, begin: str) -> Terms:
    """Return `terms` with the choice `begin` of `BEGIN`."""
    return replace(terms, queue=begin == "queue", wait_for_memory=begin == "wait")


class TermsDialog(FormDialog[Terms | None]):
    """Shows the terms in a line each; the answer is the chosen ones."""

    def __init__(self, terms: Terms, verb: str = "Accept") -> None:
        self.verb = verb
        super().__init__("When it begins", Content.styled("← → change a line, ↑ ↓ go to another.", "$muted"))
        self.terms = terms

    def compose_form(self) -> Iterator[Widget]:
        terms = self.terms
        hours = terms.wait_at_most_hours
        yield ChoiceLine("begin", BEGIN, begin_of(terms), id="begin")
        yield ChoiceLine("at most", LONGEST, "" if hours is None else f"{hours:g}", id="longest")
        yield ChoiceLine("nice", NICE, str(terms.nice), id="nice")
        yield ChoiceLine("pre-emption", PREEMPTION, "always" if terms.watch_preemption else "", id="preemption")

    def action_accept(self) -> None:
        chosen = {
            name: self.query_one(f"#{name}", ChoiceLine).value for name in ("begin", "longest", "nice", "preemption")
        }
        self.dismiss(
            replace(
                beginning(self.terms, chosen["begin"]),
                wait_at_most_hours=float(chosen["longest"]) if chosen["longest"] else None,
                nice=int(chosen["nice"]),
                watch_preemption=bool(chosen["preemption"]),
            )
        )
