"""`tunewright recipes import`: a recipe out of another tool's configuration, with an account of every key."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text, write_atomically
from ...foundation.text import clean, one_line
from ...recipes.interchange import FORMATS
from ...recipes.registry import open_registry
from ..parser import add_json, print_json
from ..table import paragraph, render_table

if TYPE_CHECKING:
    from ...recipes.interchange.ledger import Imported

LARGEST_FILE_BYTES = 1 << 20


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
    from ...recipes.interchange.conversion import import_recipe

    if not 1 <= arguments.gpus <= 65_536:
        raise TunewrightError("Not a number of GPUs", f"{arguments.gpus} is none.", "Such as --gpus 8.")
    path = Path(arguments.file).expanduser()
    text = read_text(path, limit_bytes=LARGEST_FILE_BYTES)
    imported = import_recipe(
        text, str(path), arguments.format, arguments.gpus, arguments.model or "", arguments.data or ""
    )
    toml = imported.recipe.to_toml()
    if arguments.name:
        with open_registry() as registry:
            registry.add(toml, arguments.name, origin="import", note=f"imported from {one_line(path.name, 100)}")
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
    parts = [paragraph(f"! {each}", hanging="  ") for each in imported.warnings]
    mapped = [(each.key, _shown(each.value), each.field, _shown(each.became)) for each in imported.mapped]
    defaulted = [(each.field, _shown(each.value), each.because) for each in imported.defaulted]
    dropped = [(each.key, _shown(each.value), each.reason) for each in imported.dropped]
    tables = [
        render_table(("KEY", "THERE", "FIELD", "HERE"), mapped) if mapped else "",
        render_table(("DEFAULTED", "HERE", "BECAUSE"), defaulted) if defaulted else "",
        render_table(("DROPPED", "THERE", "BECAUSE"), dropped) if dropped else "",
    ]
    return "\n\n".join(["\n".join(parts)] * bool(parts) + [each for each in tables if each])


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else "" if value is None else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return one_line(text, 32)
