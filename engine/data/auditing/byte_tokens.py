"""Tokens whose bytes tell where they stand: a quicker way to the same labels, for tokenizers that work on bytes.

Most tokenizers split the bytes of a text and change none, so the widths of the tokens add up to the text. The tokenizer
then need not keep where each token came from, which costs as much as the rest. Rows whose widths do not add up, and
tokenizers of other kinds, are left to the slower way.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ..rendering import Layout

_SPACE = "Ġ"
"""How a byte-level vocabulary writes the space."""
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row in tokens."""

    ids: Sequence[int]
    learned: Sequence[Span]
    """[start, end) of the learned ones, in order."""
    turns: Sequence[Span]
    """[start, end) of each turn of the layout."""


class ByteTokens:
    """Tokenises many rows at once, for a tokenizer that works on bytes."""

    def __init__(self, tokenizer: Tokenizer, normalises: bool, trims: bool) -> None:
        """Measure the vocabulary; `trims` says that tokens do not count their spaces as theirs."""
        self._tokenizer, self._normalises, self._trims = tokenizer, normalises, trims
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values()) + 1
        self._widths = np.zeros(size, np.int64)
        self._before, self._behind = np.zeros(size, np.int64), np.zeros(size, np.int64)
        added = tokenizer.get_added_tokens_decoder()
        for token, number in vocabulary.items():
            self._widths[number] = len(token.encode()) if number in added else len(token)
            if trims and number not in added:
                left = token.lstrip(_SPACE)
                self._before[number] = len(token) - len(left)
                self._behind[number] = len(left) - len(left.rstrip(_SPACE))
        plain, whole = (tokenizer.encode("a", add_special_tokens=each).ids for each in (False, True))
        at = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
        self._prefix, self._suffix = whole[:at], whole[at + len(plain) :]

    @staticmethod
    def of(tokenizer: Tokenizer) -> ByteTokens | None:
        """Return the quick way for a tokenizer, None where there is none."""
        normalizer, splitter, processor = (
            _settings(each) for each in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor)
        )
        normalises = [each.get("type") for each in normalizer]
        if normalises not in ([], ["NFC"]):
            return None
        if not any(each.get("type") == "ByteLevel" and not each.get("add_prefix_space") for each in splitter):
            return None
        trims = any(each.get("type") == "ByteLevel" and bool(each.get("trim_offsets")) for each in processor)
        return ByteTokens(tokenizer, bool(normalises), trims)

    def tokenise(self, layouts: Sequence[Layout]) -> list[Tokens | None]:
        """Return the tokens of each row, None for those that have to be done otherwise."""
        done: list[Tokens | None] = [None] * len(layouts)
        chosen = [index for index, layout in enumerate(layouts) if self._is_plain(layout)]
        try:
            encodings = self._tokenizer.encode_batch_fast(
                [layouts[index].text for index in chosen], add_special_tokens=False
            )
        except (TypeError, UnicodeError):  # a surrogate without its other half; the slow way says in which row
            return done
        ids: list[list[int]] = [each.ids for each in encodings]
        if not any(ids):
            return done
        row_ends = np.cumsum([len(each) for each in ids])
        flat = np.fromiter(chain.from_iterable(ids), np.int64, int(row_ends[-1]))
        ends = np.cumsum(self._widths[flat])
        # Where each row's bytes and tokens begin among those of all rows.
        first_bytes = np.concatenate(([0], ends))[np.concatenate(([0], row_ends))].tolist()
        first_tokens = [0, *row_ends.tolist()]
        starts: list[int] = []
        stops: list[int] = []
        sizes: list[int] = []
        for place, index in enumerate(chosen):
            base = first_bytes[place]
            size = _add_spans(layouts[index], base, starts, stops)
            sizes.append(size if base + size == first_bytes[place + 1] else -1)
        firsts = np.searchsorted(ends - self._behind[flat], starts, "right")
        lasts = np.searchsorted(ends - self._widths[flat] + self._before[flat], stops, "left")
        spans = zip(firsts.tolist(), np.maximum(firsts, lasts).tolist(), strict=True)
        for place, index in enumerate(chosen):
            layout = layouts[index]
            tokens = self._tokens(layout, ids[place], first_tokens[place], spans)
            if sizes[place] >= 0:
                done[index] = tokens
        return done

    def _is_plain(self, layout: Layout) -> bool:
        """Whether the tokenizer takes the text as it is, and the labels hang on nothing but the text."""
        text = layout.text
        if layout.prompt is not None or (layout.special_tokens and layout.learned != ((0, len(text)),)):
            return False
        if self._trims and text.startswith(" "):
            return False  # the first token of a text may count its space
        return not self._normalises or text.isascii() or unicodedata.is_normalized("NFC", text)

    def _tokens(self, layout: Layout, ids: list[int], first: int, spans: Iterator[Span]) -> Tokens:
        """Take the spans of one row from those of all."""
        shift = -first
        if layout.special_tokens:
            ids = self._prefix + ids + self._suffix
            shift += len(self._prefix)
        learned = [(start + shift, end + shift) for _, (start, end) in zip(layout.learned, spans, strict=False)]
        turns = [(start + shift, end + shift) for _, (start, end) in zip(layout.turns, spans, strict=False)]
        if layout.learned == ((0, len(layout.text)),):
            learned = [(0, len(ids))]
        return Tokens(ids, [each for each in learned if each[0] < each[1]], turns)


def _add_spans(layout: Layout, base: int, starts: list[int], stops: list[int]) -> int:
    """Add where the learned spans and the turns stand in bytes, and return the bytes of the text."""
    text = layout.text
    if text.isascii():
        for start, end in layout.learned:
            starts.append(base + start)
            stops.append(base + end)
        for start, end, _ in layout.turns:
            starts.append(base + start)
            stops.append(base + end)
        return len(text)
    spans = [*layout.learned, *((start, end) for start, end, _ in layout.turns)]
    places: dict[int, int] = {}
    before = size = 0
    for place in sorted({len(text), *chain.from_iterable(spans)}):
        size += len(text[before:place].encode())
        places[place] = size
        before = place
    for start, end in spans:
        starts.append(base + places[start])
        stops.append(base + places[end])
    return size


def _settings(part: Any) -> list[dict[str, Any]]:
    """Return the settings of a part of a tokenizer, of a sequence those of its members."""
    if part is None:
        return []
    settings = cast("dict[str, Any]", json.loads(part.__getstate__()))
    for key in ("normalizers", "pretokenizers", "processors"):
        if key in settings:
            return cast("list[dict[str, Any]]", settings[key])
    return [settings]
