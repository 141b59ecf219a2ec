"""The last line of every screen: the four modes and the keys that work here, as many as fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.app import RenderResult
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from ..keys import MODES, Key, Where, keys_of


class KeyBar(Widget):
    """Shows the modes, the screen's own keys, and then those that work everywhere; a click on one presses it."""

    @dataclass
    class Pressed(Message):
        """A key of the bar was clicked."""

        action: str

    def __init__(self, where: Where, mode: str | None) -> None:
        super().__init__()
        self.where: Where = where
        self.mode = mode
        self._inner: Where | None = None
        self._places: list[tuple[int, str]] = []
        """Where each entry ends, in cells, and the action behind it."""

    def show_inner(self, where: Where | None) -> None:
        """Show the keys of a part of the screen too, after those of the screen."""
        if where != self._inner:
            self._inner = where
            self.refresh()

    def render(self) -> RenderResult:
        width = self.size.width
        inner = [key for key in keys_of(self._inner) if key.shown] if self._inner else []
        own = [key for key in keys_of(self.where) if key.shown and all(key.key != each.key for each in inner)]
        keys = own + inner + [key for key in keys_of("Everywhere") if key.shown]
        all_named = _width(self._modes(True), keys) <= width
        modes = self._modes(all_named)
        # Help is the one key that must stay; the ones before it make room.
        while keys and _width(modes, keys) > width:
            keys.remove(next((key for key in reversed(keys) if key.action != "app.help"), keys[0]))
        bar = Content(" ")
        self._places = []
        for content, action in modes:
            bar += content + "  "
            self._places.append((bar.cell_length - 1, action))
        bar += Content.styled("│  ", "$rule")
        self._places.append((bar.cell_length - 2, ""))
        for key in keys:
            bar += Content.assemble((key.name, "$accent"), " ", key.label, "  ")
            self._places.append((bar.cell_length - 1, key.action))
        return bar

    def _modes(self, all_named: bool) -> list[tuple[Content, str]]:
        """Return the modes; only the present one by name where there is little room."""
        parts: list[tuple[Content, str]] = []
        for mode in MODES:
            here = mode.name == self.mode
            text = f"{mode.key} {mode.title}" if all_named or here else mode.key
            parts.append((Content.styled(text, "bold $accent" if here else "$muted"), f"app.mode('{mode.name}')"))
        return parts

    def on_click(self, event: Click) -> None:
        action = next((action for end, action in self._places if event.x < end), "")
        if action:
            self.post_message(self.Pressed(action))


def _width(modes: Iterable[tuple[Content, str]], keys: Iterable[Key]) -> int:
    return 2 + sum(content.cell_length + 2 for content, _ in modes) + sum(len(k.name) + len(k.label) + 3 for k in keys)
