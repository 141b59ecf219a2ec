"""`tunewright recipes import`: a recipe out of another tool's configuration, with an account of every key."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...foundation.files import write_atomically
from ...foundation.text import clean
from ...recipes.interchange import FORMATS
from ...recipes.registry import open_registry
from ..parser import add_json, print_json
from ..table import paragraph, render_table

if TYPE_CHECKING:
    from ...recipes.interchange.ledger import Imported


def configure_import(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", metavar="FILE", help="the tool's YAML or JSON file")
    parser.add_argument("--from", dest="format", metavar="FORMAT", choices=FORMATS, help=f"whose it is, guessed when not given: {', '.join(FORMATS)}")  # fmt: skip
    parser.add_argument("--as", dest="name", metavar="NAME", help="keep the recipe in the registry under this name")
    parser.add_argument("--out", metavar="FILE.toml", help="write the recipe to this file")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="how many GPUs it was written for: rows of a step grow with them")  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", help="the model, where the file names none")
    parser.add_argument("--data", metavar="DATA", help="the data, where the file names none or several")
    add_json(parser)


def run_import(arguments: argparse.Namespace) -> int:
    """Import the file and return the exit status."""
    from ...recipes.interchange.conversion import import_file, keep_imported

    path = Path(arguments.file).expanduser()
    imported = import_file(path, arguments.format, arguments.gpus, arguments.model or "", arguments.data or "")
    if arguments.name:
        with open_registry() as registry:
            keep_imported(registry, imported, arguments.name, path)
    toml = imported.recipe.to_toml()
    if arguments.out:
        write_atomically(Path(arguments.out).expanduser(), toml)
    if arguments.json:
        print_json(imported.to_json())
        return 0
    print(account(imported))
    kept = [f"under the name {arguments.name}"] if arguments.name else []
    kept += [f"in {arguments.out}"] if arguments.out else []
    print()
    print(f"Kept {' and '.join(kept)}." if kept else f"{clean(toml).rstrip()}\n\n# Kept nowhere: add --as NAME or --out FILE.")  # fmt: skip
    return 0


def account(imported: Imported) -> str:
    """Return what became of every key, as text: warnings first."""
    from ...recipes.interchange.ledger import account_of

    parts = [paragraph(f"! {each}", hanging="  ") for each in imported.warnings]
    mapped, defaulted, dropped = account_of(imported)
    tables = [
        render_table(("KEY", "THERE", "FIELD", "HERE"), mapped) if mapped else "",
        render_table(("DEFAULTED", "HERE", "BECAUSE"), defaulted) if defaulted else "",
        render_table(("DROPPED", "THERE", "BECAUSE"), dropped) if dropped else "",
    ]
    return "\n\n".join(["\n".join(parts)] * bool(parts) + [each for each in tables if each])
