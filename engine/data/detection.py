"""Detection: which format a file is in, told from what its rows hold, with the evidence for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from ...foundation.errors import TunewrightError, nearest
from ...foundation.text import one_line
from ...recipes.model import Data, FormatName
from .examples import Example, Fault, Record
from .formats import convert
from .reading.batches import FILE_CODES
from .shapes.fields import (
    BINARY,
    FIELDS,
    FLAG_TEXT,
    FROM_TURNS,
    NULL,
    REQUIRED,
    ROLE_TURNS,
    TEXT,
    Cells,
    Shape,
    cells_of,
    field_of,
    kind_of,
    match,
    match_format,
    parse_turns,
    quote,
)

if TYPE_CHECKING:
    from .reading import Source

Signature = tuple[tuple[str, tuple[str, str]], ...]
"""Of one row: its known names, each with the column and what it holds; most rows of a file share one."""

MOST_COLUMNS = 100
_FORMATS: tuple[FormatName, ...] = tuple(FIELDS)
_MOST_SENTENCES = 12
_NEARNESS = 0.9
"""What the confidence is multiplied with where rows hold all columns of another format too."""
_CONVERSATIONS = frozenset({"messages", "sharegpt", "tools"})
_TOOL_ROLES = frozenset(
    ("tool", "observation", "function", "function_call", "function_response", "tool_call", "tool_response")
)
_RENDERED = ("<|im_start|>", "<|start_header_id|>", "[INST]", "<start_of_turn>", "<|assistant|>")
"""Control words by which a text shows that a chat template has been applied to it."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What a sample of rows is taken for."""

    shape: Shape | None
    """None where no format is recognised; the evidence then says what the columns hold."""
    confidence: float
    """The share of the sample's rows that convert, from 0 to 1, lowered where another format is near."""
    evidence: tuple[str, ...]
    """Sentences with figures, clean for the terminal."""
    columns: tuple[str, ...]
    """All columns that were seen, clean, the most frequent first, at most MOST_COLUMNS."""
    others: dict[str, int] = field(default_factory=dict[str, int])
    """Rows that are of another format than the rest, by format."""


@dataclass(slots=True)
class _Sample:
    """The rows of a sample, sorted by what they hold."""

    records: list[Record]
    unreadable: int
    formats: list[FormatName | None]
    """Of each row, the format that its own columns and values speak for."""
    signatures: Counter[Signature]
    shapes: dict[Signature, tuple[Shape | None, bool]]
    """Of each signature, the shape that fits it, and whether by values and not by names alone."""

    def holding(self, column: str) -> Counter[str]:
        """Count what a known column holds over all rows."""
        counts: Counter[str] = Counter()
        for signature, rows in self.signatures.items():
            for kind in {kind for _, (each, kind) in signature if each == column}:
                counts[kind] += rows
        return counts


def shape_of(source: Source, data: Data) -> Detection:
    """Return what a sample of the source is taken for, with the recipe's format and columns.

    Raises TunewrightError when the source cannot be read, or the recipe names a format or a field that there is not.
    """
    from .reading import sample_records

    format: str = data.format
    formats: tuple[FormatName, ...] = (
        _FORMATS if format == "auto" else tuple(each for each in _FORMATS if each == format)
    )
    if not formats:
        raise TunewrightError(
            "Unknown format", f"{one_line(format, 60)} is no format of data.", f"Known are: {', '.join(_FORMATS)}."
        )
    for name in data.columns or {}:
        if not any(field_of(name, each) for each in formats):
            known = sorted({known for each in formats for known in FIELDS[each]})
            close = nearest(name, known)
            raise TunewrightError(
                "Unknown field",
                f"data.columns maps {quote(name)}, which is no field of {formats[0] if len(formats) == 1 else 'any format'}.",
                f"Did you mean {close}?" if close else f"Its fields are: {', '.join(known)}.",
            )
    return detect(sample_records(source), format, data.columns)


