"""A list of rows in columns that fit the width: where there is too little room, the least important column goes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `weight` says how much of the spare room it takes, `rank` when it goes (the highest first)."""

    title: str
    width: int
    rank: int = 0
    weight: int = 0
    right: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a key that stays the same, and a cell for every column; a heading has one cell, and is passed over."""

    key: str
    cells: tuple[Content, ...]
    heading: bool = False


GAP = 2


class RowList(Vertical):
    """Shows rows below their column titles; only rows that changed are painted again."""

    DEFAULT_CSS = """
    RowList { height: 1fr; }
    RowList > Static { height: 1; padding: 0 1; color: $muted; }
    RowList > OptionList { height: 1fr; }
    """

    def __init__(self, columns: Sequence[Column], empty: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.empty = empty
        self._rows: tuple[Row, ...] = ()
        self._painted: tuple[int, tuple[Row, ...]] = (0, ())

    def compose(self) -> ComposeResult:
        yield Static(Content.styled("Looking…", "$muted"), markup=False)
        yield OptionList(markup=False)

    @property
    def list(self) -> OptionList:
        """The list itself, which has the focus and the messages."""
        return self.query_one(OptionList)

    @property
    def chosen(self) -> str | None:
        """The key of the highlighted row."""
        index = self.list.highlighted
        return self._painted[1][index].key if index is not None and index < len(self._painted[1]) else None

    def show(self, rows: Sequence[Row]) -> None:
        """Show `rows`; the highlight stays on its row, wherever that has moved."""
        self._rows = tuple(rows)
        self._paint()

    def choose(self, key: str | None) -> None:
        """Put the highlight on the row `key`, when there is one."""
        keys = [row.key for row in self._painted[1]]
        if key in keys:
            self.list.highlighted = keys.index(key)

    def on_resize(self) -> None:
        self._paint()

    def _paint(self) -> None:
        width = self.size.width - 3
        if width < 8 or (self._painted == (width, self._rows) and self._rows):
            return
        options, chosen = self.list, self.chosen
        shown = fit(self.columns, width)
        header = self.query_one(Static)
        if not self._rows:
            header.update(Content.styled(self.empty, "$muted"))
        else:
            titles = [Content(column.title) for column in self.columns]
            header.update(_line(titles, self.columns, shown))
        same_keys = [row.key for row in self._rows] == [row.key for row in self._painted[1]]
        if same_keys and width == self._painted[0]:
            for index, (row, old) in enumerate(zip(self._rows, self._painted[1], strict=True)):
                if row != old:
                    options.replace_option_prompt_at_index(index, self._prompt(row, shown))
        else:
            options.set_options([Option(self._prompt(row, shown), disabled=row.heading) for row in self._rows])
            keys = [row.key for row in self._rows]
            first = next((place for place, row in enumerate(self._rows) if not row.heading), None)
            options.highlighted = keys.index(chosen) if chosen in keys else first
        self._painted = (width, self._rows)

    def _prompt(self, row: Row, shown: dict[int, int]) -> Content:
        return row.cells[0] if row.heading else _line(row.cells, self.columns, shown)


def fit(columns: Sequence[Column], width: int) -> dict[int, int]:
    """Return the columns that fit into `width`, each with the width that it gets."""
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(columns[index].width + GAP for index in kept) - GAP > width:
        kept.remove(max(kept, key=lambda index: (columns[index].rank, index)))
    spare = max(0, width - sum(columns[index].width + GAP for index in kept) + GAP)
    weight = sum(columns[index].weight for index in kept)
    return {index: columns[index].width + (spare * columns[index].weight // weight if weight else 0) for index in kept}


def _line(cells: Sequence[Content], columns: Sequence[Column], shown: dict[int, int]) -> Content:
    parts: list[Content] = []
    for index, width in shown.items():
        cell = cells[index].truncate(width, ellipsis=True)
        room = width - cell.cell_length
        parts.append(cell.pad_left(room) if columns[index].right else cell.pad_right(room))
    return Content(" " * GAP).join(parts)
