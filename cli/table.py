"""Plain tables and paragraphs for terminals and pipes: aligned columns, nothing drawn around them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from ..foundation.text import one_line


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return `rows` under `header`, every column as wide as its widest cell; columns in `right` are right-aligned."""
    cells = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            " " * (width - cell_len(cell)) + cell if column in right else cell + " " * (width - cell_len(cell))
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in cells)


def seconds_text(seconds: float | None) -> str:
    """Return a duration as people say it: 8.4 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None or not abs(seconds) < 1e12:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def gib_text(gib: float | None) -> str:
    """Return an amount of memory in GiB with the digits that mean something."""
    if gib is None:
        return "?"
    if not gib < 1e9:  # hand-edited, or no number
        return f"{gib:.1e} GiB"
    return f"{gib:.2f} GiB" if gib < 100 else f"{gib:.0f} GiB"


def percent_text(share: float | None) -> str:
    """Return a share of one in percent."""
    return "?" if share is None else f"{100 * share:.1f} %"


def paragraph(text: str, indent: str = "", hanging: str = "") -> str:
    """Return `text` in lines that fit the terminal, all behind `indent`, those after the first behind `hanging` too."""
    width = min(100, shutil.get_terminal_size((80, 24)).columns)
    return textwrap.fill(text.strip(), max(40, width), initial_indent=indent, subsequent_indent=indent + hanging)
