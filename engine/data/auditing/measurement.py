"""The measurement of rows in tokens: how long they are, whose the tokens are, what is learned, and what is wrong there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....foundation.errors import TunewrightError
from ....recipes.model import Data
from ..examples import IGNORED, Example
from ..rendering import Layout, Renderer, tokens_within
from .byte_tokens import ByteTokens, Span, Tokens
from .checks import Found, check_ids, check_rendered

CODES_OF_ERRORS = {
    "Loss mask not provable": "mask_not_provable",
    "Chat template does not end": "template_too_slow",
    "Text that cannot be written": "not_utf8",
}
"""What an error that rendering raises is called among the findings; all others are refusals."""
MOST_ENDLESS = 3
"""After so many rows whose template did not end, no more are rendered: each takes seconds."""


class RowMeter:
    """Measures rows as one model's tokenizer and template make them; made once, shared with the workers."""

    def __init__(self, renderer: Renderer, data: Data) -> None:
        self._renderer, self._data = renderer, data
        self._ends = frozenset(each for each in (*renderer.end_tokens, renderer.eos) if each is not None)
        self._bytes = ByteTokens.of(renderer.tokenizer)
        # Without a model its template is not known either, and nothing can be said against it.
        self._judges_template = renderer.exact or data.template not in ("model", "trl")
        self._endless = 0

    def measure(
        self,
        examples: Sequence[Example],
        found: Sequence[list[Found]],
        lengths: NDArray[np.uint32],
        first_learned: NDArray[np.uint32],
        supervised: NDArray[np.uint32],
    ) -> dict[str, int]:
        """Fill the arrays with the figures of `examples`, add what is wrong to `found`, and return the tokens by role."""
        layouts: list[Layout] = []
        rows: list[int] = []
        for index, example in enumerate(examples):
            layout = self._lay_out(example, found[index])
            if layout is not None:
                layouts.append(layout)
                rows.append(index)
        by_role: Counter[str] = Counter()
        limit, cuts = self._data.max_length, self._data.overlong == "cut"
        for index, layout, tokens in zip(rows, layouts, self._tokenise(layouts), strict=True):
            if isinstance(tokens, TunewrightError):
                found[index].append(_as_found(tokens))
                continue
            length = len(tokens.ids)
            lengths[index] = length
            if tokens.learned:
                first_learned[index] = tokens.learned[0][0]
                if length <= limit:
                    supervised[index] = sum(end - start for start, end in tokens.learned)
                elif cuts:
                    supervised[index] = sum(min(end, limit) - start for start, end in tokens.learned if start < limit)
            _count(layout, tokens, by_role)
            found[index].extend(self._check(examples[index], layout, tokens))
        return dict(by_role)

    def check(self, example: Example) -> list[Found]:
        """Return what is wrong with one row in tokens."""
        found: list[Found] = []
        layout = self._lay_out(example, found)
        if layout is not None:
            (tokens,) = self._tokenise([layout])
            found += (
                [_as_found(tokens)] if isinstance(tokens, TunewrightError) else self._check(example, layout, tokens)
            )
        return found

    def _check(self, example: Example, layout: Layout, tokens: Tokens) -> list[Found]:
        renderer = self._renderer
        kept = min(len(tokens.ids), self._data.max_length)
        found = check_ids(tokens.ids, tokens.learned, kept, self._ends, renderer.bos, renderer.unk)
        if example.kind != "text" and self._judges_template:
            found += check_rendered(example, layout.text, layout.learned, self._data)
        return found

    def _lay_out(self, example: Example, found: list[Found]) -> Layout | None:
        if self._endless >= MOST_ENDLESS:
            return None
        try:
            return self._renderer.lay_out(example)
        except TunewrightError as error:
            found.append(_as_found(error))
            self._endless += found[-1][0] == "template_too_slow"
            return None

    def _tokenise(self, layouts: Sequence[Layout]) -> list[Tokens | TunewrightError]:
        """Return the tokens of many rows: quickly where their bytes tell where they stand, else one by one."""
        quick = self._bytes.tokenise(layouts) if self._bytes is not None else [None] * len(layouts)
        return [tokens or self._tokenise_one(layout) for tokens, layout in zip(quick, layouts, strict=True)]

    def _tokenise_one(self, layout: Layout) -> Tokens | TunewrightError:
        try:
            return tokenise_as_trained(self._renderer, layout)
        except TunewrightError as error:
            return error


def _as_found(error: TunewrightError) -> Found:
    return CODES_OF_ERRORS.get(error.title, "template_refused"), error.message


def tokenise_as_trained(renderer: Renderer, layout: Layout) -> Tokens:
    """Return the tokens of one row with the very labels that the trainer gets."""
    encoding = renderer.encode(layout)
    row = renderer.label(layout, encoding)
    turns = [tokens_within(encoding, start, end) for start, end, _ in layout.turns]
    return Tokens(row.input_ids, _runs(row.labels), turns)


def _runs(labels: Sequence[int]) -> list[Span]:
    """Return where labels that are learned stand."""
    edges = np.flatnonzero(np.diff(np.asarray(labels, np.int64) != IGNORED, prepend=False, append=False))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _count(layout: Layout, tokens: Tokens, by_role: Counter[str]) -> None:
    """Count the tokens of each author; what is nobody's is the template's."""
    told = 0
    for (_, _, role), (start, end) in zip(layout.turns, tokens.turns, strict=True):
        by_role[role] += end - start
        told += end - start
    by_role["template"] += len(tokens.ids) - told
