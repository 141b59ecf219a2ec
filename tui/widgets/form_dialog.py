"""Dialogs with lines to fill in: up and down go through them, enter accepts, escape leaves all as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from ..screens.frame import TooSmall
from .choice_line import LABEL_CELLS
from .dialog import Dialog

Answer = TypeVar("Answer")


class FormDialog(Dialog[Answer]):
    """A form above a line that says what is wrong with it."""

    AUTO_FOCUS = "ChoiceLine, Field, OptionList"
    verb = "Accept"

    def compose(self) -> ComposeResult:
        with Vertical(classes=f"dialog -form {self.dialog_classes}") as box:
            box.border_title = Content(self.dialog_title)
            with VerticalScroll(classes="form", can_focus=False):
                yield from self.compose_form()
            yield from self.compose_below()
            yield Static(self.text, id="said", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button(f"{self.verb} (enter)", id="accept")
                yield Button("Cancel (esc)", id="close")
        yield TooSmall()

    def compose_form(self) -> Iterator[Widget]:
        """Yield the lines."""
        yield from ()

    def compose_below(self) -> Iterator[Widget]:
        """Yield what stands below the lines."""
        yield from ()

    def say(self, problem: str) -> None:
        """Say what is wrong with what was filled in."""
        self.query_one("#said", Static).update(Content.assemble(("✗ ", "$error"), problem) if problem else self.text)

    def action_scroll_text(self, lines: int) -> None:
        if abs(lines) == 1:
            move = self.focus_next if lines > 0 else self.focus_previous
            move("ChoiceLine, Field")
        else:
            self.query_one(".form").scroll_relative(y=lines, animate=False)

    @on(Input.Submitted)
    @on(Button.Pressed, "#accept")
    def _accept(self) -> None:
        self.action_accept()


def labelled(label: str, widget: Widget) -> Horizontal:
    """Return a line of the form: a label and what is filled in."""
    return Horizontal(Static(Content.styled(f" {label:<{LABEL_CELLS}}", "$muted")), widget, classes="form-line")
