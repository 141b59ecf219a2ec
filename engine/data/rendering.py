"""From conversations to exactly the tokens that are trained: the one code path of preview, plan, trainer and chat."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text
from ...foundation.text import one_line
from ...recipes.model import Recipe
from ..sources import find_data, find_model
from .formats import Conversation, Message, read_conversations

IGNORED = -100
"""The label of a token on which no loss is taken (torch.nn.CrossEntropyLoss)."""
LossOn = Literal["assistant", "last", "all"]


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
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All rows of a recipe, split into those trained on and those kept out."""

    training: tuple[Row, ...]
    validation: tuple[Row, ...]
    kept_out: tuple[Conversation, ...]
    """The conversations of the validation rows, in their order."""
    cut: int
    """Rows longer than the maximum length, cut there."""
    dropped: int
    """Rows in which nothing was left to learn after the cut."""


class Renderer:
    """Renders conversations with a model's own chat template and tokenizer."""

    def __init__(self, model: Path) -> None:
        """Read the tokenizer in the folder `model`; raises TunewrightError when it has none or no chat template."""
        file = model / "tokenizer.json"
        if not file.exists():
            raise TunewrightError(
                "No fast tokenizer",
                f"{model} has no tokenizer.json.",
                "Save it once with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
            )
        self.folder = model
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        self._settings: dict[str, Any] = _read_json(model / "tokenizer_config.json")
        self._template = self._compile()

    def render(self, conversation: Conversation, loss_on: LossOn = "assistant", max_length: int | None = None) -> Row:
        """Return the row of one conversation; raises TunewrightError when the template refuses it."""
        text, spans = self._render_with_spans(conversation, loss_on)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        labels = [
            token if any(start < span_end and end > span_start for span_start, span_end in spans) else IGNORED
            for token, (start, end) in zip(ids, encoding.offsets, strict=True)
        ]
        return Row(ids[:max_length], labels[:max_length], len(ids))

    def prompt(self, conversation: Sequence[Message]) -> str:
        """Return the text after which the model is to answer."""
        return self._template.render(**self._context(conversation), add_generation_prompt=True)

    @cached_property
    def end_tokens(self) -> list[int]:
        """The ids at which generation ends: those of generation_config.json, or else the tokenizer's end token."""
        configured = _read_json(self.folder / "generation_config.json").get("eos_token_id")
        if isinstance(configured, int):
            return [configured]
        if isinstance(configured, list):
            return [int(token) for token in cast("list[int]", configured)]
        end = self.tokenizer.token_to_id(self._special("eos_token"))
        return [] if end is None else [end]

    def _render_with_spans(self, conversation: Conversation, loss_on: LossOn) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a conversation, and the character spans on which the loss is taken."""
        if loss_on == "all":
            text = self._template.render(**self._context(conversation))
            return text, [(0, len(text))]
        text, spans = self._template.render_with_generation(**self._context(conversation))
        if not spans:
            spans = self._spans_by_prefix(conversation, text)
        return text, spans[-1:] if loss_on == "last" else spans

    def _spans_by_prefix(self, conversation: Conversation, text: str) -> list[tuple[int, int]]:
        """Find the assistant's turns in a template that does not mark them.

        A turn is what its rendering adds to that of the turns before it, generation prompt included; it counts only
        when the whole text begins with both, which proves that nothing else moved.
        """
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(conversation):
            if message.role != "assistant":
                continue
            before = self.prompt(conversation[:index])
            through = self._template.render(**self._context(conversation[: index + 1]))
            if not (text.startswith(before) and text.startswith(through) and len(before) < len(through)):
                raise TunewrightError(
                    "Loss mask not provable",
                    "This chat template does not mark the assistant's turns, and renders them differently in context.",
                    'Set loss_on = "all" in the recipe, or use a template with {% generation %} marks.',
                )
            spans.append((len(before), len(through)))
        return spans

    def _compile(self) -> _Template:
        separate = self.folder / "chat_template.jinja"
        source: Any = read_text(separate) if separate.exists() else self._settings.get("chat_template")
        if isinstance(source, list):  # the older form: several, by name
            named = cast("list[dict[str, str]]", source)
            source = next((each.get("template") for each in named if each.get("name") == "default"), None)
        if not isinstance(source, str):
            raise TunewrightError(
                "No chat template",
                f"The tokenizer in {self.folder} has no chat template; base models often have none.",
                "Start from the model's instruct version, or put a chat_template.jinja into the folder.",
            )
        return _Template(source)

    def _context(self, conversation: Sequence[Message]) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in conversation]
        tokens = {name: self._special(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        return {"messages": messages, "tools": None, "documents": None, **tokens}

    def _special(self, name: str) -> str:
        value = self._settings.get(name)
        return str(cast("dict[str, str]", value).get("content", "") if isinstance(value, dict) else value or "")


class _Template:
    """A chat template in Jinja's sandbox, with the extensions that transformers gives templates."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        self._environment: Any = environment
        self._environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TunewrightError(
                "Chat template not valid", one_line(str(error), 300), "Take the template from the model's own page."
            ) from error

    def render(self, **context: Any) -> str:
        """Return the rendered text; raises TunewrightError when the template refuses."""
        return self.render_with_generation(
            add_generation_prompt=context.pop("add_generation_prompt", False), **context
        )[0]

    def render_with_generation(self, **context: Any) -> tuple[str, list[tuple[int, int]]]:
        """Return the rendered text and the character spans that `{% generation %}` encloses."""
        context.setdefault("add_generation_prompt", False)
        pieces: list[str] = []
        spans: list[tuple[int, int]] = []
        self._environment.begin_generation(lambda: sum(map(len, pieces)), spans)
        try:
            for piece in self._template.generate(**context):
                pieces.append(piece)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TunewrightError(
                "Chat template refused a row", one_line(str(error), 300), "Check the roles and their order in the data."
            ) from error
        return "".join(pieces), spans


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: notes where the enclosed text stands in the output."""

    tags = {"generation"}  # noqa: RUF012

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._length: Callable[[], int] = lambda: 0
        self._spans: list[tuple[int, int]] = []
        environment.extend(begin_generation=self._begin)

    def _begin(self, length: Callable[[], int], spans: list[tuple[int, int]]) -> None:
        self._length, self._spans = length, spans

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        text = caller()
        start = self._length()
        self._spans.append((start, start + len(text)))
        return text


def prepare(recipe: Recipe, model: Path | None = None) -> Prepared:
    """Return the rows of `recipe`, rendered and split; raises TunewrightError when there is nothing to learn.

    The validation rows are drawn with the recipe's seed, so every process that prepares it gets the same split.
    """
    renderer = Renderer(model or find_model(recipe.base.model, recipe.base.revision))
    conversations = read_conversations(find_data(recipe.data.source)).require_whole()
    rendered = [(each, renderer.render(each, recipe.data.loss_on, recipe.data.max_length)) for each in conversations]
    kept = [(conversation, row) for conversation, row in rendered if row.supervised > 0]
    if not kept:
        raise TunewrightError(
            "Nothing to learn",
            f"Not one of {len(rendered)} rows has a token on which a loss is taken.",
            "Raise max_length, or check that the rows hold turns of the assistant.",
        )
    chosen = choose_validation(len(kept), recipe)
    return Prepared(
        training=tuple(row for index, (_, row) in enumerate(kept) if index not in chosen),
        validation=tuple(kept[index][1] for index in sorted(chosen)),
        kept_out=tuple(kept[index][0] for index in sorted(chosen)),
        cut=sum(row.whole_length > row.length for _, row in rendered),
        dropped=len(rendered) - len(kept),
    )


def choose_validation(rows: int, recipe: Recipe) -> set[int]:
    """Return which of `rows` are kept out of training; raises TunewrightError when none would be left."""
    rule = recipe.data.validation
    count = 0 if rule.kind == "none" else int(rule.value if rule.kind == "rows" else round(rule.value * rows))
    if count >= rows:
        raise TunewrightError(
            "No rows left to train on",
            f"{count} of {rows} rows would be kept out for validation.",
            "Lower data.validation.value.",
        )
    return set(random.Random(recipe.training.seed).sample(range(rows), count))


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Jinja's own filter escapes HTML, which chat templates do not want."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise TunewrightError("Model damaged", f"{path} is not JSON.", "Download the model again.") from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
