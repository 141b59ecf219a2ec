"""Fixes: what an audit found is mended in a new file; the source stays as it is.

Rows are written in the plain shape that TRL documents, whatever shape they came in: turns as messages, a prompt and its
answer as lists of turns, judged answers likewise. Columns that the format does not read stand beside them as they were.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ...foundation.errors import TunewrightError
from ...recipes.model import Data
from ..sources import find_model
from .auditing.checks import check, check_text
from .auditing.contents import row_parts, whole_text
from .auditing.encodings import mend_encoding
from .auditing.examination import special_words
from .auditing.measurement import RowMeter
from .auditing.patterns import redact
from .auditing.similarity import exact_hash
from .examples import Conversation, Example, Fault, Message, Record
from .findings import CATALOGUE
from .formats import convert
from .preparing import require_shape
from .reading import open_source, read_batches
from .reading.batches import parse_batch
from .rendering import Renderer
from .statistics import FixReport, Progress
from .templates import read_special_tokens
from .writing import new_rows_file

SHOWN_FAULTS = 20
PROGRESS_SECONDS = 0.3
RENDERED_CODES = frozenset({"template_refused", "row_not_trained"})
"""Findings that show only when a row is rendered."""
_ESCAPES = re.compile("\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]?")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BEGIN_WORDS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>")

Mend = Callable[[Example], Example]


def write_fixed(
    source: str,
    data: Data,
    codes: Sequence[str],
    target: Path,
    model: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> FixReport:
    """Write the rows of `source` to the new file `target` with the findings `codes` mended; raises TunewrightError.

    Rows that cannot be read are left out, and named in the report. A target that ends in .gz is compressed. The model is
    needed where a finding is about its template or its tokens.
    """
    for code in codes:
        if code not in CATALOGUE or CATALOGUE[code].fix is None:
            raise TunewrightError(
                "Nothing safe to mend",
                f"{code!r} is no finding that can be mended by itself.",
                "Mend these rows by hand, in their source.",
            )
    opened = open_source(source, data.split)
    shape = require_shape(opened, data)
    folder = find_model(model) if model else None
    mender = _Mender(codes, data, folder)
    read_columns = {column for _, column in shape.columns}
    faults: list[Fault] = []
    read = written = 0
    started = told = time.monotonic()
    with new_rows_file(target) as write:
        for batch in read_batches(opened):
            faults += batch.faults
            for record in parse_batch(batch):
                read += 1
                example = record if isinstance(record, Fault) else convert(record, shape)
                if isinstance(example, Fault):
                    if example.code in codes:
                        mender.changed[example.code] += 1
                    elif len(faults) < SHOWN_FAULTS:
                        faults.append(example)
                    continue
                mended = mender.mend(example)
                if mended is not None and isinstance(record, Record):
                    row = plain_row(mended)
                    write({**{key: value for key, value in record.value.items() if key not in read_columns}, **row})
                    written += 1
            now = time.monotonic()
            if on_progress is not None and now - told >= PROGRESS_SECONDS:
                on_progress(Progress(batch.read_bytes, opened.total_bytes, read, now - started))
                told = now
    return FixReport(read, written, {code: mender.changed[code] for code in codes}, tuple(faults))


class _Mender:
    """Mends one row after the other, and counts what it changed."""

    def __init__(self, codes: Sequence[str], data: Data, model: Path | None) -> None:
        self.changed: Counter[str] = Counter()
        self._dropped = {code for code in codes if CATALOGUE[code].fix == "drop rows"}
        self._drops_duplicates = "duplicates" in codes
        self._seen: set[int] = set()
        renderer = Renderer(model, data) if model is not None or self._dropped & RENDERED_CODES else None
        self._special = special_words(renderer) if renderer is not None else {}
        self._meter = RowMeter(renderer, data) if renderer is not None and self._dropped & RENDERED_CODES else None
        begin = read_special_tokens(model).get("bos_token") if model is not None else None
        begins = (*_BEGIN_WORDS, begin) if begin else _BEGIN_WORDS
        # In this order, so that a mended text is seen by what comes after.
        mends: dict[str, Mend] = {
            "broken_encoding": lambda example: change_texts(example, mend_encoding),
            "control_characters": lambda example: change_texts(example, remove_controls),
            "bos_doubled": lambda example: remove_begin(example, begins),
            "roles_out_of_order": merge_turns,
            "no_last_answer": cut_after_last_answer,
            "secrets": lambda example: change_texts(example, lambda text: redact(text, "secrets")),
            "personal_data": lambda example: change_texts(example, lambda text: redact(text, "personal_data")),
        }
        self._mends = {code: mend for code, mend in mends.items() if code in codes}

    def mend(self, example: Example) -> Example | None:
        """Return the row with what is wrong with it mended, None where it is left out."""
        for code, mend in self._mends.items():
            mended = mend(example)
            self.changed[code] += mended != example
            example = mended
        if self._dropped:
            wrong = self._dropped & set(self._codes(example))
            if wrong:
                self.changed.update(wrong)
                return None
        if self._drops_duplicates:
            known = exact_hash(row_parts(example))
            if known in self._seen:
                self.changed["duplicates"] += 1
                return None
            self._seen.add(known)
        return example

    def _codes(self, example: Example) -> list[str]:
        found = check(example) + check_text(example, whole_text(example), self._special)
        if self._meter is not None:
            found += self._meter.check(example)
        return [code for code, _ in found]


def change_texts(example: Example, change: Callable[[str], str]) -> Example:
    """Return an example with every text changed."""
    if example.kind == "text":
        return replace(example, text=change(example.text))

    def changed(message: Message) -> Message:
        calls = tuple(replace(each, arguments=_change_value(each.arguments, change)) for each in message.tool_calls)
        thinking = message.thinking and change(message.thinking)
        return replace(message, content=change(message.content), thinking=thinking, tool_calls=calls)

    messages, rejected = (tuple(map(changed, turns)) for turns in (example.messages, example.rejected))
    return replace(example, messages=messages, rejected=rejected)


def _change_value(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _change_value(each, change) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_change_value(each, change) for each in cast("list[Any]", value)]
    return value


def remove_controls(text: str) -> str:
    """Return `text` without terminal escapes, control characters and marks that reorder it."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def remove_begin(example: Example, begins: Collection[str]) -> Example:
    """Return an example whose first text does not begin with a begin token, which the template adds."""

    def without(text: str) -> str:
        for begin in begins:
            while text.lstrip().startswith(begin):
                text = text.lstrip()[len(begin) :]
        return text

    if example.kind == "text":
        return replace(example, text=without(example.text))
    first, *others = example.messages
    return replace(example, messages=(replace(first, content=without(first.content)), *others))


