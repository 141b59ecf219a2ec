"""What is said in an example, as texts to compare and to search."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from ..examples import Example, Message


def whole_text(example: Example) -> str:
    """Return all that is said in an example, without the roles."""
    if example.kind == "text":
        return example.text
    return "\n".join(_said(each) for each in (*example.messages, *example.rejected))


def row_parts(example: Example) -> list[str]:
    """Return what tells one row from another: the texts with their roles, the tools and the label."""
    if example.kind == "text":
        return [example.text]
    parts: list[str] = []
    for message in example.messages:
        parts += (message.role, _said(message))
    if example.tools:
        parts.append(str(example.tools))
    if example.kind == "preference":
        parts.append("rejected")
        parts += [_said(each) for each in example.rejected]
    elif example.kind == "kto":
        parts.append(str(example.label))
    return parts


def divide(example: Example) -> tuple[list[str], str | None]:
    """Return the turns before the last answer, with their roles, and that answer; of text and judged answers no prompt."""
    if example.kind == "text":
        return [], None
    messages = example.messages
    last = len(messages) - 1
    while last >= 0 and messages[last].role != "assistant":
        last -= 1
    if last < 0:
        return [], None
    prompt: list[str] = []
    if example.kind == "conversation":
        for message in messages[:last]:
            prompt += (message.role, _said(message))
    return prompt, _said(messages[last])


def _said(message: Message) -> str:
    if not message.tool_calls and message.thinking is None:
        return message.content
    parts = [message.thinking or "", message.content]
    parts += [f"{call.name} {call.arguments}" for call in message.tool_calls]
    return "\n".join(part for part in parts if part)


def hash_texts(texts: Iterable[str]) -> int:
    """Return a 64-bit hash of texts as they are, the same in every process."""
    joined = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little")
