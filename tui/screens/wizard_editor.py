"""The recipe editor within the wizard: what is changed goes on with the wizard, and into no registry."""

from __future__ import annotations

from ..keys import bindings
from ..messages import RecipeEdited
from .editor import EditorScreen


class WizardEditorScreen(EditorScreen):
    """The editor, which hands its recipe back instead of keeping it."""

    BINDINGS = bindings("Editor")  # pyright: ignore[reportAssignmentType]
    mode = "tune"
    title_path = ("Tune", "recipe")

    def keep(self) -> None:
        self.told.post_message(RecipeEdited(self.work.recipe))
        self.end()
