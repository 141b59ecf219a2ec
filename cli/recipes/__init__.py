"""`tunewright recipes`: one table of verbs; without one it opens the library.

The module of a verb has `configure_VERB(parser)`, which adds arguments, and `run_VERB(arguments) -> int`.
"""

from __future__ import annotations

import argparse
import functools
import importlib

from ..parser import Noun, Parser

VERBS: dict[str, Noun] = {
    "list": Noun("listing", "list the recipes in the registry"),
    "search": Noun("listing", "find recipes by words, task, model, size, method, licence and evidence"),
    "show": Noun("showing", "read a recipe: every value with its meaning, its source and the default"),
    "history": Noun("showing", "show a recipe's editions, ancestors and evidence"),
    "diff": Noun("comparing", "tell what differs between two recipes, and what each difference does"),
    "fork": Noun("changing", "make a recipe of one's own from another; comments and lineage stay"),
    "edit": Noun("changing", "change a recipe of one's own in $EDITOR; what is not valid is kept as a draft"),
    "note": Noun("changing", "say why the present edition of a recipe was made"),
    "alias": Noun("changing", "give the present edition of a recipe a second name, which can be moved"),
    "verify": Noun("verifying", "take some steps of a recipe here, and hold its plan against what they took"),
    "publish": Noun("sharing", "send a recipe to the Hub, a folder or a git repository, once every byte was shown"),
    "pull": Noun("sharing", "take a recipe from the Hub, a folder or a git repository, as a stranger's"),
    "accept": Noun("changing", "take a stranger's recipe for one's own to run, once it has been read"),
    "remove": Noun("changing", "take a recipe out of the lists; its history and evidence stay, and it can be put back"),
    "import": Noun("importing", "make a recipe out of another tool's configuration"),
    "export": Noun("exporting", "write a recipe in another tool's format, or as a Python script"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    parser.set_defaults(run_verb=_open_library)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, verb in VERBS.items():
        load = functools.partial(_load, name)
        verbs.add_parser(name, help=verb.summary, description=verb.sentence, load=load)


def _load(name: str, command: Parser) -> None:
    module = importlib.import_module(f".{VERBS[name].module}", __name__)
    getattr(module, f"configure_{name}")(command)
    command.set_defaults(run_verb=getattr(module, f"run_{name}"))


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` ask and return the exit status."""
    return arguments.run_verb(arguments)


def _open_library(arguments: argparse.Namespace) -> int:
    from ...tui.app import open_app

    return open_app(mode="recipes")
