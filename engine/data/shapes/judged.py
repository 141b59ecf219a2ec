"""Judged answers: pairs of a better and a worse one, and single ones marked good or bad."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..examples import Example, Message
from .conversations import read_said, read_turns, require_answer
from .fields import Unfit, describe, list_keys, quote
from .tool_calls import drop_padding, read_tools

_TALK = re.compile(r"\n\n(Human|Assistant):[ \t]?")
"""How HH-RLHF and its kin write a conversation as one text."""
_WORD_END = re.compile(r"\s(?=\S*$)")
_LABELS: dict[object, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


def read_preference(row: Mapping[str, Any], columns: Mapping[str, str]) -> Example:
    """Return the example of a better and a worse answer; raises Unfit.

    The prompt is a column of its own, or else what both answers begin with.
    """
    better_column, worse_column = columns["chosen"], columns["rejected"]
    chosen, rejected = require(row, better_column), require(row, worse_column)
    prompt = _read_prompt(row, columns)
    texts = isinstance(chosen, str) and isinstance(rejected, str)
    if texts and _TALK.match(chosen) and _TALK.match(rejected):
        better, worse = _split_talk(chosen), _split_talk(rejected)
    else:
        better, worse = read_said(chosen, "assistant", better_column), read_said(rejected, "assistant", worse_column)
        if texts and not prompt and len(better) == len(worse) == 1:
            better, worse = _split_texts(chosen, rejected)
    prompt, better, worse = _part(prompt, better, worse)
    require_answer(better, better_column)
    require_answer(worse, worse_column)
    prompt = with_system(row, columns, prompt)
    tools = tools_of(row, columns)
    messages = drop_padding((*prompt, *better), tools)
    return Example("preference", messages, len(prompt), tools=tools, rejected=drop_padding(worse, tools))


def read_marked(row: Mapping[str, Any], columns: Mapping[str, str]) -> Example:
    """Return the example of an answer that is marked good or bad; raises Unfit."""
    label = _read_label(row, columns["label"])
    if "completion" in columns:
        column = columns["completion"]
        answer = read_said(require(row, column), "assistant", column)
        prompt = _read_prompt(row, columns)
    else:
        column = columns["messages"]
        answer, prompt = read_turns(require(row, column), column), []
    require_answer(answer, column)
    if not prompt:
        prompt, answer = _split_last(answer)
        if not prompt:
            missing = columns.get("prompt", "prompt")
            raise Unfit(
                "missing_field", f"{quote(missing)} is missing, and the answer has no prompt before it", missing
            )
    prompt = with_system(row, columns, prompt)
    tools = tools_of(row, columns)
    return Example("kto", drop_padding((*prompt, *answer), tools), len(prompt), tools=tools, label=label)


def require(row: Mapping[str, Any], column: str) -> Any:
    """Return what a column holds; raises Unfit where it is missing or null."""
    value = row.get(column)
    if value is not None:
        return value
    problem = f"{quote(column)} is null" if column in row else f"no {quote(column)}; its keys are: {list_keys(row)}"
    raise Unfit("missing_field", problem, column)


def require_text(row: Mapping[str, Any], column: str) -> str:
    """Return the text of a column; raises Unfit where it is missing or not text."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    raise Unfit("not_text", f"{quote(column)} is {describe(require(row, column))}, not text")


def optional_text(row: Mapping[str, Any], columns: Mapping[str, str], field: str) -> str:
    """Return the text of a field, empty where the row has none; raises Unfit where it is not text."""
    column = columns.get(field)
    value = None if column is None else row.get(column)
    if value is None or isinstance(value, str):
        return value or ""
    raise Unfit("not_text", f"{quote(column)} is {describe(value)}, not text")


def with_system(row: Mapping[str, Any], columns: Mapping[str, str], messages: list[Message]) -> list[Message]:
    """Return the messages after the row's own system prompt, unless they begin with one."""
    if "system" not in columns:
        return messages
    system = optional_text(row, columns, "system")
    if not system.strip() or (messages and messages[0].role == "system"):
        return messages
    return [Message("system", system), *messages]


def tools_of(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """Return the tools that a row declares, in their own column or with the request; raises Unfit."""
    column = columns.get("tools")
    if column is not None:
        return read_tools(row.get(column), column)
    request: Any = row.get(columns["prompt"]) if "prompt" in columns else None
    return read_tools(cast("dict[str, Any]", request).get("tools")) if type(request) is dict else ()


def _read_prompt(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Message]:
    """Return the turns of the prompt's column, none where the row has none."""
    column = columns.get("prompt")
    value = None if column is None else row.get(column)
    if column is None or value is None:
        return []
    if isinstance(value, str):
        if _TALK.match(value):
            turns = _split_talk(value)
            # It often ends with the name of who is to speak next.
            return turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content else turns
        extra = optional_text(row, columns, "input")
        return read_said(f"{value}\n\n{extra}" if extra.strip() else value, "user", column)
    return read_said(value, "user", column)


def _read_label(row: Mapping[str, Any], column: str) -> bool:
    value = require(row, column)
    known = isinstance(value, bool | int | float | str)
    label = _LABELS.get(value.strip().lower() if isinstance(value, str) else value) if known else None
    if label is None:
        shown = quote(value) if isinstance(value, str) else describe(value)
        raise Unfit("bad_label", f"{quote(column)} is {shown}, not true or false")
    return label


def _split_talk(text: str) -> list[Message]:
    """Return the turns of a text that begins with one of HH-RLHF's names."""
    parts = _TALK.split(text)[1:]
    return [
        Message("user" if name == "Human" else "assistant", said.strip())
        for name, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _split_texts(chosen: str, rejected: str) -> tuple[list[Message], list[Message]]:
    """Split two texts where they part, at the end of a word, as TRL does with an implicit prompt; raises Unfit."""
    low, high = 0, min(len(chosen), len(rejected))
    while low < high:  # the longest shared beginning, by halving
        middle = (low + high + 1) // 2
        low, high = (middle, high) if chosen[:middle] == rejected[:middle] else (low, middle - 1)
    end = _WORD_END.search(chosen[:low])
    prompt = chosen[: end.start()] if end else ""
    if not prompt.strip():
        raise Unfit("prompts_differ", "there is no prompt, and chosen and rejected begin differently")
    start = len(prompt)
    user = Message("user", prompt)
    return [user, Message("assistant", chosen[start:])], [user, Message("assistant", rejected[start:])]


def _part(
    prompt: list[Message], better: list[Message], worse: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Return the prompt and both answers without it; raises Unfit where they do not answer the same prompt."""
    if prompt:
        count = len(prompt)
        if min(len(better), len(worse)) > count and better[:count] == prompt and worse[:count] == prompt:
            return prompt, better[count:], worse[count:]
        if better[0].role == "assistant" and worse[0].role == "assistant":
            return prompt, better, worse
    shared = _count_shared(better, worse)
    if shared == 0:
        raise Unfit("prompts_differ", "chosen and rejected do not begin with the same turns")
    return better[:shared], better[shared:], worse[shared:]


def _count_shared(better: Sequence[Message], worse: Sequence[Message]) -> int:
    """Count the turns that both begin with and after which both answer."""
    most = min(len(better), len(worse)) - 1
    count = 0
    while count < most and better[count] == worse[count]:
        count += 1
    while count and not (better[count].role == "assistant" == worse[count].role):
        count -= 1
    return count


def _split_last(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Return the turns before the last answer, and it with what follows."""
    last = max(index for index, message in enumerate(messages) if message.role == "assistant")
    return messages[:last], messages[last:]
