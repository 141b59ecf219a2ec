"""Proofs: whose the text between the words of a conversation is, told by comparing it with shorter conversations."""

from __future__ import annotations

import bisect
import re
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

from ....foundation.errors import TunewrightError
from ..examples import Message
from ..templates import ChatTemplate
from ..templates.sandbox import Stretch
from .skeletons import TREATMENTS, Position, Skeleton, Treatment, join_spans
from .stand_ins import Depth, Place, Word, find_places, read_words, replace_tools, replace_words, stand_in

_FAR = 8
"""From this turn on a neighbourhood that was proved before is taken as proved, or long rows would cost their square."""
_OPENING = re.compile(r"<(think|thinking|thought|reason|reasoning|seed:think)>\s*(</\1>\s*)?$|\[THINK\]\s*$")
"""What a generation prompt may open on the model's behalf; it is of the turn nonetheless, and TRL trains it."""
_EMPTY_THINKING = re.compile(r"<think>\s*</think>")
_MARKUP = re.compile(r"<\|[^|<>]*\|>|<｜[^｜<>]*｜>|</?[A-Za-z_][\w:.-]*\|?>|\[/?[A-Z_]+\]")
_AROUND = "\n \n"
_AT_THE_EDGE = ' \t\n\r{}[]",:'


class Grammar:
    """What holds for all that one template writes."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.neighbourhoods: dict[Hashable, tuple[int, int, int]] = {}
        """What was proved of turns between the same texts: (header, generation prompt, tail) in characters."""

    def text_after(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], answer: bool) -> str | None:
        """Return what the template renders, None when it refuses."""
        try:
            return self.template.render(messages, tools, answer)[0]
        except TunewrightError:
            return None

    @cached_property
    def header(self) -> str:
        """What the generation prompt adds to a conversation that ends with a user's turn; empty where that is unclear."""
        without, asked = self._asked
        return asked[len(without) :] if asked.startswith(without) else ""

    @cached_property
    def opens_always(self) -> bool:
        """Whether the template ends with an open turn of the assistant even where none was asked for."""
        without, asked = self._asked
        question, answered = Message("user", stand_in(0)), Message("assistant", stand_in(1))
        text = self.text_after((question, answered), (), False)
        if without != asked or not without or text is None or len(places := find_places(text)) != 2:
            return False
        before, between, after = _after_last(without), text[places[0].end : places[1].start], text[places[1].end :]
        return between == before and bool(after[len(after) - _alike(before[::-1], after[::-1]) :].strip())

    @cached_property
    def _asked(self) -> tuple[str, str]:
        question = (Message("user", stand_in(0)),)
        return self.text_after(question, (), False) or "", self.text_after(question, (), True) or ""

    def whole_markup(self, texts: Sequence[str]) -> int:
        """Return how far `texts` begin alike with whole control words, and the white space behind the last of them."""
        common = texts[0][: _alike(*texts)]
        end = 0
        for token in self._markup.finditer(texts[0]):
            if token.end() > len(common):
                break
            end = token.end()
        while end and end < len(common) and common[end].isspace():
            end += 1
        return end

    @cached_property
    def _markup(self) -> re.Pattern[str]:
        special = sorted(filter(str.strip, self.template.special), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, special), _MARKUP.pattern]))


def _after_last(text: str) -> str:
    places = find_places(text)
    return text[places[-1].end :] if places else text


def _alike(*texts: str) -> int:
    """Return with how many characters all of `texts` begin alike."""
    for place, characters in enumerate(zip(*texts, strict=False)):
        if characters.count(characters[0]) < len(characters):
            return place
    return min(map(len, texts))


class _NotShown(Exception):
    """A turn of which it cannot be shown where it is."""


