"""How a run stands, for people: a glyph, a word and a colour, always together."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

from ..engine.runs.directory import Standing


@dataclass(frozen=True, slots=True)
class Face:
    """What stands for a standing on the screen."""

    glyph: str
    word: str
    colour: str
    meaning: str


FACES: dict[Standing, Face] = {
    "starting": Face("◌", "starting", "accent", "its processes are coming up"),
    "queued": Face("◷", "queued", "accent", "it waits for its turn, or for memory"),
    "running": Face("●", "running", "accent", "it goes on without this window"),
    "stopping": Face("◐", "stopping", "warning", "it saves at its next step and stops"),
    "stopped": Face("■", "stopped", "warning", "it was saved and can be resumed"),
    "pausing": Face("◐", "pausing", "warning", "it saves at its next step and gives its memory back"),
    "paused": Face("‖", "paused", "warning", "it was saved, holds no memory, and goes on with r"),
    "finished": Face("✓", "finished", "success", "it has taken all its steps"),
    "failed": Face("✗", "failed", "error", "it ended with an error"),
    "unresponsive": Face("?", "silent", "warning", "it is alive but has said nothing for two minutes"),
    "lost": Face("✗", "lost", "error", "its processes are gone; r resumes it"),
    "elsewhere": Face("→", "elsewhere", "muted", "another machine that shares this folder runs it"),
    "damaged": Face("✗", "damaged", "error", "its files cannot be read"),
}


def face(standing: Standing) -> Content:
    """Return the glyph and the word in their colour."""
    shown = FACES[standing]
    return Content.styled(f"{shown.glyph} {shown.word}", f"${shown.colour}")
