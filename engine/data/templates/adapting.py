"""Adapting: turns as a recipe wants them, before a template sees them."""

from __future__ import annotations

import re
from dataclasses import replace

from ....recipes.model import Data
from ..examples import Conversation, Message

_THINKING = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)


def set_system(messages: Conversation, first: int, data: Data) -> tuple[Conversation, int]:
    """Return the turns with their system prompts kept, dropped or moved, and the recipe's where there is none."""
    if data.system == "drop":
        first -= sum(message.role == "system" for message in messages[:first])
        messages = tuple(message for message in messages if message.role != "system")
    if data.system_prompt and not any(message.role == "system" for message in messages):
        messages = (Message("system", data.system_prompt), *messages)
        first += first > 0
    if data.system == "user":
        systems = [message.content for message in messages if message.role == "system" and message.content]
        first -= sum(message.role == "system" for message in messages[:first])
        left = [message for message in messages if message.role != "system"]
        place = next((index for index, message in enumerate(left) if message.role == "user"), None)
        if systems and place is not None:
            left[place] = replace(left[place], content="\n\n".join([*systems, left[place].content]))
        elif systems:
            left.insert(0, Message("user", "\n\n".join(systems)))
            first += first > 0
        messages = tuple(left)
    return messages, first


def inline_thinking(message: Message) -> Message:
    """Return a turn with its thinking in its content, in the tags that models have in common."""
    thinking = (message.thinking or "").strip()
    return replace(message, thinking=None, content=f"<think>\n{thinking}\n</think>\n\n{message.content}")


def drop_thinking(message: Message) -> Message:
    """Return a turn without its thinking, also where that stands at the beginning of the assistant's content."""
    content = message.content
    if message.role == "assistant" and "</think>" in content:
        content = _THINKING.sub("", content)
    if message.thinking is None and content == message.content:
        return message
    return replace(message, thinking=None, content=content)
