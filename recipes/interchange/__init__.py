"""Recipes of other tools, in and out: every key of theirs is accounted for, and what a format cannot carry is told."""

from __future__ import annotations

from typing import Literal, get_args

FormatName = Literal["axolotl", "llamafactory", "torchtune", "trl", "unsloth", "oumi"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)
"""The formats that are read."""
TARGETS = ("axolotl", "llamafactory", "trl", "oumi", "python-trl", "python-unsloth")
"""The formats that are written; the last two are scripts that need nothing of ours."""
