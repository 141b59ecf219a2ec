"""`tunewright advise`: prompting, LoRA, QLoRA or full fine-tuning, with reasons and figures for this machine."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path

from ..engine.advice import QUESTIONS, Advice, advise
from ..engine.anatomy import read_anatomy
from ..engine.machine import Machine, inspect_machine
from ..engine.sources import find_model
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from .parser import add_json, print_json
from .table import gib_text, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add one argument a question, and the model and data."""
    parser.add_argument(
        "--model", default="tunewright/starter", metavar="MODEL|PATH", help="the model to tune (tunewright/starter)"
    )
    parser.add_argument("--data", metavar="FILE", help="the rows to tune on; they are counted")
    for question in QUESTIONS:
        options = "; ".join(f"{option.key}: {option.text}" for option in question.options)
        parser.add_argument(
            f"--{question.key}",
            choices=[option.key for option in question.options],
            metavar="ANSWER",
            help=f"{question.text} {options.replace('%', '%%')}",
        )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the advice and return the exit status."""
    path = Path(arguments.model).expanduser()
    anatomy = read_anatomy(path if path.exists() else find_model(arguments.model))
    answers = {q.key: getattr(arguments, q.key) for q in QUESTIONS if getattr(arguments, q.key) is not None}
    rows, tokens = _count(arguments.data) if arguments.data else (None, None)
    machine = inspect_machine(runs_folder())
    advice = advise(answers, machine, anatomy, rows, tokens)
    if arguments.json:
        questions = [asdict(question) for question in QUESTIONS]
        print_json({**asdict(advice), "machine": machine.short_name, "questions": questions})
    else:
        print(advice_text(advice, machine))
    return 0


def _count(source: str) -> tuple[int, int]:
    """Return the rows of a data set and about how many tokens they hold: a token is some four bytes of text."""
    from ..engine.sources import find_data

    with find_data(source).open("rb") as file:
        sizes = [len(line) for line in file if line.strip()]
    if not sizes:
        raise TunewrightError("Empty data", f"{source} holds no rows.", "Give a JSONL file with a row on each line.")
    return len(sizes), max(1, sum(sizes) // 4)


def advice_text(advice: Advice, machine: Machine) -> str:
    """Return `advice` as text: what to do, why, the methods side by side, and what would change the answer."""
    figures = [
        (
            each.method,
            f"{each.trainable_parameters:,}",
            gib_text(each.peak_gib),
            seconds_text(each.seconds),
            "yes" if each.fits else "no",
            each.plan,
        )
        for each in advice.figures
    ]
    table = render_table(("METHOD", "TRAINED", "PEAK", "TIME", "FITS", "PLAN"), figures, right=(1, 2, 3))
    parts = [
        _wrapped(advice.headline),
        "\n".join(_wrapped(f"{'+' if each.weight > 0 else '-'} {each.because}") for each in advice.reasons),
        f"On {machine.short_name}:\n{table}",
    ]
    if advice.would_change:
        parts.append("What would change the answer:\n" + "\n".join(map(_wrapped, advice.would_change)))
    parts.append(_wrapped("Answered: " + ", ".join(f"{key} {answer}" for key, answer in advice.answers.items())))
    return "\n\n".join(parts)


def _wrapped(text: str) -> str:
    width = min(100, shutil.get_terminal_size((80, 24)).columns)
    return textwrap.fill(text, max(40, width), subsequent_indent="  ")
