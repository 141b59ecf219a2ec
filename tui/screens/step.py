"""One step of the wizard: a widget that keeps its state while others are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.app import App
from textual.containers import Vertical
from textual.message import Message

from ..draft import Draft
from ..keys import Where


@dataclass
class StepChanged(Message):
    """What a step knows or asks for has changed."""


class Step(Vertical):
    """A step fills in its part of the draft; it is told when it is entered."""

    name_in_rail = ""
    where: Where | None = None
    """The keys that work in this step, beside those of the wizard."""

    if TYPE_CHECKING:

        @property
        def app(self) -> App[None]: ...

    def __init__(self, draft: Draft) -> None:
        super().__init__(classes="step")
        self.draft = draft

    def enter(self) -> None:
        """Bring the step up to what was chosen before it, and put the focus where it is wanted."""

    def leave(self) -> None:
        """Put what was chosen into the draft."""

    def answer(self) -> str:
        """Return what was chosen in this step, in a few words, for the rail."""
        return ""

    def obstacle(self) -> str | None:
        """Return why one cannot go on, None when one can."""
        return None

    def invitation(self) -> str:
        """Return what enter does here, where that is more than going on."""
        return ""

    def back(self) -> bool:
        """Do what escape means here beside going back; True when that was all that was meant."""
        return False

    def forward(self) -> bool:
        """Do what enter means here beside going on; True when the wizard is to go on to the next step."""
        return True
