"""Measures how soon the interface is there: from the start of the process, and from a key once it is open.

`python benchmarks/first_screen.py [--recipes 10000] [--evidence 100000] [--steps 1000000] [--times 11] [--json] [--out FILE]`;
`make bench-start`

Every figure is a median over several processes in terminals of their own, taken in turns so that other work on the
machine disturbs all alike; what a core worked for it stands beside what passed on the clock. The floor is measured with
them: Python by itself, the import of Textual, and a bare Textual app.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from long_runs import Taken, events_between, make_run, open_from_list, open_monitor, write
from registry_speed import EVIDENCE, RECIPES, fill
from terminal import Terminal
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.fold import read_history
from tunewright.recipes.finding import Query
from tunewright.recipes.registry import open_registry

WORD = "maths"
BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("the floor is here")
Bare().run()
"""
PARTS = """
import json, sys, time
stamps = [("python", time.monotonic())]
def stamp(name):
    stamps.append((name, time.monotonic()))
from tunewright import __main__
__main__.gc.set_threshold(__main__.OBJECTS_BETWEEN_COLLECTIONS)
from tunewright.cli.parser import build_parser
build_parser().parse_args(["recipes"])
stamp("command line")
import textual.app, textual.widgets
from textual.widgets import Input, OptionList
stamp("import of Textual")
from tunewright.tui.screens import recipes
import tunewright.tui.app
stamp("import of the library's screen")
from tunewright.recipes.finding import Query
from tunewright.recipes.registry import open_registry
stamp("import of the registry")
registry = open_registry()
stamp("opening the registry")
registry.entries(registry.find(Query(), recipes.MOST_SHOWN).found)
stamp("finding the first rows")
print(json.dumps(stamps))
"""
"""What the library does up to its rows, but for the screen itself, one after the other."""


