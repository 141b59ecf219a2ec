"""The fifth step: the recipe with every value resolved, and a few of them open to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from ...foundation.text import clean, one_line
from ..background import background, deliver
from ..draft import Draft
from ..messages import RecipeEdited
from ..widgets.field import Field
from ..widgets.pane import ScrollPane
from .step import Step, StepChanged

if TYPE_CHECKING:
    from ...recipes.model import Recipe
    from ..proposal import Proposal

EDITABLE = (
    ("training.epochs", "epochs"),
    ("training.learning_rate", "learning rate"),
    ("method.rank", "rank"),
    ("training.global_batch", "global batch"),
    ("data.max_length", "max length"),
    ("training.seed", "seed"),
)


@dataclass
class RecipeProposed(Message):
    """The recipe that follows from the steps before."""

    key: object
    proposal: Proposal


class RecipeStep(Step):
    """Fields for what is changed most, above every value with its meaning."""

    name_in_rail = "recipe"

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._key: object = None
        self._problems: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="fields"):
            for path, label in EDITABLE:
                with Horizontal(classes="field-row"):
                    yield Static(Content.styled(label, "$muted"))
                    yield Field(id=path.replace(".", "-"))
        yield Static(id="problems", markup=False)
        yield ScrollPane("Every value, and what it means", id="values", said="Resolving the recipe…")

    def enter(self) -> None:
        self.query_one("#values").focus()
        key = self._asked()
        if key != self._key or self.draft.recipe is None:
            self._key = key
            self._propose(key)

    def _asked(self) -> object:
        """Return what the recipe follows from."""
        draft = self.draft
        return draft.method, draft.model, draft.source, draft.entry and draft.entry.hash, dict(draft.data_changes)

    @background("recipe")
    def _propose(self, key: object) -> None:
        from ..proposal import propose_recipe

        deliver(self, RecipeProposed(key, propose_recipe(self.draft)))

    @on(RecipeProposed)
    def _take(self, message: RecipeProposed) -> None:
        if message.key != self._key:
            return
        self.draft.entry = message.proposal.entry
        self._reasons = message.proposal.reasons
        self._show(message.proposal.recipe)

    def edit(self) -> None:
        """Open the editor on the recipe as it is now."""
        from ..proposal import as_entry
        from .wizard_editor import WizardEditorScreen

        recipe, entry = self.draft.recipe, self.draft.entry
        if recipe is None:
            return
        if entry is None or entry.recipe != recipe:
            entry = as_entry(entry.name if entry else "this recipe", recipe)
        self.app.push_screen(WizardEditorScreen(entry, self))

    @on(RecipeEdited)
    def _take_edited(self, message: RecipeEdited) -> None:
        """Go on with what was edited, its model and data too."""
        recipe, before = message.recipe, self.draft.recipe
        if before is None or (recipe.base, recipe.data) != (before.base, before.data):
            self.draft.report = None
        self.draft.model, self.draft.source = recipe.base.model, recipe.data.source
        self.draft.method, self.draft.plan = recipe.method.kind, None
        self._show(recipe)

    def _show(self, recipe: Recipe) -> None:
        """Take `recipe` for what follows from the steps before, and show it."""
        self.draft.recipe = recipe
        self._key = self._asked()
        self._problems.clear()
        from ..recipe_fields import raw_value

        for path, _ in EDITABLE:
            field = self.query_one(f"#{path.replace('.', '-')}", Field)
            value = raw_value(recipe, path)
            with field.prevent(Input.Changed):
                field.value = value or ""
            row = field.parent
            if isinstance(row, Horizontal):
                row.display = value is not None
            self._say(path, "")
        self._show_values()
        self.post_message(StepChanged())

    @on(Input.Changed)
    def _edit(self, event: Input.Changed) -> None:
        recipe = self.draft.recipe
        path = next((each for each, _ in EDITABLE if each.replace(".", "-") == event.input.id), None)
        if recipe is None or path is None:
            return
        from ..recipe_fields import changed

        outcome = changed(recipe, path, clean(event.value, 40).strip())
        if isinstance(outcome, str):
            self._say(path, outcome)
            return
        self._say(path, "")
        self.draft.recipe, self.draft.plan = outcome, None
        self._show_values()

    def _say(self, path: str, problem: str) -> None:
        name = path.replace(".", "-")
        self._problems.pop(path, None)
        if problem:
            self._problems[path] = problem
        self.query_one(f"#{name}").set_class(bool(problem), "-invalid")
        lines = [
            Content.assemble((f"✗ {dict(EDITABLE)[path]}  ", "$error"), problem)
            for path, problem in self._problems.items()
        ]
        self.query_one("#problems", Static).update(Content("\n").join(lines))
        self.query_one("#problems").display = bool(lines)

    def _show_values(self) -> None:
        if self.draft.recipe is None:
            return
        from .recipes import fields_text

        recipe, reasons = self.draft.recipe, self._reasons
        against = self._against_parent(recipe)
        self.query_one("#values", ScrollPane).show(lambda width: against + fields_text(recipe, width, "", reasons))

    def _against_parent(self, recipe: Recipe) -> Content:
        """Return what differs from the run that this one is made from, nothing where it is made from none."""
        parent, entry = self.draft.parent, self.draft.entry
        if parent is None or entry is None:
            return Content("")
        from ...recipes.comparing import differences

        text = Content.styled(f"Changed against {one_line(parent.id, 60)}\n", "bold $accent")
        found = differences(entry.recipe, recipe)
        for each in found:
            text += Content.assemble(
                (f"{each.path}  ", "$muted"), one_line(each.before, 60), " → ", (one_line(each.after, 60), "bold"), "\n"
            )
        return text + ("\n" if found else "Nothing yet: it would be the same run again.\n\n")

    def invitation(self) -> str:
        return "Press enter to go on, or e to change any value." if self.draft.recipe is not None else ""

    def answer(self) -> str:
        recipe = self.draft.recipe
        if recipe is None:
            return ""
        name = f"{self.draft.entry.name}, " if self.draft.entry else ""
        return one_line(f"{name}{recipe.method.kind}, rate {recipe.training.learning_rate:g}", 60)

    def obstacle(self) -> str | None:
        if self.draft.recipe is None:
            return "Still resolving the recipe."
        for path, problem in self._problems.items():
            return f"{dict(EDITABLE)[path]}: {problem}"
        return None
