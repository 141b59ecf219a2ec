"""What a case is, and how one is made of good rows and what is planted in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .changes import Change
from .containers import Write, file_of
from .rows import GOOD_ROWS, Line, good_rows


@dataclass(frozen=True, slots=True)
class Case:
    """One data set, how the audit is asked about it, and what it has to say."""

    name: str
    write: Write
    expects: frozenset[str] = frozenset()
    """The codes that have to be found."""
    allows: frozenset[str] = frozenset()
    """Further codes above a hint that follow by necessity."""
    at: tuple[int, ...] = ()
    """The rows at fault, counted from 1, and the only examples of the findings; empty where it is the whole file."""
    header: bool = False
    """Whether a header stands before the first row, so that its line is the second."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the recipe's data section beside the source."""
    model: str | None = "roomy"
    """A variant of the starter's model, or None to audit without one."""
    validation: Write | None = None
    """A file of validation rows."""
    against: Write | None = None
    """A file of evaluation rows."""
    meanwhile: Callable[[Path], None] | None = None
    """What happens to the file again and again while it is read."""


def codes_in(names: str) -> frozenset[str]:
    """Return the codes in a text that has blanks between them."""
    return frozenset(names.split())


def _changed(shape: str, seed: str, changes: Mapping[int, Change] | Change, rows: int) -> list[Line]:
    """Return good rows of a shape with the changes to some of them by number, or to all."""
    good = copy.deepcopy(good_rows(shape, seed, rows))
    if not isinstance(changes, Mapping):
        return [changes(shape, row) for row in good]
    return [changes[number](shape, row) if number in changes else row for number, row in enumerate(good, start=1)]


def plant(
    name: str,
    expects: str,
    shape: str = "messages",
    changes: Mapping[int, Change] | Change | None = None,
    container: str = "jsonl",
    *,
    allows: str = "",
    at: tuple[int, ...] | None = None,
    rows: int = GOOD_ROWS,
    spoil: Callable[[bytes], bytes] | None = None,
    model: str | None = "roomy",
    validation: Write | None = None,
    against: Write | None = None,
    meanwhile: Callable[[Path], None] | None = None,
    **data: Any,
) -> Case:
    """Return the case of good rows in which something is planted."""
    planted: Mapping[int, Change] | Change = {} if changes is None else changes
    write = file_of(container, lambda: _changed(shape, name, planted, rows), spoil)
    if at is None:
        at = tuple(planted) if isinstance(planted, Mapping) else ()
    return Case(
        name,
        write,
        codes_in(expects),
        codes_in(allows),
        at,
        container.startswith(("csv", "tsv")),
        data,
        model,
        validation,
        against,
        meanwhile,
    )
