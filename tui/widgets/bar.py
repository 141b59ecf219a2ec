"""Bars made of lines: how much of something is used, and where a mark stands in it."""

from __future__ import annotations

from textual.content import Content


def bar(share: float, width: int, colour: str = "$accent", mark: float | None = None) -> Content:
    """Return a bar of `width` cells, filled to `share` (0 to 1); a `┃` stands at the share `mark`."""
    filled = _filled(share, width)
    content = Content.assemble((filled, colour), ("─" * (width - len(filled)), "$rule"))
    if mark is None or width < 2:
        return content
    place = min(width - 1, max(0, round(mark * width)))
    return content[:place] + Content.styled("┃", "bold $foreground") + content[place + 1 :]


def row_bar(share: float, width: int, colour: str = "$accent") -> Content:
    """Return a bar without a track, for one row of a table."""
    return Content.styled(_filled(share, width).ljust(width), colour)


def _filled(share: float, width: int) -> str:
    """Return the filled part, to half a cell; whatever is not nothing is seen."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    if share > 0:
        halves = max(1, halves)
    whole, rest = divmod(halves, 2)
    return "━" * whole + "╸" * rest
