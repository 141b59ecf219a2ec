"""A field for a path: what could follow is shown as one types, and the right arrow takes it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from textual.suggester import Suggester

from ...foundation.text import clean

LOOKED_AT = 2000
"""The most entries of a folder that are looked at for one completion."""
PACKINGS = ("", ".gz", ".zst")
DATA_FILES = tuple(
    f".{kind}{packing}"
    for kind in ("jsonl", "json", "csv", "tsv", "parquet", "arrow", "txt")
    for packing in (PACKINGS if kind not in ("parquet", "arrow") else ("",))
)
"""How the names of files end that can hold data."""


class PathSuggester(Suggester):
    """Completes names that are built in, and paths from the file system."""

    def __init__(self, names: tuple[str, ...], suffix: str | tuple[str, ...] = "") -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.names = names
        self.suffix = suffix
        """Files that end otherwise are not offered; folders always are."""

    async def get_suggestion(self, value: str) -> str | None:
        if not value:
            return None
        for name in self.names:
            if name.startswith(value):
                return name
        return await asyncio.to_thread(complete, value, self.suffix)


def complete(value: str, suffix: str | tuple[str, ...]) -> str | None:
    """Return the first path in alphabetical order that begins with `value`, None when there is none."""
    folder, _, start = value.rpartition("/")
    place = Path(f"{folder}/" if folder or value.startswith("/") else ".").expanduser()
    found: list[str] = []
    try:
        with os.scandir(place) as entries:
            for _, entry in zip(range(LOOKED_AT), entries, strict=False):
                if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
                    continue
                if clean(entry.name) != entry.name:
                    continue  # a name with control characters is not offered
                if entry.is_dir():
                    found.append(entry.name + "/")
                elif entry.name.endswith(suffix):
                    found.append(entry.name)
    except OSError:
        return None
    if not found:
        return None
    head = value[: len(value) - len(start)]
    return head + min(found)
