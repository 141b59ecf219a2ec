"""The examination of a batch of rows: what a worker finds in it, in arrays that are cheap to send and to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ....recipes.model import Data
from ..examples import Example, Fault, Place, Record
from ..findings import CATALOGUE, MOST_EXAMPLES
from ..formats import Shape, convert, notes
from ..reading.batches import Batch, parse_batch
from ..statistics import NEVER
from .checks import Found, check, check_text, group_words
from .contamination import EvaluationIndex
from .contents import divide, hash_texts, row_parts, whole_text
from .languages import language_of
from .measurement import RowMeter
from .similarity import PERMUTATIONS, exact_hash, sign_batch

if TYPE_CHECKING:
    from ..rendering import Renderer

GRAVITY = {"hint": 1, "warning": 2, "error": 3}
CONTAMINATED_SHARE = 0.5
"""A row is taken for contaminated when it holds this share of the n-grams of one evaluation text."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One row with a finding."""

    code: str
    place: Place
    detail: str
    index: int | None
    """Its index among the converted rows of the batch; None where it could not be converted."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in one batch; the arrays have an element for each converted row."""

    rows: int
    """All rows, faulty ones too."""
    counts: dict[str, int]
    """Rows by the code of what was found in them."""
    hits: tuple[Hit, ...]
    """The first few of each code."""
    numbers: NDArray[np.uint32]
    """The line or row of the file."""
    gravity: NDArray[np.uint8]
    """The gravest finding: 0 for none, 1 for a hint, 2 for a warning, 3 for an error."""
    lengths: NDArray[np.uint32]
    """Tokens before any cut; 0 where the row could not be rendered."""
    first_learned: NDArray[np.uint32]
    """Where the first learned token stands; NEVER where there is none."""
    supervised: NDArray[np.uint32]
    """Learned tokens after the cut."""
    exact: NDArray[np.uint64]
    prompts: NDArray[np.uint64]
    answers: NDArray[np.uint64]
    """Hashes of the whole row, of the turns before the last answer, and of that."""
    signatures: NDArray[np.uint32]
    """MinHash signatures, 32 numbers a row."""
    by_role: dict[str, int]
    """Tokens by role."""
    languages: dict[str, int]
    """Rows by the language of their answer."""
    labels: dict[bool, int]
    """Rows by their label, of KTO."""
    crossed: int
    """Rows whose answer is in another language than their prompt."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The texts that may not stand in the data."""

    index: EvaluationIndex
    hashes: frozenset[int]
    """Of whole rows and of prompts, for those that are too short for n-grams."""


class Examiner:
    """Examines batches; made once, and shared with the workers when they are forked."""

    def __init__(
        self, shape: Shape | None, data: Data, renderer: Renderer | None, evaluation: Evaluation | None
    ) -> None:
        """Prepare to read rows as `shape`; without one they are counted, and without a renderer nothing is said of tokens."""
        self._shape = shape
        self._data = data
        self._evaluation = evaluation
        self._meter = None if renderer is None else RowMeter(renderer, data)
        self._special = special_words(renderer) if renderer is not None else {}

    def examine(self, batch: Batch) -> Examined:
        """Return what is found in the rows of `batch`."""
        return self.examine_rows(parse_batch(batch))

    def examine_rows(self, records: Iterable[Record | Fault]) -> Examined:
        """Return what is found in `records`."""
        tally = _Tally()
        rows = 0
        examples: list[Example] = []
        places: list[Place] = []
        found: list[list[Found]] = []
        for record in records:
            rows += 1
            if isinstance(record, Fault):
                tally.add(record.code, record.place, record.problem, None)
                continue
            if self._shape is None:
                continue
            example = convert(record, self._shape)
            if isinstance(example, Fault):
                tally.add(example.code, example.place, example.problem, None)
                continue
            examples.append(example)
            places.append(record.place)
            found.append([(code, "") for code in notes(record, self._shape)])
        count = len(examples)
        texts = [whole_text(each) for each in examples]
        exact = np.empty(count, np.uint64)
        prompts, answers = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        languages: Counter[str] = Counter()
        crossed = 0
        for index, example in enumerate(examples):
            text = texts[index]
            of_row = found[index]
            of_row += check(example)
            of_row += check_text(example, text, self._special)
            exact[index] = exact_hash(row_parts(example))
            prompt, answer = divide(example)
            if prompt:
                prompts[index] = hash_texts(prompt)
            if answer is not None:
                answers[index] = hash_texts((answer,))
            spoken, other = _languages(example, answer)
            languages[spoken] += 1
            crossed += other
        signatures = sign_batch(texts) if texts else np.empty((0, PERMUTATIONS), np.uint32)
        if self._evaluation is not None:
            self._compare(texts, exact, prompts, found)
        lengths, supervised = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        first_learned = np.full(count, NEVER, np.uint32)
        by_role: dict[str, int] = {}
        if self._meter is not None:
            by_role = self._meter.measure(examples, found, lengths, first_learned, supervised)
        gravity = np.zeros(count, np.uint8)
        for index, of_row in enumerate(found):
            if of_row:
                gravity[index] = max(GRAVITY[CATALOGUE[code].severity] for code, _ in of_row)
                for code, detail in dict(reversed(of_row)).items():
                    tally.add(code, places[index], detail, index)
        return Examined(
            rows, dict(tally.counts), tuple(tally.hits), np.array([each.number for each in places], np.uint32), gravity,
            lengths, first_learned, supervised, exact, prompts, answers, signatures, by_role, dict(languages),
            dict(Counter(each.label for each in examples if each.label is not None)), crossed,
        )  # fmt: skip

    def _compare(
        self, texts: Sequence[str], exact: NDArray[np.uint64], prompts: NDArray[np.uint64], found: list[list[Found]]
    ) -> None:
        """Compare rows with the evaluation's texts."""
        assert self._evaluation is not None
        for index, share in enumerate(self._evaluation.index.overlaps(texts)):
            if int(exact[index]) in self._evaluation.hashes:
                found[index].append(("contamination", "the whole row stands in an evaluation file"))
            elif int(prompts[index]) in self._evaluation.hashes:
                found[index].append(("contamination", "its prompt stands in an evaluation file"))
            elif share >= CONTAMINATED_SHARE:
                found[index].append(("contamination", f"{share:.0%} of an evaluation text stands in it"))


class _Tally:
    """Counts findings, and keeps the first few of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.hits: list[Hit] = []

    def add(self, code: str, place: Place, detail: str, index: int | None) -> None:
        self.counts[code] += 1
        if self.counts[code] <= MOST_EXAMPLES:
            self.hits.append(Hit(code, place, detail, index))


def special_words(renderer: Renderer) -> dict[str, tuple[str, ...]]:
    """Return the control words of the model's own vocabulary that people do not write by chance, grouped for a search."""
    if not renderer.exact:
        return {}
    added = renderer.tokenizer.get_added_tokens_decoder().values()
    words = [each.content for each in added if each.special]
    return group_words([word for word in words if len(word) >= 3 and not word.isalnum()])


def _languages(example: Example, answer: str | None) -> tuple[str, bool]:
    """Return the language of what is learned, and whether the turn before it is in another."""
    spoken = language_of(example.text if answer is None else answer)
    if answer is None or not spoken:
        return spoken, False
    asked = next((each.content for each in reversed(example.messages) if each.role == "user"), "")
    before = language_of(asked)
    return spoken, bool(before) and before != spoken
