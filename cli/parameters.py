"""`tunewright parameters`: a model's parameters by kind, and adapters of several ranks side by side."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..engine.comparison import RankFigures, compare_ranks
from ..engine.estimate import parse_targets, require_between
from ..engine.setting import Setting
from ..engine.shapes import Model, read_model
from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from .estimate import LARGEST_RANK, add_targets, memory_text
from .parser import add_json, print_json
from .table import paragraph, render_table

PLAIN = Setting("cuda", "transformers", "bf16", rows=1, tokens_per_row=1, checkpointing="on")
"""Adapters take the same memory in every setting with plain AdamW."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", help="a config.json, a folder, a model, or a size such as 8b")
    parser.add_argument("--ranks", default="8,16,32,64", metavar="N,N", help="the ranks to compare (8,16,32,64)")
    add_targets(parser)
    parser.add_argument("--dora", action="store_true", help="with DoRA's magnitudes")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison and return the exit status."""
    ranks = _ranks(arguments.ranks)
    targets = parse_targets(arguments.targets)
    model = read_model(arguments.model)
    names = model.anatomy.target_names(targets)
    figures = compare_ranks(model.anatomy, ranks, targets, PLAIN, arguments.dora)
    if arguments.json:
        print_json(
            {
                "model": model.name,
                "total_parameters": model.anatomy.total_parameters,
                "parameters_by_kind": model.anatomy.parameters_by_kind(),
                "targets": names,
                "dora": arguments.dora,
                "ranks": [asdict(each) for each in figures],
                "note": model.note,
            }
        )
    else:
        print(_text(model, names, figures))
    return 0


def _ranks(text: str) -> list[int]:
    """Return the ranks in `text`, each once, the lowest first."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isascii() and word.lstrip("-").isdecimal() for word in words):
        raise TunewrightError(
            "Ranks not understood", f"{one_line(text, 60)!r} is no list of whole numbers.", "Such as --ranks 8,16,32."
        )
    ranks = sorted({int(word[:9]) for word in words})
    require_between("--ranks", ranks, 1, LARGEST_RANK)
    return ranks


def _text(model: Model, names: tuple[str, ...], figures: tuple[RankFigures, ...]) -> str:
    """Return the adapters' table and the model's own parameters."""
    total = model.anatomy.total_parameters
    kinds = [
        (name, f"{n:,}", f"{100 * n / total:.2f} %") for name, n in model.anatomy.parameters_by_kind().items() if n
    ]
    rows = [
        (
            str(each.rank),
            f"{each.trainable_parameters:,}",
            f"{100 * each.share:.2f} %",
            memory_text(each.file_gib),
            memory_text(each.memory_gib),
        )
        for each in figures
    ]
    parts = [
        f"{model.name}: {total:,} parameters",
        render_table(("KIND", "PARAMETERS", "SHARE"), kinds, right=(1, 2)),
        f"Adapters on {', '.join(names)}:",
        render_table(("RANK", "TRAINED", "SHARE", "FILE", "IN MEMORY"), rows, right=(0, 1, 2, 3, 4)),
        paragraph(f"In memory are the adapters, their gradients and AdamW's states, all in 32 bits. {model.note}"),
    ]
    return "\n\n".join(parts)
