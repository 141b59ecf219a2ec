"""The one place where errors end: what it is, what happened, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from .dialog import Dialog


class ErrorDialog(Dialog[None]):
    """Shows a TunewrightError; its text can be copied."""

    def __init__(self, error: TunewrightError) -> None:
        text = Content.assemble(
            clean(error.message, 6000), "\n\n", ("What to do  ", "bold"), clean(error.remedy, 2000).strip()
        )
        super().__init__(f"✗ {one_line(error.title, 60)}", text, classes="-error")

    def compose_buttons(self) -> Iterator[Widget]:
        yield Button("Copy", id="copy")
        yield Button("Close", id="close")

    def on_mount(self) -> None:
        self.query_one("#close", Button).focus()

    @on(Button.Pressed, "#copy")
    def _copy(self) -> None:
        self.action_copy()
        self.query_one("#copy", Button).label = "Copied"
