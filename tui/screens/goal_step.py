"""The second step: what one wants, as a few questions with sensible answers given already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.events import Key as KeyPressed
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ..background import background, deliver
from ..draft import Draft
from ..widgets.pane import Pane, ScrollPane
from ..wrapping import hanging
from .step import Step, StepChanged

if TYPE_CHECKING:
    from ...engine.questions import Question


@dataclass
class QuestionsLoaded(Message):
    """The questions of the advice."""

    questions: tuple[Question, ...]


class QuestionList(OptionList):
    """The questions, each with its answer; the arrows to the side change the answer."""

    @dataclass
    class Changed(Message):
        """Another answer was asked for, `by` that many places on."""

        by: int

    def on_key(self, event: KeyPressed) -> None:
        by = {"left": -1, "right": 1, "space": 1}.get(event.key)
        if by is not None:
            event.stop()
            event.prevent_default()
            self.post_message(self.Changed(by))


class GoalStep(Step):
    """The list of questions, above the answers to the highlighted one and what each of them changes."""

    name_in_rail = "goal"

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self.questions: tuple[Question, ...] = ()

    def compose(self) -> ComposeResult:
        yield Pane("Your goal: the answers given fit most people; enter takes them, ← → change one", id="introduction")
        yield QuestionList(markup=False)
        yield ScrollPane("Answers to this question", id="options", said="")

    def on_mount(self) -> None:
        self._load()

    @background("questions")
    def _load(self) -> None:
        from ...engine.questions import QUESTIONS

        deliver(self, QuestionsLoaded(QUESTIONS))

    @on(QuestionsLoaded)
    def _know(self, message: QuestionsLoaded) -> None:
        self.questions = message.questions
        self._paint()

    def enter(self) -> None:
        self.query_one(QuestionList).focus()
        self._paint()

    def _answer(self, question: Question) -> str:
        return self.draft.answers.get(question.key, question.options[0].key)

    def _paint(self) -> None:
        listing = self.query_one(QuestionList)
        highlighted = listing.highlighted
        lines = [self._line(question) for question in self.questions]
        if listing.option_count == len(lines):
            for index, line in enumerate(lines):
                listing.replace_option_prompt_at_index(index, line)
        else:
            listing.set_options(Option(line) for line in lines)
        listing.highlighted = highlighted if highlighted is not None else 0 if lines else None
        self._paint_options()

    def _line(self, question: Question) -> Content:
        chosen = next(option for option in question.options if option.key == self._answer(question))
        room = min(46, max(len(each.text) for each in self.questions) + 2)
        return Content.assemble(
            (f"{question.text:<{room}}", "$foreground"),
            ("‹ ", "$muted"),
            (chosen.text, "bold $accent"),
            (" ›", "$muted"),
        )

    @on(OptionList.OptionHighlighted)
    def _paint_options(self) -> None:
        question = self._highlighted()
        if question is None:
            return
        chosen = self._answer(question)
        self.query_one("#options", ScrollPane).show(lambda width: options_text(question, chosen, width))

    def _highlighted(self) -> Question | None:
        index = self.query_one(QuestionList).highlighted
        return self.questions[index] if index is not None and index < len(self.questions) else None

    @on(QuestionList.Changed)
    def _change(self, message: QuestionList.Changed) -> None:
        question = self._highlighted()
        if question is None:
            return
        keys = [option.key for option in question.options]
        place = (keys.index(self._answer(question)) + message.by) % len(keys)
        self.draft.answers[question.key] = keys[place]
        self.draft.advice = None
        self._paint()
        self.post_message(StepChanged())

    def answer(self) -> str:
        if not self.questions:
            return ""
        first = self.questions[0]
        return next(option.text for option in first.options if option.key == self._answer(first))

    def obstacle(self) -> str | None:
        return None if self.questions else "Still loading the questions."


def options_text(question: Question, chosen: str, width: int) -> Content:
    """Return the answers to `question`, each with what it changes."""
    room = max(len(option.text) for option in question.options) + 2
    lines: list[Content] = []
    for option in question.options:
        here = option.key == chosen
        mark = ("(●) ", "$accent") if here else ("( ) ", "$muted")
        head = Content.assemble(mark, (f"{option.text:<{room}}", "bold" if here else ""))
        lines.append(hanging(head, Content.styled(option.changes, "$muted"), width))
    return Content("\n").join(lines)
