"""The fourth step: which method, why, what each would take here, and what would change the advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...foundation.units import gib
from ..background import background, deliver
from ..draft import Draft
from ..figures import count, duration, share
from ..widgets.pane import Pane, ScrollPane
from ..widgets.row_list import Column, Row, RowList
from ..wrapping import hanging
from .step import Step, StepChanged

if TYPE_CHECKING:
    from ...engine.advice import Advice, MethodFigures
    from ...engine.anatomy import Anatomy
    from ...engine.machine import Machine

COLUMNS = (
    Column("method", 17),
    Column("trained", 9, right=True),
    Column("of all", 8, rank=3, right=True),
    Column("peak", 10, right=True),
    Column("time", 9, right=True),
    Column("here", 11),
    Column("", 9, rank=2),
    Column("plan", 22, rank=4, weight=1),
)
TITLES = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
OUTCOMES = TITLES | {
    "few-shot": "examples",
    "continued pre-training": "pre-training",
    "preference tuning": "preferences",
    "not here": "not here",
}
"""The outcomes in a word or two, to stand before their reasons."""


@dataclass
class Advised(Message):
    """The advice for what was answered, or why there is none."""

    key: object
    advice: Advice | None
    problem: TunewrightError | None


class MethodStep(Step):
    """The advice, the methods side by side, and the reasons."""

    name_in_rail = "method"

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._key: object = None
        self._problem: TunewrightError | None = None

    def compose(self) -> ComposeResult:
        yield Pane("Advice", id="headline", said="Weighing…")
        yield RowList(COLUMNS, "Calculating what each method would take here…", id="methods")
        yield ScrollPane("Why", id="why", said="")

    def enter(self) -> None:
        self.query_one("#methods", RowList).list.focus()
        report, machine = self.draft.report, self.draft.machine
        if report is None or report.anatomy is None or machine is None:
            return
        tokens = report.tokens
        key = (report.model, report.source, report.rows, tokens, tuple(sorted(self.draft.answers.items())))
        if key != self._key:
            self._key = key
            self.draft.advice = None
            self._advise(key, dict(self.draft.answers), machine, report.anatomy, report.rows, tokens)

    @background("advice")
    def _advise(
        self, key: object, answers: dict[str, str], machine: Machine, anatomy: Anatomy, rows: int, tokens: int | None
    ) -> None:
        from ...engine.advice import advise

        try:
            deliver(self, Advised(key, advise(answers, machine, anatomy, rows, tokens), None))
        except TunewrightError as error:
            deliver(self, Advised(key, None, error))

    @on(Advised)
    def _show(self, message: Advised) -> None:
        if message.key != self._key:
            return
        self.draft.advice, self._problem = message.advice, message.problem
        headline = self.query_one("#headline", Pane)
        if message.problem is not None:
            headline.show(Content.assemble((f"✗ {one_line(message.problem.title, 100)}\n", "bold $error"),
                                           clean(message.problem.message, 1000)))  # fmt: skip
        if (advice := message.advice) is None:
            return
        if self.draft.entry is None or self.draft.method is None:
            self.draft.method = advice.method or "lora"
        headline.show(lambda width: headline_text(advice, width))
        methods = self.query_one("#methods", RowList)
        total = self.draft.report.anatomy.total_parameters if self.draft.report and self.draft.report.anatomy else 0
        chosen = self.draft.method
        methods.show([_row(each, advice, total) for each in sorted(advice.figures, key=lambda each: each.peak_gib)])
        methods.choose(chosen)
        self.query_one("#why", ScrollPane).show(lambda width: why_text(advice, width))
        self.post_message(StepChanged())

    @on(OptionList.OptionHighlighted)
    def _choose(self) -> None:
        chosen = self.query_one("#methods", RowList).chosen
        if chosen is not None and chosen != self.draft.method and self.draft.advice is not None:
            self.draft.method, self.draft.plan = chosen, None
            if self.draft.entry is not None and self.draft.entry.method != chosen:
                self.draft.entry = None

    def answer(self) -> str:
        return TITLES.get(self.draft.method or "", "")

    def obstacle(self) -> str | None:
        if self._problem is not None:
            return f"{self._problem.title}: {self._problem.remedy}"
        return None if self.draft.advice else "Still weighing."


def headline_text(advice: Advice, width: int) -> Content:
    """Return what is advised, with a warning where it is not to train."""
    trains = advice.outcome in TITLES
    mark = ("✓ ", "$success") if trains else ("! ", "$warning")
    text = hanging(Content.assemble(mark), Content.styled(one_line(advice.headline, 400), "bold"), width)
    if not trains and advice.method is not None:
        text += Content.styled("\n  Press enter to go on with the supervised tuning that belongs to it.", "$muted")
    elif not trains:
        text += Content.styled("\n  You can train all the same: choose a method below and press enter.", "$muted")
    return text


def _row(figures: MethodFigures, advice: Advice, total: int) -> Row:
    advised = figures.method == advice.method
    fits = Content.styled("✓ fits", "$success") if figures.fits else Content.styled("✗ too large", "$error")
    return Row(
        figures.method,
        (
            Content.styled(TITLES[figures.method], "bold"),
            Content(count(figures.trainable_parameters)),
            Content.styled(
                share(figures.trainable_parameters / total, 2 if figures.method != "full" else 0) if total else "",
                "$muted",
            ),
            Content(gib(figures.peak_gib)),
            Content(duration(figures.seconds)),
            fits,
            Content.styled("★ advised" if advised else "", "$accent"),
            Content.styled(figures.plan, "$muted"),
        ),
    )


def why_text(advice: Advice, width: int) -> Content:
    """Return the reasons with the side that each speaks for, the ways out, what would change the advice, and notes."""
    text = Content("")
    for reason in advice.reasons:
        sign = ("+", "$success") if reason.weight > 0 else ("−", "$error")
        head = Content.assemble(sign, (f" {OUTCOMES.get(reason.outcome, reason.outcome):<17}", "$muted"))
        text += hanging(head, Content(one_line(reason.because, 400)), width) + "\n"
    if advice.ways_out:
        text += Content.styled("\nWhat would do, the smallest change first\n", "bold $accent")
        for way in advice.ways_out:
            text += hanging(Content("· "), Content(one_line(way.text, 300)), width) + "\n"
    if advice.would_change:
        text += Content.styled("\nWhat would change it\n", "bold $accent")
        for change in advice.would_change:
            text += hanging(Content("· "), Content.styled(one_line(change, 300), "$muted"), width) + "\n"
    if advice.notes:
        text += Content.styled("\nWhat to know about it\n", "bold $accent")
        for note in advice.notes:
            text += hanging(Content("· "), Content.styled(one_line(note, 400), "$muted"), width) + "\n"
    return text
