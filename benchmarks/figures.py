"""Measures what the README says of speed and of the demo, and prints it; `make bench` runs it.

`python benchmarks/figures.py [--write]`: with --write the figures go to benchmarks/figures.json, from which the README's
tables are generated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from terminal import Terminal

TUNEWRIGHT = shutil.which("tunewright") or str(Path(sys.executable).with_name("tunewright"))
FIGURES = Path(__file__).with_name("figures.json")
REPEATS = 7
METHODS = ("lora", "qlora", "full")


def seconds_of(*arguments: str) -> float:
    """Return the median wall-clock seconds of a whole command, after one run that warms the caches."""
    times: list[float] = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        subprocess.run([TUNEWRIGHT, *arguments], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times[1:]), 3)


def seconds_to_first_paint() -> float:
    """Return the median seconds from starting `tunewright` in a terminal until its first screen is there."""
    times: list[float] = []
    for _ in range(REPEATS + 1):
        terminal = Terminal("-m", "tunewright")
        times.append(terminal.wait("This machine"))
        terminal.close()
    return round(statistics.median(times[1:]), 3)


def machine_name() -> str:
    """Return the GPU's name, or else the processor's and its cores, as `tunewright doctor` tells them."""
    told = subprocess.run([TUNEWRIGHT, "doctor", "--json"], stdout=subprocess.PIPE, check=False).stdout
    machine = json.loads(told)["machine"]
    return machine["gpus"][0]["name"] if machine["gpus"] else f"{machine['cpu']}, {machine['cores']} cores, no GPU"


def demo(method: str) -> dict[str, float]:
    """Return what `tunewright demo --method M --json` prints last."""
    started = time.perf_counter()
    printed = subprocess.run(
        [TUNEWRIGHT, "demo", "--method", method, "--json"], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    figures: dict[str, float] = json.loads(printed.splitlines()[-1])[method]
    return {**figures, "seconds_whole_command": round(time.perf_counter() - started, 1)}


def plan_search_seconds() -> float:
    """Return the median seconds of a whole search for an 8B LoRA on 2,000 rows and an H200, with both backends."""
    from report import chat_search

    times: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        chat_search(2000)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNEWRIGHT_HOME"] = home
        figures = {
            "machine": machine_name(),
            "help_seconds": seconds_of("--help"),
            "first_paint_seconds": seconds_to_first_paint(),
            "recipes_list_seconds": seconds_of("recipes", "list"),
            "doctor_seconds": seconds_of("doctor"),
            "estimate_seconds": seconds_of("estimate", "--config", "8b", "--gpu", "NVIDIA H200", "--json"),
            "advise_seconds": seconds_of("advise", "--json"),
            "plan_search_seconds": plan_search_seconds(),
            "demo": {method: demo(method) for method in METHODS},
        }
    print(json.dumps(figures, indent=2))
    if options.write:
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
