"""What each field of a recipe may hold, read off the model: its kind, its choices, its range, its default and its meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..foundation.text import one_line
from .model import FullMethod, LoraMethod, QloraMethod, Recipe, Section

METHODS: dict[str, type[Section]] = {"full": FullMethod, "lora": LoraMethod, "qlora": QloraMethod}
"""The sections that the kinds of method have."""
Kind = Literal["choice", "yes or no", "whole number", "number", "text", "list", "table"]
_KINDS: dict[object, Kind] = {
    bool: "yes or no", int: "whole number", float: "number", str: "text", tuple: "list", dict: "table"
}  # fmt: skip
_SHAPES: dict[Kind, str] = {
    "whole number": "a whole number", "number": "a number", "text": "text", "list": 'a list such as ["one", "two"]',
    "table": 'pairs such as { prompt = "question" }', "yes or no": "yes or no", "choice": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slot:
    """One field of the schema."""

    path: str
    kind: Kind
    choices: tuple[str, ...]
    """The words that it may be: all there is of a choice, beside lists of names for some lists."""
    bounds: str
    """The range of a number, the length of a text; empty without one."""
    required: bool
    optional: bool
    """Whether it may be left out, and means something by that."""
    default: Any
    meaning: str

    @property
    def section(self) -> str:
        """The first part of its path."""
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """Its path within the section."""
        return self.path.partition(".")[2]

    @property
    def allowed(self) -> str:
        """Say what it may hold."""
        shape = _SHAPES[self.kind]
        words = [*self.choices, shape] if shape else list(self.choices)
        said = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        said += f", {self.bounds}" if self.bounds else ""
        return f"{said}; may be left out" if self.optional else said


@lru_cache(maxsize=4)
def slots(method: str = "qlora") -> tuple[Slot, ...]:
    """Return the fields of a recipe whose method is of this kind, in the order of the schema."""
    found: list[Slot] = []
    for name, info in Recipe.model_fields.items():
        section = METHODS[method] if name == "method" else section_of(info.annotation)
        assert section is not None, "every part of a recipe is a table"
        found += _slots_of(section, name)
    return tuple(found)


def slot_at(path: str) -> Slot | None:
    """Return the field at `path`, whichever method has it; None where there is no such field."""
    return next((each for method in ("qlora", "full") for each in slots(method) if each.path == path), None)


def _slots_of(section: type[Section], path: str, optional: bool = False) -> Iterator[Slot]:
    """Yield the fields of a table; an `optional` one is there once one of them is given."""
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        if inner is not None:
            yield from _slots_of(inner, f"{path}.{name}", type(None) in get_args(info.annotation))
        else:
            yield _slot(f"{path}.{name}", info, optional)


def _slot(path: str, info: FieldInfo, optional: bool) -> Slot:
    form = _Form(optional=optional and info.is_required())
    form.read(info.annotation)
    choices = tuple(METHODS) if path == "method.kind" else tuple(form.choices)
    others = [each for each in form.kinds if each != "choice"]
    kind = cast("Kind", others[0] if others else "choice")
    required = info.is_required() and not optional
    default: Any = None if info.is_required() else info.get_default(call_default_factory=True)
    return Slot(
        path=path,
        kind=kind,
        choices=choices,
        bounds=_bounds(info.metadata, kind),
        required=required,
        optional=form.optional,
        default=default,
        meaning=_KINDS_OF_METHOD if path == "method.kind" else meaning_of(info),
    )


@dataclass(slots=True)
class _Form:
    """What an annotation admits."""

    kinds: list[Kind] = field(default_factory=list[Kind])
    choices: list[str] = field(default_factory=list[str])
    optional: bool = False

    def read(self, annotation: Any) -> None:
        """Take in what `annotation` admits."""
        origin = get_origin(annotation)
        if origin is Annotated:
            self.read(get_args(annotation)[0])
        elif origin in (Union, types.UnionType):
            for each in get_args(annotation):
                self.read(each)
        elif origin is Literal:
            self.kinds.append("choice")
            self.choices += map(str, get_args(annotation))
        elif annotation is type(None):
            self.optional = True
        else:
            self.kinds.append(_KINDS[origin or annotation])


def _bounds(metadata: list[Any], kind: Kind) -> str:
    """Return the range in words, out of what pydantic keeps of it."""
    limits: dict[str, Any] = {}
    for each in metadata:
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            if (limit := getattr(each, name, None)) is not None:
                limits[name] = limit
    if kind == "whole number" and "lt" in limits:
        limits["le"] = limits.pop("lt") - 1
    if kind in ("text", "list", "table"):
        return (
            f"at most {limits['max_length']:,}{' characters' if kind == 'text' else ''}"
            if "max_length" in limits
            else ""
        )
    low, above, high, below = (limits.get(name) for name in ("ge", "gt", "le", "lt"))
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    parts = [
        f"{_number(low)} or more" if low is not None else "",
        f"above {_number(above)}" if above is not None else "",
        f"at most {_number(high)}" if high is not None else "",
        f"below {_number(below)}" if below is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def section_of(annotation: Any) -> type[Section] | None:
    """Return the table that a field holds, None where it holds a value."""
    for each in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return cast("type[Section]", each)
    return None


def meaning_at(path: str) -> str:
    """Return what the field at `path` says; empty where there is no such field."""
    slot = slot_at(path)
    return slot.meaning if slot else ""


def meaning_of(info: FieldInfo) -> str:
    """Return the docstring of a field, on one line and without its backticks."""
    return one_line((info.description or "").replace("`", ""))


_KINDS_OF_METHOD = " ".join(meaning_of(section.model_fields["kind"]) for section in METHODS.values())
