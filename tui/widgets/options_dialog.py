"""How the data is trained: what is learned, the template, what happens to long and faulty rows, and the validation rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from .choice_line import Choice, ChoiceLine
from .field import Field
from .form_dialog import FormDialog, labelled
from .path_field import DATA_FILES, PathSuggester

if TYPE_CHECKING:
    from ...recipes.model import Data

LOSS = (
    Choice("assistant", "assistant", "the assistant's answers"),
    Choice("completion", "completion", "what follows the prompt"),
    Choice("last", "last", "the assistant's last answer"),
    Choice("all", "all", "every token"),
    Choice("user,assistant", "user, assistant", "the turns of both"),
    Choice("assistant,tool", "assistant, tool", "answers, and what tools return"),
)
TEMPLATES = (
    Choice("model", "model", "the base model's own"),
    Choice("trl", "trl", "what TRL trains that one as"),
    Choice("none", "none", "a prompt and its answer, nothing added"),
    *(Choice(name, name, "instead of the model's own") for name in (
        "chatml", "alpaca", "vicuna", "zephyr", "llama3", "gemma", "mistral", "phi3",
    )),
)  # fmt: skip
SYSTEM = (
    Choice("keep", "keep", "system prompts stay"),
    Choice("drop", "drop", "system prompts are left out"),
    Choice("user", "user", "put before the first user turn"),
)
THINKING = (
    Choice("keep", "keep", "reasoning is trained"),
    Choice("drop", "drop", "reasoning is left out"),
)
OVERLONG = (
    Choice("cut", "cut", "longer rows are cut there"),
    Choice("drop", "drop", "longer rows are left out"),
)
FAULTY = (
    Choice("refuse", "refuse", "the run does not begin"),
    Choice("drop", "drop", "the run goes on without them"),
)
SHARES = (
    Choice("1", "all", "every training row is used"),
    Choice("0.5", "50 %", "half of the training rows, for a learning curve"),
    Choice("0.25", "25 %", "a quarter of the training rows"),
    Choice("0.1", "10 %", "a tenth of the training rows"),
)
VALIDATION = (
    Choice("none", "none", "every row is trained"),
    Choice("fraction", "a fraction", "such as 0.05"),
    Choice("rows", "rows", "a number of them"),
    Choice("file", "a file", "the rows of another file"),
)
CHOICES = (
    ("loss_on", "loss on", LOSS),
    ("template", "template", TEMPLATES),
    ("system", "system", SYSTEM),
    ("thinking", "thinking", THINKING),
    ("overlong", "overlong", OVERLONG),
    ("faulty", "faulty rows", FAULTY),
    ("share", "rows used", SHARES),
)


class OptionsDialog(FormDialog[dict[str, object] | None]):
    """Shows every option in a line; the answer is what changes in the recipe's data section, and the evaluation files."""

    def __init__(self, data: Data, columns: Sequence[str], against: tuple[str, ...]) -> None:
        super().__init__("How the data is trained", Content.styled("← → change a line, ↑ ↓ go to another.", "$muted"))
        self.data = data
        self.columns = tuple(columns)
        self.against = against

    def compose_form(self) -> Iterator[Widget]:
        data, rule = self.data, self.data.validation
        for name, label, choices in CHOICES:
            value = _written(getattr(data, name))
            known = any(choice.value == value for choice in choices)
            more = () if known else (Choice(value, value.replace(",", ", "), "as the recipe has it"),)
            yield ChoiceLine(label, (*choices, *more), value, id=name)
            if name == "system":
                said = one_line(data.system_prompt or "")
                yield labelled("its text", Field(said, "a system prompt for rows that have none", "system_prompt"))
            if name == "thinking":
                yield labelled("max length", Field(str(data.max_length), "the most tokens of a row", "max_length"))
        yield ChoiceLine("validation", VALIDATION, rule.kind, id="kind")
        yield labelled("how many", Field(f"{rule.value:g}", "0.05, or 200", "value"))
        file = Field(rule.source or "", "the file of the validation rows", "source", PathSuggester((), DATA_FILES))
        yield labelled("file", file)
        named = [each for each in (rule.key, rule.stratify) if each]
        columns = [Choice(each, one_line(each, 40)) for each in dict.fromkeys((*named, *self.columns))]
        nothing = Choice("", "—", "rows are drawn one by one")
        yield ChoiceLine("together by", (nothing, *columns), rule.key or "", id="key")
        yield ChoiceLine("evenly by", (nothing, *columns), rule.stratify or "", id="stratify")
        judged = Field(", ".join(self.against), "evaluation files that must not be in the data", "against")
        yield labelled("not in", judged)

    def on_mount(self) -> None:
        self._show_lines()

    @on(ChoiceLine.Changed)
    def _show_lines(self) -> None:
        """Show the lines that belong to the kind of validation."""
        kind = self._choice("kind")
        drawn = kind in ("fraction", "rows")
        for name, shown in (("value", kind != "none"), ("source", kind == "file")):
            line = self.query_one(f"#{name}").parent
            assert isinstance(line, Widget)
            line.display = shown
        for name in ("key", "stratify"):
            self.query_one(f"#{name}").display = drawn
        self.say("")

    @on(Input.Changed)
    def _forget_problem(self) -> None:
        self.say("")

    def _choice(self, name: str) -> str:
        return self.query_one(f"#{name}", ChoiceLine).value

    def _typed(self, name: str) -> str:
        return clean(self.query_one(f"#{name}", Field).value).strip()

    def _values(self) -> dict[str, object]:
        """Return the options as the data section has them."""
        values: dict[str, object] = {name: self._choice(name) for name, _, _ in CHOICES}
        learned = self._choice("loss_on")
        values["loss_on"] = learned.split(",") if "," in learned else learned
        if self._typed("system_prompt") != one_line(self.data.system_prompt or ""):
            values["system_prompt"] = self._typed("system_prompt") or None
        values["max_length"] = self._typed("max_length")
        kind = self._choice("kind")
        rule: dict[str, object] = {"kind": kind, "value": self._typed("value") or "0"}
        if kind == "none":
            rule["value"] = "0"
        if kind == "file" and self._typed("source"):
            rule["source"] = self._typed("source")
        if kind in ("fraction", "rows"):
            rule |= {name: self._choice(name) for name in ("key", "stratify") if self._choice(name)}
        values["validation"] = rule
        return values

    def action_accept(self) -> None:
        from ...recipes.model import Data, validate_section

        before = self.data.model_dump(exclude_none=True)
        try:
            after = validate_section(Data, before | self._values(), "the options")
        except TunewrightError as error:
            self.say(one_line(error.message.partition("\n")[2] or error.message, 140))
            return
        values = after.model_dump(exclude_none=True)
        changed: dict[str, object] = {
            name: values.get(name) for name in self._values() if values.get(name) != before.get(name)
        }
        against = tuple(each for each in map(str.strip, self._typed("against").split(",")) if each)
        if against != self.against:
            changed["against"] = against
        self.dismiss(changed)


def _written(value: str | float | tuple[str, ...]) -> str:
    """Return a value of the data section as the choices have it."""
    match value:
        case str():
            return value
        case tuple():
            return ",".join(value)
        case _:
            return f"{value:g}"
