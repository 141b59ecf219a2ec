"""`tunewright resume RUN`: go on from the last checkpoint."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..engine.runs.directory import find_run
from ..engine.runs.launch import resume
from ..engine.runs.terms import read_terms
from .attach import exit_status, follow_in_lines
from .parser import add_json, print_json
from .slurm import pass_signals_on
from .terms_argument import add_terms, when_told, wished_terms


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on although rows, libraries or cards are not what they were"
    )
    add_terms(parser, again=True)
    parser.add_argument("--follow", action="store_true", help="print its lines until it ends")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = find_run(arguments.name)
    before = read_terms(found)
    terms = wished_terms(arguments, before)
    step = resume(found, arguments.accept_changes, terms if terms != before else None)
    if arguments.json:
        print_json({"run": found.id, "from_step": step, "terms": asdict(terms)})
    else:
        where = f"from step {step}" if step else "from the start: it had saved nothing yet"
        print(f"{found.id} goes on {where}{when_told(terms)}. `tunewright attach {found.id}` follows it.")
    if arguments.follow and not arguments.json:
        pass_signals_on(found)
        follow_in_lines(found)
        return exit_status(found)
    return 0
