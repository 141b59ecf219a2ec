"""The workbench: parameters, target modules, memory by term, cards and cost of any model, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.message import Message
from textual.validation import Function
from textual.widgets import Input, Static

from ...foundation.errors import TunewrightError
from ...foundation.home import runs_folder
from ...foundation.text import clean, one_line
from ..background import background, deliver
from ..draft import STARTER_MODEL
from ..keys import bindings
from ..widgets.field import Field, SteppingField
from ..widgets.pane import FixedText, ScrollPane
from ..widgets.path_field import PathSuggester
from . import worksheet_words as words
from .frame import FramedScreen

if TYPE_CHECKING:
    from ...engine.cards import Card
    from ..worksheet import Case, Worksheet

TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
ROWS = (1, 2, 4, 8, 16, 32)
RANKS = (8, 16, 32, 64)
EPOCHS = (1, 2, 3, 5)
MOST_ROWS = 10**9
HIGHEST_RATE = 1e6
PaneName = Literal["memory", "ranks", "targets", "cards", "batches", "cost", "model-shape"]
PANES: dict[PaneName, str] = {
    "memory": "Memory",
    "ranks": "Ranks",
    "targets": "Targets",
    "cards": "Cards",
    "batches": "Batch",
    "cost": "Cost",
    "model-shape": "Model",
}
"""The panes that are tabs where there is room for one only."""
Value = TypeVar("Value")


@dataclass
class Calculated(Message):
    """The figures of a case, or why there are none."""

    case: Case
    worksheet: Worksheet | None
    problem: TunewrightError | None


class WorkbenchScreen(FramedScreen):
    """Panes that follow the case in the lines above them."""

    BINDINGS = bindings("Workbench")  # pyright: ignore[reportAssignmentType]
    where = "Workbench"
    mode = "workbench"
    title_path = ("Workbench",)

    def __init__(self) -> None:
        super().__init__()
        self.case: Case | None = None
        self.worksheet: Worksheet | None = None
        self.problem: TunewrightError | None = None
        self.hourly_rate: float | None = None
        self.pane: PaneName = "memory"
        self.shown_card: Card | None = None

    def compose_body(self) -> ComposeResult:
        from ...engine.comparison import CARD_NAMES
        from ...engine.shapes import SHAPES

        with Horizontal(id="inputs"):
            with Horizontal():
                yield Static(words.key_text("m", "model"))
                names = PathSuggester((STARTER_MODEL, *SHAPES))
                yield Field(STARTER_MODEL, "a config.json, a folder, owner/name, or 8b", "model", names)
                yield Static(words.key_text("c", "card"))
                yield SteppingField(("", *CARD_NAMES), placeholder="this machine", id="card")
            with Horizontal():
                yield Static(words.key_text("d", "rows of data"))
                yield _checked(Field("1000", "1000", "rows"), _rows)
                yield Static(words.key_text("p", "price an hour"))
                yield _checked(Field("", "none", "price"), _rate)
        yield Static(id="settings", markup=False)
        yield Static(id="headline", markup=False)
        yield FixedText(id="tabs")
        with VerticalScroll(id="columns"):
            with Vertical(id="left"):
                with Vertical(id="first"):
                    yield ScrollPane("Memory by term", id="memory", said="Calculating…")
                    yield ScrollPane("What the terms are", id="terms")
                with Vertical(id="second"):
                    yield ScrollPane("Which card", id="cards", said="Calculating…")
                    yield ScrollPane("A run", id="cost", said="Calculating…")
            with Vertical(id="third"):
                yield ScrollPane("Adapters by rank", id="ranks", said="Calculating…")
                yield ScrollPane("Target modules", id="targets", said="Calculating…")
                yield ScrollPane("Length and batch", id="batches", said="Calculating…")
                yield ScrollPane("The model", id="model-shape")

    def on_mount(self) -> None:
        self._show_pane("memory")
        self._leave()
        self._calculate(self.case)

    @background("worksheet")
    def _calculate(self, case: Case | None, reread: bool = False) -> None:
        from ...engine.machine import inspect_machine
        from ..worksheet import Case, calculate

        case = case or Case(STARTER_MODEL)
        before = self.worksheet
        machine = before.machine if before else inspect_machine(runs_folder())
        known = before.model if before and before.case.model == case.model and not reread else None
        try:
            deliver(self, Calculated(case, calculate(case, machine, known), None))
        except TunewrightError as error:
            deliver(self, Calculated(case, None, error))

    @on(Calculated)
    def _show(self, message: Calculated) -> None:
        self.case, self.problem = message.case, message.problem
        about_card = message.problem is not None and message.problem.title == "Unknown card"
        self.query_one("#card").set_class(about_card, "-invalid")
        self.query_one("#model").set_class(message.problem is not None and not about_card, "-invalid")
        if message.worksheet is not None:
            self.worksheet = message.worksheet
        self._paint()

    def on_resize(self) -> None:
        self._paint_head()

    def _paint(self) -> None:
        sheet = self.worksheet
        self._paint_head()
        if sheet is not None:
            aside = f"what if: {sheet.device.name}" if sheet.case.card else sheet.device.name
            self.show_title(aside=Content.styled(aside, "$muted"))
        if sheet is None or self.problem is not None:
            return
        for name, painter in (
            ("memory", words.memory_text),
            ("terms", words.terms_text),
            ("ranks", words.ranks_text),
            ("model-shape", words.model_text),
        ):
            self.query_one(f"#{name}", ScrollPane).show(lambda width, painter=painter: painter(sheet, width))
        self.query_one("#targets", ScrollPane).show(words.targets_text(sheet))
        cards = self.query_one("#cards", ScrollPane)
        cards.border_title = Content(f"Which card for {words.batch_text(sheet)}")
        cards.show(lambda width: words.cards_text(sheet, width))
        if self.shown_card is not sheet.device.card:
            self.shown_card = sheet.device.card
            self.call_after_refresh(self._scroll_to_card)
        self.query_one("#batches", ScrollPane).show(words.batches_text(sheet))
        self.query_one("#cost", ScrollPane).show(lambda width: words.cost_text(sheet, self.hourly_rate, width))

    def _scroll_to_card(self) -> None:
        """Bring the chosen card into view, where not all of them are."""
        line = words.card_line(self.shown_card)
        pane = self.query_one("#cards", ScrollPane)
        if line is not None:
            pane.scroll_to(y=max(0, line - pane.size.height // 2), animate=False)

    def _paint_head(self) -> None:
        """Show the settings and the headline, or what is wrong with the case."""
        width = self.size.width - 2
        sheet = self.worksheet
        if sheet is not None:
            self.query_one("#settings", Static).update(words.settings_text(sheet, width))
        if self.problem is not None:
            said = Content.assemble(("✗ ", "$error"), (one_line(self.problem.title, 60), "bold $error"), "  ",
                                    one_line(self.problem.message, 300), ("  " + one_line(self.problem.remedy, 300), "$muted"))  # fmt: skip
            self.query_one("#headline", Static).update(said)
        elif sheet is not None:
            self.query_one("#headline", Static).update(words.headline_text(sheet, width))

    def _show_pane(self, name: PaneName) -> None:
        """Show one of the panes, where there is room for one only."""
        self.pane = name
        for each in PANES:
            self.set_class(each == name, f"show-{each}")
        tabs = [
            Content.styled(f" {title} ", "bold $foreground on $soft" if each == name else "$muted")
            for each, title in PANES.items()
        ]
        self.query_one("#tabs", FixedText).show(Content(" ").join(tabs))

    @property
    def _has_tabs(self) -> bool:
        return bool(self.query_one("#tabs").display)

    def _leave(self) -> None:
        """Give the keys back to the screen."""
        self.query_one("#columns" if self._has_tabs else f"#{self.pane}").focus()

    @on(DescendantFocus)
    def _remember_pane(self, event: DescendantFocus) -> None:
        name = event.widget.id
        if not self._has_tabs and name in PANES:
            self._show_pane(name)

    def action_next_pane(self) -> None:
        self._move_pane(1)

    def action_previous_pane(self) -> None:
        self._move_pane(-1)

    def _move_pane(self, by: int) -> None:
        names = list(PANES)
        self._show_pane(names[(names.index(self.pane) + by) % len(names)])
        self.query_one("#columns").scroll_home(animate=False)
        self._leave()

    def _change(self, **values: object) -> None:
        if self.case is not None:
            self._calculate(replace(self.case, **values))

    def _enter(self, field: str) -> None:
        """Go to a field; what is typed replaces what is in it."""
        found = self.query_one(field, Field)
        found.focus()
        found.action_select_all()

    def action_choose_model(self) -> None:
        self._enter("#model")

    def action_choose_card(self) -> None:
        self._enter("#card")

    def action_data_rows(self) -> None:
        self._enter("#rows")

    def action_price(self) -> None:
        self._enter("#price")

    def action_leave_field(self) -> None:
        self._leave()

    @on(Input.Submitted)
    def _leave_field(self) -> None:
        self._leave()

    @on(Input.Submitted, "#model")
    def _take_model(self, event: Input.Submitted) -> None:
        if self.case is not None:
            self.show_title(aside=Content.styled("Reading the model…", "$muted"))
            self._calculate(replace(self.case, model=clean(event.value, 1000).strip()), reread=True)

    @on(Input.Submitted, "#card")
    def _take_card(self, event: Input.Submitted) -> None:
        self._change(card=one_line(event.value, 80))

    @on(Input.Changed, "#card")
    def _preview_card(self, event: Input.Changed) -> None:
        """Show a known card at once, as the arrows go through them."""
        names = self.query_one(SteppingField).words
        if self.case is not None and event.value in names and event.value != self.case.card:
            self._change(card=event.value)

    @on(Input.Changed, "#rows")
    def _take_rows(self, event: Input.Changed) -> None:
        rows = _rows(event.value)
        if rows is not None and self.case is not None and rows != self.case.data_rows:
            self._change(data_rows=rows)

    @on(Input.Changed, "#price")
    def _take_price(self, event: Input.Changed) -> None:
        self.hourly_rate = _rate(event.value)
        self._paint()

    def action_next_method(self, by: int = 1) -> None:
        from ...engine.comparison import METHODS

        if self.case is not None:
            self._change(method=_after(METHODS, self.case.method, by))

    def action_next_targets(self, by: int = 1) -> None:
        from ..worksheet import TARGETS

        if self.case is not None:
            self._change(targets=_after(TARGETS, self.case.targets, by))

    def action_next_rank(self, by: int = 1) -> None:
        if self.case is not None:
            self._change(rank=_after(RANKS, self.case.rank, by))

    def action_next_sequence(self, by: int = 1) -> None:
        if self.case is not None:
            self._change(tokens=_after(TOKENS, self.case.tokens, by))

    def action_next_batch(self, by: int = 1) -> None:
        if self.case is not None:
            self._change(rows=_after(ROWS, self.case.rows, by))

    def action_recompute(self) -> None:
        if self.case is not None:
            self._change(recomputing=not self.case.recomputing)

    def action_next_optimizer(self, by: int = 1) -> None:
        from ...engine.estimate import OPTIMIZERS

        if self.case is not None and self.worksheet is not None:
            self._change(optimizer=_after(OPTIMIZERS, self.worksheet.setting.optimizer, by))

    def action_next_software(self, by: int = 1) -> None:
        from ..worksheet import available

        if self.case is not None and self.worksheet is not None:
            self._change(software=_after(available(self.worksheet.device), self.worksheet.software, by))

    def action_next_epochs(self, by: int = 1) -> None:
        if self.case is not None:
            self._change(epochs=_after(EPOCHS, self.case.epochs, by))


def _checked(field: Field, read: Callable[[str], float | None]) -> Field:
    """Return `field`, which is marked while it holds something that `read` does not understand."""
    field.validators.append(Function(lambda typed: not typed.strip() or read(typed) is not None))
    return field


def _rows(typed: str) -> int | None:
    """Return the number of rows that is typed, None for anything else."""
    digits = "".join(typed.split()).replace(",", "")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > len(str(MOST_ROWS)):
        return None
    return int(digits) if 1 <= int(digits) <= MOST_ROWS else None


def _rate(typed: str) -> float | None:
    """Return the price that is typed, None for anything else."""
    try:
        rate = float(typed.strip().replace(",", "."))
    except ValueError:
        return None
    return rate if 0 <= rate < HIGHEST_RATE else None


def _after(values: tuple[Value, ...], value: Value, by: int) -> Value:
    return values[(values.index(value) + by) % len(values)]
