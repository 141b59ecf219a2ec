"""A one-line text field without a blinking cursor, and one whose arrows go through what it may hold."""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding
from textual.suggester import Suggester, SuggestFromList
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


class SteppingField(Field):
    """A field for one of some words; up and down go through them."""

    BINDINGS = [  # noqa: RUF012
        Binding("down", "step(1)", show=False),
        Binding("up", "step(-1)", show=False),
    ]

    def __init__(
        self, words: Sequence[str] = (), value: str = "", placeholder: str = "", id: str | None = None
    ) -> None:
        super().__init__(value, placeholder, id)
        self.words: tuple[str, ...] = ()
        self.offer(words)

    def offer(self, words: Sequence[str], suggester: Suggester | None = None) -> None:
        """Go through these `words` from now on, and complete them, unless `suggester` knows others."""
        self.words = tuple(words)
        known = [word for word in words if word]
        self.suggester = suggester or (SuggestFromList(known, case_sensitive=False) if known else None)

    def action_step(self, by: int) -> None:
        """Take the word after or before this one."""
        if self.words:
            self.value = self.after(by)
            self.cursor_position = len(self.value)

    def after(self, by: int) -> str:
        """Return the word that stands `by` places after this one."""
        known = [word.casefold() for word in self.words]
        place = known.index(self.value.casefold()) if self.value.casefold() in known else 0
        return self.words[(place + by) % len(self.words)]
