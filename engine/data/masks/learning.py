"""Learning: which turns of a conversation are learned, and which characters that makes."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ....foundation.errors import TunewrightError
from ....recipes.model import LearnedRole, LossOn
from ..examples import Conversation
from ..templates.sandbox import Stretch
from . import TurnFinder
from .skeletons import Found, join_spans, not_provable

Learned = LossOn | tuple[LearnedRole, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which turns are learned."""

    turns: Collection[int]
    """By the rule alone, where it is a rule about turns, with those switched on and without those switched off."""
    switched_on: Collection[int] = ()
    """Those that the row itself says are learned."""
    switched_off: Collection[int] = ()


def choose_turns(messages: Conversation, first: int, loss_on: Learned, judged: bool) -> Chosen:
    """Return which turns are learned; of judged answers only the answer, not the assistant's turns in the prompt."""
    if isinstance(loss_on, tuple):
        turns = [index for index, message in enumerate(messages) if message.role in loss_on]
    else:
        turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
        if loss_on == "last":
            turns = turns[-1:]
    if judged:
        turns = [index for index in turns if index >= first]
    on = {index for index, message in enumerate(messages) if message.learned}
    off = {index for index, message in enumerate(messages) if message.learned is False}
    if not (on or off):
        return Chosen(turns)
    return Chosen(sorted({*turns, *on} - off), on, off)


def find_learned(
    finder: TurnFinder,
    messages: Conversation,
    tools: Sequence[dict[str, Any]],
    chosen: Chosen,
    first: int,
    loss_on: Learned,
) -> tuple[str, list[Stretch], Found | None]:
    """Return the text of a conversation, what is learned of it, and its turns where they had to be found."""
    text, marks = finder.template.render(messages, tools)
    if loss_on == "all":
        if not chosen.switched_off:
            return text, [(0, len(text))], None
        found = finder.find(messages, tools, chosen.switched_off, text)
        return text, take_away([(0, len(text))], _written(found, chosen.switched_off)), found
    if loss_on == "completion":
        start = count_prompt_turns(messages, first)
        if start >= len(messages):
            return text, [], None
        wanted = [start, *chosen.switched_off, *chosen.switched_on]
        found = finder.find(messages, tools, wanted, text)
        begin = _begin(found, start)
        spans = take_away([(begin, len(text))], _written(found, chosen.switched_off))
        return text, join_spans([*spans, *_written(found, chosen.switched_on)]), found
    if marks:
        joined = join_spans(marks)
        answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
        if len(joined) == len(answers) and all(messages[index].role == "assistant" for index in chosen.turns):
            of_turn = dict(zip(answers, joined, strict=True))
            return text, [of_turn[index] for index in chosen.turns], None
    if not chosen.turns:
        return text, [], None
    found = finder.find(messages, tools, chosen.turns, text)
    return text, join_spans(_written(found, chosen.turns)), found


def _begin(found: Found, message: int) -> int:
    """Return where what follows the prompt begins."""
    if message in found.skeleton.prompts:
        return found.answer_start(message)
    written = found.written(message)
    if not written:
        raise not_provable("the first turn after the prompt is left out")
    return written[0][0]


def _written(found: Found, turns: Collection[int]) -> list[Stretch]:
    return [span for index in turns for span in found.written(index)]


def take_away(spans: Sequence[Stretch], taken: Sequence[Stretch]) -> list[Stretch]:
    """Return `spans` without the characters of `taken`."""
    left = join_spans(spans)
    for start, end in taken:
        left = [
            part
            for begin, stop in left
            for part in ((begin, min(stop, start)), (max(begin, end), stop))
            if part[0] < part[1]
        ]
    return left


def count_prompt_turns(messages: Conversation, first: int) -> int:
    """Return how many turns are the prompt: as the row has it, or else all up to the last one of the user."""
    if first:
        return first
    return max((index + 1 for index, message in enumerate(messages) if message.role == "user"), default=0)


def find_turns(
    finder: TurnFinder,
    messages: Conversation,
    tools: Sequence[dict[str, Any]],
    chosen: Chosen,
    text: str,
    found: Found | None,
) -> list[tuple[int, int, str]]:
    """Return (start, end, role) of the turns: of the assistant what it generates, of others what they wrote."""
    if found is None:
        try:
            found = finder.find(messages, tools, (), text)
        except TunewrightError:
            return []
    turns: list[tuple[int, int, str]] = []
    for index, message in enumerate(messages):
        if message.role == "assistant" or index in chosen.turns:
            turns += [(start, end, message.role) for start, end in found.written_if_known(index) if start < end]
    taken = [(start, end) for start, end, _ in sorted(turns)]
    for start, end, index in found.contents():
        at = bisect.bisect_right(taken, (start, len(text))) - 1
        if start < end and (at < 0 or taken[at][1] <= start):
            turns.append((start, end, messages[index].role))
    return sorted(turns)
