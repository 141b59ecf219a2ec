"""`tunewright recipes export`: a recipe in another tool's format, or as a script that needs nothing of ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...foundation.files import write_atomically
from ...recipes.interchange import TARGETS
from ..parser import add_json, print_json
from ..recipe_argument import add_recipe, find_recipe


def configure_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_recipe(parser)
    parser.add_argument("--to", dest="target", metavar="FORMAT", required=True, choices=TARGETS, help=", ".join(TARGETS))  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="write it to this file instead of the terminal")
    parser.add_argument("--allow-loss", action="store_true", help="write it even where it would be another run there")
    add_json(parser)


def run_export(arguments: argparse.Namespace) -> int:
    """Write the recipe in the other format and return the exit status."""
    from ...recipes.interchange.conversion import export_recipe

    exported = export_recipe(find_recipe(arguments)[1], arguments.target, arguments.allow_loss)
    if arguments.out:
        path = Path(arguments.out).expanduser()
        write_atomically(path, exported.text)
    if arguments.json:
        where = {"file": str(arguments.out)} if arguments.out else {"text": exported.text}
        print_json({**exported.to_json(), **where})
        return 0
    for warning in exported.warnings:
        print(f"! {warning}", file=sys.stderr)
    print(f"Written to {arguments.out}." if arguments.out else exported.text.rstrip())
    return 0
