"""`tunewright recipes list` and `search`: the recipes of the registry in a table, those with most evidence first."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.finding import GRADE_WORDS, GRADES, Findings, Found, Query, parse_sizes
from ...recipes.registry import Registry, open_registry
from ..parser import add_json, print_json

if TYPE_CHECKING:
    from ...engine.fitting import Fit

NARROWEST_TITLE = 20
SHOWN = 50
MOST_FITTED = 500
"""The planner is asked about so many recipes at most: each takes it some milliseconds."""


def configure_list(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `list`."""
    parser.add_argument("--search", metavar="TEXT", help="only recipes that hold every word of TEXT, best match first")
    add_json(parser)


def configure_search(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `search`."""
    parser.add_argument("text", nargs="*", metavar="TEXT", help="words that all occur in it, by their beginnings")
    parser.add_argument("--task", help="with this tag: chat, code, reasoning, sql …")
    parser.add_argument("--model", metavar="NAME", help="whose model's name holds NAME")
    parser.add_argument("--size", help="of models of this size: 8b, '<3b', '>30b', 7b-14b")
    parser.add_argument("--method", choices=("full", "lora", "qlora"))
    parser.add_argument("--objective", choices=("sft", "cpt", "dpo", "orpo", "kto"))
    parser.add_argument("--licence", metavar="NAME", help="whose licence's name holds NAME")
    parser.add_argument(
        "--evidence",
        choices=GRADES[1:],
        help="at least this: " + "; ".join(f"{g}: {GRADE_WORDS[g]}" for g in GRADES[1:]),
    )
    parser.add_argument("--origin", choices=("built-in", "local", "fork", "import", "hub"))
    parser.add_argument("--fits", action="store_true", help="that fit this machine, by the planner's word now")
    parser.add_argument(
        "--proven-here", action="store_true", help="that ran to their end on a card, or processor, like this machine's"
    )
    parser.add_argument("--limit", type=int, default=SHOWN, metavar="N", help=f"show at most N ({SHOWN})")
    add_json(parser)


def run_list(arguments: argparse.Namespace) -> int:
    """Print all recipes, or those with the words of `--search`, and return the exit status."""
    with open_registry() as registry:
        findings = registry.find(Query(text=arguments.search))
    _print(findings, arguments.json, arguments.search or "")
    return 0


def run_search(arguments: argparse.Namespace) -> int:
    """Print the recipes that match everything given and return the exit status."""
    if arguments.limit < 1:
        raise TunewrightError(
            "Limit out of range", f"{arguments.limit} recipes cannot be shown.", "Such as --limit 20."
        )
    sizes = parse_sizes(arguments.size) if arguments.size else (None, None)
    if sizes is None:
        raise TunewrightError(
            "Size not understood", f"{one_line(arguments.size, 40)!r} is no size.", "Such as 8b, '<3b' or 7b-14b."
        )
    smallest, largest = sizes
    query = Query(
        text=" ".join(arguments.text) or None,
        task=arguments.task,
        model=arguments.model,
        smallest_billions=smallest,
        largest_billions=None if largest is None or math.isinf(largest) else largest,
        method=arguments.method,
        objective=arguments.objective,
        licence=arguments.licence,
        evidence=arguments.evidence,
        hardware=_hardware() if arguments.proven_here else None,
        origin=arguments.origin,
    )
    with open_registry() as registry:
        if arguments.fits:
            findings, fits = _fitting(registry, query, arguments.limit)
        else:
            findings, fits = registry.find(query, arguments.limit), {}
    _print(findings, arguments.json, query.text or "", fits)
    return 0


def _hardware() -> str:
    from ...engine.machine import inspect_machine
    from ...engine.runs.recording import hardware_name
    from ...foundation.home import runs_folder

    return hardware_name(inspect_machine(runs_folder()))


def _fitting(registry: Registry, query: Query, limit: int) -> tuple[Findings, dict[str, Fit]]:
    """Return the recipes among those found that fit this machine, with the planner's word on each."""
    from ...engine.fitting import fit
    from ...engine.machine import inspect_machine
    from ...foundation.home import runs_folder

    machine = inspect_machine(runs_folder())
    chosen: list[Found] = []
    fits: dict[str, Fit] = {}
    for each in registry.find(query, MOST_FITTED).found:
        try:
            found = fit(registry.get(each.name).recipe, machine)
        except TunewrightError:  # kept by a version that knew other keys
            continue
        if found.verdict == "fits":
            chosen.append(each)
            fits[each.name] = found
    return Findings(tuple(chosen[:limit]), len(chosen)), fits


def _print(findings: Findings, as_json: bool, text: str, fits: dict[str, Fit] | None = None) -> None:
    if as_json:
        entries = [summary(each) | ({"fit": fits[each.name].because} if fits else {}) for each in findings.found]
        print_json({"recipes": entries, "total": findings.total})
    elif findings.found:
        print(_table(findings.found, shutil.get_terminal_size((80, 24)).columns))
        if findings.total > len(findings.found):
            print(f"{findings.total - len(findings.found):,} more match: --limit {findings.total} shows them all.")
    elif text:
        print(f"No recipe matches {one_line(text, 60)!r}. `tunewright recipes list` shows them all.")
    else:
        print("No recipe matches. `tunewright recipes list` shows them all.")


def summary(found: Found) -> dict[str, Any]:
    """Return one found recipe as plain data."""
    return {
        "name": found.name,
        "title": found.title,
        "summary": found.summary,
        "method": found.method,
        "objective": found.objective,
        "model": found.model,
        "size_billions": found.size_billions,
        "data": found.data,
        "licence": found.licence,
        "tags": found.tags,
        "origin": found.origin,
        "accepted": found.accepted,
        "tier": found.tier or None,
        "evidence": found.grade,
        "runs": {
            "replicated": found.tally.replicated,
            "published": found.tally.published,
            "finished": found.tally.finished,
            "failed": found.tally.failed,
            "smoke": found.tally.smoke,
            "claims": found.tally.claims,
        },
        "hash": found.hash,
    }


def _table(entries: Sequence[Found], width: int) -> str:
    """Lay `entries` out in columns that fit `width`; the model and the title give way when it is narrow."""
    rows = [("NAME", "EVIDENCE", "METHOD", "MODEL", "TITLE")]
    rows += [
        (one_line(e.name, 32), "stranger's" if not e.accepted else e.grade, e.method, one_line(e.model, 40), e.title)
        for e in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    gaps = 2 * 4
    spare = width - sum(widths) - gaps
    if spare < NARROWEST_TITLE:
        widths[3] = max(len("MODEL"), widths[3] - (NARROWEST_TITLE - spare))
        spare = max(len("TITLE"), width - sum(widths) - gaps)
    lines: list[str] = []
    for *cells, model, title in rows:
        padded = [f"{cell:{width}}" for cell, width in zip(cells, widths, strict=False)]
        lines.append("  ".join((*padded, f"{one_line(model, widths[3]):{widths[3]}}", one_line(title, spare))).rstrip())
    return "\n".join(lines)
