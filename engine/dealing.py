"""Dealing: which rows make an optimizer step, and how they are dealt to its micro-batches and to GPUs.

The rows of a step are drawn by the recipe's seed alone. Only within a step they are dealt so that little is padded and
no micro-batch is much larger than the others: that changes what a step costs, and not what it learns.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
How = Literal["sorted", "balanced", "drawn"]
"""`sorted` puts rows of like length together, for rows that are padded; `balanced` makes the sums of tokens alike, for
rows that are strung together; `drawn` leaves them as they were drawn."""


def draw(rows: int, seed: int, epoch: int = 0, first: int | None = None) -> Indices:
    """Return the order in which an epoch draws its rows, or the `first` of it: what torch and accelerate make of the seed.

    It is Fisher and Yates' shuffle over MT19937 (torch.randperm with the seed and the epoch added), made here so that
    the plan knows every step of a run without torch, and no version of it changes them.
    """
    generator = np.random.RandomState((seed + epoch) & 0xFFFF_FFFF)
    left = np.arange(rows, 1, -1, dtype=np.uint32)
    jumps = generator.randint(0, 2**32, size=len(left), dtype=np.uint32) % left
    order = list(range(rows))
    for place, jump in enumerate(jumps[:first].tolist()):
        order[place], order[place + jump] = order[place + jump], order[place]
    return np.array(order[:first], np.int64)


def micro_batches(
    order: Indices, lengths: NDArray[np.integer], micro_batch: int, accumulation: int, ranks: int = 1,
    how: How = "sorted",
) -> list[list[Indices]]:  # fmt: skip
    """Return the micro-batches of an epoch that draws its rows in `order`: of each, the rows of every rank.

    A step has `accumulation` of them and holds the same rows whatever `micro_batch`, `ranks` and `how` are, as long as
    their product is the global batch. The last step may be short: it has as few micro-batches as hold its rows, the
    rows are spread evenly, and a rank may be left with none. The longest come first in every step, so that memory that
    is not enough shows itself at once and what it frees is taken again.
    """
    step = micro_batch * accumulation * ranks
    whole = len(order) // step * step
    dealt: list[list[Indices]] = []
    if whole:
        parts = _deal(order[:whole].reshape(-1, step), lengths, accumulation * ranks, ranks, how)
        dealt += [list(each) for each in parts.reshape(-1, ranks, micro_batch)]
    rest = order[whole:]
    if len(rest):
        dealt += _deal_short(rest, lengths, -(-len(rest) // (micro_batch * ranks)), ranks, how)
    return dealt


MOST_EPOCHS = 40
"""So many epochs of few rows show what all others are like."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """What the micro-batches of a run hold, in tokens."""

    padded: float
    """Of an average one, with every row padded to its longest."""
    attended: float
    """The length that an average padded token's attention reaches over."""
    largest: int
    """The most that one holds of real tokens."""
    longest: int
    """The longest row that was met."""
    unevenness: float
    """How much more the rank with the most to do has in an average step, as a factor of what all have on average."""
    complete: bool
    """Whether every micro-batch of the run was looked at, and not only the first."""


def look_ahead(
    lengths: NDArray[np.integer],
    seed: int,
    steps: int,
    micro_batch: int,
    accumulation: int,
    ranks: int,
    how: How,
    most_rows: int = 50_000,
) -> Dealt:
    """Return what the micro-batches of a run of `steps` steps hold, from its first `most_rows` rows or so.

    At most MOST_EPOCHS are looked at, and one where all rows are of one length, for then every epoch is like the first.
    """
    step = micro_batch * accumulation * ranks
    alike = bool((lengths == lengths[0]).all())
    epochs = 1 if alike else MOST_EPOCHS
    padded = squares = heaviest = share = 0.0
    largest = longest = count = taken = epoch = 0
    while taken < steps and epoch < epochs and (not epoch or taken * step < most_rows):
        wanted = max(step, min((steps - taken) * step, most_rows - taken * step))
        order = _first_drawn(len(lengths), seed, epoch, wanted)
        for rows, held, most in _measure(order, lengths, micro_batch, accumulation, ranks, how):
            work = rows * most if how == "sorted" else held
            by_rank = work.sum(1)
            heaviest += float(by_rank.max(1).sum())
            share += float(by_rank.mean(1).sum())
            largest, longest = max(largest, int(held.max())), max(longest, int(most.max()))
            padded += float((rows * most).sum())
            squares += float((rows * most * most).sum())
            count += int((rows > 0).sum())
            taken += len(rows)
        epoch += 1
    return Dealt(padded / count, squares / padded, largest, longest, heaviest / share, alike or taken >= steps)


