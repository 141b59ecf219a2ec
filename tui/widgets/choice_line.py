"""A line with one of several values: the arrows to the side change it, up and down go to the next line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import RenderResult
from textual.content import Content
from textual.events import Click, Key
from textual.message import Message
from textual.widget import Widget

LABEL_CELLS = 13


@dataclass(frozen=True, slots=True)
class Choice:
    """One value: what it is to the program, how it is written, and what it means."""

    value: str
    text: str
    meaning: str = ""


class ChoiceLine(Widget, can_focus=True):
    """Shows the chosen value with its meaning; a letter goes to the next value that begins with it."""

    DEFAULT_CSS = """
    ChoiceLine { height: 1; width: 1fr; }
    ChoiceLine:focus { background: $soft; }
    """

    @dataclass
    class Changed(Message):
        """Another value was chosen."""

        line: ChoiceLine

    def __init__(self, label: str, choices: Sequence[Choice], value: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.label = label
        self.choices = tuple(choices)
        self.place = 0
        self.choose(value)

    @property
    def value(self) -> str:
        """The chosen value."""
        return self.choices[self.place].value if self.choices else ""

    def choose(self, value: str) -> None:
        """Show `value`, or the first one when it is not among the choices; nobody is told."""
        values = [choice.value for choice in self.choices]
        self.place = values.index(value) if value in values else 0
        self.refresh()

    def offer(self, choices: Sequence[Choice], value: str) -> None:
        """Offer other choices, `value` being chosen."""
        self.choices = tuple(choices)
        self.choose(value)

    def render(self) -> RenderResult:
        choice = self.choices[self.place] if self.choices else Choice("", "—")
        said = Content.assemble(
            (f" {self.label:<{LABEL_CELLS}}", "$muted"), ("‹ ", "$muted"), (choice.text, "bold $accent"), (" ›", "$muted"),
            (f"  {choice.meaning}" if choice.meaning else "", "$muted"),
        )  # fmt: skip
        return said.truncate(self.size.width, ellipsis=True)

    def on_key(self, event: Key) -> None:
        if event.key in ("up", "down"):
            move = self.screen.focus_previous if event.key == "up" else self.screen.focus_next
            move("ChoiceLine, Field")
        elif (by := {"left": -1, "right": 1, "space": 1}.get(event.key)) is not None:
            self._move(by)
        elif event.character and event.character.isalnum():
            self._seek(event.character.casefold())
        else:
            return
        event.stop()
        event.prevent_default()

    def on_click(self, event: Click) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        if self.choices:
            self._take((self.place + by) % len(self.choices))

    def _seek(self, letter: str) -> None:
        places = [(self.place + by) % len(self.choices) for by in range(1, len(self.choices))]
        found = next((place for place in places if self.choices[place].text.casefold().startswith(letter)), None)
        if found is not None:
            self._take(found)

    def _take(self, place: int) -> None:
        if place != self.place:
            self.place = place
            self.refresh()
            self.post_message(self.Changed(self))
