"""A one-line text field without a blinking cursor."""

from __future__ import annotations

from textual.suggester import Suggester
from textual.widgets import Input


class Field(Input):
    """An input of one row, quiet over slow lines."""

    def __init__(
        self,
        value: str = "",
        placeholder: str = "",
        id: str | None = None,
        suggester: Suggester | None = None,
    ) -> None:
        super().__init__(value, placeholder, id=id, suggester=suggester, compact=True, select_on_focus=False)
        self.cursor_blink = False
