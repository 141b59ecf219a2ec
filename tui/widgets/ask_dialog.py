"""A dialog with a few lines to choose in or to type into; the answer is what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.content import Content
from textual.widget import Widget

from ...foundation.text import clean
from .choice_line import ChoiceLine
from .field import Field
from .form_dialog import FormDialog, labelled


class AskDialog(FormDialog[dict[str, str] | None]):
    """Shows some lines, each a label with a field or a choice, and answers with their values by their ids."""

    def __init__(self, title: str, text: str, verb: str, lines: Sequence[tuple[str, Field] | ChoiceLine]) -> None:
        super().__init__(title, Content.styled(text, "$muted"))
        self.verb = verb
        self.lines = tuple(lines)

    def compose_form(self) -> Iterator[Widget]:
        for line in self.lines:
            yield line if isinstance(line, ChoiceLine) else labelled(*line)

    def action_accept(self) -> None:
        values: dict[str, str] = {}
        for line in self.lines:
            widget = line if isinstance(line, ChoiceLine) else line[1]
            values[widget.id or ""] = clean(widget.value, 2000).strip()
        self.dismiss(values)
