"""Preview: any row of a data set as the trainer gets it, piece by piece, and what a file looks like before that."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...recipes.model import Data
from .examples import IGNORED, Example, Fault, Place, Record

if TYPE_CHECKING:
    from .rendering import Renderer, Row

KEPT_ROWS = 5_000
"""So many rows from the beginning are kept once they were read; the longest and worst are looked for among them."""
SHOWN_CHARACTERS = 40_000
SHOWN_TOKENS = 10_000
"""No more than this is shown of one row."""
SAMPLED_ROWS = 1_000
CONVERTED_SAMPLES = 5
SEARCH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row after conversion, or why it could not be converted."""

    place: str
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text); judged answers under `chosen`, `rejected`, `good` and `bad`."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a data set is, told from a sample of its rows."""

    source: str
    files: tuple[str, ...]
    total_bytes: int
    format: str | None
    """None where no format fits."""
    dialect: str
    confidence: float
    """0 to 1."""
    evidence: tuple[str, ...]
    rows: int
    rows_exact: bool
    """False where the rows were extrapolated from a part."""
    columns: tuple[str, ...]
    mapping: dict[str, str]
    """Our field → the file's column."""
    fields: tuple[str, ...]
    """The fields of the format, for a mapping."""
    faults: tuple[Fault, ...]
    """The first rows of the sample that could not be read or converted."""
    samples: tuple[SampleRow, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """Which row is wanted."""

    kind: Literal["row", "longest", "worst", "random", "search"] = "row"
    index: int = 0
    """The row's index; of the longest and worst which of them; of a search the row after which it begins."""
    text: str = ""
    """What is searched for, whatever the case."""
    indexes: tuple[int, ...] = ()
    """The longest or worst rows, where an audit knows them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens of one kind."""

    text: str
    trained: bool
    tokens: tuple[str, ...]
    """Each token as it can be seen: a space as ·, a line's end as ⏎."""
    cut: bool = False
    """Whether it lies behind the maximum length."""


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row as the trainer gets it."""

    index: int
    place: str
    tokens: int
    """All of the row's tokens."""
    kept: int
    """The tokens up to the maximum length."""
    trained: int
    pieces: tuple[Piece, ...]
    problem: str = ""
    """Why it could not be rendered, else empty."""


def inspect(source: str, data: Data) -> Inspection:
    """Return what `source` is, under the format and columns that `data` fixes; raises TunewrightError."""
    from .detection import detect
    from .formats import FIELDS, convert
    from .reading import HARMLESS_CODES, count_rows, open_source, sample_records

    opened = open_source(source, data.split)
    sample = sample_records(opened, SAMPLED_ROWS)
    found = detect(sample, data.format, data.columns)
    rows, exact = count_rows(opened)
    faults = [each for each in sample if isinstance(each, Fault) and each.code not in HARMLESS_CODES]
    samples: list[SampleRow] = []
    if found.shape is not None:
        for each in sample:
            converted = convert(each, found.shape) if isinstance(each, Record) else each
            if isinstance(converted, Fault):
                if isinstance(each, Record):
                    faults.append(converted)
                if len(samples) < CONVERTED_SAMPLES:
                    samples.append(SampleRow(str(converted.place), problem=converted.problem))
            elif len(samples) < CONVERTED_SAMPLES:
                samples.append(SampleRow(str(each.place), turns_of(converted)))
    return Inspection(
        source=source,
        files=tuple(one_line(str(each), 500) for each in opened.files),
        total_bytes=opened.total_bytes,
        format=found.shape.format if found.shape else None,
        dialect=found.shape.dialect if found.shape else "",
        confidence=found.confidence,
        evidence=found.evidence,
        rows=rows,
        rows_exact=exact,
        columns=found.columns,
        mapping={name: one_line(column, 200) for name, column in found.shape.columns} if found.shape else {},
        fields=FIELDS[found.shape.format] if found.shape else (),
        faults=tuple(faults[:20]),
        samples=tuple(samples),
    )


def turns_of(example: Example, limit: int = 2_000) -> tuple[tuple[str, str], ...]:
    """Return an example as (role, text) pairs for reading, each text cleaned and cut to `limit` characters."""
    if example.kind == "text":
        return (("text", clean(example.text, limit)),)
    pairs = [(each.role, _said(each)) for each in example.messages]
    judged = example.prompt_turns or len(pairs) - 1
    if example.kind == "preference":
        pairs = [*pairs[:judged], *(("chosen", text) for _, text in pairs[judged:])]
        pairs += [("rejected", _said(each)) for each in example.rejected]
    elif example.kind == "kto":
        pairs = [*pairs[:judged], *(("good" if example.label else "bad", text) for _, text in pairs[judged:])]
    return tuple((role, clean(text, limit)) for role, text in pairs)


def _said(message: Any) -> str:
    calls = [f"→ {call.name}({call.arguments})" for call in message.tool_calls]
    thinking = [f"({message.thinking})"] if message.thinking else []
    return "\n".join([*thinking, *([message.content] if message.content else []), *calls])


class Previewer:
    """Shows rows of one data set with one model's tokenizer; it reads no further than it has to."""

    def __init__(self, source: str, data: Data, renderer: Renderer) -> None:
        """Open `source`; raises TunewrightError when it is not there or its format is not known."""
        from .preparing import require_shape
        from .reading import open_source

        self._source = open_source(source, data.split)
        self._shape = require_shape(self._source, data)
        self._data = data
        self._renderer = renderer
        self._kept: list[tuple[Place, Example]] = []
        self._stream = self._examples()
        self._ended = False
        self._far = (0, self._examples())
        """How many rows were read behind the kept ones, and what follows, so that the next row comes at once."""

    def show(self, want: Want) -> ShownRow | None:
        """Return the row that is wanted, or None when there is none."""
        match want.kind:
            case "search":
                found = self._search(want.text.casefold(), want.index + 1)
            case "random":
                self._keep(KEPT_ROWS)
                found = random.randrange(len(self._kept)) if self._kept else None
            case "longest" | "worst":
                ranked = want.indexes or self._ranked(want.kind)
                found = ranked[want.index % len(ranked)] if ranked else None
            case "row":
                found = want.index
        if found is None or found < 0:
            return None
        row = self._row(found)
        return None if row is None else show(self._renderer, self._data.max_length, found, *row)

    def _row(self, index: int) -> tuple[Place, Example] | None:
        if index < KEPT_ROWS:
            self._keep(index + 1)
            return self._kept[index] if index < len(self._kept) else None
        read, stream = self._far if self._far[0] <= index else (0, self._examples())
        row = next(itertools.islice(stream, index - read, None), None)
        self._far = (index + 1, stream)
        return row

    def _keep(self, rows: int) -> None:
        """Keep `rows` rows from the beginning, fewer where there are not so many."""
        missing = min(rows, KEPT_ROWS) - len(self._kept)
        if missing > 0 and not self._ended:
            more = list(itertools.islice(self._stream, missing))
            self._ended = len(more) < missing
            self._kept += more

    def _examples(self) -> Iterator[tuple[Place, Example]]:
        from .formats import convert
        from .reading import read_records

        for record in read_records(self._source):
            if isinstance(record, Record):
                example = convert(record, self._shape)
                if isinstance(example, Example):
                    yield record.place, example

    def _search(self, text: str, start: int) -> int | None:
        deadline = time.monotonic() + SEARCH_SECONDS
        for index, (_, example) in enumerate(itertools.islice(self._examples(), start, None), start):
            if any(text in said.casefold() for _, said in turns_of(example, limit=1_000_000)):
                return index
            if time.monotonic() > deadline:
                raise TunewrightError(
                    "Search stopped",
                    f"{index:,} rows were searched in {SEARCH_SECONDS:.0f} s without a hit.",
                    "Search in the file itself, for example with grep.",
                )
        return None

    def _ranked(self, kind: str) -> tuple[int, ...]:
        """Return the kept rows, the longest or those with the smallest share of trained tokens first."""
        self._keep(KEPT_ROWS)
        ranks: list[tuple[float, int]] = []
        for index, (_, example) in enumerate(self._kept):
            try:
                row = self._renderer.render(example, self._data.max_length)
            except TunewrightError:
                ranks.append((-1.0, index))
                continue
            ranks.append((-row.whole_length if kind == "longest" else row.supervised / max(1, row.length), index))
        return tuple(index for _, index in sorted(ranks)[:20])


def show(renderer: Renderer, max_length: int, index: int, place: Place, example: Example) -> ShownRow:
    """Return one row with its pieces; what lies behind `max_length` tokens is marked as cut."""
    try:
        layout = renderer.lay_out(example)
        encoding = renderer.encode(layout)
        row = renderer.label(layout, encoding)
    except TunewrightError as error:
        pieces = tuple(Piece(f"{role}: {text}\n", False, ()) for role, text in turns_of(example, SHOWN_CHARACTERS))
        return ShownRow(index, str(place), 0, 0, 0, pieces, one_line(f"{error.title}: {error.message}", 400))
    kept = min(row.length, max_length)
    trained = sum(label != IGNORED for label in row.labels[:kept])

    def read(tokens: range) -> str:
        """Return the text of neighbouring tokens; those of no real vocabulary are read off the text itself."""
        if renderer.exact:
            return renderer.tokenizer.decode(row.input_ids[tokens.start : tokens.stop], skip_special_tokens=False)
        return layout.text[encoding.offsets[tokens.start][0] : encoding.offsets[tokens.stop - 1][1]]

    return ShownRow(index, str(place), row.length, kept, trained, tuple(_pieces(read, row, max_length)))


def _pieces(read: Callable[[range], str], row: Row, max_length: int) -> Iterator[Piece]:
    """Read neighbouring tokens of one kind together, so that characters of several tokens stay whole."""
    kinds = [(label != IGNORED, place >= max_length) for place, label in enumerate(row.labels[:SHOWN_TOKENS])]
    shown = start = 0
    for (trained, cut), places in itertools.groupby(kinds):
        end = start + sum(1 for _ in places)
        text = clean(read(range(start, end)))
        tokens = tuple(visible(read(range(each, each + 1))) for each in range(start, end))
        yield Piece(text[: max(0, SHOWN_CHARACTERS - shown)], trained, tokens, cut)
        shown, start = shown + len(text), end
        if shown >= SHOWN_CHARACTERS:
            return


def visible(token: str) -> str:
    """Return a token as it can be seen: spaces as ·, line ends as ⏎, tabs as ⇥, parts of a character as ▯."""
    text = clean(token).replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥").replace("\ufffd", "▯")
    return text or "▯"
