"""The recipes that come with Tunewright: one commented TOML file each, named like the recipe."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


@cache
def built_in() -> dict[str, str]:
    """Return the TOML text of every built-in recipe by its name, in the order of the names."""
    folder = Path(__file__).parent
    names = sorted(name for name in os.listdir(folder) if name.endswith(".toml"))
    return {name.removesuffix(".toml"): (folder / name).read_text(encoding="utf-8") for name in names}


def fingerprint() -> str:
    """Return a hash that changes whenever a built-in recipe is added, removed or reworded."""
    digest = hashlib.sha256()
    for name, text in built_in().items():
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()
