"""What the recipe editor says: a field with its meaning and its values elsewhere, and what the recipe takes before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.content import Content

from ...foundation.text import one_line
from ...foundation.units import gib
from ..figures import duration, plural
from ..widgets.row_list import Row
from ..wrapping import hanging

if TYPE_CHECKING:
    from ..outlook import Outlook
    from ..recipe_edit import Help, Standing

TWO_COLUMNS = 70
"""The width from which figures stand beside each other."""
LABEL = 10


def heading_row(section: str, is_faulty: bool) -> Row:
    """Return the row above the fields of a section."""
    title = Content.styled(section, "bold $accent")
    return Row(section, (title + Content.styled("  ✗", "$error") if is_faulty else title,), heading=True)


def field_row(standing: Standing) -> Row:
    """Return a field's row: its mark and name, its value, and the default's and the parent's where they differ."""
    mark, colour = ("  ", ""), "bold"
    if standing.is_changed:
        mark, colour = ("● ", "$accent"), "bold $accent"
    if standing.is_faulty:
        mark, colour = ("✗ ", "$error"), "$error"
    return Row(
        standing.slot.path,
        (
            Content.assemble(mark, standing.slot.name),
            Content.styled(standing.now, colour),
            Content.styled(standing.default, "$muted"),
            Content.styled(standing.parent, "$muted"),
        ),
    )


def state_text(changes: int, problems: int) -> Content:
    """Return how much was changed, and how much of it is not valid."""
    said = Content.styled(plural(changes, "change"), "$accent") if changes else Content.styled("unchanged", "$muted")
    return Content.styled(f"✗ {plural(problems, 'problem')}  ", "$error") + said if problems else said


def help_text(known: Help, width: int) -> Content:
    """Return what there is to know of a field: its meaning, what it may hold, its values elsewhere, and effects."""
    standing, slot = known.standing, known.standing.slot
    lines = [Content.styled(slot.meaning, "bold")]

    def add(label: str, said: str, colour: str = "") -> None:
        lines.append(hanging(Content.styled(f"{label:<{LABEL}}", "$muted"), Content.styled(said, colour), width))

    for problem in standing.problems:
        lines.append(hanging(Content.styled("✗ ", "$error"), Content.styled(problem, "$error"), width))
    if standing.is_changed:
        add("changed", f"{standing.before} → {standing.now}. {known.effect}".rstrip(), "$accent")
    add("may be", slot.allowed)
    add("elsewhere", " · ".join(known.elsewhere))
    if known.reason:
        add("comment", known.reason)
    if known.left_open:
        add("source", "The recipe's source leaves this open: the value is ours.")
    for value, effect in known.possible:
        add("if", f"{value}: {effect}", "$muted")
    for place, source in enumerate(known.sources):
        add("" if place else "sources", one_line(source, 300), "$muted")
    return Content("\n").join(lines)


def outlook_text(before: Outlook | None, now: Outlook | None, currency: str, width: int) -> Content:
    """Return what the recipe takes as it was and as it is now, side by side where they differ."""
    if now is None:
        return Content.styled("Calculating…", "$muted")
    if now.verdict != "fits":
        mark = ("✗ does not fit  ", "bold $error") if now.verdict == "no" else ("? not known  ", "bold $warning")
        return hanging(Content(""), Content.assemble(mark, now.because), width)
    old = before if before is not None and before.exact == now.exact else None

    def figure(label: str, name: str, write: Callable[[float], str]) -> Content | None:
        value: float | None = getattr(now, name)
        earlier: float | None = getattr(old, name, None)
        if value is None:
            return None
        said, was = write(value), "" if earlier is None else write(earlier)
        text = Content.styled(f"{label:<{LABEL}}", "$muted")
        if was and was != said:
            return text + Content.assemble((f"{was} → ", "$muted"), (said, "bold $accent"))
        return text + Content.styled(said, "bold")

    figures = [
        each
        for each in (
            figure("memory", "peak_gib", gib),
            figure("a step", "step_seconds", _seconds),
            figure("the run", "total_seconds", duration),
            figure("steps", "steps", lambda value: f"{value:,.0f}"),
            figure("energy", "kwh", _energy),
            figure("money", "money", lambda value: f"{value:,.2f} {currency}".strip()),
        )
        if each is not None
    ]
    figures[0] += Content.styled("  ✓ fits", "$success")
    if width >= TWO_COLUMNS:
        half = width // 2
        left, right = figures[0::2], [*figures[1::2], Content("")]
        lines = [
            one.truncate(half - 1).pad_right(max(0, half - one.cell_length)) + other
            for one, other in zip(left, right, strict=False)
        ]
    else:
        lines = figures
    return Content("\n").join([*lines, hanging(Content(""), Content.styled(now.because, "$muted"), width)])


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else duration(value)


def _energy(value: float) -> str:
    return (
        f"{value:.2f} kWh" if value >= 0.1 else f"{1000 * value:.2g} Wh" if value < 0.01 else f"{1000 * value:.0f} Wh"
    )
