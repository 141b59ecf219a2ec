"""Which rows are the same, nearly the same, or stand in an evaluation: hashes, MinHash signatures and n-grams.

The words of many rows are hashed in a few passes over their bytes together, for a million rows take their time here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 32
BANDS = 8
ENOUGH_EQUAL = 28
"""Two rows are nearly the same when so many of the 32 minima agree: a Jaccard similarity of about 0.85 or more."""
SHINGLE_WORDS = 3
NGRAM_WORDS = 13
"""What GPT-3 and Llama count as text taken from an evaluation (Brown and others, 2020, appendix C)."""
SHORT_NGRAM_WORDS = 8
"""The same for evaluation texts of fewer words; shorter ones than this are in every data set by chance."""
MOST_OWNERS = 10
"""An n-gram of more evaluation texts than this is a set phrase of the evaluation, and says nothing."""

_NEIGHBOURS = 8
"""So many rows behind it in a sorted band is each row compared with."""
_PAIRS_AT_ONCE = 1 << 16
_BLOCK_BYTES = 1 << 16
_LONGEST_BYTES = 1 << 18
"""Of longer texts the signature sees the beginning."""
_PIECE_CHARACTERS = 50_000
_PIECE_OVERLAP = 500

Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint32]
Indexes = NDArray[np.int64]


def _mix(number: int) -> int:
    """Return the next 64-bit number of the sequence SplitMix64: the same on every machine and with every library."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return number ^ (number >> 31)


def _constants(seed: int, count: int) -> Hashes:
    return np.array([_mix(seed * 1_000_003 + each) | 1 for each in range(count)], np.uint64)


_PUNCTUATION = bytes(range(33)) + b"!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~\x7f"
_FOLD = bytes(32 if each in _PUNCTUATION else each for each in range(256)).lower()
_WHITE = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
# A character of Chinese or Japanese, of which the UTF-8 begins with E3 to E9, is a word of its own. Scripts whose UTF-8
# begins with E0 or E1 (Thai, Khmer, Hindi ...) often write no spaces: there a quarter of the characters begin a word.
_BEGINS_WORD = np.array([0xE3 <= each <= 0xE9 for each in range(256)])
_MAY_BEGIN_WORD = np.array([each in (0xE0, 0xE1) for each in range(256)])

_BASE = _mix(1) | 1
_BYTE_HASHES = _constants(2, 256)
_BYTE_HASHES[32] = 0
_ORDER = _constants(3, NGRAM_WORDS)
_MULTIPLIERS = _constants(4, PERMUTATIONS).astype(np.uint32) | np.uint32(1)
_ADDENDS = _constants(5, PERMUTATIONS).astype(np.uint32)
_BAND_MULTIPLIERS = (_constants(6, PERMUTATIONS // BANDS) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_FINISH = np.uint64(_mix(7) | 1)
_HALF = np.uint64(32)
_NOTHING = np.uint32(0xFFFFFFFF)


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """Return the powers of the base and of its inverse modulo 2⁶⁴, which make a word's hash independent of its place."""
    length = _LONGEST_BYTES + _BLOCK_BYTES + 2
    powers: list[Hashes] = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        row = np.full(length, base, np.uint64)
        row[0] = 1
        powers.append(np.cumprod(row))
    return powers[0], powers[1]


# Exact duplicates.


def exact_hash(texts: Sequence[str]) -> int:
    """Return a 64-bit hash of roles and contents, the same on every machine and whatever the white space between words."""
    return _hash(texts, b"row")


def prompt_hash(texts: Sequence[str]) -> int:
    """Return the same of the turns before the answer; never equal to the hash of a whole row."""
    return _hash(texts, b"prompt")


def _hash(texts: Sequence[str], person: bytes) -> int:
    # No text holds the separator, for it counts as white space.
    folded = b"\x1f".join([_fold_white_space(text) for text in texts])
    return int.from_bytes(blake2b(folded, digest_size=8, person=person).digest(), "little")


def _fold_white_space(text: str) -> bytes:
    if text.isascii():
        data = text.encode().translate(_WHITE)
    else:
        data = text.encode("utf-8", "surrogatepass").translate(_WHITE)
        data = data.replace(b"\xc2\xa0", b" ").replace(b"\xe3\x80\x80", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data.strip(b" ")


# Words.


def _hash_words(rows: Sequence[bytes]) -> tuple[Hashes, Indexes]:
    """Return a hash of every word of all rows, and where each row's words begin in them, with the end of the last."""
    joined = b"".join([b" " + row for row in rows]).translate(_FOLD) + b"  "
    row_starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) + 1 for row in rows], out=row_starts[1:])
    data = np.frombuffer(joined, np.uint8)
    filled = data != 32
    begins = np.empty_like(filled)
    begins[0] = False
    np.greater(filled[1:], filled[:-1], out=begins[1:])
    if not joined.isascii():
        begins |= _BEGINS_WORD[data]
        maybe = np.flatnonzero(_MAY_BEGIN_WORD[data])
        begins[maybe[(data[maybe + 2] & 3) == 0]] = True
        # The character after a Chinese one begins a word too.
        begins[3:] |= _BEGINS_WORD[data[:-3]] & filled[3:]
    starts = np.flatnonzero(begins)
    powers, inverses = _powers()
    sums = _BYTE_HASHES[data]
    sums *= powers[: data.size]
    np.cumsum(sums, out=sums)
    # White space adds nothing to the sum, so a word may be taken to reach as far as the next one.
    before = np.empty(starts.size + 1, np.uint64)
    before[:-1] = sums[starts - 1]
    before[-1] = sums[-1]
    words = np.diff(before)
    words *= inverses[starts]
    words ^= words >> _HALF
    return words, np.searchsorted(starts, row_starts)


