"""Which rows are the same or nearly the same: hashes and MinHash signatures.

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

_NEIGHBOURS = 8
"""So many rows behind it in a sorted band is each row compared with."""
_PAIRS_AT_ONCE = 1 << 16
_BLOCK_BYTES = 1 << 16
_LONGEST_BYTES = 1 << 18
"""Of longer texts the signature sees the beginning."""

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
    # No text holds the separator, for it counts as white space.
    folded = b"\x1f".join([_fold_white_space(text) for text in texts])
    return int.from_bytes(blake2b(folded, digest_size=8, person=b"row").digest(), "little")


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


def hash_words(rows: Sequence[bytes]) -> tuple[Hashes, Indexes]:
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


def encode(text: str) -> bytes:
    """Return the bytes that words are hashed from; text that is not plain ASCII is folded to lower case."""
    # Plain ASCII is folded to lower case with the punctuation, later and for all rows together.
    return text.encode() if text.isascii() else text.lower().encode("utf-8", "surrogatepass")


def combine(words: Hashes, width: int) -> Hashes:
    """Return a hash of every `width` words in a row; the last ones reach beyond the end as if there were nothing."""
    grams = words * _ORDER[0]
    for distance in range(1, min(width, words.size)):
        grams[:-distance] += words[distance:] * _ORDER[distance]
    grams ^= grams >> _HALF
    grams *= _FINISH
    return grams


def blocks(rows: Sequence[bytes]) -> Iterator[tuple[int, int]]:
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
    rows = [encode(text)[:_LONGEST_BYTES] for text in texts]
    signatures = np.full((len(rows), PERMUTATIONS), _NOTHING, np.uint32)
    for first, last in blocks(rows):
        _sign_block(rows[first:last], signatures[first:last])
    return signatures


def _sign_block(rows: Sequence[bytes], signatures: Signatures) -> None:
    words, starts = hash_words(rows)
    if not words.size:
        return
    shingles = combine(words, SHINGLE_WORDS)
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
