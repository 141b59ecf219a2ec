"""Skeletons: the text that a template writes for all conversations of one shape, and where the turns are in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ....foundation.errors import TunewrightError
from ..templates.sandbox import Stretch
from .stand_ins import Word

Position = tuple[int, int]
"""A place in a skeleton: a piece, and so many characters into it."""
Treatment = Callable[[str], str]


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_json_trimmed(text: str) -> str:
    return _in_json(text.strip())


TREATMENTS: tuple[Treatment | None, ...] = (
    None,
    lambda text: text.rstrip("\n"),
    lambda text: text.lstrip("\n"),
    lambda text: text.strip("\n"),
    str.rstrip,
    str.lstrip,
    str.strip,
    _in_json,
    _in_json_trimmed,
)
"""What templates do to a text before they write it."""


def not_provable(reason: str) -> TunewrightError:
    """Return the error for a row whose mask cannot be shown to be right."""
    return TunewrightError(
        "Loss mask not provable",
        f"It cannot be shown which of the text is the assistant's: {reason}.",
        'Set data.loss_on to "last" or "all", or choose a template with {% generation %} marks (data.template).',
    )


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The text of all conversations of one shape, without their words, and where the turns are in it."""

    pieces: tuple[str, ...]
    """The template's text between the words; one more than there are slots."""
    slots: tuple[tuple[int, Treatment | None], ...]
    """Which word follows each piece, and what is done to it; a word of -1 is the tools, whatever they are."""
    exact: bool
    """Whether words with white space at their edges do not fit."""
    turns: Mapping[int, tuple[tuple[Position, Position], ...]]
    """What the author of each message wrote: of the assistant all that it generates."""
    prompts: Mapping[int, Position]
    """Where the generation prompt before each of the assistant's messages ends."""
    contents: tuple[tuple[int, int], ...]
    """(slot, message) of the words that are written."""
    failures: Mapping[int, str]
    """Why nothing can be said of the messages that are in none of the above."""

    def fit(self, text: str, words: Sequence[Word]) -> list[Stretch] | None:
        """Return where the pieces stand in `text` when it is this skeleton with `words`, else None."""
        parts = [self.pieces[0]]
        tools_at = -1
        for place, (word, treatment) in enumerate(self.slots, 1):
            if word < 0:
                tools_at = len(parts)
                parts.append("")
            else:
                value = words[word]
                if not isinstance(value, str):
                    value = json.dumps(value, ensure_ascii=False)
                elif treatment is not None:
                    value = treatment(value)
                elif self.exact and (value[0].isspace() or value[-1].isspace()):
                    return None
                parts.append(value)
            parts.append(self.pieces[place])
        if tools_at < 0:
            if "".join(parts) != text:
                return None
        else:
            before, after = "".join(parts[:tools_at]), "".join(parts[tools_at + 1 :])
            length = len(text) - len(before) - len(after)
            if length < 0 or not (text.startswith(before) and text.endswith(after)):
                return None
            parts[tools_at] = text[len(before) : len(before) + length]
        places: list[Stretch] = []
        at = 0
        for number, part in enumerate(parts):
            end = at + len(part)
            if not number % 2:
                places.append((at, end))
            at = end
        return places


@dataclass(frozen=True, slots=True)
class Found:
    """A rendered conversation, and whose its characters are."""

    text: str
    skeleton: Skeleton
    places: list[Stretch]

    def written(self, message: int) -> list[Stretch]:
        """Return the spans of a message's author; raises TunewrightError when they cannot be told."""
        turns = self.skeleton.turns.get(message)
        if turns is None:
            raise not_provable(self.skeleton.failures.get(message, "the template leaves a turn out"))
        return [(self._at(start), self._at(end)) for start, end in turns]

    def written_if_known(self, message: int) -> list[Stretch]:
        """Return the spans of a message's author, none where they cannot be told."""
        return [(self._at(start), self._at(end)) for start, end in self.skeleton.turns.get(message, ())]

    def answer_start(self, message: int) -> int:
        """Return where the generation prompt before a message of the assistant ends; raises TunewrightError."""
        if message not in self.skeleton.prompts:
            marked = self.written_if_known(message)
            if marked:
                return marked[0][0]
            raise not_provable(self.skeleton.failures.get(message, "no generation prompt stands before it"))
        return self._at(self.skeleton.prompts[message])

    def contents(self) -> list[tuple[int, int, int]]:
        """Return (start, end, message) of the words, in order."""
        return [(self.places[slot][1], self.places[slot + 1][0], message) for slot, message in self.skeleton.contents]

    def _at(self, position: Position) -> int:
        return self.places[position[0]][0] + position[1]


def join_spans(spans: Sequence[Stretch]) -> list[Stretch]:
    """Return spans in order, those that touch or overlap made one, without the empty ones."""
    joined: list[Stretch] = []
    for start, end in sorted(spans):
        if start == end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
