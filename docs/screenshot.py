"""Takes the README's picture from the running interface: `python docs/screenshot.py RUN [FILE.svg]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tunewright.engine.runs.directory import find_run
from tunewright.tui.app import TunewrightApp

SIZE = (120, 40)


async def take(name: str, file: Path) -> None:
    """Write the monitor of the run called `name` as an SVG, once everything on it is drawn."""
    app = TunewrightApp(find_run(name))
    async with app.run_test(size=SIZE) as pilot:
        await app.workers.wait_for_complete([worker for worker in app.workers if worker.group != "follow"])
        await pilot.pause(1.5)
        file.write_text(app.export_screenshot(title="tunewright"), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "docs/monitor.svg")))
