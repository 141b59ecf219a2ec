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
FIRST_PAINT = """
import sys
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.tune import TuneScreen
"""


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


def test_the_first_paint_waits_for_no_schema_and_no_database(tmp_path: Path) -> None:
    assert (
        modules_after(FIRST_PAINT, tmp_path) & {"pydantic", "sqlite3", "sqlite_utils", "tokenizers", "jinja2"} == set()
    )
