"""Continuity: a resumed run takes steps again that it had taken before it was interrupted, and its losses have to be those."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from ..runs.directory import RunDirectory
from ..runs.events import Continuity, EventLog, Step, newest_events

COMPARED_STEPS = 10
"""After so many it is told; as many as the run had taken, where these are fewer."""
TAIL_BYTES = 4 * 2**20
"""Of the events, in which the last steps are looked for."""


def losses_after(run: RunDirectory, step: int) -> dict[int, float]:
    """Return the losses that the run recorded after `step`, by step: what follows a checkpoint there is taken again."""
    events = newest_events(run.events_file, TAIL_BYTES)
    found = {each.step: each.loss for each in events if isinstance(each, Step) and each.step > step}
    numbers = range(step + 1, step + 1 + min(len(found), COMPARED_STEPS))
    return {number: found[number] for number in numbers if number in found}


class ContinuityProof(TrainerCallback):
    """Compares the first losses after a resume with those that were recorded before, digit by digit, and tells the result."""

    def __init__(self, log: EventLog, recorded: dict[int, float]) -> None:
        self._log = log
        self._waiting = dict(recorded)
        self._first = min(recorded, default=0)
        self._compared = 0
        self._largest = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs or not self._waiting:
            return
        before = self._waiting.pop(state.global_step, None)
        if before is None:  # it did not begin where these steps do
            self._waiting.clear()
            return
        now = float(logs["loss"])
        self._compared += 1
        if repr(now) != repr(before):
            self._largest = max(self._largest, abs(now - before) / max(abs(before), 1e-12))
        if not self._waiting:
            self._log.append(
                Continuity(step=self._first - 1, compared=self._compared, largest_difference=self._largest)
            )
