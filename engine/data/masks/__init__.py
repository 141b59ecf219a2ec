"""Masks: which characters of a rendered conversation are whose, with a proof that it is so.

A conversation is rendered once more with stand-ins for all that its author wrote. What stands between them is the
template's own text, and whose it is can be told there by comparing it with shorter conversations. The text of a row
must then be exactly that text with the row's words put in: comparing two strings proves where its turns are, and the
rest is done once for all rows of the same shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from typing import Any

from ....foundation.errors import TunewrightError
from ..examples import Message
from ..templates import ChatTemplate
from .proofs import Grammar, Proof
from .skeletons import Found, Skeleton, not_provable
from .stand_ins import FOREIGN, Depth, Word, read_words

KEPT_SHAPES = 4096
"""So many skeletons of a template are kept, the most used ones."""


class TurnFinder:
    """Finds the turns in what one template renders."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self._kept: OrderedDict[Hashable, Skeleton | None] = OrderedDict()
        self.grammar = Grammar(template)

    def find(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        wanted: Collection[int] = (),
        text: str | None = None,
        depths: Sequence[Depth] = tuple(Depth),
    ) -> Found:
        """Return the text of a conversation with its turns; raises TunewrightError when those `wanted` are not provable.

        `text` is what the template renders, where that is known already.
        """
        if text is None:
            text = self.template.render(messages, tools)[0]
        reason = "the template writes this row otherwise than its like"
        for depth in depths:
            skeleton, words = self._skeleton(messages, tools, depth, text, wanted)
            if skeleton is None or (places := skeleton.fit(text, words)) is None:
                continue
            missing = [index for index in wanted if index not in skeleton.turns]
            if not missing:
                return Found(text, skeleton, places)
            reason = skeleton.failures.get(missing[0], reason)
        raise not_provable(reason)

    def _skeleton(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        depth: Depth,
        text: str,
        wanted: Collection[int],
    ) -> tuple[Skeleton | None, list[Word]]:
        shape, words = read_words(messages, tools, depth)
        if depth is not Depth.ALL:
            if FOREIGN in text or (depth is Depth.TEXTS and not _has_more(messages, tools)):
                return None, words
            return self._build(messages, tools, depth, wanted), words
        others = any(messages[index].role != "assistant" for index in wanted)
        kept, key = self._kept, (shape, others)
        if key in kept:
            kept.move_to_end(key)
            return kept[key], words
        shown = [index for index, message in enumerate(messages) if others or message.role == "assistant"]
        skeleton = kept[key] = self._build(messages, tools, depth, shown)
        if len(kept) > KEPT_SHAPES:
            kept.popitem(last=False)
        return skeleton, words

    def _build(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], depth: Depth, wanted: Collection[int]
    ) -> Skeleton | None:
        try:
            return Proof(self.grammar, messages, tools, depth, wanted).skeleton()
        except TunewrightError:
            return None


def _has_more(messages: Sequence[Message], tools: Sequence[object]) -> bool:
    """Whether a conversation has words other than contents and thinking."""
    return bool(tools) or any(each.tool_calls or each.name or each.call_id for each in messages)
