"""`tunewright recipes`: one table of verbs, each in a module of its own."""

from __future__ import annotations

import argparse
import importlib

from ..parser import Noun

VERBS: dict[str, Noun] = {
    "list": Noun("listing", "list the recipes in the registry"),
    "show": Noun("showing", "show a recipe of the registry, or check and show one in a file"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    for name, verb in VERBS.items():
        module = importlib.import_module(f".{verb.module}", __name__)
        command = verbs.add_parser(name, help=verb.summary, description=verb.sentence)
        module.configure(command)
        command.set_defaults(run_verb=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` ask and return the exit status."""
    return arguments.run_verb(arguments)
