"""A chart in braille: eight dots a cell, axes with round numbers, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.app import App
from textual.color import Color
from textual.content import Content
from textual.reactive import reactive
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from ...engine.runs.trace import Trace
from ..figures import count, number

# The dots of a braille cell by row, for its left and its right column (Unicode 16, chapter 21).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LEAST_WIDTH, _LEAST_HEIGHT = 16, 3


@dataclass(frozen=True, slots=True)
class Line:
    """A trace drawn as a line, or as one `marker` a point; `colour` names a variable of the theme."""

    name: str
    trace: Trace
    colour: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """How values become rows of dots."""

    low: float
    high: float
    logarithmic: bool

    def rows(self, count: int) -> Callable[[float], int]:
        """Return what gives the row of a value among `count` rows, 0 at the top."""
        top, last, log10 = self._place(self.high), count - 1, math.log10
        factor = last / (top - self._place(self.low))
        if self.logarithmic:
            return lambda value: min(last, max(0, int((top - log10(max(value, 1e-300))) * factor + 0.5)))
        return lambda value: min(last, max(0, int((top - value) * factor + 0.5)))

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.logarithmic else value


class Chart(Widget):
    """Draws lines over a common x; `show` gives it new points."""

    DEFAULT_CSS = """
    Chart { height: 1fr; min-height: 5; }
    """
    logarithmic: reactive[bool] = reactive(False)

    if TYPE_CHECKING:

        @property
        def app(self) -> App[None]: ...

    def __init__(
        self, title: str, lines: Sequence[Line], x_end: float = 0, from_zero: bool = False, id: str | None = None
    ) -> None:
        super().__init__(id=id, classes="pane")
        self.heading = title
        self.lines = lines
        self.x_end = x_end
        """The least right end of the x axis: how many steps are planned."""
        self.from_zero = from_zero
        """Whether the y axis begins at 0, so that noise does not look like change."""
        self.x_start = 0.0
        self._title = ""
        self._rows: list[Strip] = []
        self._drawn: object = None

    def on_mount(self) -> None:
        self.show()

    def show(self, x_end: float | None = None) -> None:
        """Draw anew after points were added; `x_end` is how far the x axis reaches at least."""
        if x_end is not None:
            self.x_end = x_end
        named = [line for line in self.lines if len(line.trace) and (line.name or len(self.lines) == 1)]
        latest = [f"{line.name} {number(line.trace.last)}".strip() for line in named]
        lost = sum(line.trace.lost for line in self.lines)
        if lost:
            latest.append(f"✗ {lost} not finite")
        if self.logarithmic:
            latest.append("logarithmic")
        title = " · ".join([self.heading, *latest])
        if title != self._title:
            self._title = title
            self.border_title = Content(title)
        if self._state() != self._drawn:
            self.refresh()

    def watch_logarithmic(self) -> None:
        self.show()

    def render_line(self, y: int) -> Strip:
        state = self._state()
        if state != self._drawn:
            self._rows = self._draw()
            self._drawn = state
        return self._rows[y] if y < len(self._rows) else Strip.blank(self.size.width)

    def _state(self) -> object:
        """Return what the drawing depends on."""
        changes = tuple(line.trace.changes for line in self.lines)
        return self.size, self.logarithmic, self.x_end, self.app.theme, changes

    def _draw(self) -> list[Strip]:
        width, height = self.size
        base = self.visual_style
        muted = base + self._style("muted")
        points = [line for line in self.lines if len(line.trace)]
        if width < _LEAST_WIDTH or height < _LEAST_HEIGHT or not points:
            said = "" if points else "nothing to draw yet"
            middle = (height - 1) // 2
            return [_strip([(said if row == middle else "", muted)], width) for row in range(height)]
        scale = self._scale(points)
        rows = height - 1
        ticks = dict(_ticks(scale, rows))
        gutter = max(len(label) for label in ticks.values()) + 1
        columns = width - gutter
        start, end = self.x_start, max(self.x_end, *(line.trace.end for line in points))
        end = end if end > start else start + 1
        cells = self._plot(points, scale, columns, rows, start, end)
        strips: list[Strip] = []
        for row in range(rows):
            label = ticks.get(row, "").rjust(gutter - 1)
            parts = [(label, muted), ("┤" if row in ticks else "│", base + self._style("rule"))]
            strips.append(_strip([*parts, *_runs(cells[row], base, self._style)], width))
        strips.append(_strip([(" " * gutter + _axis(start, end, columns), muted)], width))
        return strips

    def _scale(self, lines: Sequence[Line]) -> Scale:
        """Return the scale that shows every finite value; a logarithmic one begins at the least positive value."""
        extents = [line.trace.extent(0, len(line.trace)) for line in lines]
        low, high = min(low for low, _ in extents), max(high for _, high in extents)
        if self.logarithmic and high > 0:
            if low <= 0:
                positive = [least for line in lines if (least := line.trace.least_positive()) is not None]
                low = min(positive, default=high / 10)
            return Scale(low / 1.05, high * 1.05, True) if low < high else Scale(low / 2, high * 2, True)
        if high - low <= abs(high) * 1e-9:
            margin = abs(high) * 0.5 or 1.0
            return Scale(0.0 if self.from_zero else low - margin, high + margin, False)
        if self.from_zero or 0 <= low < (high - low) * 0.35:
            low = 0.0
        return Scale(low, high, False)

    def _plot(
        self, lines: Sequence[Line], scale: Scale, columns: int, rows: int, start: float, end: float
    ) -> list[list[tuple[str, str]]]:
        """Return rows of cells: a character and the colour it is drawn in."""
        dots = [[0] * columns for _ in range(rows)]
        colours = [[""] * columns for _ in range(rows)]
        markers: list[tuple[int, int, str, str]] = []
        cell_row, dot_row = scale.rows(rows), scale.rows(rows * 4)
        for line in lines:
            if line.marker:
                for x, low, high in zip(line.trace.xs, line.trace.lows, line.trace.highs, strict=True):
                    place = min(columns - 1, int((x - start) / (end - start) * columns))
                    for y in {low, high}:
                        if start <= x <= end and (y > 0 or not scale.logarithmic):
                            markers.append((cell_row(y), place, line.marker, line.colour))
                continue
            before: int | None = None
            for column, found in enumerate(line.trace.columns(start, end, columns * 2)):
                if found is None:
                    continue
                first, low, high, last = map(dot_row, found)
                top, bottom = high, low
                if before is not None:  # join this column to the one before
                    top, bottom = min(top, max(before, first)), max(bottom, min(before, first))
                    if before < top:
                        top = before + 1
                    elif before > bottom:
                        bottom = before - 1
                cell = column // 2
                for dot in range(top, bottom + 1):
                    dots[dot // 4][cell] |= _DOTS[column % 2][dot % 4]
                    colours[dot // 4][cell] = line.colour
                before = last
            for x in line.trace.unfinite[-columns:]:
                if start <= x <= end:
                    markers.append((0, min(columns - 1, int((x - start) / (end - start) * columns)), "✗", "error"))
        cells = [
            [(chr(0x2800 + dots[row][column]) if dots[row][column] else " ", colours[row][column])
             for column in range(columns)]
            for row in range(rows)
        ]  # fmt: skip
        for row, column, marker, colour in markers:
            cells[row][column] = (marker, colour)
        return cells

    def _style(self, colour: str) -> Style:
        return Style(foreground=Color.parse(self.app.theme_variables[colour]))


def _runs(cells: list[tuple[str, str]], base: Style, style: object) -> Iterator[tuple[str, Style]]:
    """Yield neighbouring cells of one colour together."""
    assert callable(style)
    text, colour = "", ""
    for character, wanted in cells:
        if wanted != colour and character != " ":
            if text:
                yield text, base + style(colour) if colour else base
            text, colour = "", wanted
        text += character
    if text:
        yield text, base + style(colour) if colour else base


def _strip(parts: Sequence[tuple[str, Style]], width: int) -> Strip:
    return Strip([Segment(text, style.rich_style) for text, style in parts]).adjust_cell_length(
        width, parts[-1][1].rich_style
    )


def _ticks(scale: Scale, rows: int) -> Iterator[tuple[int, str]]:
    """Yield (row, label) for the round values of the y axis, at most one for every third row."""
    wanted = max(2, rows // 3 + 1)
    if scale.logarithmic:
        values = _decades(scale.low, scale.high, wanted)
    else:
        values = _round_values(scale.low, scale.high, wanted)
    taken: list[int] = []
    row_of = scale.rows(rows)
    for value in values:
        row = row_of(value)
        if all(abs(row - other) > 1 for other in taken):
            taken.append(row)
            yield row, _label(value)


def _round_values(low: float, high: float, wanted: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between low and high, about `wanted` of them."""
    rough = (high - low) / max(1, wanted - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, wanted: int) -> list[float]:
    """Return round values between low and high that stand about evenly on a logarithmic scale."""
    bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        values = [f * 10.0**p for p in range(bottom, top + 1) for f in factors if low <= f * 10.0**p <= high]
        if len(values) >= min(wanted, 3):
            return values[:: max(1, len(values) // wanted)]
    return [low, high]


def _label(value: float) -> str:
    return count(value).replace(" ", "") if abs(value) >= 1000 else number(float(f"{value:.3g}"))


def _axis(start: float, end: float, columns: int) -> str:
    """Return the x axis: its end, and as many round values before it as do not touch."""
    line = [" "] * columns
    last = _label(end)
    if len(last) <= columns:
        line[columns - len(last) :] = last
    free, limit = 0, columns - len(last) - 2
    for value in _round_values(start, end, max(2, columns // 14)):
        label = _label(value)
        place = max(0, round((value - start) / (end - start) * (columns - 1)) - len(label) // 2)
        if free <= place and place + len(label) <= limit:
            line[place : place + len(label)] = label
            free = place + len(label) + 2
    return "".join(line)
