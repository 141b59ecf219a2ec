"""GPUs as an argument: so many of them, all, or some by their numbers."""

from __future__ import annotations

import argparse

from ..engine.machine import Machine
from ..engine.several import Wish, read_wish


def add_gpus(parser: argparse.ArgumentParser) -> None:
    """Add the choice of GPUs."""
    parser.add_argument(
        "--gpus",
        metavar="GPUS",
        help="a number, all, or their numbers such as 0,1, instead of what the plan would choose",
    )


def wished_gpus(arguments: argparse.Namespace, machine: Machine) -> Wish:
    """Return the GPUs that `arguments` ask for; raises TunewrightError."""
    return read_wish(arguments.gpus, machine)
