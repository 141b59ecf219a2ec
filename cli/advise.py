"""`tunewright advise`: whether to prompt, adapt or train everything, with reasons and figures for this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from ..engine.advice import Advice, advise
from ..engine.anatomy import read_anatomy
from ..engine.cost import HIGHEST_RATE, cloud_price, hourly_rate
from ..engine.data.counting import BYTES_A_TOKEN, Counted, count_rows
from ..engine.machine import Machine, inspect_machine
from ..engine.questions import QUESTIONS
from ..engine.sources import find_model
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from .parser import add_json, print_json
from .table import gib_text, paragraph, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add one argument a question, the model and data, and what the run may cost."""
    parser.add_argument(
        "--model", default="tunewright/starter", metavar="MODEL|PATH", help="the model to tune (tunewright/starter)"
    )
    parser.add_argument("--data", metavar="FILE", help="the rows to tune on; rows are counted, tokens estimated")
    for question in QUESTIONS:
        options = "; ".join(f"{option.key}: {option.text}" for option in question.options)
        parser.add_argument(
            f"--{question.key.replace('_', '-')}",
            choices=[option.key for option in question.options],
            metavar="ANSWER",
            help=f"{question.text} {options.replace('%', '%%')}",
        )
    parser.add_argument("--rate", metavar="MONEY", help='what an hour here costs, or "cloud" for the table of prices')
    parser.add_argument("--budget", type=float, metavar="MONEY", help="what a run may cost at that rate")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the advice and return the exit status."""
    path = Path(arguments.model).expanduser()
    anatomy = read_anatomy(path if path.exists() else find_model(arguments.model))
    answers = {q.key: getattr(arguments, q.key) for q in QUESTIONS if getattr(arguments, q.key) is not None}
    machine = inspect_machine(runs_folder())
    rate = hourly_rate(arguments.rate, machine)
    _check_budget(arguments.budget, rate)
    counted = count_rows(arguments.data) if arguments.data else None
    if counted and counted.kind:
        answers.setdefault("data_kind", counted.kind)
    rows, tokens = (counted.rows, counted.tokens) if counted else (None, None)
    advice = advise(answers, machine, anatomy, rows, tokens, rate, arguments.budget)
    advice = replace(advice, notes=(*advice.notes, *_notes(counted, rate, arguments.rate, machine)))
    if arguments.json:
        questions = [asdict(question) for question in QUESTIONS]
        found = {**asdict(advice), "method": advice.method, "machine": machine.short_name, "rate": rate}
        found["ways_out"] = [{**asdict(way), "text": way.text} for way in advice.ways_out]
        print_json({**found, "budget": arguments.budget, "rows": rows, "tokens": tokens, "questions": questions})
    else:
        print(advice_text(advice, machine))
    return 0


def _check_budget(budget: float | None, rate: float | None) -> None:
    if budget is None:
        return
    if not 0 < budget < HIGHEST_RATE:
        raise TunewrightError("Budget out of range", f"{budget:g} is no amount of money.", "Such as --budget 20.")
    if rate is None:
        raise TunewrightError(
            "No rate", "A budget says little without the price of an hour.", "Add --rate, such as --rate 2.5."
        )


def _notes(counted: Counted | None, rate: float | None, said: str | None, machine: Machine) -> list[str]:
    """Return what people should know about counts and prices."""
    notes: list[str] = []
    if counted:
        notes.append(
            f"{counted.rows:,} rows were counted; their {counted.tokens:,} tokens are an estimate, a token for "
            f"{BYTES_A_TOKEN} bytes of the file."
        )
    price = cloud_price(machine)
    if price is not None and (said == "cloud" or rate is None):
        whose = "your table" if price.users_own else "the built-in table"
        notes.append(
            f"In the cloud a {price.card} costs {price.low:.2f} to {price.typical:.2f} {price.currency} an hour by "
            f"{whose} ({price.date:%Y-%m-%d}, {price.provider})"
            + ("; costs are at the latter." if said == "cloud" else "; --rate cloud counts with it.")
        )
    return notes


def advice_text(advice: Advice, machine: Machine) -> str:
    """Return `advice` as text: what to do, why, the methods side by side, and what would change the answer."""
    priced = any(each.cost is not None for each in advice.figures)
    figures = [
        (
            each.method,
            f"{each.trainable_parameters:,}",
            gib_text(each.peak_gib),
            seconds_text(each.seconds),
            f"{seconds_text(each.seconds_range[0])} to {seconds_text(each.seconds_range[1])}",
            *((f"{each.cost:,.2f}" if each.cost is not None else "–",) if priced else ()),
            f"{each.energy_kwh:.2g}",
            "yes" if each.fits else "no",
            each.plan,
        )
        for each in advice.figures
    ]
    header = ("METHOD", "TRAINED", "PEAK", "TIME", "RANGE", *(("COST",) if priced else ()), "KWH", "FITS", "PLAN")
    table = render_table(header, figures, right=(1, 2, 3, 4, 5, 6) if priced else (1, 2, 3, 4, 5))
    parts = [
        _said(advice.headline),
        "\n".join(_said(f"{'+' if each.weight > 0 else '-'} {each.because}") for each in advice.reasons),
        f"On {machine.short_name}:\n{table}",
    ]
    if advice.ways_out:
        ways = "\n".join(_said(f"{place}. {way.text}") for place, way in enumerate(advice.ways_out, 1))
        parts.append("What would do, the smallest change first:\n" + ways)
    if advice.would_change:
        parts.append("What would change the answer:\n" + "\n".join(map(_said, advice.would_change)))
    if advice.notes:
        parts.append("\n".join(map(_said, advice.notes)))
    parts.append(_said("Answered: " + ", ".join(f"{key} {answer}" for key, answer in advice.answers.items())))
    return "\n\n".join(parts)


def _said(text: str) -> str:
    return paragraph(text, hanging="  ")
