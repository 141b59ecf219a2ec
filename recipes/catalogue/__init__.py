"""The recipes that come with Tunewright: one commented TOML file each, named like the recipe."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files


@cache
def built_in() -> dict[str, str]:
    """Return the TOML text of every built-in recipe by its name, in the order of the names."""
    texts = {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in files(__package__ or __name__).iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(texts.items()))


def fingerprint() -> str:
    """Return a hash that changes whenever a built-in recipe is added, removed or reworded."""
    digest = hashlib.sha256()
    for name, text in built_in().items():
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()
