"""Dialogs: one that tells an error, one that asks before something is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from textual import on
from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Static

from ..keys import bindings
from ..screens.frame import COLUMNS, ROWS, TooSmall

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer]):
    """A box in the middle of the screen: text that scrolls, and buttons."""

    BINDINGS = bindings("Dialogs")  # pyright: ignore[reportAssignmentType]
    HORIZONTAL_BREAKPOINTS = COLUMNS
    VERTICAL_BREAKPOINTS = ROWS

    if TYPE_CHECKING:

        @property
        def app(self) -> App[None]: ...

    def __init__(self, title: str, text: Content, classes: str = "") -> None:
        super().__init__()
        self.dialog_title = title
        self.text = text
        self.dialog_classes = classes

    def compose(self) -> ComposeResult:
        with Vertical(classes=f"dialog {self.dialog_classes}") as box:
            box.border_title = Content(self.dialog_title)
            with VerticalScroll(classes="dialog-text", can_focus=False):
                yield Static(self.text)
            with Horizontal(classes="dialog-buttons"):
                yield from self.compose_buttons()
        yield TooSmall()

    def compose_buttons(self) -> Iterator[Widget]:
        """Yield the buttons."""
        yield Button("Close", id="close")

    def action_close(self) -> None:
        self.dismiss(None)

    def action_scroll_text(self, lines: int) -> None:
        self.query_one(".dialog-text").scroll_relative(y=lines, animate=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.text.plain)

    def action_accept(self) -> None:
        """Do nothing: only a question can be agreed to."""

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.action_close()
