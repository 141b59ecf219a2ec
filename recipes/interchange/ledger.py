"""The ledger of an import: every key of the rival's file is mapped, or dropped with its reason; nothing is left over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ..model import PREFERENCE_OBJECTIVES, Recipe, validate_recipe

MOST_SHOWN = 300
NO_CLIPPING = 1e6
"""A gradient's norm that no run reaches: what stands for `not clipped`."""
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A key of the rival's that a field of ours says."""

    key: str
    value: Any
    field: str
    became: Any
    note: str = ""


@dataclass(frozen=True, slots=True)
class Defaulted:
    """A field of ours that the file does not speak of, and why it has this value."""

    field: str
    value: Any
    because: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A key of the rival's that our recipe does not hold, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A recipe made from a rival's configuration, with an account of every key."""

    format: str
    recipe: Recipe
    mapped: tuple[Mapped, ...]
    defaulted: tuple[Defaulted, ...]
    dropped: tuple[Dropped, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the account as one JSON object."""
        return {
            "recipe": self.recipe.model_dump(mode="json", exclude_none=True),
            "mapped": [asdict(each) for each in self.mapped],
            "defaulted": [asdict(each) for each in self.defaulted],
            "dropped": [asdict(each) for each in self.dropped],
            "warnings": list(self.warnings),
        }


Line = tuple[str, ...]


def account_of(imported: Imported) -> tuple[list[Line], list[Line], list[Line]]:
    """Return what became of every key, as cells of text: mapped (key, there, field, here), defaulted (field, here, why), dropped (key, there, why)."""
    mapped = [(each.key, brief(each.value), each.field, brief(each.became)) for each in imported.mapped]
    defaulted = [(each.field, brief(each.value), each.because) for each in imported.defaulted]
    dropped = [(each.key, brief(each.value), each.reason) for each in imported.dropped]
    return (
        [tuple(map(one_line, line)) for line in mapped],
        [tuple(map(one_line, line)) for line in defaulted],
        [tuple(map(one_line, line)) for line in dropped],
    )


def brief(value: object) -> str:
    """Return a value in a few characters."""
    if isinstance(value, (list, tuple)):
        return one_line(", ".join(map(str, cast("Sequence[object]", value))), 32)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "" if value is None else one_line(text, 32)


