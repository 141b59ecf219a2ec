"""Stand-ins: conversations in which characters that no template knows take the place of what their author wrote."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ..examples import Message, ToolCall

Word = str | dict[str, Any]
"""What an author wrote in one place: a text, or the arguments of a call."""
FOREIGN = "\ue000"
"""The first character of every stand-in, from Unicode's private use area."""
_LAST = "\ue001"
_DIGITS = "".join(chr(0xE100 + digit) for digit in range(16))
_DIGIT_COUNT = 7  # nine characters in all, as many as the identity of a call must have for some templates
_OF_TOOLS = 16**6
_TAGS = re.compile(r"(\s*</?think>\s*)")
_PLACES = re.compile(f'\\{{"({FOREIGN}[{_DIGITS}]{{7}}{_LAST})": "\\1"\\}}|{FOREIGN}[{_DIGITS}]{{7}}{_LAST}')


class Depth(IntEnum):
    """How much of a conversation is replaced."""

    ALL = 0
    """Everything, tools too."""
    TEXTS = 1
    """Contents and thinking."""
    ANSWERS = 2
    """Contents and thinking of the assistant."""
    NOTHING = 3
    """Nothing: what is told then rests on the beginnings of the text alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one stand-in stands in a rendered text."""

    start: int
    end: int
    number: int
    """Which word it stands for."""
    whole: bool
    """Whether it is the JSON object of a call's arguments, as the filter `tojson` writes it."""

    @property
    def of_tools(self) -> bool:
        return self.number >= _OF_TOOLS


def stand_in(number: int) -> str:
    """Return the stand-in of the word with this number."""
    digits = "".join(_DIGITS[number >> 4 * place & 15] for place in reversed(range(_DIGIT_COUNT)))
    return FOREIGN + digits + _LAST


def find_places(text: str) -> list[Place]:
    """Return where stand-ins stand in `text`, in order."""
    found: list[Place] = []
    for match in _PLACES.finditer(text):
        number = 0
        for character in (match[1] or match[0])[1:-1]:
            number = number << 4 | ord(character) - 0xE100
        found.append(Place(match.start(), match.end(), number, match[1] is not None))
    return found


def read_words(messages: Sequence[Message], tools: Sequence[object], depth: Depth) -> tuple[Hashable, list[Word]]:
    """Return the shape of a conversation, equal for those that differ in words alone, and its words in order."""
    words: list[Word] = []
    shape: list[Hashable] = [bool(tools)]
    for message in messages:
        content = message.content
        if not (message.thinking or message.tool_calls or message.name or message.call_id) and (
            content and "think>" not in content and depth is Depth.ALL and not content.isspace()
        ):
            words.append(content)
            shape.append(message.role)
        else:
            shape.append(_read(message, depth, words))
    return tuple(shape), words


def _read(message: Message, depth: Depth, words: list[Word]) -> Hashable:
    """Append the words of a message that are not only a content; `_replace` takes the same in the same order."""
    shape: list[Hashable] = [message.role]
    if depth is Depth.NOTHING or (depth is Depth.ANSWERS and message.role != "assistant"):
        return message.role
    if message.thinking is not None:
        shape.append(_read_text(message.thinking, words))
    shape.append(_read_text(message.content, words))
    if depth is Depth.ALL:
        for call in message.tool_calls:
            words.append(call.name)
            if call.arguments:
                words.append(call.arguments)
            if call.id:
                words.append(call.id)
            shape.append((bool(call.arguments), bool(call.id)))
        for each in (message.name, message.call_id):
            if each:
                words.append(each)
            shape.append(bool(each))
    return tuple(shape)


def _read_text(text: str, words: list[Word]) -> Hashable:
    if "think>" not in text:
        if not text or text.isspace():
            return text
        words.append(text)
        return None
    between: list[str] = []
    for tag, part in _parts(text):
        between.append(tag)
        if part:
            words.append(part)
            between.append("")
    return tuple(between)


def _parts(text: str) -> list[tuple[str, str]]:
    """Split a text with thinking tags into (what is the same for all such texts, what is its own)."""
    pieces = _TAGS.split(text)
    first, last = pieces[0].lstrip(), pieces[-1].rstrip()
    before, after = pieces[0][: len(pieces[0]) - len(first)], pieces[-1][len(last) :]
    pieces[0], pieces[-1] = first, last
    return [*zip([before, *pieces[1::2]], pieces[::2], strict=True), (after, "")]


def replace_words(messages: Sequence[Message], depth: Depth, around: str = "") -> tuple[list[Message], list[int]]:
    """Return the conversation with stand-ins, and for each word the message that it is of.

    With `around` the stand-ins of whole texts are enclosed in that white space.
    """
    owners: list[int] = []
    replaced: list[Message] = []
    for index, message in enumerate(messages):
        replaced.append(_replace(message, index, depth, owners, around))
    return replaced, owners


def _replace(message: Message, index: int, depth: Depth, owners: list[int], around: str) -> Message:
    def take() -> str:
        owners.append(index)
        return stand_in(len(owners) - 1)

    def take_text(text: str) -> str:
        if "think>" not in text:
            return text if not text or text.isspace() else around + take() + around
        return "".join(tag + (take() if part else "") for tag, part in _parts(text))

    if depth is Depth.NOTHING or (depth is Depth.ANSWERS and message.role != "assistant"):
        return message
    thinking = None if message.thinking is None else take_text(message.thinking)
    content = take_text(message.content)
    calls, name, call_id = message.tool_calls, message.name, message.call_id
    if depth is Depth.ALL:
        replaced: list[ToolCall] = []
        for call in calls:
            called = take()
            value = take() if call.arguments else ""
            replaced.append(ToolCall(called, {value: value} if value else {}, take() if call.id else call.id))
        calls = tuple(replaced)
        name, call_id = take() if name else name, take() if call_id else call_id
    return Message(message.role, content, thinking, calls, name, call_id, message.learned)


def replace_tools(tools: Sequence[dict[str, Any]], second: bool = False) -> tuple[dict[str, Any], ...]:
    """Return one tool made of stand-ins in place of `tools`; the second is built otherwise, to be compared with it."""
    if not tools:
        return ()
    name, about, field, meaning = (stand_in(_OF_TOOLS + 4 * second + place) for place in range(4))
    fields = {field: {"type": "string", "description": meaning}}
    parameters = {"type": "object", "properties": fields, "required": [field]}
    if not second:
        return ({"type": "function", "function": {"name": name, "description": about, "parameters": parameters}},)
    # Another order, another kind of field, more of them, and one tool that takes nothing.
    fields = {field: {"description": meaning, "type": "number"}, field + "2": {"type": "boolean"}}
    some: dict[str, Any] = {"required": [], "properties": fields, "type": "object"}
    none: dict[str, Any] = {"type": "object", "properties": {}}
    return (
        {"function": {"parameters": some, "description": about, "name": name}, "type": "function"},
        {"function": {"parameters": none, "description": about, "name": name}, "type": "function"},
    )
