"""What can be done with recipes of the library: narrow, edit, fork, compare, accept, remove, share, and exchange with other tools."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on
from textual.content import Content

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ..background import background, deliver
from ..messages import Failed, RecipesChanged, TextReady
from ..widgets.ask_dialog import AskDialog
from ..widgets.choice_line import Choice, ChoiceLine
from ..widgets.confirm_dialog import ConfirmDialog
from ..widgets.dialog import Dialog
from ..widgets.field import Field
from ..widgets.path_field import PathSuggester
from .frame import FramedScreen

if TYPE_CHECKING:
    from ...recipes.interchange.ledger import Imported
    from ...recipes.registry import Entry

ANY = Choice("", "any")
METHODS = (ANY, Choice("lora", "lora"), Choice("qlora", "qlora"), Choice("full", "full"))
OBJECTIVES = (ANY, *(Choice(each, each) for each in ("sft", "cpt", "dpo", "orpo", "kto")))
EVIDENCE = (
    ANY,
    Choice("fits", "fits", "memory and speed are known, at least"),
    Choice("ran", "ran", "it ran to its end here, at least"),
    Choice("proven", "proven", "its author published its result, at least"),
    Choice("replicated", "replicated", "others got its result too"),
)
HERE = (
    ANY,
    Choice("fits", "fits", "the planner says that it fits this machine"),
    Choice("proven", "proven", "it ran on a card like this"),
)


CONFIGURATIONS = (".yaml", ".yml", ".json")
"""How the names of files end that other tools are configured with."""
LOSSES = (
    Choice("no", "refused", "where it would be another run there"),
    Choice("yes", "written all the same", "even where it would be another run there"),
)


class RecipeActionScreen(FramedScreen):
    """A screen on which one recipe is chosen."""

    filters: dict[str, str]
    wanted: str | None = None
    """The recipe to be chosen once it is in the list."""

    def chosen_entry(self) -> Entry | None:
        """Return the recipe that the keys act on."""
        raise NotImplementedError

    def look_up(self) -> None:
        """Find again what is asked for."""
        raise NotImplementedError

    def action_filter(self) -> None:
        now = self.filters
        lines = (
            ("task", Field(now.get("task", ""), "a tag: chat, code, reasoning", "task")),
            ("model", Field(now.get("model", ""), "a part of its name", "model")),
            ("size", Field(now.get("size", ""), "8b, <3b, 7b-14b", "size")),
            ("licence", Field(now.get("licence", ""), "a part of its name", "licence")),
            ChoiceLine("method", METHODS, now.get("method", ""), id="method"),
            ChoiceLine("objective", OBJECTIVES, now.get("objective", ""), id="objective"),
            ChoiceLine("evidence", EVIDENCE, now.get("evidence", ""), id="evidence"),
            ChoiceLine("here", HERE, now.get("here", ""), id="here"),
        )
        said = "← → change a line, ↑ ↓ go to another. Empty lines ask for nothing."
        self.app.push_screen(AskDialog("Show only", said, "Show", lines), self._filter)

    def _filter(self, values: dict[str, str] | None) -> None:
        if values is not None:
            self.filters = {name: value for name, value in values.items() if value}
            self.look_up()

    def action_edit(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        from .editor import EditorScreen

        try:
            self.app.push_screen(EditorScreen(entry, self))
        except TunewrightError as error:  # a recipe that another version has kept
            self.post_message(Failed(error))

    def action_fork(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        name = f"my-{entry.name.rpartition('/')[2]}"
        lines = (
            ("its name", Field(name, "small letters, digits, dashes", "name")),
            ("changes", Field("", "method.rank=8 training.epochs=2", "changes")),
            ("note", Field("", "why it is made", "note")),
        )
        said = f"A recipe of your own from {one_line(entry.name, 60)}; comments and lineage stay."
        self.app.push_screen(AskDialog("Fork", said, "Fork", lines), lambda values: self._fork_if(entry, values))

    def _fork_if(self, entry: Entry, values: dict[str, str] | None) -> None:
        if values is not None:
            self._fork(entry, values)

    @background("change")
    def _fork(self, entry: Entry, values: dict[str, str]) -> None:
        from ...recipes.editing import change_text, keep_fork, read_change
        from ...recipes.registry import open_registry

        changes = [read_change(each) for each in values["changes"].split()]
        text = change_text(entry.toml, changes, values["name"])
        with open_registry() as registry:
            made = keep_fork(registry, entry, text, values["name"], values["note"])
        deliver(self, RecipesChanged(f"{made.name} is there: e edits it, enter starts the wizard with it.", made.name))

    def action_compare(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        parent = Field("", "another recipe's name; empty for the one it was made from", "other")
        said = f"What differs from {one_line(entry.name, 60)}, and what each difference does."
        dialog = AskDialog("Compare", said, "Compare", (("with", parent),))
        self.app.push_screen(dialog, lambda values: self._compare_if(entry, values))

    def _compare_if(self, entry: Entry, values: dict[str, str] | None) -> None:
        if values is not None:
            self._compare(entry, values["other"])

    @background("look")
    def _compare(self, entry: Entry, other: str) -> None:
        from ...engine.fitting import fit
        from ...engine.machine import inspect_machine
        from ...foundation.home import runs_folder
        from ...recipes.comparing import differences
        from ...recipes.registry import open_registry
        from .recipe_words import differences_text

        with open_registry() as registry:
            parents = registry.parents(entry.hash)
            if not other and not parents:
                raise TunewrightError("Nothing to compare with", f"{entry.name} was made from no other.", "Name one.")
            before = registry.get(other or parents[0][0])
        machine = inspect_machine(runs_folder())
        costs = (fit(before.recipe, machine), fit(entry.recipe, machine))
        text = differences_text(differences(before.recipe, entry.recipe), costs)
        deliver(self, TextReady(f"{one_line(before.name, 40)} → {one_line(entry.name, 40)}", text))

    def action_history(self) -> None:
        if (entry := self.chosen_entry()) is not None:
            self._history(entry)

    @background("look")
    def _history(self, entry: Entry) -> None:
        from ...recipes.registry import open_registry
        from .recipe_words import history_text

        with open_registry() as registry:
            editions = registry.history(entry.name)
            names = {parent: registry.name_of(parent) for each in editions for parent, _ in each.parents}
        deliver(self, TextReady(f"History of {one_line(entry.name, 60)}", history_text(editions, names)))

    def action_accept_recipe(self) -> None:
        entry = self.chosen_entry()
        if entry is None or entry.accepted:
            return
        text = f"{entry.name} came from somebody else. Once accepted, it can be run here as it is now."
        self.app.push_screen(ConfirmDialog("Accept it?", text, "Accept"), lambda agreed: self._accept_if(entry, agreed))

    def _accept_if(self, entry: Entry, agreed: bool | None) -> None:
        if agreed:
            self._accept(entry)

    @background("change")
    def _accept(self, entry: Entry) -> None:
        from ...recipes.registry import open_registry

        with open_registry() as registry:
            registry.accept(entry.name)
        deliver(self, RecipesChanged(f"{entry.name} can be run now.", entry.name))

    def action_remove(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        text = f"{entry.name} leaves the lists. Its history and evidence stay, and it can be put back."
        self.app.push_screen(ConfirmDialog("Remove it?", text, "Remove"), lambda agreed: self._remove_if(entry, agreed))

    def _remove_if(self, entry: Entry, agreed: bool | None) -> None:
        if agreed:
            self._remove(entry)

    @background("change")
    def _remove(self, entry: Entry) -> None:
        from ...recipes.registry import open_registry

        with open_registry() as registry:
            registry.withdraw(entry.name)
        said = f"{entry.name} is removed; `tunewright recipes remove --undo {entry.name}` brings it back."
        deliver(self, RecipesChanged(said, None))

    def action_publish(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        field = Field("", "owner/name on the Hub, /FOLDER/NAME, git+https://…#NAME", "place")
        said = "Every byte is shown before anything is sent."
        dialog = AskDialog(f"Publish {one_line(entry.name, 40)}", said, "Show", (("where to", field),))
        self.app.push_screen(dialog, lambda values: self._prepare_if(entry, values))

    def _prepare_if(self, entry: Entry, values: dict[str, str] | None) -> None:
        if values and values["place"]:
            self._prepare(entry, values["place"])

    @background("share")
    def _prepare(self, entry: Entry, place: str) -> None:
        from ...recipes.registry import open_registry
        from ...recipes.sharing import parse_remote, prepare
        from .recipe_words import shipment_text

        with open_registry() as registry:
            shipment = prepare(registry, entry, parse_remote(place))
        text = Content(shipment_text(shipment))
        deliver(self, TextReady("Publish this?", text, "Publish", lambda: self._send(entry, shipment)))

    @background("share")
    def _send(self, entry: Entry, shipment: Any) -> None:
        from ...recipes.registry import open_registry
        from ...recipes.sharing import send

        with open_registry() as registry:
            commit = send(registry, entry, shipment)
        deliver(self, RecipesChanged(f"{entry.name} is published, commit {commit[:12]}.", entry.name))

    def action_pull(self) -> None:
        field = Field("", "owner/name on the Hub, /FOLDER/NAME, git+https://…#NAME", "place")
        said = "What is there is shown first; nothing of it is run, nothing here is overwritten."
        self.app.push_screen(AskDialog("Pull a recipe", said, "Look", (("from", field),)), self._look_if)

    def _look_if(self, values: dict[str, str] | None) -> None:
        if values and values["place"]:
            self._fetch(values["place"])

    @background("share")
    def _fetch(self, place: str) -> None:
        from ...recipes.registry import open_registry
        from ...recipes.sharing import fetch, parse_remote
        from .recipe_words import arrival_text

        with open_registry() as registry:
            arrival = fetch(registry, parse_remote(place))
        text = Content(arrival_text(arrival))
        deliver(self, TextReady("Keep this?", text, "Keep", lambda: self._keep(arrival)))

    @background("share")
    def _keep(self, arrival: Any) -> None:
        from ...recipes.registry import open_registry
        from ...recipes.sharing import keep

        with open_registry() as registry:
            kept = keep(registry, arrival)
        deliver(self, RecipesChanged(f"{kept.name} is here, as a stranger's: a accepts it.", kept.name))

    def action_import_recipe(self) -> None:
        from ...recipes.interchange import FORMATS

        formats = (Choice("", "guessed", "told from its keys"), *(Choice(each, each) for each in FORMATS))
        file = Field("", "the tool's YAML or JSON file", "file", PathSuggester((), CONFIGURATIONS))
        lines = (
            ("file", file),
            ChoiceLine("whose it is", formats, id="format"),
            ("GPUs", Field("1", "how many it was written for: rows of a step grow with them", "gpus")),
            ("model", Field("", "where the file names none", "model")),
            ("data", Field("", "where the file names none, or several", "data")),
        )
        said = "What becomes of every key is shown first; nothing is kept before that."
        self.app.push_screen(AskDialog("Import a recipe", said, "Read", lines), self._import_if)

    def _import_if(self, values: dict[str, str] | None) -> None:
        if values and values["file"]:
            self._import(values)

    @background("exchange")
    def _import(self, values: dict[str, str]) -> None:
        from ...recipes.interchange.conversion import import_file
        from .recipe_words import account_text

        path = Path(values["file"]).expanduser()
        gpus = int(values["gpus"]) if values["gpus"].isdecimal() and len(values["gpus"]) < 9 else 0
        imported = import_file(path, values["format"] or None, gpus, values["model"], values["data"])
        text = account_text(imported)
        deliver(self, TextReady("Keep this?", text, "Name it", lambda: self._name_imported(imported, path)))

    def _name_imported(self, imported: Imported, path: Path) -> None:
        slug = re.sub(r"[^a-z0-9._-]+", "-", path.stem.casefold()).strip("-._")[:60]
        name = Field(slug, "small letters, digits, dashes", "name")
        said = "A recipe of your own; one that has this name already gets a new edition."
        dialog = AskDialog("Keep the recipe", said, "Keep", (("its name", name),))

        def named(values: dict[str, str] | None) -> None:
            if values is not None:
                self._keep_imported(imported, path, values["name"])

        self.app.push_screen(dialog, named)

    @background("change")
    def _keep_imported(self, imported: Imported, path: Path, name: str) -> None:
        from ...recipes.interchange.conversion import keep_imported
        from ...recipes.registry import open_registry

        with open_registry() as registry:
            made = keep_imported(registry, imported, name, path)
        deliver(self, RecipesChanged(f"{made.name} is here: e edits it, enter starts the wizard with it.", made.name))

    def action_export_recipe(self) -> None:
        if (entry := self.chosen_entry()) is None:
            return
        from ...recipes.interchange import TARGETS

        lines = (
            ChoiceLine("for", tuple(Choice(each, each) for each in TARGETS), TARGETS[0], id="target"),
            ("file", Field("", "where it is written; empty shows it only", "file", PathSuggester(()))),
            ChoiceLine("with a loss", LOSSES, "no", id="loss"),
        )
        said = f"{one_line(entry.name, 60)} as another tool reads it, or as a script that needs nothing of ours."
        dialog = AskDialog("Export", said, "Show", lines)

        def chosen(values: dict[str, str] | None) -> None:
            if values is not None:
                self._export(entry, values)

        self.app.push_screen(dialog, chosen)

    @background("exchange")
    def _export(self, entry: Entry, values: dict[str, str]) -> None:
        from ...foundation.files import write_atomically
        from ...recipes.interchange.conversion import export_recipe
        from .recipe_words import export_text

        exported = export_recipe(entry.recipe, values["target"], values["loss"] == "yes")
        path = Path(values["file"]).expanduser() if values["file"] else None
        text = export_text(exported, path)
        title = f"{one_line(entry.name, 40)} for {exported.format}"
        if path is None:
            deliver(self, TextReady(title, text))
            return

        def write() -> None:
            try:
                write_atomically(path, exported.text)
            except TunewrightError as error:
                self.post_message(Failed(error))
            else:
                self.app.notify(f"Written to {one_line(str(path), 200)}.", markup=False)

        deliver(self, TextReady(title, text, "Write", write))

    @on(TextReady)
    def _show_text(self, message: TextReady) -> None:
        """Show what was asked for, or ask whether to go on with it."""
        agreed = message.agreed
        if agreed is None:
            self.app.push_screen(Dialog[None](message.title, message.text))
            return
        dialog = ConfirmDialog(message.title, message.text, message.verb)

        def answered(agrees: bool | None) -> None:
            if agrees:
                agreed()

        self.app.push_screen(dialog, answered)

    @on(RecipesChanged)
    def _tell_change(self, message: RecipesChanged) -> None:
        self.app.notify(one_line(message.said, 200), markup=False)
        self.wanted = message.name
        self.look_up()