def main(arguments: list[str]) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=RECIPES)
    parser.add_argument("--evidence", type=int, default=EVIDENCE)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the run that is opened; 0 for none")
    parser.add_argument("--times", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    # Programs that are installed have their bytecode; a first call of each, which may have to write it, is not counted.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="tunewright-first-") as home:
        os.environ |= {"TUNEWRIGHT_HOME": home, "PYTHONPYCACHEPREFIX": str(Path(home) / "bytecode")}
        run = make_run(options.steps) if options.steps else None
        if run is not None:
            write(run, events_between(read_history(run).step, options.steps, options.steps))
        with open_registry() as registry:
            fill(registry, options.recipes, options.evidence)
        report = {
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "python": platform.python_version(),
            "recipes": options.recipes,
            "evidence_rows": options.evidence,
            "steps": options.steps,
            "times": options.times,
        }
        report |= measure(run, options.steps, options.times)
    text = json.dumps(report, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
    else:
        tell(report)
    return 0


def measure(run: RunDirectory | None, steps: int, times: int) -> dict[str, Any]:
    """Return the medians of every figure, and of the parts of the library's start, in seconds."""
    with open_registry() as registry:
        first = registry.find(Query(), 1).found[0].name
        sought = registry.find(Query(text=WORD), 1).found[0].name
    figures: dict[str, Callable[[], Taken]] = {
        "floor_python": lambda: ended("-c", "pass"),
        "floor_import_of_textual": lambda: ended("-c", "import textual.app, textual.widgets"),
        "floor_bare_textual_app": lambda: drawn("the floor is here", "-c", BARE),
        "help": lambda: ended("-m", "tunewright", "--help"),
        "recipes_search": lambda: ended("-m", "tunewright", "recipes", "search", WORD),
        "wizard_from_start": lambda: drawn("This machine", "-m", "tunewright"),
        "library_from_start": lambda: drawn(first, "-m", "tunewright", "recipes"),
        "library_from_key": lambda: library_from_key(first),
        "search_from_key": lambda: search_from_key(first, sought),
    }
    if run is not None:
        figures["monitor_from_start"] = lambda: open_monitor(run, steps)
        figures["monitor_from_key"] = lambda: open_from_list(run, steps)
    taken: dict[str, list[Taken]] = defaultdict(list)
    parts: dict[str, list[float]] = defaultdict(list)
    for number in range(times + 1):
        for name, figure in figures.items():
            found = figure()
            if number:
                taken[name].append(found)
        for name, seconds in library_parts().items():
            if number:
                parts[name].append(seconds)
    clock = {name: [seconds for seconds, _ in each] for name, each in taken.items()}
    core = {name: [seconds for _, seconds in each] for name, each in taken.items()}
    medians = {name: round(statistics.median(each), 3) for name, each in clock.items()}
    of_start = {name: round(statistics.median(each), 4) for name, each in parts.items()}
    of_start["styling, layout and painting"] = round(medians["library_from_start"] - sum(of_start.values()), 4)
    return {
        "seconds": medians,
        "least_seconds": {name: round(min(each), 3) for name, each in clock.items()},
        "core_seconds": {name: round(statistics.median(each), 3) for name, each in core.items()},
        "library_parts_seconds": of_start,
    }


def ended(*arguments: str) -> Taken:
    """Return how long a whole call of Python takes."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as process:
        _, process.returncode, used = os.wait4(process.pid, 0)
    assert not process.returncode, arguments
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def drawn(text: str, *arguments: str) -> Taken:
    """Return how long it takes from the start of Python until `text` is in its terminal."""
    terminal = Terminal(*arguments)
    try:
        return terminal.wait(text), terminal.cpu_seconds()
    finally:
        terminal.close()


def library_from_key(first: str) -> Taken:
    """Return how long it takes from the key to the library's first row, in an interface that is open and at rest."""
    terminal = Terminal("-m", "tunewright")
    try:
        terminal.wait("This machine")
        terminal.rest()
        before = terminal.cpu_seconds()
        terminal.press(b"3")
        return terminal.wait(first), terminal.cpu_seconds() - before
    finally:
        terminal.close()


def search_from_key(first: str, sought: str) -> Taken:
    """Return how long it takes from a word that is typed at once to its first match."""
    terminal = Terminal("-m", "tunewright", "recipes")
    try:
        terminal.wait(first)
        terminal.rest()
        terminal.press(b"/")
        terminal.rest()
        before = terminal.cpu_seconds()
        terminal.press(WORD.encode())
        return terminal.wait(sought), terminal.cpu_seconds() - before
    finally:
        terminal.close()


def library_parts() -> dict[str, float]:
    """Return what the parts of the library's start take, in their order."""
    began = time.monotonic()
    printed = subprocess.run([sys.executable, "-c", PARTS], stdout=subprocess.PIPE, check=True).stdout
    parts: dict[str, float] = {}
    for name, at in json.loads(printed):
        parts[name] = at - began
        began = at
    return parts


NAMES = {
    "floor_python": "Python by itself",
    "floor_import_of_textual": "Python, and the import of Textual",
    "floor_bare_textual_app": "a bare Textual app, to its first words",
    "help": "tunewright --help, to its end",
    "recipes_search": "tunewright recipes search maths, to its end",
    "wizard_from_start": "tunewright, to the wizard's first screen",
    "library_from_start": "tunewright recipes, to the library's first rows",
    "library_from_key": "from key 3 to the library's first rows",
    "search_from_key": "from a word typed in its search to the first match",
    "monitor_from_start": "tunewright attach, to the whole history of the run",
    "monitor_from_key": "from enter on the run to its whole history",
}


def tell(report: dict[str, Any]) -> None:
    """Print the report for people."""
    print(f"{report['machine']}, Python {report['python']}; medians of {report['times']}, the least, and a core's work")
    print(
        f"{report['recipes']:,} recipes, {report['evidence_rows']:,} rows of evidence; a run of {report['steps']:,} steps"
    )
    for name, seconds in report["seconds"].items():
        print(
            f"  {NAMES[name]:52} {1000 * seconds:6.0f} ms {1000 * report['least_seconds'][name]:6.0f} ms"
            f" {1000 * report['core_seconds'][name]:6.0f} ms"
        )
    print("Of the library's start:")
    for name, seconds in report["library_parts_seconds"].items():
        print(f"  {name:52} {1000 * seconds:6.0f} ms")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
