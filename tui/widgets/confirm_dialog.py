"""Asking before something is done."""

from __future__ import annotations

from collections.abc import Iterator

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button

from .dialog import Dialog


class ConfirmDialog(Dialog[bool | None]):
    """Asks a question; True is the answer when it was agreed to."""

    def __init__(self, title: str, text: str | Content, verb: str) -> None:
        super().__init__(title, Content(text) if isinstance(text, str) else text)
        self.verb = verb

    def compose_buttons(self) -> Iterator[Widget]:
        yield Button(f"{self.verb} (y)", id="accept")
        yield Button("Cancel (esc)", id="close")

    def on_mount(self) -> None:
        self.query_one("#accept", Button).focus()

    def action_accept(self) -> None:
        self.dismiss(True)

    @on(Button.Pressed, "#accept")
    def _accept(self) -> None:
        self.action_accept()
