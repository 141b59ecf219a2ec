"""`tunewright cards`: which card a model needs, for QLoRA, LoRA and full tuning."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..engine.comparison import CARD_NAMES, METHODS, TIGHT_SHARE, CardFigures, Method, compare_cards, smallest_card
from ..engine.shapes import Model, read_model
from .estimate import add_batch, add_rank, require_shape
from .parser import add_json, print_json
from .table import gib_text, paragraph, render_table

TITLES: dict[Method, str] = {"qlora": "QLoRA", "lora": "LoRA", "full": "full"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="a config.json, a folder, a model, or a size such as 8b; several"
    )
    add_batch(parser)
    parser.add_argument(
        "--gpu", metavar="NAME", nargs="+", help="the cards to compare, such as 4090 'A100-80' (19 cards)"
    )
    add_rank(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison of every model and return the exit status."""
    require_shape(arguments)
    cards: list[str] = arguments.gpu or list(CARD_NAMES)
    compared: list[tuple[Model, tuple[CardFigures, ...]]] = []
    for name in arguments.models:
        model = read_model(name)
        figures = compare_cards(
            model.anatomy, cards, arguments.rank, rows=arguments.micro_batch, tokens=arguments.sequence
        )
        compared.append((model, figures))
    if arguments.json:
        print_json(
            {
                "sequence": arguments.sequence,
                "micro_batch": arguments.micro_batch,
                "rank": arguments.rank,
                "models": [
                    {
                        "model": model.name,
                        "total_parameters": model.anatomy.total_parameters,
                        "smallest": {
                            method: None if (found := smallest_card(figures, method)) is None else found.card
                            for method in METHODS
                        },
                        "cards": [asdict(each) for each in figures],
                        "note": model.note,
                    }
                    for model, figures in compared
                ],
            }
        )
    else:
        said = f"{arguments.micro_batch:,} × {arguments.sequence:,} tokens, rank {arguments.rank}"
        print("\n\n\n".join(_text(model, figures, cards, said) for model, figures in compared))
    return 0


def _text(model: Model, figures: tuple[CardFigures, ...], cards: list[str], said: str) -> str:
    """Return one model's answer for each method, and the table of the cards."""
    answers: list[tuple[str, str, str]] = []
    for method in METHODS:
        found = smallest_card(figures, method)
        needs = [each.needed_gib for each in figures if each.method == method]
        least, most = gib_text(min(needs)), gib_text(max(needs))
        answers.append(
            (
                TITLES[method],
                least if least == most else f"{least} to {most}",
                "none of these" if found is None else f"{found.card} ({gib_text(found.card_gib)})",
            )
        )
    rows: list[list[str]] = []
    for place, card in enumerate(cards):
        of_card = figures[place :: len(cards)]
        price = of_card[0].hourly_price
        row = [card, gib_text(of_card[0].card_gib), "" if price is None else f"{price:.2f}"]
        for each in of_card:
            row += [each.verdict, "" if each.tokens_per_second is None else f"{each.tokens_per_second:,.0f}"]
        rows.append(row)
    header = ["CARD", "MEMORY", "AN HOUR", *(word for method in METHODS for word in (TITLES[method].upper(), "TOK/S"))]
    parts = [
        f"{model.name}, {model.anatomy.total_parameters / 1e9:.2f} billion parameters: {said}",
        render_table(("METHOD", "NEEDS", "SMALLEST CARD"), answers),
        render_table(header, rows, right=(1, 2, 4, 6, 8)),
        paragraph(
            f"{model.note} NEEDS is the least of recomputing activations and not, TOK/S the faster way that fits. A "
            f"tight fit leaves less than {100 * TIGHT_SHARE:.0f} % of an idle card free. AN HOUR is the typical price in "
            "the cloud, by the table of prices."
        ),
    ]
    return "\n\n".join(parts)
