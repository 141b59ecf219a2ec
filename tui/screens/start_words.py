"""The way to the first step in words: what the time went to, from the command to the end of the first step."""

from __future__ import annotations

from textual.content import Content

from ...foundation.text import one_line
from ..figures import duration
from ..run_state import RunState
from ..widgets.bar import row_bar

LABEL = 16
SHORTEST_SECONDS = 0.05
"""What is over sooner is not told."""


def start(state: RunState, width: int) -> Content:
    """Return a bar for each phase before the first step, and their sum beside what was predicted."""
    history = state.history
    measured = history.measured.get("seconds_to_first_step")
    going_on = state.live and measured is None and not history.steps
    seconds = history.to_first_step(state.now() if going_on else None)
    if not seconds:
        return Content.styled("Nothing was timed yet.", "$muted")
    if measured is None and history.steps:  # a run of an earlier version
        seconds = {name: taken for name, taken in seconds.items() if name not in ("training", "evaluating", "saving")}
    present = history.phase.name if going_on and history.phase else None
    longest = max(seconds.values()) or 1.0
    length = max(6, min(40, width - LABEL - 9))
    lines: list[Content] = []
    for name, taken in seconds.items():
        if taken < SHORTEST_SECONDS and name != present:
            continue
        colour = "$warning" if name == present else "$accent"
        lines.append(
            Content.styled(f"{one_line(name, LABEL - 1):<{LABEL}}", "$muted")
            + row_bar(taken / longest, length, colour)
            + Content.styled(f"{duration(taken):>8}", "bold")
        )
    total = sum(seconds.values()) if measured is None else measured
    predicted = state.plan.prediction.seconds_to_first_step if state.plan and state.plan.prediction else None
    said = f"{duration(total)} so far" if going_on else duration(total)
    aside = f" · {duration(predicted)} predicted" if predicted else ""
    return Content("\n").join([Content.assemble((said, "bold"), (aside, "$muted")), *lines])
