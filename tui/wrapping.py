"""Wrapping with a hanging indent: the lines after the first begin below the text, not below its mark."""

from __future__ import annotations

from textual.content import Content


def hanging(head: Content, text: Content, width: int) -> Content:
    """Return `head` followed by `text`, wrapped to `width` cells in the column where `text` begins."""
    indent = head.cell_length
    room = width - indent
    if room < 12:
        return head + text
    lines = [line.rstrip() for line in text.wrap(room)]
    return head + Content("\n" + " " * indent).join(lines)
