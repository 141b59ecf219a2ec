"""Which rows stand in an evaluation: shared n-grams of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .similarity import NGRAM_WORDS, Hashes, Indexes, blocks, combine, encode, exact_hash, hash_words

SHORT_NGRAM_WORDS = 8
"""The same for evaluation texts of fewer words; shorter ones than this are in every data set by chance."""
MOST_OWNERS = 10
"""An n-gram of more evaluation texts than this is a set phrase of the evaluation, and says nothing."""
_PIECE_CHARACTERS = 50_000
_PIECE_OVERLAP = 500


class EvaluationIndex:
    """The n-grams of evaluation texts, to tell how much of one of them stands in a training row.

    It is a few arrays: quick to send to a worker process, and about 20 bytes and a bit table for each n-gram.
    """

    __slots__ = ("_grams", "_owners", "_present", "_totals", "_widths")

    def __init__(self, texts: Sequence[str]) -> None:
        grams: list[Hashes] = []
        owners: list[Indexes] = []
        widths: set[int] = set()
        count = 0
        for text in {exact_hash((text,)): text for text in texts}.values():
            words = _words_of(text)
            if words.size < SHORT_NGRAM_WORDS:
                continue
            width = NGRAM_WORDS if words.size >= NGRAM_WORDS else SHORT_NGRAM_WORDS
            own = np.unique(combine(words, width)[: words.size - width + 1])
            widths.add(width)
            grams.append(own)
            owners.append(np.full(own.size, count))
            count += 1
        every = np.concatenate(grams) if grams else np.empty(0, np.uint64)
        owner = np.concatenate(owners) if owners else np.empty(0, np.int64)
        order = np.argsort(every, kind="stable")
        every, owner = every[order], owner[order]
        if every.size:
            _, where, times = np.unique(every, return_inverse=True, return_counts=True)
            telling = times[where] <= MOST_OWNERS
            every, owner = every[telling], owner[telling]
        self._grams = every
        self._owners = owner.astype(np.int32)
        self._totals = np.bincount(owner, minlength=count)
        self._widths = tuple(sorted(widths))
        # A table of eight entries or more for each n-gram turns nearly every innocent n-gram away at the first look.
        size = 1 << min(26, max(16, (every.size * 8).bit_length()))
        self._present = np.zeros(size, np.bool_)
        self._present[self._slots(every)] = True

    def __len__(self) -> int:
        """Return how many different evaluation texts were long enough to be looked for."""
        return int(self._totals.size)

    def overlap(self, text: str) -> float:
        """Return the share of n-grams that stand in `text`, of the evaluation text of which most do: 0 to 1."""
        return self.overlaps((text,))[0]

    def overlaps(self, texts: Sequence[str]) -> list[float]:
        """Return `overlap` of every text; many together take a fraction of the time."""
        shares = [0.0] * len(texts)
        if not self._grams.size:
            return shares
        # Long texts are cut into pieces that overlap by more than an n-gram.
        pieces: list[bytes] = []
        rows: list[int] = []
        for index, text in enumerate(texts):
            for start in range(0, max(1, len(text) - _PIECE_OVERLAP), _PIECE_CHARACTERS):
                pieces.append(encode(text[start : start + _PIECE_CHARACTERS + _PIECE_OVERLAP]))
                rows.append(index)
        found: dict[int, list[Hashes]] = {}
        for first, last in blocks(pieces):
            words, starts = hash_words(pieces[first:last])
            if not words.size:
                continue
            ends = np.repeat(starts[1:], np.diff(starts))
            place = np.arange(words.size)
            for width in self._widths:
                grams = combine(words, width)
                hits = np.flatnonzero(self._present[self._slots(grams)])
                hits = hits[place[hits] + width <= ends[hits]]
                which: list[int] = np.searchsorted(starts, hits, "right").tolist()
                for hit, row in zip(hits, which, strict=True):
                    found.setdefault(rows[first + row - 1], []).append(grams[hit : hit + 1])
        for index, hit in found.items():
            shares[index] = self._share(np.unique(np.concatenate(hit)))
        return shares

    def _slots(self, grams: Hashes) -> Indexes:
        return (grams & np.uint64(self._present.size - 1)).astype(np.int64)

    def _share(self, grams: Hashes) -> float:
        left = np.searchsorted(self._grams, grams, "left")
        right = np.searchsorted(self._grams, grams, "right")
        owners = [self._owners[a:b] for a, b in zip(left.tolist(), right.tolist(), strict=True) if b > a]
        if not owners:
            return 0.0
        which, counts = np.unique(np.concatenate(owners), return_counts=True)
        return float((counts / self._totals[which]).max())


def _words_of(text: str) -> Hashes:
    """Return the hashes of all words of a text of any length."""
    parts = [
        hash_words((encode(text[start : start + _PIECE_CHARACTERS]),))[0]
        for start in range(0, len(text), _PIECE_CHARACTERS)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)
