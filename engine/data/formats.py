"""What a file holds: conversations, one JSON object a line, and a word on every line that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.text import clean, one_line

ROLES = ("system", "user", "assistant")
LONGEST_LINE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no conversation, and why."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Conversations:
    """The conversations of one file, and its faults."""

    path: Path
    rows: tuple[Conversation, ...]
    faults: tuple[Fault, ...]

    def require_whole(self) -> tuple[Conversation, ...]:
        """Return the rows; raises TunewrightError when a line is at fault or there are no rows."""
        if self.faults:
            shown = "\n".join(f"  line {fault.line}: {fault.problem}" for fault in self.faults[:5])
            more = f"\n  and {len(self.faults) - 5} more" if len(self.faults) > 5 else ""
            raise TunewrightError(
                "Data not readable",
                f"{self.path}:\n{shown}{more}",
                'Mend or remove these lines; each is one object: {"messages": [{"role": "user", "content": "…"}, …]}',
            )
        if not self.rows:
            raise TunewrightError(
                "No data", f"{self.path} is empty.", "Give a JSONL file with one conversation a line."
            )
        return self.rows


def read_conversations(path: Path, limit: int | None = None) -> Conversations:
    """Return the conversations in the JSONL file at `path`, at most `limit` of them, and its faults.

    Blank lines are passed over. Raises TunewrightError when the file itself cannot be read.
    """
    rows: list[Conversation] = []
    faults: list[Fault] = []
    try:
        with path.open("rb") as file:
            for number, line in _lines(file):
                if limit is not None and len(rows) >= limit:
                    break
                if line.isspace():
                    continue
                try:
                    rows.append(_parse(line))
                except ValueError as error:
                    faults.append(Fault(number, one_line(str(error), 200)))
    except OSError as error:
        raise explain_os_error(error, path, "Reading") from error
    return Conversations(path, tuple(rows), tuple(faults))


def _lines(file: Any) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers and lines; a line over the limit comes cut, which makes it a fault."""
    number = 0
    while line := file.readline(LONGEST_LINE_BYTES):
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        while not line.endswith(b"\n") and len(line) == LONGEST_LINE_BYTES:
            line = file.readline(LONGEST_LINE_BYTES)


def _parse(line: bytes) -> Conversation:
    """Return the conversation in one line; raises ValueError that says what is wrong with it."""
    if len(line) >= LONGEST_LINE_BYTES:
        raise ValueError("longer than 16 MiB")
    try:
        value = json.loads(line.rstrip())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    fields = cast("dict[str, Any]", value)
    if "messages" not in fields:
        keys = ", ".join(clean(key, 40) for key in list(fields)[:6]) or "none"
        raise ValueError(f"no `messages`; its keys are: {keys}")
    turns = fields["messages"]
    if not isinstance(turns, list) or not turns:
        raise ValueError("`messages` is not a list with at least one turn")
    messages = tuple(_message(turn, number) for number, turn in enumerate(cast("list[Any]", turns), start=1))
    if not any(message.role == "assistant" for message in messages):
        raise ValueError("no turn of the assistant, so nothing to learn")
    return messages


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {number} is not an object")
    fields = cast("dict[str, Any]", turn)
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise ValueError(f"turn {number} has the role {role!r}; known are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise ValueError(f"turn {number} has a content that is {'missing' if content is None else 'not text'}")
    return Message(role, content)