@dataclass(slots=True)
class Proof:
    """One conversation with stand-ins, taken apart."""

    grammar: Grammar
    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]]
    depth: Depth
    wanted: Collection[int]
    """The messages of which it is to be shown where they are."""
    replaced: list[Message] = field(init=False)
    owners: list[int] = field(init=False)
    words: list[Word] = field(init=False)
    stood_tools: Sequence[dict[str, Any]] = field(init=False)
    text: str = field(init=False)
    places: list[Place] = field(init=False)

    def skeleton(self) -> Skeleton | None:
        """Return the skeleton of the conversation's shape; None when its words are not written as they are."""
        self.replaced, self.owners = replace_words(self.messages, self.depth)
        self.words = read_words(self.messages, self.tools, self.depth)[1]
        self.stood_tools = replace_tools(self.tools) if self.depth is Depth.ALL else self.tools
        self.text, marks = self.grammar.template.render(self.replaced, self.stood_tools)
        self.places = find_places(self.text)
        turns: dict[int, list[Stretch]] = {}
        prompts: dict[int, int] = {}
        failures: dict[int, str] = {}
        if any(
            isinstance(self.words[place.number], dict) != place.whole for place in self.places if not place.of_tools
        ):
            return None  # arguments that are not written by `tojson`
        for index, message in enumerate(self.replaced):
            if index not in self.wanted:
                continue
            if message.role != "assistant" and all(self._owner(place) != index for place in self.places):
                turns[index] = []  # left out, or empty
                continue
            try:
                start, prompt, end = self._turn(index)
            except _NotShown as error:
                failures[index] = str(error)
                continue
            turns[index] = [(start, end)]
            if message.role == "assistant":
                prompts[index] = prompt
        if marks:
            for index, message in enumerate(self.messages):
                if message.role == "assistant":
                    turns.pop(index, None)
            turns |= self._marked(join_spans(marks))
        return self._cut(turns, prompts, failures)

    def _owner(self, place: Place) -> int:
        return -1 if place.of_tools else self.owners[place.number]

    def _turn(self, index: int) -> tuple[int, int, int]:
        """Return where a message begins, where the generation prompt before it ends, and where it ends."""
        mine = [number for number, place in enumerate(self.places) if self._owner(place) == index]
        assistant = self.messages[index].role == "assistant"
        if assistant:
            if self.grammar.opens_always:
                raise _NotShown("the template ends with an open turn of the assistant even where none is asked for")
            mine = self._first_time(mine)
        if any(after != before + 1 for before, after in pairwise(mine)):
            raise _NotShown("the words of a turn stand in several places")
        if assistant:
            known = self._known(index, mine)
            if known is not None:
                return known
            base, start, prompt = self._start(index, mine)
        else:
            base = start = prompt = self.places[mine[0]].start
        end = self._end(index, mine, base, start)
        if assistant:
            self._learn(index, mine, base, (start, prompt, end))
        return start, prompt, end

    def _first_time(self, mine: list[int]) -> list[int]:
        """Return the places of a turn's words up to where they repeat, as the name of a tool does before its answer."""
        seen: set[int] = set()
        for count, each in enumerate(mine):
            if self.places[each].number in seen:
                return mine[:count]
            seen.add(self.places[each].number)
        return mine

    def _start(self, index: int, mine: list[int]) -> tuple[int, int, int]:
        """Return where the text before a turn of the assistant begins, its header ends, and the generation prompt ends."""
        prompt = self.grammar.text_after(self.replaced[:index], self.stood_tools, True)
        if prompt is None:  # for example because nothing stands before this turn
            header = self.grammar.header
            base = self.places[mine[0] - 1].end if mine and mine[0] else 0
            before = self.text[base : self.places[mine[0]].start] if mine else ""
            if not header or before.count(header) != 1:
                raise _NotShown("the template does not render the conversation up to a turn")
            start = base + before.index(header) + len(header)
            return base, start, start
        earlier = find_places(prompt)
        last = earlier[-1] if earlier else None
        if mine:
            previous = self.places[mine[0] - 1] if mine[0] else None
            base, limit = previous.end if previous else 0, self.places[mine[0]].start
            if (previous and previous.number) != (last and last.number):
                raise _NotShown("other words stand before a turn than before the generation prompt")
        else:
            same = [place for place in self.places if last and place.number == last.number]
            if last and not same:
                raise _NotShown("the words before a turn are left out later")
            base = same[-1].end if same else 0
            limit = min((place.start for place in self.places if place.start >= base), default=len(self.text))
        expected, before = prompt[last.end if last else 0 :], self.text[base:limit]
        header = _OPENING.sub("", expected)
        if not before.startswith(header):
            raise _NotShown("a turn does not begin with the generation prompt")
        prompted = _alike(expected, before)
        usual = self.grammar.header
        if usual and usual not in expected and before.startswith(usual, len(header)):
            # Not asked for here, as after a tool's answer, but written all the same: it is the template's.
            header += usual
            prompted = len(header)
        return base, base + len(header), base + prompted

    def _end(self, index: int, mine: list[int], base: int, start: int) -> int:
        """Return where a turn ends: it has the tail that it has when it is the last."""
        assistant = self.messages[index].role == "assistant"
        through = self.grammar.text_after(self.replaced[: index + 1], self.stood_tools, False)
        at = self.places[mine[-1]].end if mine else start
        following = self._until_next(at)
        if through is None and not assistant:
            return at
        tail = self._tail(through, mine, base, start)
        if tail is None:
            raise _NotShown("a turn is rendered differently when it is the last")
        if not mine and not following.startswith(tail):
            # Some templates write empty thinking in the last turn alone.
            found = _EMPTY_THINKING.match(tail)
            tail = tail[found.end() :] if found else tail
            while found and tail[:1].isspace() and not following.startswith(tail):
                tail = tail[1:]
        if following.startswith(tail):
            return at + len(tail)
        if not assistant:
            return at
        asking = self.grammar.text_after(self.replaced[: index + 1], self.stood_tools, True)
        asked = self._tail(asking, mine, base, start)
        if asked is not None:
            header = self.grammar.header
            if header and asked.endswith(header):
                closing = asked[: -len(header)]
                if closing and following.startswith(closing):
                    return at + len(closing)
            common = self.grammar.whole_markup((tail, following, asked))
            if common:
                return at + common
        raise _NotShown("it cannot be told where a turn ends")

    def _tail(self, text: str | None, mine: list[int], base: int, start: int) -> str | None:
        """Return what stands behind a turn's words in the `text` that ends with it; None when it is not the same turn."""
        if text is None:
            return None
        places = find_places(text)
        if mine:
            if not places or places[-1].number != self.places[mine[-1]].number:
                return None
            return text[places[-1].end :]
        if base and (not places or all(each.end != base or each.number != places[-1].number for each in self.places)):
            return None
        rest = text[places[-1].end if places else 0 :]
        header = self.text[base:start]
        return rest[len(header) :] if rest.startswith(header) else None

    def _until_next(self, at: int) -> str:
        """Return the template's text from a place up to the next word."""
        following = min((place.start for place in self.places if place.start >= at), default=len(self.text))
        return self.text[at:following]

    def _neighbourhood(self, index: int, mine: list[int]) -> tuple[Hashable, int, int] | None:
        if index < _FAR or self.depth is not Depth.ALL or not mine or not mine[0] or index + 1 == len(self.messages):
            return None
        base, at = self.places[mine[0] - 1].end, self.places[mine[-1]].end
        around = tuple(
            (each.role, each.thinking is None, bool(each.content), len(each.tool_calls))
            for each in self.replaced[index - 2 : index + 2]
        )
        before, behind = self.text[base : self.places[mine[0]].start], self._until_next(at)
        last = index + 2 == len(self.messages)
        return (around, last, before, behind), base, at

    def _known(self, index: int, mine: list[int]) -> tuple[int, int, int] | None:
        found = self._neighbourhood(index, mine)
        if found is None or found[0] not in self.grammar.neighbourhoods:
            return None
        _, base, at = found
        header, prompt, tail = self.grammar.neighbourhoods[found[0]]
        return base + header, base + prompt, at + tail

    def _learn(self, index: int, mine: list[int], base: int, turn: tuple[int, int, int]) -> None:
        found = self._neighbourhood(index, mine)
        if found is not None and found[1] == base:
            start, prompt, end = turn
            self.grammar.neighbourhoods[found[0]] = (start - base, prompt - base, end - found[2])

    def _marked(self, marks: list[Stretch]) -> dict[int, list[Stretch]]:
        """Return whose each span is that the template marks itself."""
        answers = [index for index, message in enumerate(self.messages) if message.role == "assistant"]
        if len(marks) == len(answers):
            return {index: [mark] for index, mark in zip(answers, marks, strict=True)}
        turns: dict[int, list[Stretch]] = {index: [] for index in answers}
        last = -1
        for start, end in marks:
            inside = {self._owner(place) for place in self.places if start <= place.start and place.end <= end}
            if len(inside) > 1:
                return {}
            # A mark without words closes the turn before it.
            last = inside.pop() if inside else last
            if last not in turns:
                return {}
            turns[last].append((start, end))
        return turns

    def _cut(
        self, turns: dict[int, list[Stretch]], prompts: dict[int, int], failures: dict[int, str]
    ) -> Skeleton | None:
        """Cut the text at the words."""
        cuts = [(place.start, place.end, place.number) for place in self.places if not place.of_tools]
        if any(
            isinstance(self.words[place.number], dict) != place.whole for place in self.places if not place.of_tools
        ):
            return None  # arguments that are not written by `tojson`
        if len(cuts) < len(self.places):
            cuts = sorted([*cuts, (*self._tools_region(), -1)])
        if any(after[0] < before[1] for before, after in pairwise(cuts)):
            return None
        begins = [0, *(end for _, end, _ in cuts)]
        ends = [*(start for start, _, _ in cuts), len(self.text)]
        pieces = [self.text[begin:end] for begin, end in zip(begins, ends, strict=True)]

        def position(character: int) -> Position | None:
            number = bisect.bisect_right(begins, character) - 1
            return (number, character - begins[number]) if character <= ends[number] else None

        placed: dict[int, tuple[tuple[Position, Position], ...]] = {}
        for index, spans in turns.items():
            positions = [(position(start), position(end)) for start, end in spans]
            if any(start is None or end is None for start, end in positions):
                failures[index] = "a turn begins or ends within words"
            else:
                placed[index] = cast("tuple[tuple[Position, Position], ...]", tuple(positions))
        treatments = self._treatments(cuts, pieces)
        return Skeleton(
            pieces=tuple(pieces),
            slots=tuple(
                (number, treatments[place] if treatments else None) for place, (_, _, number) in enumerate(cuts)
            ),
            exact=treatments is None,
            turns=placed,
            prompts={index: at for index, character in prompts.items() if (at := position(character)) is not None},
            contents=tuple((place, self.owners[number]) for place, (_, _, number) in enumerate(cuts) if number >= 0),
            failures=failures,
        )

    def _tools_region(self) -> Stretch:
        """Return what of the text changes with the tools: it is compared with that of two tools built otherwise."""
        other = self.grammar.text_after(self.replaced, replace_tools(self.tools, second=True), False) or ""
        own = [place for place in self.places if place.of_tools]
        start = min(_alike(self.text, other), own[0].start)
        alike = _alike(self.text[::-1], other[::-1])
        end = max(len(self.text) - alike, own[-1].end)
        # What two tools happen to begin and end with alike, other tools may not.
        while start and self.text[start - 1] in _AT_THE_EDGE:
            start -= 1
        while end < len(self.text) and self.text[end] in _AT_THE_EDGE:
            end += 1
        return start, end

    def _treatments(self, cuts: list[tuple[int, int, int]], pieces: list[str]) -> list[Treatment | None] | None:
        """Return what is done to each word before it is written, told by words with white space around them."""
        around, _ = replace_words(self.messages, self.depth, _AROUND)
        text = self.grammar.text_after(around, self.stood_tools, False)
        if text is None or not text.startswith(pieces[0]):
            return None
        found: list[Treatment | None] = []
        at = len(pieces[0])
        for (start, end, number), piece in zip(cuts, pieces[1:], strict=True):
            word = self.text[start:end]
            for treatment in TREATMENTS:
                written = word if number < 0 else (treatment or str)(_AROUND + word + _AROUND)
                if text.startswith(written + piece, at):
                    found.append(treatment)
                    at += len(written) + len(piece)
                    break
            else:
                return None
        return found if at == len(text) else None
