"""Conversations: lists of turns, whatever they call the speaker and what was said, read into messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, cast

from ..examples import Message
from .fields import Unfit, describe, list_keys, parse_turns, quote
from .tool_calls import read_calls

Keys = Literal["role", "from", "any"]
"""What a turn calls its speaker: `role` as OpenAI does, `from` as ShareGPT does, or either."""

SPEAKERS: dict[str, str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "ai", "claude", "llm"), "assistant"),
    **dict.fromkeys(
        ("tool", "observation", "function", "function_response", "function-response", "tool_response", "tool_result",
         "tool_results", "ipython"),
        "tool",
    ),
}  # fmt: skip
"""Role names in the wild, and ours."""
_CALLERS = frozenset({"function_call", "function-call", "tool_call", "tool_calls"})
_ROLE_KEYS = ("role", "from", "sender", "speaker")
_CONTENT_KEYS = ("content", "value", "text", "message", "parts")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", None})


def read_turns(value: object, column: str, keys: Keys = "any", where: str = "") -> list[Message]:
    """Return the messages of a list of turns, or of its JSON text; raises Unfit.

    `where` stands before the number of a turn that is at fault.
    """
    turns = cast("list[Any]", value) if type(value) is list else _as_list(value, column)
    if not turns:
        raise Unfit("no_turns", f"{quote(column)} has no turns")
    like_sharegpt = keys == "from" or (keys == "any" and type(turns[0]) is dict and "from" in turns[0])
    role_key, content_key = ("from", "value") if like_sharegpt else ("role", "content")
    messages: list[Message] = []
    for turn in turns:
        # Nearly all turns hold these two keys and no others.
        if type(turn) is dict and len(cast("dict[str, Any]", turn)) == 2:
            said: Any = cast("dict[str, Any]", turn).get(content_key)
            role: Any = cast("dict[str, Any]", turn).get(role_key)
            if type(said) is str and type(role) is str and (known := SPEAKERS.get(role)) is not None:
                messages.append(Message(known, said))
                continue
        messages.append(_read_turn(turn, f"{where}turn {len(messages) + 1}", keys))
    return messages


def require_answer(messages: Iterable[Message], column: str) -> None:
    """Raise Unfit when no turn is the assistant's."""
    for message in messages:
        if message.role == "assistant":
            return
    raise Unfit("no_answer", f"{quote(column)} has no turn of the assistant")


def _as_list(value: object, column: str) -> list[Any]:
    """Return turns that are not a list as one: JSON text, one object, or lists of roles and of contents."""
    if isinstance(value, str):
        return _parse_list(value, column)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        lists = {key: cast("list[Any]", each) for key, each in fields.items() if isinstance(each, list)}
        if lists and not lists.keys().isdisjoint(_ROLE_KEYS):
            if len({len(each) for each in lists.values()}) > 1:
                raise Unfit("bad_turn", f"{quote(column)} holds lists of different lengths")
            return [dict(zip(lists, each, strict=True)) for each in zip(*lists.values(), strict=True)]
    raise Unfit("bad_turn", f"{quote(column)} is {describe(cast('object', value))}, not a list of turns")


