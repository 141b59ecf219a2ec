"""Every key, from the one table."""

from __future__ import annotations

from textual.content import Content

from ..keys import KEYS, Where
from ..widgets.dialog import Dialog

ORDER: tuple[Where, ...] = ("Everywhere", "Tune", "Data", "Runs", "Monitor", "Chat", "Recipes", "Workbench", "Dialogs")


class HelpScreen(Dialog[None]):
    """Shows the keys by where they work."""

    def __init__(self) -> None:
        super().__init__("Keys", _help_text())


def _help_text() -> Content:
    lines: list[Content] = []
    for where in ORDER:
        lines.append(Content.styled(where, "bold $accent"))
        lines += [
            Content.assemble((f"  {key.name:<10}", "bold"), f"{key.description}") for key in KEYS if key.where == where
        ]
        lines.append(Content(""))
    lines.append(
        Content.styled(
            "Leaving, closing the terminal or losing the connection changes nothing for a run: it goes on, "
            "and any later login finds it in Runs.",
            "$muted",
        )
    )
    return Content("\n").join(lines)
