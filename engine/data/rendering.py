"""From rows to exactly the tokens that are trained: the one code path of audit, preview, plan, trainer and chat."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Encoding, Regex, Tokenizer, models, pre_tokenizers

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import Data
from .examples import IGNORED, Conversation, Example, Message
from .masks import TurnFinder
from .masks.learning import Learned, choose_turns, count_prompt_turns, find_learned, find_turns, take_away
from .masks.skeletons import join_spans
from .templates import (
    ChatTemplate,
    named_template,
    read_json,
    read_special_tokens,
    read_templates,
    training_template,
)
from .templates.adapting import drop_thinking, inline_thinking, set_system
from .templates.facts import TemplateFacts, TemplateTrial
from .templates.sandbox import Stretch


@dataclass(frozen=True, slots=True)
class Row:
    """One row as the trainer gets it: token ids and labels of equal length."""

    input_ids: list[int]
    labels: list[int]
    """The token itself where the loss is taken, IGNORED elsewhere."""
    whole_length: int
    """The row's tokens before it was cut to the maximum length."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """How many tokens the loss is taken on."""
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a rendered text, its author, and whether it is learned."""

    start: int
    end: int
    role: str
    """One of ROLES; `template` for what the template adds, `text` for plain text."""
    learned: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """A row before it is made tokens: its text, whose the characters are, and which are learned."""

    text: str
    learned: tuple[Stretch, ...]
    """The characters that are learned, in order."""
    turns: tuple[tuple[int, int, str], ...] = ()
    """(start, end, role) of what people and models wrote, in order; the rest is the template's."""
    special_tokens: bool = False
    """Whether the tokenizer adds its own tokens around the text, as to all that no chat template rendered."""
    prompt: str | None = None
    """What is not learned at the beginning, where only the tokens of both can tell where it ends."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """The text in parts, each of one author and either learned or not."""
        cuts = sorted({0, len(self.text), *(at for start, end, _ in self.turns for at in (start, end)),
                       *(at for span in self.learned for at in span)})  # fmt: skip
        starts, learned = [start for start, _, _ in self.turns], [start for start, _ in self.learned]
        parts: list[Span] = []
        for start, end in pairwise(cuts):
            turn, span = bisect.bisect_right(starts, start) - 1, bisect.bisect_right(learned, start) - 1
            role = self.turns[turn][2] if turn >= 0 and start < self.turns[turn][1] else "template"
            parts.append(Span(start, end, role, span >= 0 and start < self.learned[span][1]))
        return tuple(parts)


class Renderer:
    """Renders rows with a model's tokenizer and a chat template, as a recipe's data section asks for it."""

    def __init__(self, model: Path | None, data: Data | None = None) -> None:
        """Read the tokenizer in the folder `model`; raises TunewrightError when it has none.

        Without a model there is ChatML and a tokenizer that only counts, about four bytes a token. That a model has no
        chat template is said only when a row needs one.
        """
        self.folder = model
        self.exact = model is not None
        """Whether the tokens are a model's own, rather than counted roughly."""
        self.data = data if data is not None else Data(source="none")
        if model is None:
            self.tokenizer = _counting_tokenizer()
            self._tokens = {"eos_token": _END}
        else:
            self.tokenizer = _read_tokenizer(model)
            self._tokens = read_special_tokens(model)

    def render(
        self, example: Example | Conversation, max_length: int | None = None, loss_on: Learned | None = None
    ) -> Row:
        """Return the tokens and labels of one row; raises TunewrightError when the template refuses it.

        `loss_on` is the recipe's unless it is given.
        """
        layout = self._lay_out(example, loss_on, False)
        return self.label(layout, self.encode(layout), max_length)

    def lay_out(self, example: Example | Conversation, loss_on: Learned | None = None) -> Layout:
        """Return the text of one row with its authors and what is learned of it; raises TunewrightError as `render`."""
        return self._lay_out(example, loss_on, True)

    def encode(self, layout: Layout) -> Encoding:
        """Return the tokens of a row."""
        try:
            return self.tokenizer.encode(layout.text, add_special_tokens=layout.special_tokens)
        except (TypeError, UnicodeError) as error:  # a surrogate without its other half
            raise TunewrightError(
                "Text that cannot be written", one_line(str(error), 200), "Mend the row's encoding."
            ) from error

    def label(self, layout: Layout, encoding: Encoding, max_length: int | None = None) -> Row:
        """Return a row from its tokens: a token is learned when any character of it is."""
        ids: list[int] = encoding.ids
        if layout.prompt is not None:
            prompt = self.tokenizer.encode(layout.prompt, add_special_tokens=layout.special_tokens).ids
            same = next((at for at, (one, two) in enumerate(zip(prompt, ids, strict=False)) if one != two), None)
            start = min(len(prompt), len(ids)) if same is None else same
            labels = [IGNORED] * start + ids[start:]
        elif layout.learned == ((0, len(layout.text)),):
            labels = ids[:]
        else:
            labels = [IGNORED] * len(ids)
            for start, end in layout.learned:
                first, last = tokens_within(encoding, start, end)
                labels[first:last] = ids[first:last]
        if max_length is not None and max_length < len(ids):
            return Row(ids[:max_length], labels[:max_length], len(ids))
        return Row(ids, labels, len(ids))

    def prompt(self, conversation: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """Return the text after which the model is to answer, begin token included; raises TunewrightError."""
        messages, _ = self._adapt(tuple(conversation), 0, tools)
        if self.data.template == "none":
            text = "".join(map(_content, messages))
            return text if text.startswith(self._added_first) else self._added_first + text
        return self._finder(tools).template.render(messages, tools, True)[0]

    def facts(self) -> TemplateFacts:
        """Return what the chat template does, found by trying it; raises TunewrightError when there is none."""
        return self._facts

    @cached_property
    def end_tokens(self) -> list[int]:
        """The ids at which generation ends: those of generation_config.json, or else the tokenizer's end token."""
        configured = read_json(self.folder / "generation_config.json").get("eos_token_id") if self.folder else None
        if isinstance(configured, int):
            return [configured]
        if isinstance(configured, list):
            return [token for token in cast("list[Any]", configured) if isinstance(token, int)]
        return [] if self.eos is None else [self.eos]

    @property
    def bos(self) -> int | None:
        """The id of the begin token."""
        return self._id("bos_token")

    @property
    def eos(self) -> int | None:
        """The id of the tokenizer's end token."""
        return self._id("eos_token")

    @property
    def pad(self) -> int | None:
        """The id of the token that fills up short rows."""
        return self._id("pad_token")

    @property
    def unk(self) -> int | None:
        """The id of the token for what the vocabulary does not hold."""
        return self._id("unk_token")

    @cached_property
    def has_template(self) -> bool:
        """Whether there is a chat template, without which only plain text can be rendered."""
        try:
            self._finder(())
        except TunewrightError as error:
            if error.title != "No chat template":
                raise
            return False
        return True

    def _lay_out(self, example: Example | Conversation, loss_on: Learned | None, whole: bool) -> Layout:
        if not isinstance(example, Example):
            example = Example("conversation", tuple(example))
        if example.kind == "text":
            return self._lay_out_text(example.text)
        messages, first = self._adapt(example.messages, example.prompt_turns, example.tools)
        learned = self.data.loss_on if loss_on is None else loss_on
        judged = example.kind in ("preference", "kto")
        if self.data.template == "none":
            return self._join(messages, first, learned, judged)
        finder = self._finder(example.tools)
        chosen = choose_turns(messages, first, learned, judged)
        text, spans, found = find_learned(finder, messages, example.tools, chosen, first, learned)
        if not whole:
            return Layout(text, tuple(spans))
        return Layout(text, tuple(spans), tuple(find_turns(finder, messages, example.tools, chosen, text, found)))

    def _lay_out_text(self, text: str) -> Layout:
        """Plain text ends with the end token; the begin token is the tokenizer's, unless the text has it already."""
        text = self._ended(text)
        bos = self._tokens.get("bos_token", "")
        span = (0, len(text))
        return Layout(text, (span,), ((*span, "text"),), not (bos and text.startswith(bos)))

    def _ended(self, text: str) -> str:
        end = self._tokens.get("eos_token", "")
        return text if text.endswith(end) else text + end

    def _join(self, messages: Conversation, first: int, loss_on: Learned, judged: bool) -> Layout:
        """Return the turns one after the other with nothing between them but the end token after the last answer."""
        texts = [_content(message) for message in messages]
        if messages and messages[-1].role == "assistant":
            texts[-1] = self._ended(texts[-1])
        text = "".join(texts)
        ends = [0]
        for each in texts:
            ends.append(ends[-1] + len(each))
        turns = [(ends[place], ends[place + 1], message.role) for place, message in enumerate(messages)]
        bos = self._tokens.get("bos_token", "")
        special = not (bos and text.startswith(bos))
        chosen = choose_turns(messages, first, loss_on, judged)
        if loss_on == "all":
            spans = take_away([(0, len(text))], [turns[index][:2] for index in chosen.switched_off])
        elif loss_on == "completion":
            spans = take_away([(ends[count_prompt_turns(messages, first)], len(text))],
                             [turns[index][:2] for index in chosen.switched_off])  # fmt: skip
        else:
            spans = [turns[index][:2] for index in chosen.turns]
        spans = join_spans([*spans, *(turns[index][:2] for index in chosen.switched_on)])
        # With the answer at the end, its first token is found as TRL finds it: where the prompt's own tokens end.
        at_the_end = loss_on != "all" and len(spans) == 1 and spans[0][1] == len(text)
        prompt = text[: spans[0][0]] if at_the_end else None
        return Layout(text, tuple(spans), tuple(turn for turn in turns if turn[0] < turn[1]), special, prompt)

    def _adapt(self, messages: Conversation, first: int, tools: Sequence[dict[str, Any]]) -> tuple[Conversation, int]:
        """Return the turns as the recipe wants them, and how many of them are the prompt."""
        data = self.data
        if data.system != "keep" or data.system_prompt:
            messages, first = set_system(messages, first, data)
        if data.thinking == "drop":
            return tuple(drop_thinking(message) for message in messages), first
        if any(message.thinking for message in messages) and not (
            data.template != "none" and self._knows_thinking(bool(tools))
        ):
            messages = tuple(inline_thinking(message) if message.thinking else message for message in messages)
        return messages, first

    def _knows_thinking(self, with_tools: bool) -> bool:
        finder = self._finder(({},) if with_tools else ())
        if finder not in self._thinking:
            self._thinking[finder] = TemplateTrial(finder).thinking_is_known()
        return self._thinking[finder]

    @cached_property
    def _thinking(self) -> dict[TurnFinder, bool]:
        return {}

    def _finder(self, tools: Sequence[object]) -> TurnFinder:
        """Return what renders with the template, as transformers chooses among several: `tool_use` when there are tools."""
        finders = self._finders
        return finders["tool_use"] if tools and "tool_use" in finders else finders["default"]

    @cached_property
    def _finders(self) -> dict[str, TurnFinder]:
        name = self.data.template
        if self.folder is None and name in ("model", "trl"):
            name = "chatml"
        if name in ("model", "trl", "none") and self.folder is not None:
            sources = read_templates(self.folder)
            if "default" not in sources:
                raise TunewrightError(
                    "No chat template",
                    f"The tokenizer in {self.folder} has no chat template; base models often have none.",
                    'Name one in the recipe (data.template = "chatml"), or start from the model\'s instruct version.',
                )
            if name == "trl":
                sources = {"default": training_template(sources["default"])}
        else:
            sources = {"default": named_template("chatml" if name == "none" else name)}
        wanted = [each for each in ("default", "tool_use") if each in sources]
        return {each: TurnFinder(ChatTemplate(sources[each], self._tokens)) for each in wanted}

    @cached_property
    def _facts(self) -> TemplateFacts:
        return TemplateTrial(self._finder(())).facts(
            self._tokens.get("bos_token", ""), self._trains_end(), self._finder(({},))
        )

    def _trains_end(self) -> bool:
        try:
            layout = self._lay_out((Message("user", "a"), Message("assistant", "b")), "assistant", False)
        except TunewrightError:
            return False
        encoding = self.encode(layout)
        row = self.label(layout, encoding)
        for token, (start, end) in zip(reversed(row.labels), reversed(encoding.offsets), strict=True):
            if token in self.end_tokens:
                return True
            if token != IGNORED and layout.text[start:end].strip():
                return False
        return False

    @cached_property
    def _added_first(self) -> str:
        """The text of the tokens that the tokenizer puts before any text."""
        added = self.tokenizer.encode("", add_special_tokens=True).ids[:1]
        return self._tokens["bos_token"] if added and added[0] == self.bos else ""

    def _id(self, name: str) -> int | None:
        text = self._tokens.get(name)
        return None if text is None else self.tokenizer.token_to_id(text)


def tokens_within(encoding: Encoding, start: int, end: int) -> tuple[int, int]:
    """Return the first token that holds any character from `start` to `end`, and the one behind the last."""
    first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
    if first is not None and last is not None:
        last += 1
        while last < len(encoding) and (following := encoding.token_to_chars(last)) and following[0] < end:
            last += 1  # several tokens for one character
        return first, last
    # Some tokenizers leave characters out, such as spaces at the edges of words.
    offsets: list[tuple[int, int]] = encoding.offsets
    first = bisect.bisect_left(offsets, (start,))
    while first and offsets[first - 1][1] > start:
        first -= 1
    while first < len(offsets) and offsets[first][1] <= start:
        first += 1
    return first, max(first, bisect.bisect_left(offsets, (end,)))


def _content(message: Message) -> str:
    if message.tool_calls:
        raise TunewrightError(
            "Chat template refused a row",
            "The template none adds nothing to a turn, so it cannot write calls of tools.",
            "Choose a template that knows tools (data.template).",
        )
    return message.content


def _read_tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if not file.exists():
        raise TunewrightError(
            "No fast tokenizer",
            f"{folder} has no tokenizer.json.",
            "Save it once with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise TunewrightError("Model damaged", f"{file}: {one_line(str(error), 200)}", "Download it again.") from error
    # Rows are cut and filled up elsewhere, whatever the file was saved with.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_END = "<|im_end|>"


def _counting_tokenizer() -> Tokenizer:
    """Return a tokenizer whose tokens are about four bytes of text each, and which knows ChatML's two control words."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    pieces = Regex(r"\n|[\x00-\x09\x0b-\x7f]{1,4}|[\x{80}-\x{7ff}]{1,2}|[^\x00-\x7f]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.add_special_tokens(  # pyright: ignore[reportUnknownMemberType]
        [AddedToken(word, normalized=False) for word in ("<|im_start|>", _END)]
    )
    return tokenizer
