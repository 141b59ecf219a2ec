"""Fields: what files call the parts of each format, and which format the columns and values of a row speak for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from ....foundation.text import one_line
from ....recipes.model import FormatName

FIELDS: dict[FormatName, tuple[str, ...]] = {
    "messages": ("messages", "system", "tools"),
    "tools": ("messages", "tools", "system", "query", "answers"),
    "sharegpt": ("messages", "system", "tools"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "prompt-completion": ("prompt", "completion", "system", "tools"),
    "text": ("text",),
    "preference": ("prompt", "input", "chosen", "rejected", "system", "tools"),
    "kto": ("prompt", "input", "completion", "label", "messages", "system", "tools"),
}
"""Our fields of each format: what `data.columns` maps columns to."""
REQUIRED: dict[FormatName, tuple[str, ...]] = {
    "messages": ("messages",),
    "tools": ("messages",),
    "sharegpt": ("messages",),
    "alpaca": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
    "preference": ("chosen", "rejected"),
    "kto": ("completion", "label"),
}
"""The fields without which a row is not of the format."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How to read the rows of a file."""

    format: FormatName
    dialect: str
    """Whose way of writing the format this is, for people to read; the columns say all that conversion needs."""
    columns: tuple[tuple[str, str], ...]
    """Our field and the file's column."""


class Unfit(Exception):
    """A row that does not convert: a code of the catalogue, what is wrong, and the column where it is not there."""

    def __init__(self, code: str, problem: str, column: str | None = None) -> None:
        super().__init__(problem)
        self.code, self.problem, self.column = code, problem, column


# What a value can be, in the words of the evidence.
TEXT = "text"
FLAG_TEXT = "true, false, 0 or 1 as text"
FLAG = "true or false"
BINARY = "0 or 1"
NUMBER = "numbers"
NULL = "null"
ROLE_TURNS = "lists of objects with role and content"
FROM_TURNS = "lists of objects with from and value"
TURN = "single turns"
REQUEST = "objects with messages"
OBJECT = "objects"
TEXTS = "lists of text"
LIST = "lists"

_TEXTUAL = frozenset({TEXT, FLAG_TEXT})
_TURNS = frozenset({ROLE_TURNS, FROM_TURNS})
_ANSWERS = _TEXTUAL | _TURNS | {TURN}
_PROMPTS = _TEXTUAL | _TURNS | {TURN, REQUEST}
_OUTPUTS = _TEXTUAL | {OBJECT, LIST, TEXTS, REQUEST}
_LABELS = frozenset({FLAG, BINARY, FLAG_TEXT})
_TOOLS = _TEXTUAL | {LIST, TEXTS}

# The names of a field in the wild, the most telling first; a field's own name is always the first.
_MESSAGES = ("messages", "conversations", "conversation", "chat", "dialog", "dialogue", "turns", "contents")
_QUESTIONS = ("prompt", "instruction", "question", "query", "input", "problem", "user", "human", "message_1")
_COMPLETIONS = ("completion", "response", "answer", "output", "solution", "generation", "assistant", "message_2")
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt", "system_message")
_TOOL_LISTS = ("tools", "functions")
_OUTPUT_NAMES = ("output", "response", "answer", "completion")
_LABEL_NAMES = ("label", "kto_tag", "kto_label", "desirable")
_TEXT_NAMES = ("text", "content", "document", "body", "raw_text", "raw_content", "page_content", "markdown")
_TAKES_INPUT = ("prompt", "instruction", "question", "query")
_PAIRS = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_j", "response_k"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_answer", "rejected_answer"),
    ("preferred", "dispreferred"),
    ("accepted", "rejected"),
    ("chatgpt", "llama2_13b_chat"),
)
_ALIASES: dict[str, tuple[str, ...]] = {
    "messages": _MESSAGES,
    "prompt": _QUESTIONS,
    "instruction": _QUESTIONS,
    "completion": _COMPLETIONS,
    "output": _OUTPUT_NAMES,
    "input": _INPUTS,
    "system": _SYSTEMS,
    "tools": _TOOL_LISTS,
    "label": _LABEL_NAMES,
    "text": _TEXT_NAMES,
    "chosen": tuple(better for better, _ in _PAIRS),
    "rejected": tuple(worse for _, worse in _PAIRS),
}
_KNOWN = frozenset(name for names in _ALIASES.values() for name in names) | {"history", "answers", "role", "from"}

Cells = dict[str, tuple[str, str]]
"""Of a row, or of many: the names that are known, each with the file's own column and what it holds."""


