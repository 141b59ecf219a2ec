"""`tunewright cost`: the time, money and energy of a run with QLoRA, LoRA and full tuning."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..engine.comparison import CostFigures, Data, compare_cost, hourly_price
from ..engine.estimate import Device, find_device, require_between
from ..engine.shapes import read_model
from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from .cards import TITLES
from .estimate import LARGEST_RANK, LARGEST_SEQUENCE, add_gpu, add_rank
from .parser import add_json, print_json
from .table import gib_text, paragraph, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", help="a config.json, a folder, a model, or a size such as 8b")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--rows", type=int, default=1000, metavar="N", help="rows of the data (1000)")
    source.add_argument("--data", metavar="FILE", help="a JSONL file, whose rows are counted instead")
    parser.add_argument("--tokens-a-row", type=int, metavar="N", help="tokens of a row (512, or as counted)")
    parser.add_argument("--epochs", type=float, default=1.0, metavar="N", help="how often the data is seen (1)")
    add_gpu(parser)
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="how many of them (1)")
    parser.add_argument(
        "--rate",
        metavar="MONEY",
        help="what an hour of one GPU or of the machine costs, in any currency (the card's typical price in the cloud)",
    )
    add_rank(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimates and return the exit status."""
    require_between("--rank", (arguments.rank,), 1, LARGEST_RANK)
    require_between("--rows", (arguments.rows,), 1, 10**12)
    require_between("--epochs", (arguments.epochs,), 0.001, 1000)
    require_between("--gpus", (arguments.gpus,), 1, 1024)
    rows, tokens = (arguments.rows, 512) if arguments.data is None else _rows_and_mean(arguments.data)
    tokens = arguments.tokens_a_row if arguments.tokens_a_row is not None else tokens
    require_between("--tokens-a-row", (tokens,), 1, LARGEST_SEQUENCE)
    model, device = read_model(arguments.model), find_device(arguments.gpu)
    data = Data(rows, tokens, arguments.epochs)
    rate, said = _rate(arguments.rate, device)
    figures = compare_cost(model.anatomy, device, data, arguments.rank, hourly_rate=rate, gpus=arguments.gpus)
    power = "an assumed power of the processor" if device.card is None else "the card's power limit, rarely reached"
    notes = [model.note, device.note, said, f"The energy is at {power}."]
    if arguments.gpus > 1 and device.card is None:
        notes.append("Several processors are not estimated.")
    values: dict[str, Any] = {
        "model": model.name,
        "device": device.name,
        "rows": data.rows,
        "tokens_a_row": data.tokens_a_row,
        "epochs": data.epochs,
        "tokens": data.tokens,
        "hourly_rate": rate,
        "methods": [asdict(each) for each in figures],
        "note": " ".join(filter(None, notes)),
    }
    if arguments.json:
        print_json(values)
    else:
        print(_text(values, figures))
    return 0


def _rate(text: str | None, device: Device) -> tuple[float | None, str]:
    """Return the price of an hour and where it comes from: what was said, or else the card's in the cloud."""
    if text is not None:
        try:
            rate = float(text)
        except ValueError:
            raise TunewrightError(
                "Rate not understood", f"{one_line(text, 40)!r} is no price of an hour.", "Such as --rate 2.5."
            ) from None
        require_between("--rate", (rate,), 0, 1e6)
        return rate, ""
    price = hourly_price(device)
    if price is None:
        return None, ""
    return price.typical, (
        f"The money is in {price.currency}, at the typical {price.typical:.2f} an hour of {price.date} "
        f"({price.provider}); --rate gives another price."
    )


def _rows_and_mean(source: str) -> tuple[int, int]:
    """Return the rows of a data set and about how many tokens one has."""
    from ..engine.data.counting import count_rows

    counted = count_rows(source)
    return counted.rows, max(1, counted.tokens // counted.rows)


def _text(values: dict[str, Any], figures: tuple[CostFigures, ...]) -> str:
    """Return the methods as a table under the data that they are for."""
    rows = [
        (
            TITLES[each.method],
            f"{each.gpus}{'' if each.gpus == 1 else f' {each.parallelism}'}",
            f"{each.rows}{' r' if each.recomputing else ''}",
            gib_text(each.needed_gib),
            each.verdict,
            f"{each.tokens_per_second:,.0f}",
            seconds_text(each.seconds),
            f"{each.kwh:.3g}",
            "–" if each.money is None else f"{each.money:,.2f}",
        )
        for each in figures
    ]
    header = ("METHOD", "GPUS", "BATCH", "NEEDS", "FITS", "TOKENS/S", "TIME", "KWH", "MONEY")
    times = "once" if values["epochs"] == 1 else f"{values['epochs']:g} times"
    parts = [
        paragraph(
            f"{values['model']} on {values['device']}: {values['rows']:,} rows of {values['tokens_a_row']:,} tokens "
            f"seen {times}, {values['tokens']:,.0f} tokens in all"
        ),
        render_table(header, rows, right=(3, 5, 6, 7, 8)),
        paragraph(
            "Rows are taken as equally long, 16 to a step; BATCH is the fastest micro-batch of a GPU that fits (r: "
            f"recomputing activations), NEEDS what each GPU must have free. {values['note']}"
        ),
    ]
    return "\n\n".join(parts)
