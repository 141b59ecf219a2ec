"""The recipes: search, read, and start the wizard from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, OptionList

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ..background import background, deliver
from ..figures import plural
from ..keys import bindings
from ..messages import Failed, RecipeChosen, RecipesListed
from ..widgets.field import Field
from ..widgets.pane import ScrollPane
from ..widgets.row_list import Column, Row, RowList
from ..wrapping import hanging
from .frame import FramedScreen

if TYPE_CHECKING:
    from ...recipes.model import Recipe
    from ...recipes.registry import Entry

COLUMNS = (
    Column("recipe", 16, weight=2),
    Column("method", 6),
    Column("model", 20, rank=1, weight=1),
    Column("from", 8, rank=2),
)


class RecipesScreen(FramedScreen):
    """A search field above the list, and the chosen recipe in full beside it."""

    CSS_PATH = "recipes.tcss"
    BINDINGS = bindings("Recipes")  # pyright: ignore[reportAssignmentType]
    where = "Recipes"
    mode = "recipes"
    title_path = ("Recipes",)

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, Entry] = {}

    def compose_body(self) -> ComposeResult:
        yield Field(placeholder="Search: press / and type", id="search")
        with Horizontal(id="shelf"):
            yield RowList(COLUMNS, "No recipe matches.", id="list")
            yield ScrollPane("Recipe", id="text", said="Opening the registry…")

    def on_mount(self) -> None:
        self.query_one(RowList).list.focus()
        self._look_up("")

    @background("search")
    def _look_up(self, search: str) -> None:
        from ...recipes.registry import open_registry

        with open_registry() as registry:
            deliver(self, RecipesListed(search, tuple(registry.list(search=search or None))))

    @on(Input.Changed, "#search")
    def _search(self, event: Input.Changed) -> None:
        self._look_up(clean(event.value, 200))

    @on(Input.Submitted, "#search")
    def action_leave_search(self) -> None:
        self.query_one(RowList).list.focus()

    @on(RecipesListed)
    def _show_list(self, message: RecipesListed) -> None:
        self.entries = {entry.name: entry for entry in message.entries}
        self.show_title(aside=Content.styled(plural(len(message.entries), "recipe"), "$muted"))
        self.query_one(RowList).show([_row(entry) for entry in message.entries])
        self._read()

    @on(OptionList.OptionHighlighted)
    def _read(self) -> None:
        entry = self.entries.get(self.query_one(RowList).chosen or "")
        pane = self.query_one("#text", ScrollPane)
        if entry is None:
            pane.show(Content.styled("Nothing chosen.", "$muted"))
        else:
            pane.show(lambda width: recipe_text(entry, width))
            pane.scroll_home(animate=False)

    @on(OptionList.OptionSelected)
    def action_use(self) -> None:
        entry = self.entries.get(self.query_one(RowList).chosen or "")
        if entry is None:
            return
        try:
            entry.require_accepted()
        except TunewrightError as error:
            self.post_message(Failed(error))
        else:
            self.post_message(RecipeChosen(entry))

    def action_search(self) -> None:
        self.query_one("#search").focus()


def _row(entry: Entry) -> Row:
    return Row(
        entry.name,
        (
            Content(one_line(entry.name, 100)),
            Content(entry.method),
            Content.styled(one_line(entry.model, 100), "$muted"),
            Content.styled(entry.origin, "$muted"),
        ),
    )


def recipe_text(entry: Entry, width: int) -> Content:
    """Return the whole recipe for reading: its card, then every field with its value and its meaning."""
    card = entry.recipe.card
    text = Content.assemble((one_line(entry.title, 200), "bold"), "\n", clean(entry.summary, 4000), "\n")
    if entry.tags:
        text += Content.styled("  ".join(f"#{one_line(tag, 40)}" for tag in entry.tags) + "\n", "$accent")
    text += Content.styled(f"\nname  {one_line(entry.name, 100)}\nhash  {entry.hash[:16]}\n", "$muted")
    if card.licence:
        text += Content.styled(f"terms {one_line(card.licence, 100)}\n", "$muted")
    for source in card.sources:
        text += Content.styled(f"from  {one_line(source, 300)}\n", "$muted")
    from ..proposal import comments

    return text + "\n" + fields_text(entry.recipe, width, comments(entry.toml))


def fields_text(recipe: Recipe, width: int, reasons: Mapping[str, str] | None = None) -> Content:
    """Return every field of `recipe` by section, with its value and its meaning, and why where `reasons` say so."""
    from ...recipes.reading import fields

    text, section = Content(""), ""
    for line in fields(recipe):
        if line.section != section:
            text += Content.styled(f"\n{line.section}\n" if section else f"{line.section}\n", "bold $accent")
            section = line.section
        text += _field(line.name, line.value, line.meaning, width)
        if reasons and line.name in reasons:
            why = Content(one_line(reasons[line.name], 300))
            text += hanging(Content.styled("  └ ", "$accent"), why, width) + "\n"
    return text


def _field(name: str, value: str, meaning: str, width: int) -> Content:
    """Return one field: name, value, and its meaning beside it, or below it where there is no room."""
    head = Content.assemble((f"{name:<20} ", "$muted"), (f"{value:<14}", "bold"))
    if width - head.cell_length > 36:
        return hanging(head + "  ", Content.styled(meaning, "$muted"), width) + "\n"
    below = hanging(Content("  "), Content.styled(meaning, "$muted"), width) + "\n" if meaning else Content("")
    return head.rstrip() + "\n" + below
