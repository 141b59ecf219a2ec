"""What runs call for and how: the terminal, the kinds of alerts, an own command and a webhook."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from ...engine.runs.events import ABOUT
from ...foundation.errors import TunewrightError
from ...foundation.terminal import NAMED, Terminal
from ...foundation.text import clean, one_line
from .choice_line import Choice, ChoiceLine
from .field import Field
from .form_dialog import FormDialog, labelled

if TYPE_CHECKING:
    from ...engine.alerts import AlertSettings

KINDS = {
    "finished": "when a run has taken all its steps",
    "failed": "when a run ends with an error",
    "interrupted": "when a signal from outside ends it",
    "diverged": "when its numbers are none, or explode",
    "plateau": "when its loss no longer falls",
    "heat": "when a GPU is at its thermal limit",
    "disk": "when its disk is nearly full",
}


class AlertsDialog(FormDialog[dict[str, object] | None]):
    """Shows every setting in a line; the answer is what was changed."""

    def __init__(self, settings: AlertSettings, shown_webhook: str, terminal: Terminal) -> None:
        said = f"This is {terminal.name}, which gets {NAMED[terminal.way]}. {terminal.advice}".strip()
        super().__init__("Alerts", Content.styled(said, "$muted"))
        self.settings = settings
        self.shown_webhook = shown_webhook

    def compose_form(self) -> Iterator[Widget]:
        ways = [Choice("auto", "auto", "what this terminal knows"), Choice("off", "off", "this terminal stays silent")]
        ways += [Choice(way, name) for way, name in NAMED.items()]
        yield ChoiceLine("terminal", ways, self.settings.terminal, id="terminal")
        for kind in ABOUT:
            choices = (Choice("on", "on", KINDS[kind]), Choice("off", "off", KINDS[kind]))
            yield ChoiceLine(kind, choices, "on" if kind in self.settings.about else "off", id=kind)
        command = Field(shlex.join(self.settings.command), "notify-send {title} {message}", "command")
        yield labelled("command", command)
        yield labelled("webhook", Field(self.shown_webhook, "https://…", "webhook"))

    @on(ChoiceLine.Changed)
    @on(Input.Changed)
    def _forget_problem(self) -> None:
        self.say("")

    def action_accept(self) -> None:
        from ...engine.alerts import require_safe_address

        typed = {name: clean(self.query_one(f"#{name}", Field).value).strip() for name in ("command", "webhook")}
        changed: dict[str, object] = {
            "terminal": self.query_one("#terminal", ChoiceLine).value,
            "about": tuple(kind for kind in ABOUT if self.query_one(f"#{kind}", ChoiceLine).value == "on"),
        }
        try:
            changed["command"] = tuple(shlex.split(typed["command"]))
            if typed["webhook"] != self.shown_webhook:
                if typed["webhook"]:
                    require_safe_address(typed["webhook"])
                changed["webhook"] = typed["webhook"]
        except (ValueError, TunewrightError) as error:
            self.say(one_line(str(error), 140))
            return
        self.dismiss(changed)
