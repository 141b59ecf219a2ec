"""Chat templates: where a model keeps them, those that are named here, and how turns are handed to them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from ....foundation.errors import TunewrightError
from ....foundation.files import read_text
from ....recipes.model import TemplateName
from ..examples import Message, ToolCall
from .sandbox import LONGEST_SOURCE, Stretch, Template

NAMED: tuple[TemplateName, ...] = ("chatml", "alpaca", "vicuna", "zephyr", "llama3", "gemma", "mistral", "phi3")
"""The templates that come with this package, each with {% generation %} marks."""
_TRL_FOLDER = "chat_templates"
_TRAINED = "_training.jinja"


def named_template(name: str) -> str:
    """Return the source of one of NAMED."""
    assert name in NAMED, name
    return (Path(__file__).with_name("named") / f"{name}.jinja").read_text(encoding="utf-8")


def read_templates(folder: Path) -> dict[str, str]:
    """Return the chat templates of the model in `folder` by name, mostly only `default`; raises TunewrightError.

    They are looked for where transformers looks: chat_template.jinja and additional_chat_templates/, then
    chat_template.json, then tokenizer_config.json, where there may be a list of several.
    """
    found: dict[str, str] = {}
    additional = folder / "additional_chat_templates"
    if additional.is_dir():
        found = {file.stem: read_text(file) for file in sorted(additional.glob("*.jinja"))[:50]}
    separate = folder / "chat_template.jinja"
    if separate.exists():
        return found | {"default": read_text(separate)}
    for file in ("chat_template.json", "tokenizer_config.json"):
        value = read_json(folder / file).get("chat_template")
        if isinstance(value, str):
            return found | {"default": value}
        if isinstance(value, dict):  # by name, as processors write it
            several = cast("dict[str, Any]", value)
            return found | {str(name): source for name, source in several.items() if isinstance(source, str)}
        if isinstance(value, list):  # the older form: several, by name
            for each in cast("list[Any]", value):
                if isinstance(each, dict):
                    entry = cast("dict[str, Any]", each)
                    if isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
                        found[entry["name"]] = entry["template"]
            return found
    return found


def training_template(source: str) -> str:
    """Return the template that TRL trains the stock template `source` with; raises TunewrightError when it has none.

    They are found as TRL's own `get_training_chat_template` finds them, by comparing the whole text. TRL is not
    imported: only the files of its package are read.
    """
    if Template(source).has_marks:
        return source  # TRL leaves templates alone that mark the assistant's turns themselves
    specification = importlib.util.find_spec("trl")
    locations = specification.submodule_search_locations if specification is not None else None
    for location in locations or ():
        for file in sorted((Path(location) / _TRL_FOLDER).glob(f"*{_TRAINED}")):
            stock = file.with_name(file.name.removesuffix(_TRAINED) + ".jinja")
            if stock.exists() and stock.read_text(encoding="utf-8") == source:
                return file.read_text(encoding="utf-8")
    raise TunewrightError(
        "No training template",
        "TRL, as it is installed here, has no training template for this model's chat template.",
        'Set data.template = "model": the mask is then proved row by row.',
    )


def read_special_tokens(folder: Path) -> dict[str, str]:
    """Return the texts of the tokenizer's special tokens by name, such as `bos_token`; those it lacks are left out."""
    settings = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    more = settings.get("extra_special_tokens")
    if isinstance(more, dict):
        settings |= cast("dict[str, Any]", more)
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get("content")
        if name.endswith("_token") and isinstance(value, str) and value:
            found[name] = value
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model, empty where there is no file; raises TunewrightError."""
    if not path.exists():
        return {}
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise TunewrightError("Model damaged", f"{path} is not JSON.", "Download the model again.") from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Form:
    """How a template wants turns to be written."""

    parts: bool = False
    """Whether a content is a list of parts, as templates for pictures want it, rather than a text."""
    arguments: Literal["object", "text"] = "object"
    """Whether the arguments of a call are a JSON object or its text."""
    silent: Literal["", None] = ""
    """The content of a turn that only calls tools."""


class ChatTemplate:
    """A chat template with its special tokens, and turns written in the form that it wants."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        """Compile `source`; raises TunewrightError when it is not a template."""
        if len(source) > LONGEST_SOURCE:
            source = source[: LONGEST_SOURCE + 1]
        self._template = Template(source)
        self.has_marks = self._template.has_marks
        # Without the two the concatenations in older templates would fail where the tokenizer has none.
        self._tokens = {"bos_token": "", "eos_token": "", **tokens}
        self.special = tuple(tokens.values())
        """The texts of the special tokens."""

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), answer: bool = False
    ) -> tuple[str, list[Stretch]]:
        """Return the text of a conversation and what its marks enclose; raises TunewrightError when it is refused.

        With `answer` the text ends where the model is to answer.
        """
        return self._render(messages, tools, answer, self.form)

    @cached_property
    def form(self) -> Form:
        """How this template wants turns to be written, found by trying it."""
        asked, answered, name, value, result, call = ("\ue000" + chr(0xE001 + n) * 8 for n in range(6))
        plain = (Message("user", asked), Message("assistant", answered))
        parts = not self._shows(plain, Form(), asked, answered) and self._shows(
            plain, Form(parts=True), asked, answered
        )
        calling = (
            plain[0],
            Message("assistant", "", tool_calls=(ToolCall(name, {"key": value}, call),)),
            Message("tool", result, name=name, call_id=call),
        )
        forms = [
            Form(parts, arguments, silent)
            for arguments in ("object", "text")
            for silent in cast("list[Any]", ["", None])
        ]
        # Most wanted is that everything is shown; some templates do not know the turns of tools but know the calls.
        for turns, wanted in ((calling, (name, value, result)), (calling[:2], (name, value)), (calling[:2], (name,))):
            for form in forms:
                if self._shows(turns, form, *wanted):
                    return form
        return Form(parts)

    def _shows(self, messages: Sequence[Message], form: Form, *wanted: str) -> bool:
        try:
            text, _ = self._render(messages, (), False, form)
        except TunewrightError:
            return False
        return all(each in text for each in wanted)

    def _render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], answer: bool, form: Form
    ) -> tuple[str, list[Stretch]]:
        variables = {
            "messages": [_write(message, form) for message in messages],
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": answer,
            **self._tokens,
        }
        return self._template.render(variables)


def _write(message: Message, form: Form) -> dict[str, Any]:
    """Return one turn as transformers gives it to templates; what a turn does not have has no key."""
    content: Any = message.content
    if form.parts:
        content = [{"type": "text", "text": content}]
    written: dict[str, Any] = {"role": message.role, "content": content}
    if message.thinking is not None:
        # Templates call it by either name.
        written["reasoning_content"] = written["thinking"] = message.thinking
    if message.tool_calls:
        written["tool_calls"] = [_write_call(call, form) for call in message.tool_calls]
        if not message.content:
            written["content"] = form.silent
    if message.name is not None:
        written["name"] = message.name
    if message.call_id is not None:
        written["tool_call_id"] = message.call_id
    return written


def _write_call(call: ToolCall, form: Form) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False) if form.arguments == "text" else call.arguments
    written: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    if call.id is not None:
        written["id"] = call.id
    return written
