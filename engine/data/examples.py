"""The one internal shape of every row, whatever file it came from: turns, plain text, or judged answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
Kind = Literal["conversation", "text", "preference", "kto"]
IGNORED = -100
"""The label of a token on which no loss is taken (torch.nn.CrossEntropyLoss)."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant calls."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """One of ROLES."""
    content: str
    """Empty for a turn that only calls tools."""
    thinking: str | None = None
    """The reasoning before the answer, where the file keeps it apart from the content."""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    """The tool whose answer this is, or the speaker, where the file names one."""
    call_id: str | None = None
    """The call that a tool's turn answers."""
    learned: bool | None = None
    """What the file says about training on this turn (OpenAI's `weight`, Axolotl's `train`); None where it says nothing."""


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One row: what the model reads and what it is to answer."""

    kind: Kind
    messages: Conversation = ()
    """The whole conversation; of a preference the one with the chosen answer; empty for plain text."""
    prompt_turns: int = 0
    """How many of the messages are the prompt, where the file keeps prompt and answer apart; 0 where it does not."""
    text: str = ""
    """Plain text, all of which is learned."""
    tools: tuple[dict[str, Any], ...] = ()
    """The JSON schemas of the tools that may be called."""
    rejected: Conversation = ()
    """Of a preference: the turns after the prompt that are the worse answer."""
    label: bool | None = None
    """Of KTO: whether the answer is a good one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in the data."""

    number: int
    """The line of a text file, or the row of a table or list, counted from 1; 0 for the file as a whole."""
    unit: Literal["line", "row"] = "line"
    file: str = ""
    """The file's name, where the data has more than one."""

    def __str__(self) -> str:
        if not self.number:  # it is about the file as a whole
            return self.file or "the file"
        return f"{self.file} {self.unit} {self.number}".lstrip()


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that could not be read or converted, and why."""

    place: Place
    code: str
    """One of the codes in `findings.CATALOGUE`."""
    problem: str
    """What is wrong with it, in a few words, clean for the terminal."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as the file has it."""

    place: Place
    value: dict[str, Any] = field(default_factory=dict[str, Any])
