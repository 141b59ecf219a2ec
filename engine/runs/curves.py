"""The curves of a run: what its steps and evaluations measured, over its steps, each of a bounded size."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from .events import Eval, Event, Step
from .trace import Trace

SMOOTHED_SHARE = 1 / 60
"""The share of the run's steps over which the loss is smoothed."""


@dataclass(slots=True)
class Curves:
    """The curves of one run, over its steps."""

    loss: Trace = field(default_factory=Trace)
    smooth: Trace = field(default_factory=Trace)
    validation: Trace = field(default_factory=Trace)
    learning_rate: Trace = field(default_factory=Trace)
    grad_norm: Trace = field(default_factory=Trace)
    tokens_per_second: Trace = field(default_factory=Trace)
    mfu: Trace = field(default_factory=Trace)
    """In percent."""
    preferred: Trace = field(default_factory=Trace)
    """The share of pairs whose better answer the model prefers, in percent."""
    margin: Trace = field(default_factory=Trace)
    """By how much, in the objective's own reward."""
    preferred_held_out: Trace = field(default_factory=Trace)
    margin_held_out: Trace = field(default_factory=Trace)

    def add(self, event: Event) -> None:
        """Draw `event` on."""
        if isinstance(event, Step):
            self.loss.append(event.step, event.loss)
            self._smooth(event)
            self.learning_rate.append(event.step, event.learning_rate)
            self.grad_norm.append(event.step, event.grad_norm)
            if event.seconds > 0:
                self.tokens_per_second.append(event.step, event.tokens / event.seconds)
            if event.mfu is not None:
                self.mfu.append(event.step, 100 * event.mfu)
            if event.metrics:
                self._prefer(event.step, event.metrics, self.preferred, self.margin)
        elif isinstance(event, Eval) and event.loss is not None:
            self.validation.append(event.step, event.loss)
            self._prefer(event.step, event.metrics, self.preferred_held_out, self.margin_held_out)

    @staticmethod
    def _prefer(step: int, metrics: dict[str, float], preferred: Trace, margin: Trace) -> None:
        if (value := metrics.get("rewards/accuracies")) is not None:
            preferred.append(step, 100 * value)
        if (value := metrics.get("rewards/margins")) is not None:
            margin.append(step, value)

    def _smooth(self, event: Step) -> None:
        """Append the exponential mean of the losses, begun anew where a resumed run takes a step again."""
        if event.step <= self.smooth.end:
            self.smooth.rewind(event.step)
        before = self.smooth.last
        window = max(4.0, event.total_steps * SMOOTHED_SHARE)
        weight = max(2 / (window + 1), 1 / max(1, event.step))
        value = event.loss if before is None else before + weight * (event.loss - before)
        if math.isfinite(value):
            self.smooth.append(event.step, value)

    def become(self, other: Curves) -> None:
        """Take over the points of `other`, which is not to be used any more."""
        for each in dataclasses.fields(self):
            getattr(self, each.name).become(getattr(other, each.name))

    def to_json(self) -> dict[str, Any]:
        """Return the curves as plain data."""
        return {each.name: getattr(self, each.name).to_json() for each in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: Any) -> Curves:
        """Return the curves in what `to_json` returned; raises ValueError, KeyError or TypeError for all else."""
        return cls(**{each.name: Trace.from_json(values[each.name]) for each in dataclasses.fields(cls)})