class Ledger:
    """The keys of one file of a rival's, each taken once, and the recipe that grows out of them."""

    def __init__(self, tool: str, values: Mapping[str, Any], gpus: int) -> None:
        self.tool = tool
        self.gpus = gpus
        self.fields: dict[str, Any] = {}
        self.warnings: list[str] = []
        self._values = values
        self._leaves = dict(_leaves(values)) if values else {}
        self._open = dict.fromkeys(self._leaves)
        self._mapped: list[Mapped] = []
        self._defaulted: list[Defaulted] = []
        self._dropped: list[Dropped] = []

    def get(self, key: str) -> Any:
        """Return the value at the dotted `key`, None where there is none; the key stays open."""
        value: Any = self._values
        for name in _path(key):
            if isinstance(name, int):
                items = cast("list[Any]", value) if isinstance(value, list) else []
                value = items[name] if name < len(items) else None
            else:
                value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
        return value

    def text(self, key: str) -> str | None:
        """Return the text at `key`; raises TunewrightError when something else stands there."""
        return self.read(key, word)

    def read(self, key: str, reader: Callable[[Any], Value]) -> Value | None:
        """Return the value at `key` as `reader` reads it, None where there is none."""
        value = self.get(key)
        if value is None:
            return None
        try:
            return reader(value)
        except ValueError as error:
            raise TunewrightError(
                "Configuration not readable",
                f"{key} is {_shown(value)}: {error}.",
                f"Mend it; {self.tool} would not take it either.",
            ) from error

    def settle(self, field: str, value: Any, *keys: str, note: str = "") -> None:
        """Give `field` a value that these keys say; those that are absent or taken are passed over."""
        self.fields[field] = value
        for key in keys:
            for leaf in self._below(key):
                del self._open[leaf]
                self._mapped.append(Mapped(leaf, self._leaves[leaf], field, value, note))

    def default(self, field: str, value: Any, because: str) -> None:
        """Give `field` the value that the tool takes by itself."""
        self.fields[field] = value
        self._defaulted.append(Defaulted(field, value, because))

    def carry(
        self,
        key: str,
        field: str,
        reader: Callable[[Any], Any],
        default: Any = None,
        because: str = "",
    ) -> Any:
        """Carry the value at `key` over into `field`, or the tool's default where it is absent; return it."""
        value = self.read(key, reader)
        if value is not None:
            raw = self.get(key)
            note = "text there, as YAML 1.1 has it; read as the number" if isinstance(raw, str) and raw != value else ""
            self.settle(field, value, key, note=note if isinstance(value, float) else "")
        elif because:
            value = default
            self.default(field, default, because)
        return value

    def drop(self, key: str, reason: str, warning: str = "") -> None:
        """Leave `key`, or the table at it, out of the recipe; `warning` says what of the meaning is lost."""
        for leaf in self._below(key):
            del self._open[leaf]
            self._dropped.append(Dropped(leaf, self._leaves[leaf], reason))
            if warning:
                self.warn(warning)
                warning = ""

    def unless(self, key: str, harmless: Sequence[Any], reason: str, warning: str) -> None:
        """Drop `key`: silently where its value changes nothing, else with `warning`."""
        if self.get(key) is not None:
            self.drop(key, reason, "" if self.get(key) in harmless else warning)

    def warn(self, text: str) -> None:
        """Tell where meaning may be lost, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def refuse(self, because: str) -> TunewrightError:
        """Return the error for a configuration of something that our engine does not train."""
        return TunewrightError(
            "Not a run that Tunewright can do", f"{because}.", "docs/recipes.md lists what is trained: text, by sft, cpt, dpo, orpo and kto."
        )  # fmt: skip

    def ignore(self, patterns: Mapping[str, str]) -> None:
        """Drop the keys that match a pattern of `patterns`, each with its reason."""
        compiled = [(re.compile(pattern), reason) for pattern, reason in patterns.items()]
        for leaf in list(self._open):
            for pattern, reason in compiled:
                if pattern.fullmatch(leaf):
                    self.drop(leaf, reason)
                    break

    def finish(self, format_: str, card: Mapping[str, Any]) -> Imported:
        """Return the recipe with its account; raises TunewrightError when the values make no recipe."""
        for leaf in list(self._open):
            if self._leaves[leaf] is None:
                self.drop(leaf, f"empty: {self.tool}'s default holds")
            else:
                name = one_line(leaf, 100)
                self.drop(
                    leaf, "unknown to Tunewright", f"{name} is not known to Tunewright: check what it does to the run."
                )
        self._fill()
        tables: dict[str, Any] = {"card": dict(card)}
        for field, value in self.fields.items():
            if value is None:
                continue
            *path, last = field.split(".")
            table = tables
            for name in path:
                table = table.setdefault(name, {})
            table[last] = value
        recipe = validate_recipe(tables, origin=f"what {self.tool}'s configuration means")
        return Imported(
            format_,
            recipe,
            tuple(self._mapped),
            tuple(self._defaulted),
            tuple(self._dropped),
            tuple(self.warnings),
        )

    def _fill(self) -> None:
        """Write down every field that is left as ours alone."""
        none = f"Tunewright's own; {self.tool} has no such setting"
        objective = self.fields.get("training.objective", "sft")
        for field, value in OURS.items():
            if field not in self.fields and not (field == "training.guard" and "training.guard" in self.fields):
                self.default(field, value, none)
        if objective in PREFERENCE_OBJECTIVES:
            for field, value in PREFERENCES.items():
                if field not in self.fields:
                    self.default(field, value, none)

    def _below(self, key: str) -> list[str]:
        return [each for each in self._open if each == key or each.startswith((f"{key}.", f"{key}["))]


OURS: dict[str, Any] = {
    "data.split": "train",
    "data.format": "auto",
    "data.template": "model",
    "data.system": "keep",
    "data.thinking": "keep",
    "data.faulty": "refuse",
    "data.share": 1.0,
    "training.finish_with": "last",
    "training.guard.not_a_number": "stop",
    "training.guard.explosion": "warn",
    "training.guard.explosion_factor": 20.0,
    "training.guard.unchanged": "stop",
}
"""Fields of ours that a tool may not know, and what they are where nobody says otherwise."""
PREFERENCES: dict[str, Any] = {
    "training.preference.loss": "sigmoid",
    "training.preference.label_smoothing": 0.0,
    "training.preference.desirable_weight": 1.0,
    "training.preference.undesirable_weight": 1.0,
}


def number(value: Any) -> float:
    """Read a finite number; text such as 2e-4, which YAML 1.1 does not take for one, is read too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("not a number")
    try:
        read = float(value)
    except ValueError:
        raise ValueError("not a number") from None
    if read != read or abs(read) > 1e15:
        raise ValueError("not a number that a run could use")
    return read


def whole(value: Any) -> int:
    """Read a whole number."""
    read = number(value)
    if read != int(read):
        raise ValueError("not a whole number")
    return int(read)


def switch(value: Any) -> bool:
    """Read yes or no."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    found = words.get(str(value).casefold())
    if found is None:
        raise ValueError("neither true nor false")
    return found


def word(value: Any) -> str:
    """Read one text; a number is read as its text."""
    if isinstance(value, (dict, list, bool)):
        raise ValueError("not a text")
    return one_line(str(value), 1000)


def words(value: Any) -> list[str]:
    """Read a list of texts, or one text of several with commas between them."""
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    if not isinstance(value, list):
        raise ValueError("not a list")
    return [word(each) for each in cast("list[Any]", value)]


def _leaves(value: Any, at: str | None = None) -> list[tuple[str, Any]]:
    """Return every value that is no table, with its dotted key; lists of plain values are one."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        found = [leaf for key, inner in table.items() for leaf in _leaves(inner, key if at is None else f"{at}.{key}")]
        return found or [(at or "", None)]
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in cast("list[Any]", value)):
        items = cast("list[Any]", value)
        return [leaf for index, inner in enumerate(items) for leaf in _leaves(inner, f"{at}[{index}]")]
    return [(at or "", value)]


def _path(key: str) -> list[str | int]:
    return [int(part[1:-1]) if part[0] == "[" else part for part in re.findall(r"\[\d+\]|[^.\[\]]+", key)]


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return "true or false" if isinstance(value, bool) else repr(one_line(str(value), 60))
