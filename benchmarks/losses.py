"""What every step of a run lost, digit by digit: two runs took the same steps only where all of these are the same."""

from __future__ import annotations

from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.fold import read_history


def losses(run: RunDirectory) -> list[tuple[int, str, str]]:
    """Return every step's number, loss and gradient norm, the latter two by `repr`."""
    return [(each.step, repr(each.loss), repr(each.grad_norm)) for each in read_history(run).steps]