def merge_turns(example: Example) -> Example:
    """Return an example whose neighbouring turns of one role are one turn, a blank line between their texts."""
    prompt = _merge(example.messages[: example.prompt_turns])
    rest = _merge(example.messages[example.prompt_turns :])
    return replace(example, messages=prompt + rest, prompt_turns=len(prompt), rejected=_merge(example.rejected))


def _merge(messages: Conversation) -> Conversation:
    merged: list[Message] = []
    for message in messages:
        before = merged[-1] if merged else None
        if before is None or message.role == "tool" or before.role != message.role or before.tool_calls:
            merged.append(message)
            continue
        thinking = "\n\n".join(each for each in (before.thinking, message.thinking) if each) or None
        content = "\n\n".join(each for each in (before.content, message.content) if each)
        merged[-1] = replace(message, content=content, thinking=thinking)
    return tuple(merged)


def cut_after_last_answer(example: Example) -> Example:
    """Return an example that ends with its last answer."""
    messages = example.messages
    end = len(messages)
    while end > example.prompt_turns and messages[end - 1].role != "assistant":
        end -= 1
    return replace(example, messages=messages[:end]) if end > example.prompt_turns else example


def plain_row(example: Example) -> dict[str, Any]:
    """Return an example in the plain shape of TRL's documentation."""
    if example.kind == "text":
        return {"text": example.text}
    turns = [_plain_turn(each) for each in example.messages]
    prompt, answer = turns[: example.prompt_turns], turns[example.prompt_turns :]
    row: dict[str, Any]
    if example.kind == "preference":
        row = {"prompt": prompt, "chosen": answer, "rejected": [_plain_turn(each) for each in example.rejected]}
    elif example.kind == "kto":
        row = {"prompt": prompt, "completion": answer, "label": example.label}
    elif example.prompt_turns:
        row = {"prompt": prompt, "completion": answer}
    else:
        row = {"messages": turns}
    if example.tools:
        row["tools"] = list(example.tools)
    return row


def _plain_turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking is not None:
        turn["thinking"] = message.thinking
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({"id": call.id} if call.id is not None else {})
            for call in message.tool_calls
        ]
    if message.name is not None:
        turn["name"] = message.name
    if message.call_id is not None:
        turn["tool_call_id"] = message.call_id
    if message.learned is not None:
        turn["weight"] = int(message.learned)
    return turn