def _encode(text: str) -> bytes:
    # Plain ASCII is folded to lower case with the punctuation, later and for all rows together.
    return text.encode() if text.isascii() else text.lower().encode("utf-8", "surrogatepass")


def _combine(words: Hashes, width: int) -> Hashes:
    """Return a hash of every `width` words in a row; the last ones reach beyond the end as if there were nothing."""
    grams = words * _ORDER[0]
    for distance in range(1, min(width, words.size)):
        grams[:-distance] += words[distance:] * _ORDER[distance]
    grams ^= grams >> _HALF
    grams *= _FINISH
    return grams


def _blocks(rows: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows of about 64 KiB, which the processor's cache can hold."""
    start = size = 0
    for index, row in enumerate(rows):
        if size and size + len(row) >= _BLOCK_BYTES:
            yield start, index
            start, size = index, 0
        size += len(row) + 1
    if start < len(rows):
        yield start, len(rows)


# Near-duplicates.


def sign_batch(texts: Sequence[str]) -> Signatures:
    """Return the MinHash signature of every text: 32 minima over the hashes of its runs of three words.

    Case, punctuation and white space count for nothing. A text without a word has only ones, and is like no other.
    """
    rows = [_encode(text)[:_LONGEST_BYTES] for text in texts]
    signatures = np.full((len(rows), PERMUTATIONS), _NOTHING, np.uint32)
    for first, last in _blocks(rows):
        _sign_block(rows[first:last], signatures[first:last])
    return signatures


def _sign_block(rows: Sequence[bytes], signatures: Signatures) -> None:
    words, starts = _hash_words(rows)
    if not words.size:
        return
    shingles = _combine(words, SHINGLE_WORDS)
    counts = np.diff(starts)
    filled = np.flatnonzero(counts)
    starts, counts = starts[filled], counts[filled]
    # The last two of a row run into the next row: they stand for the first one instead. Rows of one or two words are
    # one shingle, made of these words alone.
    short = counts < SHINGLE_WORDS
    alone = words[starts] * _ORDER[0]
    two = starts[counts == 2]
    alone[counts == 2] += words[two + 1] * _ORDER[1]
    shingles[starts[short]] = alone[short] * _FINISH
    ends = starts + counts
    for back in range(1, SHINGLE_WORDS):
        # In a row of one word this would reach the row before.
        which = counts > back
        shingles[ends[which] - back] = shingles[starts[which]]
    hashes = (shingles >> _HALF).astype(np.uint32)
    permuted = np.empty_like(hashes)
    minima = np.empty((PERMUTATIONS, starts.size), np.uint32)
    for each in range(PERMUTATIONS):
        np.multiply(hashes, _MULTIPLIERS[each], out=permuted)
        np.add(permuted, _ADDENDS[each], out=permuted)
        np.minimum.reduceat(permuted, starts, out=minima[each])
    signatures[filled] = minima.T


def find_near_duplicates(signatures: Signatures, exact_hashes: Sequence[int] | Hashes) -> list[tuple[int, int]]:
    """Return (repeat, first) for every row that is nearly the same as an earlier one, in the order of the repeats.

    Rows that are like a row that is like a third belong together, and `first` is the earliest of them. Exact duplicates
    are left out, but for their first. Rows that agree in 28 of 32 minima agree in at least 4 of the 8 bands; each is
    compared with the first and the next eight of its band, sorted by the band after it, so that the work stays bounded
    where very many rows share a band.
    """
    hashes = np.asarray(exact_hashes, np.uint64)
    assert signatures.shape == (hashes.size, PERMUTATIONS)
    # The first row of each hash, without those that hold no word.
    rows: Indexes = np.unique(hashes, return_index=True)[1].astype(np.int64)
    rows.sort()
    rows = rows[signatures[rows, 0] != _NOTHING]
    if rows.size < 2:
        return []
    bands = _hash_bands(signatures, rows)
    labels = np.arange(rows.size, dtype=np.int64)
    for band in range(BANDS):
        key = bands[:, band].astype(np.uint64) << _HALF
        key |= bands[:, (band + 1) % BANDS]
        order = np.argsort(key)
        halves = (key[order] >> _HALF).astype(np.uint32)
        del key
        _join_band(order, halves, signatures, rows, bands, labels)
    repeats = np.flatnonzero(labels != np.arange(rows.size))
    return list(zip(rows[repeats].tolist(), rows[labels[repeats]].tolist(), strict=True))


def _hash_bands(signatures: Signatures, rows: Indexes) -> Signatures:
    """Return a 32-bit hash of each of the eight bands of four minima."""
    bands = np.empty((rows.size, BANDS), np.uint32)
    width = PERMUTATIONS // BANDS
    for first in range(0, rows.size, _PAIRS_AT_ONCE):
        part = signatures[rows[first : first + _PAIRS_AT_ONCE]].reshape(-1, BANDS, width)
        hashed = part @ _BAND_MULTIPLIERS
        hashed ^= hashed >> np.uint32(15)
        bands[first : first + _PAIRS_AT_ONCE] = hashed
    return bands


def _join_band(
    order: Indexes, halves: Signatures, signatures: Signatures, rows: Indexes, bands: Signatures, labels: Indexes
) -> None:
    """Join the rows of one sorted band that are nearly the same."""
    same = halves[1:] == halves[:-1]
    # Most rows share a band with none, and are left out.
    grouped = np.zeros(order.size, np.bool_)
    grouped[1:] = same
    grouped[:-1] |= same
    order, halves = order[grouped], halves[grouped]
    if not order.size:
        return
    changes = np.empty(order.size, np.bool_)
    changes[0] = True
    np.not_equal(halves[1:], halves[:-1], out=changes[1:])
    group_starts = np.flatnonzero(changes)
    group = np.cumsum(changes) - 1
    _join_like(order, order[group_starts[group]], signatures, rows, bands, labels)
    for distance in range(1, min(_NEIGHBOURS + 1, order.size)):
        together = group[distance:] == group[:-distance]
        if not together.any():
            break
        _join_like(order[distance:][together], order[:-distance][together], signatures, rows, bands, labels)


def _join_like(
    left: Indexes, right: Indexes, signatures: Signatures, rows: Indexes, bands: Signatures, labels: Indexes
) -> None:
    """Join the pairs that agree in enough minima."""
    for first in range(0, left.size, _PAIRS_AT_ONCE):
        one, other = left[first : first + _PAIRS_AT_ONCE], right[first : first + _PAIRS_AT_ONCE]
        apart = labels[one] != labels[other]
        one, other = one[apart], other[apart]
        # Four bands must be equal for 28 minima to be: a quarter of the bytes to look at.
        likely = np.count_nonzero(bands[one] == bands[other], axis=1) >= BANDS - (PERMUTATIONS - ENOUGH_EQUAL)
        one, other = one[likely], other[likely]
        if one.size:
            like = np.count_nonzero(signatures[rows[one]] == signatures[rows[other]], axis=1) >= ENOUGH_EQUAL
            _join(one[like], other[like], labels)


def _join(left: Indexes, right: Indexes, labels: Indexes) -> None:
    """Give the rows of each pair, and all that are joined with them, the label of the earliest."""
    while True:
        one, other = labels[left], labels[right]
        apart = one != other
        if not apart.any():
            return
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while True:
            further = labels[labels]
            if np.array_equal(further, labels):
                break
            labels[:] = further


# Contamination.


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
            own = np.unique(_combine(words, width)[: words.size - width + 1])
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
                pieces.append(_encode(text[start : start + _PIECE_CHARACTERS + _PIECE_OVERLAP]))
                rows.append(index)
        found: dict[int, list[Hashes]] = {}
        for first, last in _blocks(pieces):
            words, starts = _hash_words(pieces[first:last])
            if not words.size:
                continue
            ends = np.repeat(starts[1:], np.diff(starts))
            place = np.arange(words.size)
            for width in self._widths:
                grams = _combine(words, width)
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
        _hash_words((_encode(text[start : start + _PIECE_CHARACTERS]),))[0]
        for start in range(0, len(text), _PIECE_CHARACTERS)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)
