"""Measures many configurations, a few processes at a time: one measures while others import and load.

`python benchmarks/sweep.py --out ROWS.jsonl [--cases NAME] [--gpus N] [--seconds S] [--only TEXT]`
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from cases import CASES, DEFAULTS, Case
from weights import PLACE

HERE = Path(__file__).resolve().parent
AHEAD = 5
"""Processes a GPU at once: one measures, one is loaded, the others import."""
LONGEST_CASE_SECONDS = 280.0
LAST_SECONDS = 30.0
"""So near to the end no case is begun."""
ERROR_CHARACTERS = 1500


class Runner:
    """Runs the cases of one GPU, several processes ahead."""

    lock = threading.Lock()
    left: ClassVar[Counter[str]] = Counter()
    """Cases that still need a model's weights, on whichever GPU."""

    def __init__(self, gpu: int, cases: Sequence[Case], out: Path, deadline: float) -> None:
        self.gpu, self.cases, self.out, self.deadline = gpu, list(cases), out, deadline
        self.left.update(case["model"] for case in cases)

    def work(self) -> None:
        """Run cases until there are none, or the time is up."""
        while True:
            with self.lock:
                if not self.cases or time.time() > self.deadline - LAST_SECONDS:
                    return
                case = self.cases.pop(0)
            row = self.run(case)
            with self.lock:
                self.keep(case, row)

    def run(self, case: Case) -> dict[str, Any]:
        """Return the row of `case`, measured in a process of its own."""
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": str(self.gpu),
            "OMP_NUM_THREADS": "4",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, str(HERE / "measure.py"), json.dumps(case)]
        limit = min(LONGEST_CASE_SECONDS, self.deadline - time.time())
        try:
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return DEFAULTS | case | {"error": "took too long"}
        try:
            return json.loads(ended.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            return DEFAULTS | case | {"error": f"exit {ended.returncode}: {ended.stderr[-ERROR_CHARACTERS:]}"}

    def keep(self, case: Case, row: dict[str, Any]) -> None:
        """Write the row, tell of it, and remove the weights that no other case needs."""
        with self.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.left[case["model"]] -= 1
        if not self.left[case["model"]]:
            shutil.rmtree(PLACE / "models" / case["model"], ignore_errors=True)
        figures = f"{row.get('peak_allocated_gib')} GiB {row.get('step_seconds')} s"
        told = row.get("error") or row.get("out_of_memory") or figures
        what = f"{case['model']} {case['backend']} {row.get('method')}"
        print(f"gpu {self.gpu} {time.strftime('%X')} {what}: {told[:200]}", flush=True)


def choose_cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line asks for and that are not measured yet."""
    cases = [case for case in CASES[options.cases]() if options.only in json.dumps(case)]
    if options.models:
        order = options.models.split(",")
        cases = sorted((each for each in cases if each["model"] in order), key=lambda each: order.index(each["model"]))
    if options.done:
        rows = [json.loads(line) for line in options.done.read_text().splitlines()]
        measured = [row for row in rows if "error" not in row]
        cases = [case for case in cases if not any(_is_row_of(row, case) for row in measured)]
    return cases


def _is_row_of(row: dict[str, Any], case: Case) -> bool:
    asked = DEFAULTS | {key: value for key, value in case.items() if key not in ("alone", "composition")}
    return all((DEFAULTS | row).get(key) == value for key, value in asked.items())


def deal(cases: Sequence[Case], gpus: int) -> list[list[Case]]:
    """Return the cases of each GPU: models whole, or one by one where there are too few of them."""
    groups = [list(group) for _, group in itertools.groupby(cases, key=lambda case: case["model"])]
    if len(groups) <= gpus:
        groups = [[case] for case in cases]
    return [[case for group in groups[gpu::gpus] for case in group] for gpu in range(gpus)]


def main() -> None:
    """Measure the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", choices=sorted(CASES), default="sweep")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--first-gpu", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--only", default="", help="cases whose JSON holds this text")
    parser.add_argument("--models", default="", help="only these, in this order")
    parser.add_argument("--done", type=Path, help="rows that are there already and are not measured again")
    options = parser.parse_args()
    deadline = time.time() + options.seconds
    threads: list[threading.Thread] = []
    for index, share in enumerate(deal(choose_cases(options), options.gpus)):
        runner = Runner(options.first_gpu + index, share, options.out, deadline)
        threads += [threading.Thread(target=runner.work) for _ in range(AHEAD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