def detect(
    records: Sequence[Record | Fault], format: str = "auto", columns: Mapping[str, str] | None = None
) -> Detection:
    """Return what a sample of rows is taken for; faults among them are counted, and never does it raise.

    `format` and `columns` (our field → the file's column) override what the rows speak for.
    """
    mapped = dict(columns or {})
    wanted: FormatName | None = next((each for each in _FORMATS if each == format), None)
    sample = _sort(records, mapped, _allowed(mapped) if wanted is None else _FORMATS)
    seen = Counter(column for record in sample.records for column in record.value)
    names = tuple(one_line(column, 80) for column, _ in seen.most_common(MOST_COLUMNS))
    shape = _shape(sample, wanted, mapped)
    if shape is None:
        return Detection(None, 0.0, tuple(_describe_columns(sample, seen)), names)
    converted = 0
    first: Fault | None = None
    others: Counter[str] = Counter()
    for record, own in zip(sample.records, sample.formats, strict=True):
        result = convert(record, shape)
        if isinstance(result, Example):
            converted += 1
            continue
        first = first or result
        if result.code == "mixed_schema" and own is not None and own != shape.format:
            others[own] += 1
    rows = len(sample.records)
    near = _nearest(sample, shape) if wanted is None else None
    confidence = converted / rows if rows else 0.0
    evidence = [*_describe_shape(sample, shape, mapped)]
    if rows:
        evidence.append(f"{_of(converted, rows)} convert.")
    if first is not None:
        evidence.append(f"{str(first.place).capitalize()} does not: {one_line(first.problem, 200)}.")
    evidence += [f"{_rows(count)} of the format {other}." for other, count in others.most_common()]
    if near is not None:
        confidence *= _NEARNESS
        column, other = near
        evidence.append(f"{quote(column)} alone would speak for {other}; {shape.format} is more specific.")
    return Detection(shape, confidence, tuple(evidence), names, dict(others.most_common()))


def _allowed(mapped: Mapping[str, str]) -> tuple[FormatName, ...]:
    """Return the formats that have the fields which somebody mapped columns to; all where none has."""
    exact: tuple[FormatName, ...] = tuple(each for each in _FORMATS if all(name in FIELDS[each] for name in mapped))
    meant: tuple[FormatName, ...] = tuple(each for each in _FORMATS if all(field_of(name, each) for name in mapped))
    return exact or meant or _FORMATS


def _sort(records: Sequence[Record | Fault], mapped: Mapping[str, str], allowed: Sequence[FormatName]) -> _Sample:
    """Read what each row holds, and match every kind of row once."""
    rows = [record for record in records if isinstance(record, Record)]
    unreadable = sum(1 for each in records if isinstance(each, Fault) and each.code not in FILE_CODES)
    sample = _Sample(rows, unreadable, [], Counter(), {})
    for record in rows:
        cells = cells_of(record.value, mapped)
        signature: Signature = tuple(cells.items())
        sample.signatures[signature] += 1
        if signature not in sample.shapes:
            strict = match(cells, allowed)
            loose = match(cells, allowed, loose=True) if strict is None else None
            sample.shapes[signature] = strict or loose, strict is not None
        shape, strictly = sample.shapes[signature]
        sample.formats.append(shape.format if shape is not None and strictly else None)
    return sample


def _shape(sample: _Sample, wanted: FormatName | None, mapped: Mapping[str, str]) -> Shape | None:
    """Return the shape that most rows speak for, or that of the format `wanted`; the mapped columns go first."""
    votes: Counter[FormatName] = Counter()
    for signature, (shape, strictly) in sample.shapes.items():
        if shape is not None:
            votes[shape.format] += sample.signatures[signature] * (2 if strictly else 1)
    if wanted is not None:
        cells = _gather(sample, None)
        shape = match_format(cells, wanted) or match_format(cells, wanted, loose=True) or Shape(wanted, "", ())
    elif votes:
        winner = max(votes, key=lambda each: votes[each])
        cells = _gather(sample, winner)
        shape = match_format(cells, winner) or match_format(cells, winner, loose=True)
    else:
        return None
    if shape is None:
        return None
    columns = dict(shape.columns)
    for name, column in mapped.items():
        if known := field_of(name, shape.format):
            columns[known] = column
    if not (shape.format == "tools" and "query" in columns) and not (shape.format == "kto" and "messages" in columns):
        for known in REQUIRED[shape.format]:
            columns.setdefault(known, known)
    shape = Shape(shape.format, shape.dialect, tuple(columns.items()))
    if shape.format in ("messages", "sharegpt") and wanted is None and _count_tool_rows(sample, shape):
        return Shape("tools", "llama-factory" if shape.format == "sharegpt" else "openai", shape.columns)
    return shape


def _gather(sample: _Sample, format: FormatName | None) -> Cells:
    """Return for each known name what it holds most often in the rows of a format, null where it holds nothing."""
    counts: dict[str, Counter[tuple[str, str]]] = {}
    strictly = any(shape is not None and shape.format == format and strict for shape, strict in sample.shapes.values())
    for signature, rows in sample.signatures.items():
        shape, strict = sample.shapes[signature]
        if format is None or (shape is not None and shape.format == format and strict >= strictly):
            for name, cell in signature:
                counts.setdefault(name, Counter())[cell] += rows
    return {name: max(cells, key=lambda cell, of=cells: (cell[1] != NULL, of[cell])) for name, cells in counts.items()}


