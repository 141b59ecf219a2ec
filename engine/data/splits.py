"""Splits: which rows are kept out of training, the same for a seed on every machine, with no group on both sides."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import Data, Validation
from .examples import Fault, Record


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was written by a split."""

    training: str
    validation: str
    training_rows: int
    validation_rows: int
    left_out: int
    """Rows that could not be read, and are in neither file."""
    groups: int | None = None
    """How many values the key or the stratified column has."""


def choose_validation(rows: int, rule: Validation, seed: int, values: Sequence[str] | None = None) -> set[int]:
    """Return the indexes, of `rows`, that are kept out of training.

    `values` are each row's values of the column that `rule` groups or stratifies by; a group is kept whole, so that as
    many rows are kept out as come nearest to what is asked. Raises TunewrightError when nothing would be left to train on.
    """
    if rule.kind in ("none", "file"):
        return set()
    wanted = int(rule.value) if rule.kind == "rows" else round(rule.value * rows)
    if wanted >= rows:
        raise _nothing_left(wanted, rows)
    chance = random.Random(seed)
    if rule.key is not None:
        assert values is not None, "the caller reads the key's column"
        return _whole_groups(rule.key, values, wanted, chance)
    if rule.stratify is not None:
        assert values is not None, "the caller reads the column"
        return _even_shares(values, wanted, chance)
    return set(chance.sample(range(rows), wanted))


def choose_share(indexes: Sequence[int], share: float, seed: int) -> list[int]:
    """Return `share` of the training rows at `indexes`, at least one, in their order; a smaller share is part of a larger."""
    if share == 1.0:
        return list(indexes)
    drawn = list(indexes)
    random.Random(seed).shuffle(drawn)
    return sorted(drawn[: max(1, round(share * len(drawn)))])


def _whole_groups(key: str, values: Sequence[str], wanted: int, chance: random.Random) -> set[int]:
    """Keep whole groups out, drawn at random, while that brings the number of rows nearer to what is wanted."""
    groups = _members(values)
    if len(groups) < 2:
        raise TunewrightError(
            "One group only",
            f"Every row has the same {one_line(key, 60)}, so no group can be kept out.",
            "Choose another data.validation.key, or none.",
        )
    names = sorted(groups)
    chance.shuffle(names)
    chosen: set[int] = set()
    left = len(groups)
    for name in names:
        members = groups[name]
        if left > 1 and abs(len(chosen) + len(members) - wanted) < abs(len(chosen) - wanted):
            chosen.update(members)
            left -= 1
    if wanted and not chosen:
        raise TunewrightError(
            "Groups too large",
            f"{wanted:,} rows are wanted for validation, and the smallest groups of {one_line(key, 60)} that were drawn "
            f"are larger than twice that.",
            "Raise data.validation.value, or choose a key with smaller groups.",
        )
    return chosen


def _even_shares(values: Sequence[str], wanted: int, chance: random.Random) -> set[int]:
    """Draw from every stratum in proportion to its size, the rest to the largest remainders."""
    strata = _members(values)
    shares = {name: wanted * len(members) / len(values) for name, members in strata.items()}
    counts = {name: int(share) for name, share in shares.items()}
    missing = wanted - sum(counts.values())
    for name in sorted(strata, key=lambda each: (counts[each] - shares[each], each))[:missing]:
        counts[name] += 1
    return {index for name in sorted(strata) for index in chance.sample(strata[name], counts[name])}


def _members(values: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        members[value].append(index)
    return members


def _nothing_left(wanted: int, rows: int) -> TunewrightError:
    return TunewrightError(
        "No rows left to train on",
        f"{wanted} of {rows} rows would be kept out for validation.",
        "Lower data.validation.value.",
    )


def value_of(record: Record, column: str) -> str:
    """Return a row's value of a column to group or stratify by, as text that equal values share.

    Raises TunewrightError when the row has no such column, since a guess could put a group on both sides.
    """
    if column not in record.value:
        known = ", ".join(one_line(each, 40) for each in list(record.value)[:8])
        raise TunewrightError(
            "Column not found",
            f"{record.place} has no column {one_line(column, 60)!r}; it has {known}.",
            "Name a column that every row has in data.validation.key or stratify.",
        )
    value: Any = record.value[column]
    return value if isinstance(value, str) else repr(value)


def write_split(source: str, data: Data, seed: int, training: Path, validation: Path) -> SplitReport:
    """Write the rows of `source` into two new JSONL files as `data.validation` says; raises TunewrightError.

    Rows keep their shape and their order. Those that cannot be read are refused, or left out when `data.faulty` says so.
    """
    from .reading import open_source, read_records
    from .writing import new_rows_file

    opened = open_source(source, data.split)
    column = data.validation.key or data.validation.stratify
    values: list[str] = []
    rows = left_out = 0
    for record in read_records(opened):
        if isinstance(record, Fault):
            if data.faulty == "refuse":
                raise TunewrightError(
                    "Data not readable",
                    f"{record.place}: {record.problem}.",
                    'Mend it, or leave such rows out with --set faulty="drop".',
                )
            left_out += 1
            continue
        rows += 1
        if column is not None:
            values.append(value_of(record, column))
    chosen = choose_validation(rows, data.validation, seed, values if column else None)
    with contextlib.ExitStack() as files:
        write_training = files.enter_context(new_rows_file(training))
        write_validation = files.enter_context(new_rows_file(validation))
        records = (each for each in read_records(opened) if isinstance(each, Record))
        for index, record in enumerate(records):
            (write_validation if index in chosen else write_training)(record.value)
    return SplitReport(
        str(training), str(validation), rows - len(chosen), len(chosen), left_out, len(set(values)) if column else None
    )
