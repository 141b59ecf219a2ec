"""`tunewright export RUN`: write the merged model."""

from __future__ import annotations

import argparse
import subprocess
import sys

from ..engine.runs.directory import find_run
from ..engine.runs.supervise import trainer_environment
from ..foundation.errors import TunewrightError
from ..foundation.text import clean
from ..recipes.model import LoraMethod
from .parser import add_json, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = find_run(arguments.name)
    if isinstance(found.recipe().method, LoraMethod):
        ended = subprocess.run(
            [sys.executable, "-m", "tunewright.engine.results.export", str(found.path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=trainer_environment(found.plan()), check=False,
        )  # fmt: skip
        if ended.returncode:
            tail = clean(ended.stderr.decode("utf-8", "replace")[-1500:])
            raise TunewrightError("Export failed", tail, f"The adapter itself is whole: {found.adapter}")
    elif not found.model.exists():
        raise TunewrightError("No model yet", f"{found.id} has not finished.", "Let the run finish, or resume it.")
    if arguments.json:
        print_json({"run": found.id, "model": str(found.model), "adapter": str(found.adapter)})
    else:
        print(f"The merged model is in {found.model}")
    return 0
