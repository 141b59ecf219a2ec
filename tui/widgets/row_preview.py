"""A pane with one row of the data as the trainer gets it: what is learned underlined, what is cut off struck through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...foundation.text import clean, one_line
from ..figures import plural
from .field import Field
from .pane import Painter

if TYPE_CHECKING:
    from ...engine.data.preview import Piece, ShownRow

LEARNED, READ, CUT = "underline $success", "$foreground", "strike $muted"
BETWEEN = "│"
"""Stands between two tokens."""
KEYS = (("n", "next"), ("p", "before"), ("l", "longest"), ("w", "worst"), ("/", "search"), ("v", "tokens"))
"""The keys that are told beside the legend: as many as fit into a line of the smallest terminal."""


class RowPreview(Vertical):
    """The row's place and figures in the title, below it the row, and a field for the search while one searches."""

    DEFAULT_CSS = """
    RowPreview > VerticalScroll { height: 1fr; }
    RowPreview > Field { display: none; }
    RowPreview.-searching > Field { display: block; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, classes="pane")
        self.border_title = Content("A row, as it is trained")
        self.as_tokens = False
        self.row: ShownRow | None = None
        self._rows = 0
        self._said = ""
        self._nothing: Painter | None = None
        """What is said while there is no row."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=True, id="row"):
            yield Static(Content.styled("Reading…", "$muted"), markup=False)
        yield Field(placeholder="Search for… (enter finds the next, esc ends)", id="search")

    def show(self, row: ShownRow, rows: int, said: str = "") -> None:
        """Show `row` of `rows`; `said` tells why it is this one."""
        same = self.row == row
        self.row, self._rows, self._said = row, rows, said
        self._paint()
        if not same:
            self.query_one("#row").scroll_home(animate=False)

    def count(self, rows: int) -> None:
        """Say anew of how many rows this is one."""
        if self.row is not None and rows != self._rows:
            self._rows = rows
            self._title()

    def say(self, said: str) -> None:
        """Say something about what was asked for in the title; the row stays."""
        if self.row is not None:
            self.border_title = Content(f"{self._place()} · {said}")

    def empty(self, painter: Painter) -> None:
        """Show no row but what `painter` says."""
        self.row, self._said, self._nothing = None, "", painter
        self.border_title = Content("A row, as it is trained")
        self.on_resize()

    def on_resize(self) -> None:
        if self.row is None and self._nothing is not None and self.size.width:
            self.query_one(Static).update(self._nothing(self.size.width - 1))

    def toggle_tokens(self) -> None:
        """Change between text and tokens."""
        self.as_tokens = not self.as_tokens
        if self.row is not None:
            self._paint()

    def search(self) -> None:
        """Open the search field."""
        self.add_class("-searching")
        field = self.query_one("#search", Field)
        field.focus()
        field.action_select_all()

    def end_search(self) -> None:
        """Close the search field, and give the keys back to the row."""
        self.remove_class("-searching")
        self.query_one("#row").focus()

    def _paint(self) -> None:
        assert self.row is not None
        self._title()
        self.query_one(Static).update(row_text(self.row, self.as_tokens))

    def _title(self) -> None:
        row = self.row
        assert row is not None
        words = [self._place(), one_line(row.place, 60)]
        if not row.problem:
            words += [plural(row.tokens, "token"), f"{row.trained:,} trained"]
        if row.kept < row.tokens:
            words.append(f"{row.tokens - row.kept:,} cut")
        if self._said:
            words.append(self._said)
        self.border_title = Content(" · ".join(words))

    def _place(self) -> str:
        """Return the row's number, and of how many where that is known."""
        assert self.row is not None
        return f"Row {self.row.index + 1:,}" + (f" of {self._rows:,}" if self.row.index < self._rows else "")


def row_text(row: ShownRow, as_tokens: bool) -> Content:
    """Return the row, with a legend and a word where it is cut."""
    legend = Content.assemble(("underlined", LEARNED), (" is learned", "$muted"))
    legend += Content.styled(" ·", "$muted")
    if as_tokens:
        legend += Content.styled(f" {BETWEEN} stands between tokens, · is a space ·", "$muted")
    for key, does in (("v", "text"),) if as_tokens else KEYS:
        legend += Content.assemble(" ", (key, "$accent"), (f" {does}", "$muted"))
    if row.problem:
        legend = Content.assemble(("✗ ", "$error"), clean(row.problem, 1000))
    parts: list[Content] = [legend, Content("\n\n")]
    cut = False
    for piece in row.pieces:
        if piece.cut and not cut:
            cut = True
            said = f" ✂ cut here at {plural(row.kept, 'token')}: what follows is not seen "
            parts += [Content("\n"), Content.styled(said, "$warning"), Content("\n")]
        style = CUT if piece.cut else LEARNED if piece.trained else READ
        parts.append(Content.styled("".join(_token_text(piece)) if as_tokens else piece.text, style))
    return Content("").join(parts)


def _token_text(piece: Piece) -> Iterator[str]:
    """Yield the tokens with marks between; a line ends where one of the row does."""
    for token in piece.tokens:
        yield token + BETWEEN + ("\n" if token.endswith("⏎") else "")