@lru_cache(maxsize=16)
def _first_drawn(rows: int, seed: int, epoch: int, first: int) -> Indices:
    return draw(rows, seed, epoch, first)


def _measure(
    order: Indices, lengths: NDArray[np.integer], micro_batch: int, accumulation: int, ranks: int, how: How
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Yield rows, tokens and longest row of every micro-batch, each (step, turn, rank); a short step comes by itself."""
    step = micro_batch * accumulation * ranks
    whole = len(order) // step * step
    if whole:
        parts = lengths[_deal(order[:whole].reshape(-1, step), lengths, accumulation * ranks, ranks, how)]
        shape = (-1, accumulation, ranks)
        held, most = parts.sum(2, dtype=np.int64).reshape(shape), parts.max(2).astype(np.int64).reshape(shape)
        yield np.full_like(held, micro_batch), held, most
    if whole < len(order):
        groups = micro_batches(order[whole:], lengths, micro_batch, accumulation, ranks, how)
        yield (
            np.array([[[len(part) for part in group] for group in groups]]),
            np.array([[[lengths[part].sum(dtype=np.int64) for part in group] for group in groups]]),
            np.array([[[lengths[part].max(initial=0) for part in group] for group in groups]], np.int64),
        )


@dataclass(frozen=True, slots=True)
class Packs:
    """Rows put together to sequences."""

    order: Indices
    """The rows, one sequence after the other."""
    ends: Indices
    """Where each sequence ends in `order`."""
    lengths: Indices
    """Each sequence's tokens."""


def pack_rows(lengths: NDArray[np.integer], capacity: int, seed: int = 0) -> Packs:
    """Return the sequences that best-fit-decreasing packing makes of rows of these lengths, none over `capacity`.

    As many as TRL's `bfd` makes of them at once. Rows of one length are taken in an order that the seed draws, so that
    neighbours in a file do not end up together. Rows of one length, and sequences with the same space left, are dealt
    with at once: a million rows take about a second.
    """
    count = len(lengths)
    shuffled = np.random.RandomState(seed & 0xFFFF_FFFF).permutation(count)
    rows = shuffled[np.argsort(-lengths[shuffled].astype(np.int64), kind="stable")]
    cuts = np.flatnonzero(np.diff(lengths[rows])) + 1
    home = np.empty(count, np.int64)
    """The sequence of each row."""
    rooms: dict[int, deque[Indices]] = {}
    """The sequences with so much space left, in the order in which they came to it."""
    spaces: list[int] = []
    sequences = 0
    for group in np.split(rows, cuts):
        length = int(lengths[group[0]])
        assert 0 < length <= capacity, "rows are cut before they are packed"
        placed = 0
        while placed < len(group):
            at = bisect_left(spaces, length)
            left = len(group) - placed
            if at < len(spaces):
                space = spaces[at]
                waiting = rooms[space]
                there = waiting.popleft()
                taken = min(len(there), -(-left // (space // length)))
                if taken < len(there):
                    waiting.appendleft(there[taken:])
                there = there[:taken]
                if not waiting:
                    del rooms[space]
                    spaces.pop(at)
            else:
                space = capacity
                there = np.arange(sequences, sequences + -(-left // (space // length)))
                sequences += len(there)
            each = space // length
            """The fullest that fits is the one just begun, as long as another row of this length fits in it."""
            filled = min(left, each * len(there))
            home[group[placed : placed + filled]] = np.repeat(there, each)[:filled]
            placed += filled
            over = each * len(there) - filled
            """Rows that the last of them still has room for."""
            _leave(rooms, spaces, space - each * length, there[: len(there) - (over > 0)])
            if over:
                _leave(rooms, spaces, space - (each - over) * length, there[-1:])
    order = rows[np.argsort(home[rows], kind="stable")]
    ends = np.cumsum(np.bincount(home, minlength=sequences))
    sums = np.concatenate(([0], np.cumsum(lengths[order], dtype=np.int64)))[ends]
    return Packs(order, ends, np.diff(sums, prepend=0))


def pack_lengths(lengths: Sequence[int], capacity: int, seed: int = 0) -> list[int]:
    """Return the lengths of the sequences of `pack_rows`; rows that are longer count as cut, and empty ones not at all."""
    counted = np.array(lengths, np.int64)
    return pack_rows(np.minimum(counted[counted > 0], capacity), capacity, seed).lengths.tolist()


def _leave(rooms: dict[int, deque[Indices]], spaces: list[int], space: int, sequences: Indices) -> None:
    """Note that `sequences` have `space` tokens left."""
    if space <= 0 or not len(sequences):
        return
    if space not in rooms:
        rooms[space] = deque()
        insort(spaces, space)
    rooms[space].append(sequences)


def _deal(steps: Indices, lengths: NDArray[np.integer], parts: int, ranks: int, how: How) -> Indices:
    """Return the rows of `steps` (step, row) in parts of equal numbers of rows: (step, part, row)."""
    count = len(steps)
    if how == "drawn":
        return steps.reshape(count, parts, -1)
    longest_first = np.argsort(-lengths[steps].astype(np.int64), axis=1, kind="stable")
    steps = np.take_along_axis(steps, longest_first, 1)
    if how == "sorted":
        dealt = steps.reshape(count, parts, -1)
        load = lengths[dealt[:, :, 0]].astype(np.int64)
    else:
        dealt = _balance(steps, lengths, parts)
        load = lengths[dealt].sum(2, dtype=np.int64)
        heaviest_first = np.argsort(-load, axis=1, kind="stable")
        dealt = np.take_along_axis(dealt, heaviest_first[:, :, None], 1)
        load = np.take_along_axis(load, heaviest_first, 1)
    if ranks == 1:
        return dealt
    places = _share(load, ranks)
    return np.take_along_axis(dealt, places[:, :, None], 1)


def _balance(steps: Indices, lengths: NDArray[np.integer], parts: int) -> Indices:
    """Return sorted rows in parts with sums of tokens alike: in every round, the longest goes where there is least."""
    count, rows = steps.shape
    rounds = rows // parts
    dealt = np.empty((count, parts, rounds), np.int64)
    sums = np.zeros((count, parts), np.int64)
    for turn in range(rounds):
        taken = steps[:, turn * parts : (turn + 1) * parts]
        emptiest = np.argsort(sums, axis=1, kind="stable")
        np.put_along_axis(dealt[:, :, turn], emptiest, taken, 1)
        np.put_along_axis(sums, emptiest, np.take_along_axis(sums, emptiest, 1) + lengths[taken].astype(np.int64), 1)
    return dealt


def _share(load: Indices, ranks: int) -> Indices:
    """Return an order of the parts, heaviest first, in which each run of `ranks` goes to the ranks in turn.

    The heaviest that is left goes to the rank with the least so far, so that their sums are alike: ranks that hold whole
    models wait for each other at the end of a step alone.
    """
    count, parts = load.shape
    turns = parts // ranks
    places = np.empty((count, turns, ranks), np.int64)
    sums, taken = np.zeros((count, ranks), np.int64), np.zeros((count, ranks), np.int64)
    all_steps: Indices = np.arange(count, dtype=np.int64)
    for part in range(parts):
        emptiest = np.where(taken < turns, sums, np.iinfo(np.int64).max).argmin(1)
        places[all_steps, taken[all_steps, emptiest], emptiest] = part
        sums[all_steps, emptiest] += load[:, part]
        taken[all_steps, emptiest] += 1
    return places.reshape(count, parts)


def _deal_short(
    rows: Indices, lengths: NDArray[np.integer], turns: int, ranks: int, how: How
) -> list[list[Indices]]:  # fmt: skip
    """Return the rows of a short step as `turns` micro-batches, spread evenly; some ranks may be left with none."""
    parts = turns * ranks
    if how != "drawn":
        rows = rows[np.argsort(-lengths[rows].astype(np.int64), kind="stable")]
    dealt: list[Indices]
    if how == "balanced":
        filled = np.concatenate((rows, np.full(-len(rows) % parts, len(lengths))))
        counted = np.append(lengths, 0)  # what fills up has no tokens, and comes last
        dealt = [each[each < len(lengths)] for each in _balance(filled[None], counted, parts)[0]]
        load = np.array([lengths[each].sum() for each in dealt])
    else:
        small = len(rows) // parts
        sizes = [small] * (parts - len(rows) % parts) + [small + 1] * (len(rows) % parts)
        sizes = sorted(sizes, reverse=how == "drawn" or not small)
        dealt = np.split(rows, np.cumsum(sizes)[:-1])
        load = np.array([lengths[each].max() * len(each) if len(each) else 0 for each in dealt])
    if how != "drawn":
        dealt = [dealt[place] for place in np.argsort(-load, kind="stable")]
        load = -np.sort(-load)
        dealt = [dealt[place] for place in _share(load[None].astype(np.int64), ranks)[0]]
    return [dealt[first : first + ranks] for first in range(0, parts, ranks)]
