"""Objectives: the rows that each of them makes of an example, and the formats that it can learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import Data, FormatName, Objective
from .examples import Example
from .rendering import Renderer, Row

JUDGED_FORMATS: dict[Objective, tuple[FormatName, ...]] = {
    "dpo": ("preference",),
    "orpo": ("preference",),
    "kto": ("kto", "preference"),
}
"""The formats from which the objectives that compare answers learn; the others learn from any."""
NEEDS: dict[Objective, str] = {
    "dpo": "pairs of a better and a worse answer to the same prompt",
    "orpo": "pairs of a better and a worse answer to the same prompt",
    "kto": "answers that are marked good or bad, or pairs of them",
}


@dataclass(frozen=True, slots=True)
class TrainedRow:
    """A row that is trained, with the worse answer beside it or the mark that it has."""

    row: Row
    rejected: Row | None = None
    """Of a pair: the same prompt with the worse answer."""
    desirable: bool | None = None
    """Of a marked answer: whether it is a good one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an objective makes of one example; without rows it is left out."""

    rows: tuple[TrainedRow, ...] = ()
    cut: bool = False
    """Whether it is longer than the maximum length, and cut there."""
    divided: bool = False
    """Whether it is longer than the maximum length, and divided into several rows."""


def require_fitting(source: str, found: FormatName, objective: Objective) -> None:
    """Raise TunewrightError when `objective` cannot learn from rows of the format `found`."""
    fitting = JUDGED_FORMATS.get(objective)
    if fitting is None or found in fitting:
        return
    others = ["sft", "cpt", *(each for each, formats in JUDGED_FORMATS.items() if found in formats)]
    raise TunewrightError(
        "Data does not fit the objective",
        f"{one_line(source, 300)} holds rows of the format {found}, and {objective} learns from {NEEDS[objective]} "
        f"(the format {' or '.join(fitting)}).",
        f"Give it such rows, or set training.objective to one that learns from {found}: {' or '.join(others)}.",
    )


def make_rows(example: Example, objective: Objective, data: Data, renderer: Renderer) -> Outcome:
    """Return the rows that are trained of `example`; raises TunewrightError when the template refuses it."""
    if objective in ("dpo", "orpo"):
        return _compare(example, data, renderer)
    if objective == "kto":
        return _judge(example, data, renderer)
    if example.label is False:  # it would be learned to answer like this
        return Outcome()
    if objective == "cpt":
        return _read_on(example, data, renderer)
    row = renderer.render(example, data.max_length)
    return Outcome((TrainedRow(row),), _overlong(row)) if _usable(row, data) else Outcome()


def divide(row: Row, length: int) -> tuple[Row, ...]:
    """Return a row as several of at most `length` tokens, each token in exactly one of them.

    None has a single token, of which nothing could be learned: the row before it is one shorter instead.
    """
    cuts = [*range(length, row.length, length), row.length]
    if len(cuts) > 1 and cuts[-1] - cuts[-2] == 1:
        cuts[-2] -= 1
    begins = [0, *cuts[:-1]]
    return tuple(
        Row(row.input_ids[begin:end], row.labels[begin:end], end - begin)
        for begin, end in zip(begins, cuts, strict=True)
    )


def _read_on(example: Example, data: Data, renderer: Renderer) -> Outcome:
    """Continued pre-training: every token is learned, and what is too long for one row goes on in the next."""
    row = renderer.render(example, loss_on="all")
    if row.length <= data.max_length:
        return Outcome((TrainedRow(row),)) if row.supervised else Outcome()
    if data.overlong == "drop":
        return Outcome()
    parts = tuple(TrainedRow(part) for part in divide(row, data.max_length) if part.supervised)
    return Outcome(parts, divided=bool(parts))


def _compare(example: Example, data: Data, renderer: Renderer) -> Outcome:
    """Pairs: both answers after the same prompt. A pair whose rows are the same tokens says nothing and is left out."""
    better, worse = (renderer.render(each, data.max_length) for each in _both(example))
    if not (_usable(better, data) and _usable(worse, data)) or better.input_ids == worse.input_ids:
        return Outcome()
    return Outcome((TrainedRow(better, rejected=worse),), _overlong(better) or _overlong(worse))


def _judge(example: Example, data: Data, renderer: Renderer) -> Outcome:
    """Marked answers; a pair is one that is good and one that is bad."""
    if example.kind == "preference":
        judged = zip(_both(example), (True, False), strict=True)
    else:
        assert example.label is not None, "a row of the format kto is marked"
        judged = iter([(example, example.label)])
    rows = [(renderer.render(each, data.max_length), desirable) for each, desirable in judged]
    made = tuple(TrainedRow(row, desirable=desirable) for row, desirable in rows if _usable(row, data))
    return Outcome(made, any(_overlong(each.row) for each in made))


def _both(example: Example) -> tuple[Example, Example]:
    """Return the conversation with the better answer, and the one with the worse."""
    worse = (*example.messages[: example.prompt_turns], *example.rejected)
    return example, replace(example, messages=worse, rejected=())


def _overlong(row: Row) -> bool:
    return row.whole_length > row.length


def _usable(row: Row, data: Data) -> bool:
    return row.supervised > 0 and not (_overlong(row) and data.overlong == "drop")
