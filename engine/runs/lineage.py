"""Lineage: the run that another one was made from, by which change, kept in the folder of the newer one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from ...foundation.files import read_text, write_atomically
from ...foundation.text import one_line
from ...recipes.comparing import differences
from ...recipes.model import Recipe
from .directory import RunDirectory

LINEAGE_FILE = "lineage.json"
MOST_CHANGES = 64


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a run was made from."""

    parent: str
    """The id of that run."""
    how: Literal["clone", "extend"]
    changes: tuple[str, ...]
    """What its recipe has otherwise, in words."""
    step: int = 0
    """The step of the parent after which it begins; 0 for a run of its own."""

    @property
    def said(self) -> str:
        """The lineage in one line."""
        changed = f": {'; '.join(self.changes)}" if self.changes else ", unchanged"
        if self.how == "extend":
            return f"extends {self.parent} after step {self.step:,}{changed}"
        return f"made from {self.parent}{changed}"


def clone_of(parent: RunDirectory, recipe: Recipe) -> Lineage:
    """Return the lineage of a run of `recipe` that was made from `parent`; raises TunewrightError for a damaged parent."""
    return Lineage(parent.id, "clone", changes_between(parent.recipe(), recipe))


def changes_between(before: Recipe, after: Recipe) -> tuple[str, ...]:
    """Return what differs between two recipes, in words."""
    return tuple(f"{each.path} {each.before} → {each.after}" for each in differences(before, after))


def write_lineage(run: RunDirectory, lineage: Lineage) -> None:
    """Keep where `run` comes from; raises TunewrightError."""
    write_atomically(run.path / LINEAGE_FILE, json.dumps(asdict(lineage), indent=2, ensure_ascii=False) + "\n")


def lineage_of(run: RunDirectory) -> Lineage | None:
    """Return where `run` comes from, None where nothing is known of it."""
    try:
        values: Any = json.loads(read_text(run.path / LINEAGE_FILE))
        changes: Any = values["changes"]
        how = values["how"]
        if how not in ("clone", "extend") or not isinstance(changes, list):
            return None
        changes = cast("list[Any]", changes)
        told = tuple(one_line(str(each), 300) for each in changes[:MOST_CHANGES])
        return Lineage(one_line(str(values["parent"]), 120), how, told, int(values["step"]))
    except Exception:  # noqa: BLE001 - a stranger's file, and nothing depends on it
        return None


def plain_name(run: RunDirectory) -> str:
    """Return what a run was called, without its time and its number."""
    return re.sub(r"^\d{8}-\d{6}-|-[0-9a-f]{4}$", "", run.id) or run.id
