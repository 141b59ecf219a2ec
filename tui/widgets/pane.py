"""Panes: text below a rule that carries their title; text that depends on the width is painted anew with it."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

Painter = Callable[[int], Content]
"""Returns the content for a width in cells."""


class Pane(Static):
    """Text that fits its place; the same text is not painted twice."""

    def __init__(self, title: str, id: str | None = None, said: str = "") -> None:
        super().__init__(Content.styled(said, "$muted"), id=id, classes="pane", markup=False)
        self.border_title = Content(title)
        self._painter: Painter | None = None
        self._shown: Content | None = None

    def show(self, content: Content | Painter) -> None:
        """Show `content`, or what it returns for the pane's width."""
        self._painter = content if callable(content) else lambda width: content
        self._paint()

    def on_resize(self) -> None:
        self._paint()

    def _paint(self) -> None:
        if self._painter is None or self.size.width == 0:
            return
        content = self._painter(self.size.width)
        if self._shown is None or not content.is_same(self._shown):
            self.update(content, layout=_height(content, self) != _height(self._shown, self))
            self._shown = content


class FixedText(Static):
    """Text whose place has a fixed height, so that new text never moves anything else."""

    def __init__(self, said: str = "", id: str | None = None) -> None:
        self._shown = Content.styled(said, "$muted")
        super().__init__(self._shown, id=id, markup=False)

    def show(self, content: Content) -> None:
        """Show `content`, when it is not what is shown already."""
        if not content.is_same(self._shown):
            self._shown = content
            self.update(content, layout=False)


class ScrollPane(VerticalScroll):
    """Text that may be longer than its place."""

    def __init__(self, title: str, id: str | None = None, said: str = "", at_end: bool = False) -> None:
        super().__init__(id=id, classes="pane", can_focus=True)
        self.border_title = Content(title)
        self.at_end = at_end
        """Whether the newest text is at the end, and followed as long as one has not scrolled up."""
        self._text = Static(Content.styled(said, "$muted"), markup=False)
        self._painter: Painter | None = None
        self._shown: Content | None = None

    def compose(self) -> ComposeResult:
        yield self._text

    def show(self, content: Content | Painter) -> None:
        """Show `content`, or what it returns for the pane's width."""
        self._painter = content if callable(content) else lambda width: content
        self._paint()

    def on_resize(self) -> None:
        self._paint()

    def _paint(self) -> None:
        if self._painter is None or self.size.width == 0:
            return
        content = self._painter(self.size.width - 1)  # the scroll bar may take a cell
        if self._shown is None or not content.is_same(self._shown):
            follow = self.at_end and self.scroll_offset.y >= self.max_scroll_y
            self._text.update(content, layout=_height(content, self._text) != _height(self._shown, self._text))
            self._shown = content
            if follow:
                self.scroll_end(animate=False)


def _height(content: Content | None, widget: Static) -> int | None:
    """Return the lines that `content` takes in `widget`; the screen is laid out anew only when they change."""
    return None if content is None else len(content.wrap(max(1, widget.size.width)))
