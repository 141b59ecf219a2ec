"""Small dialogs of the data step: which format, and what a new file is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ...foundation.text import clean, one_line
from .choice_line import Choice
from .field import Field
from .form_dialog import FormDialog, labelled
from .path_field import DATA_FILES

FORMAT_CHOICES = (
    Choice("auto", "auto", "told from the content"),
    Choice("messages", "messages", "turns with role and content: OpenAI, ChatML"),
    Choice("tools", "tools", "turns with calls of functions"),
    Choice("sharegpt", "sharegpt", "conversations with from and value"),
    Choice("alpaca", "alpaca", "instruction, input, output"),
    Choice("prompt-completion", "prompt-completion", "a prompt and its answer"),
    Choice("text", "text", "plain text, all of it learned"),
    Choice("preference", "preference", "a chosen and a rejected answer"),
    Choice("kto", "kto", "an answer with a label, good or bad"),
)
NAME_CELLS = 19


class FormatDialog(FormDialog[str | None]):
    """Asks for the format of the rows; the answer is its name."""

    verb = "Take"

    def __init__(self, present: str, detected: str | None) -> None:
        super().__init__("The format of the rows", Content(""))
        self.present = present
        self.detected = detected

    def compose_form(self) -> Iterator[Widget]:
        yield OptionList(*(Option(self._line(choice), id=choice.value) for choice in FORMAT_CHOICES), markup=False)

    def _line(self, choice: Choice) -> Content:
        mark = ("● ", "$accent") if choice.value == self.present else ("  ", "")
        here = f"{choice.meaning}; here {self.detected}" if choice.value == "auto" and self.detected else choice.meaning
        return Content.assemble(mark, (f"{choice.text:<{NAME_CELLS}}", "bold"), (here, "$muted"))

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.highlighted = [choice.value for choice in FORMAT_CHOICES].index(self.present)

    @on(OptionList.OptionSelected)
    def _take(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(event.option.id)

    def action_accept(self) -> None:
        self.query_one(OptionList).action_select()

    def action_scroll_text(self, lines: int) -> None:
        """Do nothing: the list has the arrows."""


class FileNameDialog(FormDialog[str | None]):
    """Asks for the name of a new file."""

    verb = "Write"

    def __init__(self, title: str, text: str, name: str) -> None:
        super().__init__(title, Content(text))
        self.name_given = name

    def compose_form(self) -> Iterator[Widget]:
        yield labelled("new file", Field(self.name_given, "a name that is not taken", "file-name"))

    def action_accept(self) -> None:
        name = clean(self.query_one("#file-name", Field).value).strip()
        if not name:
            self.say("Give the new file a name.")
        elif Path(name).expanduser().exists():
            self.say(f"{one_line(name, 60)} is there already; nothing is written over.")
        else:
            self.dismiss(name)


def free_name(source: str, word: str = "fixed") -> str:
    """Return the name of a new file beside `source`, or in this folder when that is no file or folder."""
    path = Path(source).expanduser()
    folder, name = (
        (path.parent, path.name) if path.exists() else (Path(), source.strip("/").replace("/", "-").replace("*", ""))
    )
    stem = next(
        (name.removesuffix(each) for each in sorted(DATA_FILES, key=len, reverse=True) if name.endswith(each)), name
    )
    numbers = ("", *(f"-{number}" for number in range(2, 100)))
    return str(
        next((free for each in numbers if not (free := folder / f"{stem}.{word}{each}.jsonl").exists()), folder / stem)
    )