def _parse_list(text: str, column: str) -> list[Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise Unfit("nested_too_deeply", f"{quote(column)} is JSON text that is nested too deeply") from None
    except ValueError:
        python = text[:64].lstrip().startswith(("[{'", "{'"))
        why = "lists as Python prints them, not JSON" if python else "text, not a list of turns"
        raise Unfit("bad_turn", f"{quote(column)} holds {why}") from None
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise Unfit("bad_turn", f"{quote(column)} is JSON text of {describe(value)}, not of a list of turns")


def _first_key(turn: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of `names` that holds something, or else the first that is there."""
    present = [name for name in names if name in turn]
    return next((name for name in present if turn[name] is not None), present[0] if present else None)


def _read_turn(turn: Any, where: str, keys: Keys) -> Message:
    if not isinstance(turn, dict):
        raise Unfit("bad_turn", f"{where} is {describe(turn)}, not an object with a role and a content")
    fields = cast("dict[str, Any]", turn)
    role_key = "role" if fields.get("role") is not None else _first_key(fields, _ROLE_KEYS)
    content_key = "content" if fields.get("content") is not None else _first_key(fields, _CONTENT_KEYS)
    if (keys, role_key, content_key) == ("role", "from", "value"):
        raise Unfit("mixed_schema", f"{where} has the keys from and value: that is sharegpt, not messages")
    if (keys, role_key, content_key) == ("from", "role", "content"):
        raise Unfit("mixed_schema", f"{where} has the keys role and content: that is messages, not sharegpt")
    if role_key is None:
        raise Unfit("bad_turn", f"{where} has no role; its keys are: {list_keys(fields)}")
    speaker = fields[role_key]
    if speaker is None:
        raise Unfit("missing_field", f"{where} has a {role_key} that is null")
    if not isinstance(speaker, str):
        raise Unfit("not_text", f"{where} has a {role_key} that is {describe(speaker)}, not text")
    name = speaker if speaker in SPEAKERS else speaker[:64].strip().lower()
    content = None if content_key is None else fields[content_key]
    if name in _CALLERS:
        return _read_caller(fields, content, content_key or "content", where)
    role = SPEAKERS.get(name)
    if role is None:
        raise Unfit("unknown_role", f"{where} has the role {quote(speaker)}")
    calls = fields.get("tool_calls") or fields.get("function_call")
    tool_calls = read_calls(calls, where) if calls else ()
    thinking = _read_thinking(fields, where)
    if isinstance(content, str):
        text = content
    elif content is None:
        if not tool_calls or role != "assistant":
            problem = "no content" if content_key is None else f"a {content_key} that is null"
            raise Unfit("missing_field", f"{where} has {problem}")
        text = ""
    else:
        text, thought = _read_content(content, role, content_key or "content", where)
        thinking = thought if thinking is None else thinking
    call_id, named = fields.get("tool_call_id"), fields.get("name")
    return Message(
        role,
        text,
        thinking,
        tool_calls,
        named if isinstance(named, str) else None,
        call_id if isinstance(call_id, str) else None,
        _read_learned(fields),
    )


def _read_caller(fields: dict[str, Any], content: Any, key: str, where: str) -> Message:
    """Read a turn whose role says that its content is a call, as LLaMA-Factory writes them."""
    if content is None:
        content = fields.get("tool_calls")
    if content is None:
        raise Unfit("missing_field", f"{where} has a {key} that is null")
    calls = read_calls(content, where)
    if not calls:
        raise Unfit("bad_tools", f"{where} is a call of no tool")
    return Message("assistant", "", _read_thinking(fields, where), calls, learned=_read_learned(fields))


def _read_thinking(fields: dict[str, Any], where: str) -> str | None:
    for key in ("thinking", "reasoning_content", "reasoning"):
        value = fields.get(key)
        if isinstance(value, str):
            return value
        if value is not None and key != "reasoning":
            raise Unfit("not_text", f"{where} has a {key} that is {describe(value)}, not text")
    return None


def _read_learned(fields: dict[str, Any]) -> bool | None:
    for key in ("weight", "train", "training"):
        value = fields.get(key)
        if isinstance(value, bool | int | float):
            return bool(value)
    return None


def _read_content(content: Any, role: str, key: str, where: str) -> tuple[str, str | None]:
    """Return the text of a content that is not text, and the thinking in it; raises Unfit."""
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        if all(
            isinstance(part, str) or (isinstance(part, dict) and ("type" in part or "text" in part)) for part in parts
        ):
            return _join_parts(parts, where)
    if role == "tool" and isinstance(content, list | dict):
        return json.dumps(content, ensure_ascii=False, default=str), None
    if isinstance(content, dict) and isinstance(cast("dict[str, Any]", content).get("type"), str):
        return _join_parts([content], where)
    raise Unfit("not_text", f"{where} has a {key} that is {describe(cast('object', content))}, not text")


def _join_parts(parts: list[Any], where: str) -> tuple[str, str | None]:
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        fields = cast("dict[str, Any]", part)
        kind = fields.get("type")
        if kind == "thinking" and isinstance(fields.get("thinking"), str):
            thoughts.append(fields["thinking"])
            continue
        if kind is not None and (not isinstance(kind, str) or kind not in _TEXT_PARTS):
            raise Unfit("not_supported_content", f"{where} has a part of the type {quote(kind)}")
        text = fields.get("text")
        if not isinstance(text, str):
            code = "missing_field" if text is None else "not_text"
            raise Unfit(code, f"{where} has a part whose text is {describe(text)}")
        texts.append(text)
    return "".join(texts), "".join(thoughts) if thoughts else None


def read_said(value: object, role: str, column: str) -> list[Message]:
    """Return what a column holds as messages: a text is one of `role`, turns are read as such; raises Unfit."""
    if type(value) is str:
        turns = parse_turns(value) if value[:1] in ("[", " ", "\n", "\t", "\r") else None
        return [Message(role, value)] if turns is None else read_turns(turns, column, where=f"{quote(column)}, ")
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        if isinstance(fields.get("messages"), list):
            return read_turns(fields["messages"], column, where=f"{quote(column)}, ")
        if not any(isinstance(fields.get(key), list) for key in _ROLE_KEYS):
            return read_turns([fields], column, where=f"{quote(column)}, ")
    if isinstance(value, list | dict):
        return read_turns(cast("object", value), column, where=f"{quote(column)}, ")
    raise Unfit("not_text", f"{quote(column)} is {describe(value)}, not text")
