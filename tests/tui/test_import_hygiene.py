"""The interface and `--help` never pay for the training stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "trl", "peft", "pandas", "datasets", "accelerate", "bitsandbytes", "unsloth"}
OPEN = """
import asyncio, sys
from tunewright.tui.app import TunewrightApp
async def main():
    app = TunewrightApp()
    async with app.run_test(size=(100, 30)) as pilot:
        for key in ("2", "3", "4", "1", "enter", "enter"):
            await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause()
asyncio.run(main())
"""
HELP = """
import sys
from tunewright.__main__ import main
try:
    main(["--help"])
except SystemExit:
    pass
"""
FIRST = {
    "wizard": """
import sys
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.tune import TuneScreen
""",
    "library": """
import sys
from tunewright.cli.parser import build_parser
build_parser().parse_args(["recipes"])
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.recipes import RecipesScreen
from tunewright.recipes.finding import Query
from tunewright.recipes.registry import open_registry
with open_registry() as registry:
    assert registry.entries(registry.find(Query(), 50).found)
""",
    "monitor": """
import sys
from tunewright.cli.parser import build_parser
build_parser().parse_args(["attach", "last"])
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.monitor import MonitorScreen
from tunewright.tui.screens.runs import RunsScreen
""",
}
"""What each screen needs up to its first rows or figures."""
LATER = {
    "pydantic", "tomlkit", "rfc8785", "sqlite_utils", "tokenizers", "jinja2", "huggingface_hub", "httpx", "numpy", "pyarrow",
    "yaml", "psutil",
}  # fmt: skip
"""What only reading a recipe, data or the machine needs."""


def modules_after(code: str, home: Path) -> set[str]:
    """Return the top-level modules that `code` leaves imported in a process of its own."""
    code += "\nprint('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "TUNEWRIGHT_HOME": str(home)},
    )  # fmt: skip
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("code", [OPEN, HELP], ids=["interface", "help"])
def test_the_training_stack_is_not_imported(code: str, tmp_path: Path) -> None:
    assert modules_after(code, tmp_path) & HEAVY == set()


@pytest.mark.parametrize("screen", FIRST)
def test_the_first_paint_waits_for_no_schema(screen: str, tmp_path: Path) -> None:
    modules_after("import sys\nfrom tunewright.recipes.registry import open_registry\nopen_registry()", tmp_path)
    modules = modules_after(FIRST[screen], tmp_path)
    assert modules & LATER == set()
    assert ("sqlite3" in modules) == (screen == "library")
