"""`tunewright retry RUN`: try a failed run again."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..engine.runs.directory import find_run
from ..engine.runs.retry import retry
from ..engine.runs.terms import read_terms
from ..foundation.text import one_line
from .attach import exit_status, follow_in_lines
from .parser import add_json, print_json
from .terms_argument import add_terms, when_told, wished_terms


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    parser.add_argument(
        "--from-start", action="store_true",
        help="begin at the first step instead of the last good checkpoint; what was saved is put aside and kept",
    )  # fmt: skip
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="try again although rows, libraries or cards are not what they were",
    )
    add_terms(parser, again=True)
    parser.add_argument("--follow", action="store_true", help="print its lines until it ends")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = find_run(arguments.name)
    before = read_terms(found)
    terms = wished_terms(arguments, before)
    tried = retry(found, arguments.from_start, arguments.accept_changes, terms if terms != before else None)
    failure = tried.failure
    if arguments.json:
        print_json(
            {
                "run": found.id,
                "from_step": tried.step,
                "terms": asdict(terms),
                "failure": asdict(failure),
                "advice": failure.advice or None,
            }
        )
    else:
        print(f"{failure.said}." + (f" {one_line(failure.message, 400)}" if failure.message else ""))
        if failure.advice:
            print(failure.advice)
        where = f"from step {tried.step}" if tried.step else "from the start"
        print(f"{found.id} goes on {where}{when_told(terms)}. `tunewright attach {found.id}` follows it.")
    if arguments.follow and not arguments.json:
        follow_in_lines(found)
        return exit_status(found)
    return 0
