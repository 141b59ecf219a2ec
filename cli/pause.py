"""`tunewright pause RUN`: save at the next step, then give the memory back until the run is resumed."""

from __future__ import annotations

import argparse

from ..engine.runs.launch import pause
from .stop import ask, configure

__all__ = ["configure", "run"]


def run(arguments: argparse.Namespace) -> int:
    return ask(arguments, pause, "pause")