def describe(value: object) -> str:
    """Return in a few words what a value is: `a number (42)`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # Very large whole numbers are not shown: to print them takes long, or is refused.
        return f"a number ({value})" if -1e18 < value < 1e18 else "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, dict) else "no text"


def quote(name: object) -> str:
    """Return a name from a file between backticks, clean and short."""
    return f"`{one_line(str(name)[:200], 60)}`"


def list_keys(row: Mapping[str, Any]) -> str:
    """Return the first keys of a row as a list in words."""
    keys = [one_line(str(key)[:200], 40) for key in list(row)[:6]]
    return (", ".join(keys) + (", …" if len(row) > 6 else "")) or "none"


def parse_turns(text: str) -> list[Any] | None:
    """Return the turns that a text holds as JSON, or None where it is a text like any other."""
    head = text[:64].lstrip()
    if head[:1] != "[" or head[1:].lstrip()[:1] not in ("{", ""):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("list[Any]", value) if isinstance(value, list) and kind_of(cast("object", value)) in _TURNS else None


def kind_of(value: object) -> str:
    """Return what a value is, as one of the constants above."""
    if isinstance(value, str):
        if len(value) <= 5 and value.lower() in ("true", "false", "0", "1"):
            return FLAG_TEXT
        turns = parse_turns(value)
        return TEXT if turns is None else _kind_of_list(turns)
    if value is None:
        return NULL
    if isinstance(value, bool):
        return FLAG
    if isinstance(value, int | float):
        return BINARY if value in (0, 1) else NUMBER
    if isinstance(value, list):
        return _kind_of_list(cast("list[Any]", value))
    return _kind_of_object(cast("dict[str, Any]", value)) if isinstance(value, dict) else OBJECT


def _kind_of_list(value: list[Any]) -> str:
    for each in value[:3]:
        if isinstance(each, dict):
            if "from" in each or ("value" in each and "content" not in each):
                return FROM_TURNS
            if "role" in each:
                return ROLE_TURNS
    return TEXTS if value and all(isinstance(each, str) for each in value[:3]) else LIST


def _kind_of_object(value: dict[str, Any]) -> str:
    role, other = value.get("role"), value.get("from")
    if isinstance(role, list):
        return ROLE_TURNS
    if isinstance(other, list):
        return FROM_TURNS
    if isinstance(role, str) or isinstance(other, str):
        return TURN
    return REQUEST if isinstance(value.get("messages"), list) else OBJECT


@lru_cache(maxsize=4096)
def _name_of(column: str) -> str | None:
    """Return the name that a column is known by, whatever its case; None where it is not known."""
    name = column[:64].strip().lower().replace("-", "_").replace(" ", "_")
    return name if name in _KNOWN else None


def cells_of(row: Mapping[str, Any], mapped: Mapping[str, str] | None = None) -> Cells:
    """Return the known names in a row; `mapped` are names that somebody gave to its columns."""
    cells: Cells = {}
    for column, value in row.items():
        name = _name_of(column)
        if name is not None and (name not in cells or column == name):
            cells[name] = column, kind_of(value)
    for name, column in (mapped or {}).items():
        if column in row:
            cells[name] = column, kind_of(row[column])
    return cells


class _Search:
    """Finds names among cells, by what they hold unless `loose`."""

    def __init__(self, cells: Cells, loose: bool) -> None:
        self.cells, self.loose = cells, loose

    def first(self, names: Iterable[str], kinds: frozenset[str]) -> str | None:
        """Return the first of `names` that holds one of `kinds`."""
        cells = self.cells
        for name in names:
            cell = cells.get(name)
            if cell is not None and (cell[1] in kinds or self.loose):
                return name
        return None

    def optional(self, names: Iterable[str], kinds: frozenset[str]) -> str | None:
        """Return the first of `names` that holds one of `kinds`, or null in every row that was seen."""
        return self.first(names, kinds | {NULL})

    def kind(self, name: str | None) -> str:
        """Return what a name holds."""
        return self.cells[name][1] if name is not None else NULL

    def beside(self) -> dict[str, str | None]:
        """Return the system prompt and the tools, which may stand beside the fields of most formats."""
        return {"system": self.optional(_SYSTEMS, _TEXTUAL), "tools": self.optional(_TOOL_LISTS, _TOOLS)}

    def input(self, prompt: str | None) -> str | None:
        """Return the column that goes on where a prompt ends."""
        return self.optional(_INPUTS, _TEXTUAL) if prompt in _TAKES_INPUT else None


Found = tuple[str, dict[str, str | None]]
"""A dialect, and the name of each field."""


def _preference(search: _Search) -> Found | None:
    for better, worse in _PAIRS:
        if search.first((better,), _ANSWERS) and search.first((worse,), _ANSWERS):
            break
    else:
        return None
    prompt = search.first((*_QUESTIONS, *_MESSAGES), _PROMPTS)
    if better == "preferred_output":
        dialect = "openai"
    elif search.kind(better) == TURN or prompt == "instruction":
        dialect = "llama-factory"
    else:
        dialect = "implicit prompt" if prompt is None else "explicit prompt"
    fields = {"prompt": prompt, "input": search.input(prompt), "chosen": better, "rejected": worse}
    return dialect, {**fields, **search.beside()}


def _kto(search: _Search) -> Found | None:
    label = search.first(_LABEL_NAMES, _LABELS)
    if label is None:
        return None
    completion = search.first(_COMPLETIONS, _ANSWERS)
    prompt = search.first((name for name in _QUESTIONS if name != completion), _PROMPTS)
    dialect = "trl" if label == "label" else "llama-factory"
    if completion and (prompt or search.kind(completion) in _TURNS):
        fields = {"prompt": prompt, "input": search.input(prompt), "completion": completion, "label": label}
        return dialect, {**fields, **search.beside()}
    messages = search.first(_MESSAGES, _TURNS)
    # A label of 0 or 1 beside a conversation may be a class of any kind; `kto_tag` and true or false may not.
    if messages and (label != "label" or search.kind(label) == FLAG):
        return dialect, {"messages": messages, "label": label, **search.beside()}
    return None


def _called(search: _Search) -> Found | None:
    """Find query, tools and answers, the columns of xLAM."""
    if search.first(("query",), _TEXTUAL) and search.first(("answers",), _TOOLS) and search.first(("tools",), _TOOLS):
        return "xlam", {"query": "query", "answers": "answers", **search.beside()}
    return None


def _conversation(search: _Search, kinds: frozenset[str], dialect: str) -> Found | None:
    messages = search.first(_MESSAGES, kinds)
    return None if messages is None else (dialect, {"messages": messages, **search.beside()})


def _messages(search: _Search) -> Found | None:
    return _conversation(search, frozenset({ROLE_TURNS}), "openai")


def _sharegpt(search: _Search) -> Found | None:
    return _conversation(search, frozenset({FROM_TURNS}), "sharegpt")


def _tools(search: _Search) -> Found | None:
    return _called(search) or _conversation(search, _TURNS, "openai")


def _alpaca(search: _Search) -> Found | None:
    output = search.first(_OUTPUT_NAMES, _OUTPUTS)
    if output is None:
        return None
    system = search.optional(_SYSTEMS, _TEXTUAL)
    instruction = search.first(("instruction",), _TEXTUAL)
    extra = search.optional(_INPUTS, _TEXTUAL)
    if instruction:
        dialect = "dolly" if extra == "context" else "alpaca" if output == "output" else "gpteacher"
    elif question := search.first(("prompt", "question", "query"), _TEXTUAL):
        instruction = question
        if system == "system_prompt" and question == "question":
            dialect = "open-orca"
        elif extra:
            dialect = "context-qa" if extra == "context" else "prompt-input-output"
        else:
            return None
    else:
        return None
    history = search.optional(("history",), frozenset({LIST, TEXT}))
    return dialect, {"instruction": instruction, "input": extra, "output": output, "system": system, "history": history}


def _prompt_completion(search: _Search) -> Found | None:
    completion = search.first(_COMPLETIONS, _ANSWERS)
    prompt = search.first((name for name in _QUESTIONS if name != completion), _PROMPTS)
    if completion is None or prompt is None:
        return None
    dialect = "turns" if {search.kind(prompt), search.kind(completion)} & _TURNS else "strings"
    return dialect, {"prompt": prompt, "completion": completion, **search.beside()}


def _text(search: _Search) -> Found | None:
    text = search.first(_TEXT_NAMES, _TEXTUAL)
    # A row that is a single turn is part of a conversation and not a document.
    return None if text is None or {"role", "from"} & search.cells.keys() else ("plain", {"text": text})


# The most specific first: a row of preferences holds all that a row of prompt and completion holds, and so on.
_SEARCHES = {
    "preference": _preference,
    "kto": _kto,
    "tools": _called,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "alpaca": _alpaca,
    "prompt-completion": _prompt_completion,
    "text": _text,
}


def field_of(name: str, format: FormatName) -> str | None:
    """Return the field of a format that somebody means by `name`: its own name, or one that files use for it."""
    fields = FIELDS[format]
    known = name.strip().lower()
    return known if known in fields else next((field for field in fields if known in _ALIASES.get(field, ())), None)


def match_format(cells: Cells, name: FormatName, loose: bool = False) -> Shape | None:
    """Return the shape of the format `name` that the cells fit, by what they hold, or when `loose` by name alone."""
    search = _Search(cells, loose)
    found = _tools(search) if name == "tools" else _SEARCHES[name](search)
    return None if found is None else _as_shape(name, found, cells)


def match(cells: Cells, formats: Iterable[FormatName] | None = None, loose: bool = False) -> Shape | None:
    """Return the most specific shape that the cells fit, of `formats` or of all."""
    allowed = frozenset(FIELDS if formats is None else formats)
    for name, search in _SEARCHES.items():
        # By name alone, turns are ShareGPT's only where the column is called as there.
        if loose and name == "sharegpt" and cells.keys().isdisjoint(("conversations", "conversation")):
            continue
        if name in allowed and (found := search(_Search(cells, loose))) is not None:
            return _as_shape(name, found, cells)
    return None


def _as_shape(name: FormatName, found: Found, cells: Cells) -> Shape:
    dialect, names = found
    return Shape(name, dialect, tuple((field, cells[each][0]) for field, each in names.items() if each is not None))