def _nearest(sample: _Sample, shape: Shape) -> tuple[str, FormatName] | None:
    """Return a column and the format that it speaks for, where rows hold all of another format beside this one."""
    family = _CONVERSATIONS if shape.format in _CONVERSATIONS else {shape.format}
    ours = {column for _, column in shape.columns}
    cells = _gather(sample, None)
    for name in _FORMATS:
        if name in family or name == "text":
            continue
        other = match_format(cells, name)
        if other is None:
            continue
        theirs = [column for field, column in other.columns if field in (*REQUIRED[name], "query", "answers")]
        if ours.isdisjoint(theirs) and any(
            _holds_both(signature, ours, set(theirs)) for signature in sample.signatures
        ):
            return theirs[0], name
    return None


def _holds_both(signature: Signature, ours: set[str], theirs: set[str]) -> bool:
    held = {column for _, (column, kind) in signature if kind != NULL}
    return theirs <= held and bool(ours & held)


def _count_tool_rows(sample: _Sample, shape: Shape) -> int:
    """Count the rows that declare tools or call them."""
    columns = dict(shape.columns)
    turns, tools = columns["messages"], columns.get("tools")
    return sum(
        (tools is not None and record.value.get(tools) not in (None, "", "[]", []))
        or _calls_tools(record.value.get(turns))
        for record in sample.records
    )


def _calls_tools(turns: Any) -> bool:
    if isinstance(turns, str):
        turns = parse_turns(turns)
    if not isinstance(turns, list):
        return False
    for turn in cast("list[Any]", turns):
        if isinstance(turn, dict):
            fields = cast("dict[str, Any]", turn)
            role = fields.get("role", fields.get("from"))
            if (
                fields.get("tool_calls")
                or fields.get("function_call")
                or (isinstance(role, str) and role in _TOOL_ROLES)
            ):
                return True
    return False


def _describe_shape(sample: _Sample, shape: Shape, mapped: Mapping[str, str]) -> list[str]:
    """Return the sentences that speak for a shape."""
    rows = len(sample.records)
    if not rows:
        return ["The sample holds no rows that could be read."]
    sentences: list[str] = []
    for known, column in shape.columns:
        held = sample.holding(column)
        kinds = [(kind, count) for kind, count in held.most_common() if kind != NULL]
        if not kinds:
            if known in REQUIRED[shape.format] or column in mapped.values():
                where = "null in every row" if held else "in no row"
                sentences.append(f"{quote(column)}, the {known}, is {where}.")
            continue
        kind, count = kinds[0]
        sentences.append(f"{quote(column)} holds {kind} in {_of(count, rows)}.")
        if known == "label" and kind in (BINARY, FLAG_TEXT):
            sentences.append(f"{quote(column)} is read as true or false.")
        if kind in (ROLE_TURNS, FROM_TURNS) and any(isinstance(each.value.get(column), str) for each in sample.records):
            sentences.append(f"{quote(column)} holds its turns as JSON text, which is read.")
    columns = dict(shape.columns)
    if shape.format == "tools" and "messages" in columns:
        sentences.append(f"{_of(_count_tool_rows(sample, shape), rows)} declare or call tools.")
    if shape.format == "preference" and "prompt" not in columns:
        sentences.append("There is no column of prompts: the prompt is what chosen and rejected begin with.")
    if shape.format == "text":
        texts = [text for each in sample.records if isinstance(text := each.value.get(columns["text"]), str)]
        if marked := sum(any(word in text for word in _RENDERED) for text in texts):
            sentences.append(f"{_of(marked, rows)} hold control words of a chat template: they were rendered before.")
    if sample.unreadable:
        sentences.append(f"{_rows(sample.unreadable)} not readable.")
    return sentences


def _describe_columns(sample: _Sample, seen: Counter[str]) -> list[str]:
    """Return what each column holds, so that a person can map them."""
    rows = len(sample.records)
    if not rows:
        return ["The sample holds no rows that could be read."]
    sentences = ["No format that is known has these columns; name the format, and map its columns."]
    for column, count in seen.most_common(_MOST_SENTENCES):
        values = [record.value[column] for record in sample.records if record.value.get(column) is not None]
        if not values:
            sentences.append(f"{quote(column)} is null in {_of(count, rows)}.")
            continue
        ((kind, most),) = Counter(kind_of(value) for value in values).most_common(1)
        sentence = f"{quote(column)} holds {kind} in {_of(most, rows)}"
        if kind == TEXT:
            lengths = [len(value) for value in values if isinstance(value, str)]
            sentence += f", {round(sum(lengths) / len(lengths)):,} characters on average"
        elif kind in (ROLE_TURNS, FROM_TURNS):
            sentence += f": data.columns = {{ messages = {quote(column)} }} would read it"
        sentences.append(sentence + ".")
    if {"role", "content"} <= seen.keys() or {"from", "value"} <= seen.keys():
        sentences.append("Each row is a single turn; a row has to hold a whole conversation.")
    return sentences


def _of(count: int, rows: int) -> str:
    return f"{count:,} of {rows:,} rows"


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count:,} rows are"
