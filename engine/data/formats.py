"""Formats: one row of any known shape, converted to the one that everything else works with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

from ...foundation.text import one_line
from .examples import Example, Fault, Message, Record
from .shapes.conversations import Keys, read_said, read_turns, require_answer
from .shapes.fields import FIELDS, REQUIRED, Shape, Unfit, cells_of, describe, match, parse_turns, quote
from .shapes.judged import optional_text, read_marked, read_preference, require, require_text, tools_of, with_system
from .shapes.tool_calls import drop_padding, read_calls, read_tools

__all__ = ["FIELDS", "Shape", "convert", "notes"]

Row = Mapping[str, Any]
Read = Callable[[Row], Example]

_NESTED = ("messages", "prompt", "completion", "chosen", "rejected", "history")
"""The fields that may hold turns, and so JSON text of turns."""
_MEDIA = ("images", "videos", "audios")


def convert(record: Record, shape: Shape) -> Example | Fault:
    """Return the example that a row is, read as `shape`, or what is wrong with it; never raises."""
    try:
        return _reader(shape)(record.value)
    except Unfit as unfit:
        code, problem = unfit.code, unfit.problem
        if unfit.column is not None and (other := _other_format(record.value, shape, unfit.column)):
            code, problem = "mixed_schema", other
    except RecursionError:
        code, problem = "nested_too_deeply", "nested too deeply"
    return Fault(record.place, code, one_line(problem, 300))


def notes(record: Record, shape: Shape) -> tuple[str, ...]:
    """Return the codes of what conversion made good in a row that is no fault of it: `nested_json`."""
    row = record.value
    for column in _nested_columns(shape):
        value = row.get(column)
        if type(value) is str and value[:1] in ("[", "{", " ", "\n") and parse_turns(value) is not None:
            return ("nested_json",)
    return ()


@lru_cache(maxsize=64)
def _nested_columns(shape: Shape) -> tuple[str, ...]:
    return tuple(column for field, column in shape.columns if field in _NESTED)


@lru_cache(maxsize=64)
def _reader(shape: Shape) -> Read:
    """Return the function that reads rows of a shape; fields that are required and not mapped have their own names."""
    columns = dict(shape.columns)
    if shape.format == "kto":
        if "messages" not in columns:
            columns.setdefault("completion", "completion")
        columns.setdefault("label", "label")
        return lambda row: read_marked(row, columns)
    called = shape.format == "tools" and "messages" not in columns and {"query", "answers"} <= columns.keys()
    if called:
        return lambda row: _read_called(row, columns)
    for field in REQUIRED[shape.format]:
        columns.setdefault(field, field)
    if shape.format in ("messages", "sharegpt", "tools"):
        return _conversation_reader(
            columns, cast("Keys", {"messages": "role", "sharegpt": "from"}.get(shape.format, "any"))
        )
    reads: dict[str, Callable[[Row, Mapping[str, str]], Example]] = {
        "preference": read_preference,
        "alpaca": _read_alpaca,
        "prompt-completion": _read_pair,
        "text": _read_text,
    }
    read = reads[shape.format]
    return lambda row: read(row, columns)


def _conversation_reader(columns: Mapping[str, str], keys: Keys) -> Read:
    column = columns["messages"]
    beside = "system" in columns or "tools" in columns

    def read(row: Row) -> Example:
        value = row.get(column)
        if value is None:
            require(row, column)
        messages = read_turns(value, column, keys)
        for media in _MEDIA:
            if row.get(media):
                raise Unfit("not_supported_content", f"{quote(media)} beside the turns")
        require_answer(messages, column)
        if not beside:
            return Example("conversation", tuple(messages))
        tools = tools_of(row, columns)
        return Example("conversation", drop_padding(with_system(row, columns, messages), tools), tools=tools)

    return read


def _read_called(row: Row, columns: Mapping[str, str]) -> Example:
    """Read a query and the calls that answer it, as xLAM writes them: JSON texts, or lists."""
    query = require_text(row, columns["query"])
    column = columns["answers"]
    tools = read_tools(row.get(columns.get("tools", "tools")), columns.get("tools", "tools"))
    calls = read_calls(require(row, column), quote(column))
    prompt = with_system(row, columns, [Message("user", query)])
    answer = Message("assistant", "", tool_calls=calls)
    return Example("conversation", drop_padding((*prompt, answer), tools), len(prompt), tools=tools)


def _read_alpaca(row: Row, columns: Mapping[str, str]) -> Example:
    instruction = require_text(row, columns["instruction"])
    column = columns["output"]
    output = row.get(column)
    if not isinstance(output, str):
        output = require(row, column)
        if not isinstance(output, dict | list):
            raise Unfit("not_text", f"{quote(column)} is {describe(output)}, not text")
        output = json.dumps(output, ensure_ascii=False, default=str)
    extra = optional_text(row, columns, "input") if "input" in columns else ""
    question = Message("user", f"{instruction}\n\n{extra}" if extra and not extra.isspace() else instruction)
    messages = [*_read_history(row, columns["history"]), question] if "history" in columns else [question]
    messages = with_system(row, columns, messages)
    return Example("conversation", (*messages, Message("assistant", output)), len(messages))


def _read_history(row: Row, column: str) -> list[Message]:
    """Return the turns of LLaMA-Factory's history: pairs of an instruction and its answer."""
    history: Any = row.get(column)
    if history is None or history == "":
        return []
    if isinstance(history, str):
        try:
            history = json.loads(history)
        except ValueError:
            raise Unfit("bad_turn", f"{quote(column)} is text, not a list of pairs") from None
    if not isinstance(history, list):
        raise Unfit("bad_turn", f"{quote(column)} is {describe(row.get(column))}, not a list of pairs")
    messages: list[Message] = []
    for number, pair in enumerate(cast("list[Any]", history), start=1):
        said = cast("list[Any]", pair) if isinstance(pair, list) else []
        if len(said) != 2:
            raise Unfit(
                "bad_turn", f"pair {number} of {quote(column)} is {describe(cast('object', pair))}, not two texts"
            )
        for role, text in zip(("user", "assistant"), said, strict=True):
            if not isinstance(text, str):
                code = "missing_field" if text is None else "not_text"
                raise Unfit(code, f"pair {number} of {quote(column)} holds {describe(text)}, not text")
            messages.append(Message(role, text))
    return messages


def _read_pair(row: Row, columns: Mapping[str, str]) -> Example:
    prompt_column, column = columns["prompt"], columns["completion"]
    prompt = with_system(row, columns, read_said(require(row, prompt_column), "user", prompt_column))
    completion = read_said(require(row, column), "assistant", column)
    require_answer(completion, column)
    tools = tools_of(row, columns)
    return Example("conversation", drop_padding((*prompt, *completion), tools), len(prompt), tools=tools)


def _read_text(row: Row, columns: Mapping[str, str]) -> Example:
    return Example("text", text=require_text(row, columns["text"]))


def _other_format(row: Row, shape: Shape, missing: str) -> str | None:
    """Say of which other format a row is that lacks a column; None where it is only incomplete."""
    columns = dict(shape.columns)
    other = match(cells_of(row))
    theirs = {column for _, column in other.columns} if other else set[str]()
    if other is None or theirs <= set(columns.values()):
        return None
    ours = [columns[field] for field in REQUIRED[shape.format] if field in columns]
    if missing in row and any(row.get(column) is not None for column in ours):
        return None
    required = [column for field, column in other.columns if field in REQUIRED[other.format]]
    held = ", ".join(quote(column) for column in required or sorted(theirs))
    return f"no {quote(missing)}, but {held}: that is {other.format}, not {shape.format}"
