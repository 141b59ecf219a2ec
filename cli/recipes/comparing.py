"""`tunewright recipes diff`: what differs between two recipes in meaning, and what each difference does."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...foundation.home import runs_folder
from ...foundation.text import clean, one_line
from ...recipes.comparing import Difference, differences
from ..parser import add_json, print_json
from ..table import gib_text, paragraph, seconds_text
from .showing import read_named

if TYPE_CHECKING:
    from ...engine.fitting import Fit


def configure_diff(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("before", metavar="A", help="a recipe's name, a part of its hash, or a TOML file")
    parser.add_argument("after", metavar="B", help="another one")
    add_json(parser)


def run_diff(arguments: argparse.Namespace) -> int:
    """Print what differs and return the exit status."""
    from ...engine.fitting import fit
    from ...engine.machine import inspect_machine

    before_name, before, before_text, _ = read_named(arguments.before)
    after_name, after, after_text, _ = read_named(arguments.after)
    found = differences(before, after)
    machine = inspect_machine(runs_folder())
    costs = (fit(before, machine), fit(after, machine))
    if arguments.json:
        print_json(
            {
                "before": {"name": before_name, "hash": before.hash()},
                "after": {"name": after_name, "hash": after.hash()},
                "same_meaning": before.hash() == after.hash(),
                "differences": [asdict(each) for each in found],
                "predicted": {"before": asdict(costs[0]), "after": asdict(costs[1])},
            }
        )
        return 0
    heads = f"{one_line(before_name, 80)} → {one_line(after_name, 80)}"
    if not found:
        same = clean(before_text) == clean(after_text)
        print(f"{heads}: the same{'' if same else ', written with other words'}.")
        return 0
    results = [each for each in found if each.changes_result]
    words = [each.path for each in found if not each.changes_result]
    parts = [heads, *map(_text, results)]
    if words:
        parts.append(paragraph(f"Of no effect on what is trained: {', '.join(words)}."))
    print("\n\n".join([*parts, cost_text(*costs)] if results else parts))
    return 0


def _text(difference: Difference) -> str:
    lines = [f"{difference.path}: {difference.before} → {difference.after}"]
    lines += [paragraph(difference.effect, "    ")] if difference.effect else []
    return "\n".join(lines)


def cost_text(before: Fit, after: Fit) -> str:
    """Return what both take on this machine, by the planner, in a sentence or two."""
    if before.peak_gib is None or after.peak_gib is None:
        said = [
            f"{name}: {each.because}"
            for name, each in (("the first", before), ("the second", after))
            if each.verdict != "fits"
        ]
        return paragraph("On this machine: " + " ".join(said))
    parts: list[Any] = [f"{gib_text(before.peak_gib)} → {gib_text(after.peak_gib)} of memory"]
    if before.step_seconds and after.step_seconds and before.total_seconds and after.total_seconds:
        parts.append(f"{_seconds(before.step_seconds)} → {_seconds(after.step_seconds)} a step")
        parts.append(
            f"{seconds_text(before.total_seconds)} → {seconds_text(after.total_seconds)} for 512 rows of full length"
        )
    return paragraph(f"Predicted on this machine: {', '.join(parts)}.")


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else seconds_text(seconds)
