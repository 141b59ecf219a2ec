"""Which column is what: a line for each of our fields, and the first rows as they are then read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from textual import on
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ..background import background, deliver, superseded
from ..wrapping import hanging
from .choice_line import Choice, ChoiceLine
from .data_dialogs import FORMAT_CHOICES
from .form_dialog import FormDialog
from .pane import ScrollPane

if TYPE_CHECKING:
    from ...engine.data.preview import Inspection, SampleRow
    from ...recipes.model import FormatName

CHANGING_SECONDS = 0.1
SHOWN_ROWS = 3
SHOWN_TEXT = 300
UNKNOWN = "prompt-completion"
"""The format to begin with where none was recognised: the one whose columns have the most names."""
UNNAMED = Choice("", "as found", "")


@dataclass
class ReadAnew(Message):
    """The first rows under the columns that are chosen at the moment."""

    inspection: Inspection | None
    problem: TunewrightError | None


class ColumnDialog(FormDialog[dict[str, object] | None]):
    """Maps the file's columns; the answer is what changes in the recipe's data section."""

    def __init__(
        self,
        inspection: Inspection,
        changes: Mapping[str, object],
        read: Callable[[dict[str, object]], Inspection | None],
    ) -> None:
        """Begin with what `inspection` found; `read` inspects anew under other changes, in a background thread."""
        super().__init__("Columns", Content(""), classes="-large")
        self.inspection = inspection
        self.changes = dict(changes)
        self._read = read

    def compose_form(self) -> Iterator[Widget]:
        yield ChoiceLine("format", FORMAT_CHOICES[1:], self.inspection.format or UNKNOWN, id="format")
        yield Vertical(*self._lines(self.inspection.mapping), id="columns")

    def compose_below(self) -> Iterator[Widget]:
        yield ScrollPane("The first rows, as they are then read", id="samples", said="Reading…")

    def on_mount(self) -> None:
        self._show(self.inspection)

    def _lines(self, mapping: Mapping[str, str]) -> Iterator[ChoiceLine]:
        """Yield a line for each field of the format, with the columns of the file to choose from."""
        from ...engine.data.formats import FIELDS

        chosen = self._format if self.is_mounted else self.inspection.format or UNKNOWN
        named = cast("Mapping[str, str]", self.changes.get("columns", {}))
        columns = [UNNAMED, *(Choice(each, one_line(each, 40)) for each in self.inspection.columns)]
        for field in FIELDS[cast("FormatName", chosen)]:
            yield ChoiceLine(field, columns, named.get(field) or mapping.get(field, ""), id=f"field-{field}")

    @property
    def _format(self) -> str:
        return self.query_one("#format", ChoiceLine).value

    def _chosen(self) -> dict[str, object]:
        """Return what is chosen, as changes of the data section."""
        lines = self.query("#columns ChoiceLine").results(ChoiceLine)
        columns = {line.label: line.value for line in lines if line.value}
        others = {name: value for name, value in self.changes.items() if name != "columns"}
        return {**others, "format": self._format, **({"columns": columns} if columns else {})}

    @on(ChoiceLine.Changed)
    async def _change(self, message: ChoiceLine.Changed) -> None:
        message.stop()
        if message.line.id == "format":
            place = self.query_one("#columns", Vertical)
            await place.remove_children()
            await place.mount_all(self._lines(self.inspection.mapping))
        self._read_anew(self._chosen())

    @background("columns")
    def _read_anew(self, changes: dict[str, object]) -> None:
        time.sleep(CHANGING_SECONDS)
        if superseded():
            return
        try:
            deliver(self, ReadAnew(self._read(changes), None))
        except TunewrightError as error:
            deliver(self, ReadAnew(None, error))

    @on(ReadAnew)
    def _take(self, message: ReadAnew) -> None:
        if message.problem is not None:
            problem = message.problem
            said = Content.assemble(
                ("✗ ", "$error"), (one_line(problem.title, 100), "bold"), f"\n{clean(problem.message, 600)}"
            )
            self.query_one("#samples", ScrollPane).show(said)
        elif message.inspection is not None:
            self._show(message.inspection)

    def _show(self, inspection: Inspection) -> None:
        pane = self.query_one("#samples", ScrollPane)
        pane.show(lambda width: samples_text(inspection.samples[:SHOWN_ROWS], width))
        pane.border_title = Content(f"The first rows, as they are then read{_confidence(inspection)}")

    def action_accept(self) -> None:
        self.dismiss(self._chosen())


def _confidence(inspection: Inspection) -> str:
    return "" if inspection.format is None else f" · {inspection.confidence * 100:.0f} % of them can be"


def samples_text(samples: tuple[SampleRow, ...], width: int) -> Content:
    """Return rows after conversion, each turn with its role, or why a row could not be converted."""
    lines: list[Content] = []
    for sample in samples:
        lines.append(Content.styled(one_line(sample.place, 60), "$accent"))
        if sample.problem:
            lines.append(hanging(Content.styled("  ✗ ", "$error"), Content(one_line(sample.problem, 300)), width))
        for role, text in sample.turns:
            head = Content.styled(f"  {one_line(role, 12):<10} ", "$muted")
            lines.append(hanging(head, Content(one_line(text, SHOWN_TEXT)), width))
    return Content("\n").join(lines) if lines else Content.styled("No row could be read.", "$muted")
