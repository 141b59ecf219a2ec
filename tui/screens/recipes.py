"""The recipes: search, read, and start the wizard from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

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
from ..messages import Failed, RecipeChosen, RecipeRead, RecipesListed
from ..widgets.field import Field
from ..widgets.pane import ScrollPane
from ..widgets.row_list import Column, Row, RowList
from ..wrapping import hanging
from .recipe_actions import RecipeActionScreen
from .recipe_words import evidence_text

if TYPE_CHECKING:
    from ...recipes.finding import Found, Grade, Query
    from ...recipes.model import Recipe
    from ...recipes.reading import Field as Reading
    from ...recipes.registry import Entry, Registry

MOST_SHOWN = 300
"""Further ones are found by words and filters."""
COLUMNS = (
    Column("recipe", 16, weight=2),
    Column("method", 6),
    Column("model", 20, rank=1, weight=1),
    Column("evidence", 10, rank=2),
)


class RecipesScreen(RecipeActionScreen):
    """A search field above the list, and the chosen recipe in full beside it."""

    BINDINGS = bindings("Recipes")  # pyright: ignore[reportAssignmentType]
    where = "Recipes"
    mode = "recipes"
    title_path = ("Recipes",)

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, Entry] = {}
        self.found: dict[str, Found] = {}
        self.filters: dict[str, str] = {}

    def compose_body(self) -> ComposeResult:
        yield Field(placeholder="Search: press / and type", id="search")
        with Horizontal(id="shelf"):
            yield RowList(COLUMNS, "No recipe matches.", id="list")
            yield ScrollPane("Recipe", id="text", said="Opening the registry…")

    def on_mount(self) -> None:
        self.query_one(RowList).list.focus()
        self.look_up()

    def look_up(self) -> None:
        self._look_up(clean(self.query_one("#search", Field).value, 200), dict(self.filters))

    @background("search")
    def _look_up(self, search: str, filters: dict[str, str]) -> None:
        from ...recipes.registry import open_registry

        query = _query(search, filters)
        with open_registry() as registry:
            findings = registry.find(query, MOST_SHOWN)
            found, total = findings.found, findings.total
            if filters.get("here") == "fits":
                found = _that_fit(registry, found)
                total = len(found)
            deliver(self, RecipesListed(search, tuple(registry.entries(found)), found, total))

    @on(Input.Changed, "#search")
    def _search(self, event: Input.Changed) -> None:
        self.look_up()

    def chosen_entry(self) -> Entry | None:
        return self.entries.get(self.query_one(RowList).chosen or "")

    @on(Input.Submitted, "#search")
    def action_leave_search(self) -> None:
        self.query_one(RowList).list.focus()

    @on(RecipesListed)
    def _show_list(self, message: RecipesListed) -> None:
        self.entries = {entry.name: entry for entry in message.entries}
        self.found = {each.name: each for each in message.found}
        narrowed = f"  only {', '.join(self.filters.values())}" if self.filters else ""
        self.show_title(aside=Content.styled(f"{plural(message.total, 'recipe')}{narrowed}", "$muted"))
        self.query_one(RowList).show([_row(each) for each in message.found])
        self._choose_wanted()
        self._read()

    def _choose_wanted(self) -> None:
        """Choose what has just come into the registry; where the search hides it, it is searched for."""
        name, self.wanted = self.wanted, None
        if name is None:
            return
        if name in self.entries:
            self.query_one(RowList).choose(name)
        elif self.query_one("#search", Field).value != name:
            self.wanted, self.filters = name, {}
            self.query_one("#search", Field).value = name

    @on(OptionList.OptionHighlighted)
    def _read(self) -> None:
        if (entry := self.chosen_entry()) is not None:
            self.call_after_refresh(self._read_wholly, entry)
        else:
            self.query_one("#text", ScrollPane).show(Content.styled("Nothing chosen.", "$muted"))

    @background("text")
    def _read_wholly(self, entry: Entry) -> None:
        """Read the recipe itself, which its row in the list does without, as the schema's import is long."""
        try:
            assert entry.recipe
        except TunewrightError as error:  # it was kept by a version that knew other keys
            deliver(self, RecipeRead(entry, error))
        else:
            deliver(self, RecipeRead(entry))

    @on(RecipeRead)
    def _show_recipe(self, message: RecipeRead) -> None:
        entry, pane = message.entry, self.query_one("#text", ScrollPane)
        if (fault := message.fault) is not None:
            pane.show(Content(f"{fault.title}\n{fault.message}\n{fault.remedy}"))
        else:
            found = self.found.get(entry.name)
            pane.show(lambda width: recipe_text(entry, width, found))
        pane.scroll_home(animate=False)

    @on(OptionList.OptionSelected)
    def action_use(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        try:
            entry.require_accepted()
        except TunewrightError as error:
            self.post_message(Failed(error))
        else:
            self.post_message(RecipeChosen(entry))

    def action_search(self) -> None:
        self.query_one("#search").focus()


def _query(search: str, filters: dict[str, str]) -> Query:
    """Return what is asked for; raises TunewrightError for a size that is none."""
    from ...recipes.finding import Query, parse_sizes

    sizes = parse_sizes(filters["size"]) if "size" in filters else (None, None)
    if sizes is None:
        raise TunewrightError("Size not understood", f"{filters['size']!r} is no size.", "Such as 8b, <3b or 7b-14b.")
    hardware = None
    if filters.get("here") == "proven":
        from ...engine.machine import inspect_machine
        from ...engine.runs.recording import hardware_name
        from ...foundation.home import runs_folder

        hardware = hardware_name(inspect_machine(runs_folder()))
    return Query(
        text=search or None,
        task=filters.get("task"),
        model=filters.get("model"),
        smallest_billions=sizes[0],
        largest_billions=None if sizes[1] == float("inf") else sizes[1],
        method=filters.get("method"),
        objective=filters.get("objective"),
        licence=filters.get("licence"),
        evidence=cast("Grade | None", filters.get("evidence")),
        hardware=hardware,
    )


def _that_fit(registry: Registry, found: tuple[Found, ...]) -> tuple[Found, ...]:
    """Return those that fit this machine, by the planner's word."""
    from ...engine.fitting import fit
    from ...engine.machine import inspect_machine
    from ...foundation.home import runs_folder

    machine = inspect_machine(runs_folder())
    fitting = {entry.name for entry in registry.entries(found) if fit(entry.recipe, machine).verdict == "fits"}
    return tuple(each for each in found if each.name in fitting)


def _row(found: Found) -> Row:
    return Row(
        found.name,
        (
            Content(one_line(found.name, 100)),
            Content(found.method),
            Content.styled(one_line(found.model, 100), "$muted"),
            Content.styled(found.grade if found.accepted else "stranger's", "$muted"),
        ),
    )


def recipe_text(entry: Entry, width: int, found: Found | None = None) -> Content:
    """Return the whole recipe for reading: its card, then every field with its value and its meaning."""
    from ...recipes.reading import card_facts, card_remarks, comments

    card = entry.recipe.card
    text = Content.assemble((one_line(entry.title, 200), "bold"), "\n", clean(entry.summary, 4000), "\n")
    if entry.tags:
        text += Content.styled("  ".join(f"#{one_line(tag, 40)}" for tag in entry.tags) + "\n", "$accent")
    if found is not None:
        text += Content("\n") + evidence_text(found)
    facts = [("name", one_line(entry.name, 100)), ("hash", entry.hash[:16])]
    facts += [(label, said) for label, said in card_facts(card) if label != "tags"]
    text += "\n"
    for label, said in facts:
        text += hanging(Content.styled(f"{label:<9}", "$muted"), Content.styled(said, "$muted"), width) + "\n"
    for said, items in card_remarks(card):
        text += Content("\n") + hanging(Content(""), Content(said), width) + "\n"
        for each in items:
            text += hanging(Content("  · "), Content.styled(each, "$muted"), width) + "\n"
    return text + "\n" + fields_text(entry.recipe, width, entry.toml, comments(entry.toml))


def fields_text(recipe: Recipe, width: int, toml: str, reasons: Mapping[str, str]) -> Content:
    """Return every field of `recipe` by section: its value, how it stands to the default, its meaning, and why.

    `toml` is its text, empty where it has none; `reasons` say why by the fields' paths.
    """
    from ...recipes.reading import fields

    parts, section = list[Content](), ""
    for line in fields(recipe, toml):
        if line.section != section:
            parts.append(Content.styled(f"\n{line.section}\n" if section else f"{line.section}\n", "bold $accent"))
            section = line.section
        parts.append(_field(line, width))
        if why := reasons.get(line.path):
            parts.append(hanging(Content.styled("  └ ", "$accent"), Content(one_line(why, 300)), width) + "\n")
    return Content("").join(parts)  # at once: each sum would measure all that came before


def _field(field: Reading, width: int) -> Content:
    """Return one field: name, value, how it stands to the default, and its meaning beside it, or below where there is no room."""
    head = Content.assemble((f"{field.name:<20} ", "$muted"), (f"{field.value:<14}", "bold"))
    standing = Content.styled(f"({field.standing})", "$accent" if field.differs and field.default else "$muted")
    meaning = Content.styled(field.meaning, "$muted")
    if width - head.cell_length > 36:
        return hanging(head + "  ", standing + " " + meaning, width) + "\n"
    if head.cell_length + standing.cell_length < width:
        head, below = head + " " + standing, meaning
    else:
        below = standing + " " + meaning
    return head + "\n" + hanging(Content("  "), below, width) + "\n"
