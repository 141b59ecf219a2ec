"""The recipe editor: every field with its meaning, checked as one types, with what the changes do and take here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.message_pump import MessagePump
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ..background import background, deliver, superseded
from ..draft import STARTER_DATA, STARTER_MODEL
from ..keys import bindings
from ..messages import Failed, RecipesChanged, Unsaved
from ..widgets.ask_dialog import AskDialog
from ..widgets.confirm_dialog import ConfirmDialog
from ..widgets.dialog import Dialog
from ..widgets.field import Field, SteppingField
from ..widgets.pane import FixedText, ScrollPane
from ..widgets.path_field import DATA_FILES, PathSuggester
from ..widgets.row_list import Column, Row, RowList
from . import editor_words as words
from .frame import FramedScreen
from .recipe_words import differences_text

if TYPE_CHECKING:
    from ...engine.machine import Machine
    from ...engine.prices import Price
    from ...recipes.model import Recipe
    from ...recipes.registry import Entry
    from ...recipes.schema import Slot
    from ..outlook import Outlook

COLUMNS = (
    Column("  field", 26),
    Column("value", 16, weight=2),
    Column("default", 12, rank=1, weight=1),
    Column("parent", 12, rank=2, weight=1),
)
QUIET_SECONDS = 0.3
"""How long nothing is typed before the planner is asked again."""
PANES = ("#fields", "#help", "#outlook")


@dataclass
class Opened(Message):
    """What is known around the recipe: the one that it was made from, the machine, and the price of an hour."""

    parent: Entry | None
    machine: Machine
    price: Price | None


@dataclass
class Foreseen(Message):
    """What a recipe takes here; `hash` says which."""

    hash: str
    outlook: Outlook


class EditorScreen(FramedScreen):
    """The fields in a list, the chosen one in a line below, its help and the outlook beside them."""

    BINDINGS = bindings("Editor")  # pyright: ignore[reportAssignmentType]
    where = "Editor"
    mode = "recipes"
    title_path = ("Recipes", "edit")

    def __init__(self, entry: Entry, told: MessagePump) -> None:
        """Edit `entry`, and tell `told` what was kept."""
        super().__init__()
        from ..recipe_edit import RecipeEdit

        self.entry = entry
        self.told = told
        self.work = RecipeEdit(entry)
        self.machine: Machine | None = None
        self.price: Price | None = None
        self.outlooks: dict[str, Outlook] = {}
        """By the hashes of recipes."""
        self.waiting: Timer | None = None
        self.held: str | None = None
        """What was typed for the field before one went into it."""
        self.filled = ""
        """The path of the field that stands in the line."""
        self.sought = ""
        self.named: dict[str, str] = {}
        """The name and the note that were given last, should keeping them have failed."""

    def compose_body(self) -> ComposeResult:
        with Container(id="work"):
            with Vertical(id="left"):
                yield RowList(COLUMNS, "", id="fields")
                with Horizontal(id="line"):
                    yield Static(id="label", markup=False)
                    yield SteppingField(id="value")
                yield FixedText(id="fault")
            with Vertical(id="right"):
                yield ScrollPane("The field", id="help")
                yield ScrollPane("What it takes here", id="outlook", said="Calculating…")
                yield ScrollPane("Changes", id="changes")

    def on_mount(self) -> None:
        self.query_one(RowList).list.focus()
        self._paint()
        self._show_field()
        self._look_around()

    @background("around")
    def _look_around(self) -> None:
        from ...engine.cost import cloud_price
        from ...engine.machine import inspect_machine
        from ...foundation.home import runs_folder
        from ...recipes.registry import open_registry

        parent = None
        with open_registry() as registry:
            for revision, _ in registry.parents(self.entry.hash):
                if registry.name_of(revision):
                    parent = registry.get(revision)
                    break
        machine = inspect_machine(runs_folder())
        try:
            price = cloud_price(machine)
        except TunewrightError as error:  # the user's own table of prices: the rest does not need it
            price = None
            deliver(self, Failed(error))
        deliver(self, Opened(parent, machine, price))

    @on(Opened)
    def _take_surroundings(self, message: Opened) -> None:
        self.work.parent, self.machine, self.price = message.parent, message.machine, message.price
        self._paint()
        self._show_help()
        self._ask_planner()

    def _ask_planner(self) -> None:
        """Have the planner say what the recipe takes, and what it took before."""
        recipes = (self.work.recipe, self.work.before)
        open_ones = [each for each in recipes if not ((known := self.outlooks.get(each.hash())) and known.exact)]
        if self.machine is not None and open_ones:
            self._foresee(open_ones, self.machine, self.price)

    @background("outlook")
    def _foresee(self, recipes: list[Recipe], machine: Machine, price: Price | None) -> None:
        """Ask at once by the shapes, then with their own rows where these are here."""
        from ..outlook import exact_outlook, rough_outlook

        for recipe in recipes:
            deliver(self, Foreseen(recipe.hash(), rough_outlook(recipe, machine, price)))
        for recipe in recipes:
            if (exact := exact_outlook(recipe, machine, price, superseded)) is not None:
                deliver(self, Foreseen(recipe.hash(), exact))

    @on(Foreseen)
    def _take_outlook(self, message: Foreseen) -> None:
        known = self.outlooks.get(message.hash)
        if known is None or message.outlook.exact or not known.exact:
            self.outlooks[message.hash] = message.outlook
        self._show_outlook()

    def _take(self, path: str, text: str | None) -> None:
        """Take what was typed for a field, and bring everything up to it; None takes it back."""
        self.work.take(path, text)
        self._paint()
        self._show_help()
        self._show_outlook()
        if self.waiting is not None:
            self.waiting.stop()
        if self.work.is_valid:
            self.waiting = self.set_timer(QUIET_SECONDS, self._ask_planner)
        self.app.post_message(Unsaved(self, self.entry.name if self.work.is_changed else ""))

    def _paint(self) -> None:
        """Show every field in the list, what is wrong, and how much was changed."""
        problems = self.work.edited.problems
        rows: list[Row] = []
        section = ""
        for slot in self.work.slots():
            if slot.section != section:
                section = slot.section
                faulty = any(each.path.partition(".")[0] == section for each in problems)
                rows.append(words.heading_row(section, faulty))
            rows.append(words.field_row(self.work.standing(slot)))
        self.query_one(RowList).show(rows)
        self._show_fault()
        changes = self.work.changes()
        aside = words.state_text(len(changes), len(problems))
        self.show_title(self.title_path[0], one_line(self.entry.name, 60), "edit", aside=aside)
        self.query_one("#changes", ScrollPane).show(self._changes_text())

    def _changes_text(self) -> Content:
        changes = self.work.changes()
        return differences_text(changes, None) if changes else Content.styled("Nothing is changed yet.", "$muted")

    @property
    def slot(self) -> Slot | None:
        """The field that is chosen in the list."""
        chosen = self.query_one(RowList).chosen
        return next((each for each in self.work.slots() if each.path == chosen), None)

    @on(OptionList.OptionHighlighted)
    def _show_field(self) -> None:
        """Show the chosen field in the line below, with its help."""
        if (slot := self.slot) is None:
            return
        field = self.query_one("#value", SteppingField)
        if not field.has_focus:
            self._fill(slot)
        self._show_help()
        self._show_fault()

    def _fill(self, slot: Slot) -> None:
        field = self.query_one("#value", SteppingField)
        self.filled = slot.path
        self.query_one("#label", Static).update(Content.styled(f" {slot.name} ", "$muted"))
        field.offer(("yes", "no") if slot.kind == "yes or no" else slot.choices, _suggester(slot.path))
        field.placeholder = "left to the default" if not slot.optional else "left out"
        with field.prevent(Input.Changed):
            field.value = self.work.text_of(slot.path)
            field.cursor_position = len(field.value)

    def _show_fault(self) -> None:
        """Say what is wrong: with the chosen field first."""
        slot = self.slot
        chosen = slot.path if slot else ""
        problems = sorted(self.work.edited.problems, key=lambda each: not chosen.startswith(each.path))
        lines = [Content.assemble(("✗ ", "$error"), f"{each.path} {each.fault}".strip()) for each in problems]
        if not lines and slot is not None:
            lines = [Content.styled(f"  {slot.allowed}", "$muted")]
        self.query_one("#fault", FixedText).show(Content("\n").join(lines))
        self.query_one("#value").set_class(any(each.path == chosen for each in problems), "-faulty")

    def _show_help(self) -> None:
        if (slot := self.slot) is None:
            return
        known = self.work.help(slot)
        pane = self.query_one("#help", ScrollPane)
        pane.border_title = Content(slot.path)
        pane.show(lambda width: words.help_text(known, width))
        pane.scroll_home(animate=False)

    def _show_outlook(self) -> None:
        before, now = (self.outlooks.get(each.hash()) for each in (self.work.before, self.work.recipe))
        currency = self.price.currency if self.price else ""
        pane = self.query_one("#outlook", ScrollPane)
        pane.border_title = Content(
            "What it takes here" if self.work.is_valid else "What it took here while it was valid"
        )
        pane.show(lambda width: words.outlook_text(before, now, currency, width))

    # Changing a field

    @on(OptionList.OptionSelected)
    def action_edit(self) -> None:
        """Go into the line of the chosen field; what is typed replaces what is in it."""
        if self.slot is None:
            return
        field = self.query_one("#value", SteppingField)
        self.held = self.work.typed.get(self.slot.path)
        field.focus()
        field.action_select_all()

    @on(Input.Changed, "#value")
    def _type(self, event: Input.Changed) -> None:
        self._take(self.filled, clean(event.value, 20_000))

    @on(Input.Submitted, "#value")
    def _accept(self) -> None:
        self._return()

    def _return(self) -> None:
        """Go back to the list."""
        self.query_one(RowList).list.focus()
        if self.slot is not None:
            self._fill(self.slot)

    def action_choose(self, by: int) -> None:
        if (slot := self.slot) is None:
            return
        self._fill(slot)
        field = self.query_one("#value", SteppingField)
        if field.words:
            self._set(lambda path: field.after(by))

    def action_undo(self) -> None:
        self._set(lambda path: None)

    def action_take_default(self) -> None:
        self._set(lambda path: "")

    def action_take_parent(self) -> None:
        from ...recipes.editing import as_typed, value_at

        if self.work.parent is None:
            self.app.notify("It was made from no other recipe that is here.", markup=False)
            return
        recipe = self.work.parent.recipe
        self._set(lambda path: as_typed(value_at(recipe, path)))

    def _set(self, text: Callable[[str], str | None]) -> None:
        if (slot := self.slot) is not None:
            self._take(slot.path, text(slot.path))
            self._fill(slot)

    # Finding, showing

    def action_find(self) -> None:
        line = ("words", Field(self.sought, "rank, memory, learning rate", "words"))
        said = "The next field that has these words in its name or its meaning."
        self.app.push_screen(AskDialog("Find a field", said, "Find", (line,)), self._find)

    def _find(self, values: dict[str, str] | None) -> None:
        if not values or not values["words"]:
            return
        self.sought = values["words"]
        if path := self.work.find(self.sought, self.query_one(RowList).chosen):
            self.query_one(RowList).choose(path)
            return
        self.app.notify(f"No field says {one_line(self.sought, 60)}.", markup=False)

    def action_show_changes(self) -> None:
        self.app.push_screen(Dialog[None]("Changes", self._changes_text()))

    def action_show_text(self) -> None:
        self.app.push_screen(Dialog[None]("The text", Content(clean(self.work.edited.text))))

    def action_next_pane(self) -> None:
        places = [self.query_one(RowList).list, *(self.query_one(each) for each in PANES[1:])]
        present = next((place for place, each in enumerate(places) if each.has_focus), -1)
        places[(present + 1) % len(places)].focus()

    # Keeping

    def action_save(self) -> None:
        if not self.work.is_valid:
            said = "\n".join(f"  {each.path} {each.fault}".rstrip() for each in self.work.edited.problems)
            self.post_message(
                Failed(TunewrightError("Recipe not valid", said, "Mend these fields; nothing is kept until then."))
            )
            return
        if not self.work.is_changed:
            self.app.notify("Nothing is changed.", markup=False)
            return
        self.keep()

    def keep(self) -> None:
        """Ask for a name and a note, and keep the recipe in the registry."""
        from ...recipes.editing import is_own

        own, short = is_own(self.entry), self.entry.name.rpartition("/")[2]
        name = self.named.get("name", short if own else f"my-{short}")
        said = (
            "A new edition of it; those before stay in its history. Another name makes a fork."
            if own
            else f"{one_line(self.entry.name, 60)} is not yours to change: this becomes a recipe of your own, made from it."
        )
        lines = (
            ("its name", Field(name, "small letters, digits, dashes", "name")),
            ("note", Field(self.named.get("note", ""), "why it is changed", "note")),
        )
        self.app.push_screen(AskDialog("Save", said, "Save", lines), self._save_if)

    def _save_if(self, values: dict[str, str] | None) -> None:
        if values is not None:
            self.named = values
            self._save(self.work.edited.text, values["name"], values["note"])

    @background("save")
    def _save(self, text: str, name: str, note: str) -> None:
        from ...recipes.editing import is_own, keep_edition, keep_fork
        from ...recipes.registry import open_registry

        with open_registry() as registry:
            if is_own(self.entry) and name == self.entry.name.rpartition("/")[2]:
                made = keep_edition(registry, self.entry, text, note)
                said = f"{made.name} has a new edition."
            else:
                made = keep_fork(registry, self.entry, text, name, note)
                said = f"{made.name} is there."
        self.told.post_message(
            RecipesChanged(f"{said} d tells what differs, enter starts the wizard with it.", made.name)
        )
        self.app.call_from_thread(self.end)

    def action_leave(self) -> None:
        """Leave the line as it was before one went into it; from the list, leave the editor."""
        if self.query_one("#value").has_focus:
            self._take(self.filled, self.held)
            self._return()
        elif not self.query_one(RowList).list.has_focus:
            self._return()
        elif self.work.is_changed:
            said = f"The changes of {one_line(self.entry.name, 60)} are not saved."
            self.app.push_screen(ConfirmDialog("Leave all the same?", said, "Leave"), self._end_if)
        else:
            self.end()

    def _end_if(self, agreed: bool | None) -> None:
        if agreed:
            self.end()

    def end(self) -> None:
        """Leave the editor, whatever was changed."""
        self.app.post_message(Unsaved(self, ""))
        if self.is_current:
            self.app.pop_screen()


def _suggester(path: str) -> PathSuggester | None:
    """Return what completes names that are typed into a field, where they are of files or models."""
    if path == "base.model":
        from ...engine.shapes import SHAPES

        return PathSuggester((STARTER_MODEL, *SHAPES))
    if path in ("data.source", "data.validation.source", "evaluation.source"):
        return PathSuggester((STARTER_DATA,) if path == "data.source" else (), DATA_FILES)
    return None
