"""Facts about a chat template, found by trying it: what it leaves out, refuses, and writes of its own accord."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from ....foundation.errors import TunewrightError
from ..examples import Message, ToolCall
from ..masks import TurnFinder
from ..masks.stand_ins import stand_in

_EMPTY_THINKING = re.compile(r"<think>\s*</think>|<\|channel>thought\s*<channel\|>")


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What a chat template does, whatever the rows are."""

    marks_turns: bool
    """It marks itself what the assistant generates."""
    keeps_prefix: bool
    """What was written of a conversation stays as it was when turns are added."""
    drops_thinking: bool
    """It writes the thinking of the last turn and leaves out that of earlier ones."""
    knows_thinking: bool
    """It has a place for thinking; where it has none, thinking is written into the content."""
    ignores_system: bool
    refuses_system: bool
    ignores_tools: bool
    """It leaves out the tools that may be called, or refuses them."""
    ignores_tool_calls: bool
    """It leaves out the calls of the assistant, or refuses them."""
    header: str
    """What the generation prompt adds after a user's turn."""
    ends_turn_with: str
    """What closes the assistant's last turn; empty where nothing does."""
    trains_end: bool
    """The last token that is trained of a turn is one at which generation stops."""
    trains_empty_thinking: bool
    """Turns without thinking are written, and trained, with empty thinking tags."""
    adds_bos: bool
    """It writes the begin token itself."""


class TemplateTrial:
    """Tries one template with conversations made of stand-ins."""

    def __init__(self, finder: TurnFinder) -> None:
        self.finder = finder
        self.words = [stand_in(number) for number in range(8)]

    def thinking_is_known(self) -> bool:
        """Return whether the template writes the thinking of the last turn."""
        asked, answered, thought = self.words[:3]
        text = self._text(Message("user", asked), Message("assistant", answered, thinking=thought))
        return text is not None and thought in text

    def facts(self, bos: str, trains_end: bool, tools_finder: TurnFinder) -> TemplateFacts:
        """Return all facts; `trains_end` is told by the tokenizer, and tools may have a template of their own."""
        system, ignored_system, refused_system = self.words[7], False, False
        talk = self._talk
        with_system = self._text(Message("system", system), *talk[:2])
        if self._text(*talk[:2]) is not None:
            refused_system = with_system is None
            ignored_system = with_system is not None and system not in with_system
        tools = TemplateTrial(tools_finder)
        turn = self._last_turn
        known = self.thinking_is_known()
        return TemplateFacts(
            marks_turns=self.finder.template.has_marks,
            keeps_prefix=self._keeps_prefix(),
            drops_thinking=self._drops_thinking(known),
            knows_thinking=known,
            ignores_system=ignored_system,
            refuses_system=refused_system,
            ignores_tools=tools._ignores_tools(),
            ignores_tool_calls=tools._ignores_tool_calls(),
            header=self.finder.grammar.header,
            ends_turn_with=turn.rpartition(self.words[1])[2],
            trains_end=trains_end,
            trains_empty_thinking=_EMPTY_THINKING.search(turn) is not None,
            adds_bos=bool(bos) and (self._text(*talk[:2]) or "").startswith(bos),
        )

    @property
    def _talk(self) -> tuple[Message, ...]:
        roles = ("user", "assistant", "user", "assistant")
        return tuple(Message(role, word) for role, word in zip(roles, self.words, strict=False))

    def _text(self, *messages: Message, tools: Sequence[dict[str, Any]] = ()) -> str | None:
        return self.finder.grammar.text_after(messages, tools, False)

    @cached_property
    def _last_turn(self) -> str:
        """What is trained of the assistant's turn after one of the user."""
        try:
            found = self.finder.find(self._talk[:2], wanted=(1,))
            return "".join(found.text[start:end] for start, end in found.written(1))
        except TunewrightError:
            return ""

    def _keeps_prefix(self) -> bool:
        texts = [self._text(*self._talk[:count]) for count in (2, 3, 4)]
        return all(one is not None and two is not None and two.startswith(one) for one, two in pairwise(texts))

    def _drops_thinking(self, known: bool) -> bool:
        first, last = self.words[4:6]
        one, two, three, four = self._talk
        if known:
            kept = Message("assistant", two.content, thinking=first), Message("assistant", four.content, thinking=last)
        else:
            kept = tuple(
                Message("assistant", f"<think>\n{thought}\n</think>\n\n{turn.content}")
                for thought, turn in ((first, two), (last, four))
            )
        text = self._text(one, kept[0], three, kept[1])
        return text is not None and first not in text

    def _ignores_tools(self) -> bool:
        name, about = self.words[4:6]
        parameters: dict[str, Any] = {"type": "object", "properties": {}}
        tool: dict[str, Any] = {
            "type": "function",
            "function": {"name": name, "description": about, "parameters": parameters},
        }
        text = self._text(*self._talk[:2], tools=(tool,))
        return text is None or name not in text

    def _ignores_tool_calls(self) -> bool:
        name, value, call = self.words[4:7]
        turn = Message("assistant", "", tool_calls=(ToolCall(name, {"key": value}, call),))
        text = self._text(self._talk[0], turn)
        return text is None or name not in text or value not in text
