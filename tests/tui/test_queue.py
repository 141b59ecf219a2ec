"""The queue on the screens: what a run waits for, who holds the machine, when a run begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from tunewright.engine.plan import Plan
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import Status
from tunewright.engine.runs.lineage import Lineage
from tunewright.engine.runs.queue import Place
from tunewright.engine.runs.terms import Terms
from tunewright.foundation.files import write_atomically
from tunewright.recipes.model import Recipe
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.monitor import MonitorScreen

from .recorded import NOON, make_plan, record_run, settle, shown, training_events, until

WIDE = (120, 40)
HELD = "The processor is held by ada's run 20261120-110000-hers"


def queued_run(runs: Path) -> RunDirectory:
    """A run that waits, as its folder tells; this process stands for its supervisor."""
    events = [Status(time=NOON, state="starting"), Status(time=NOON + 1, state="queued", reason=HELD)]
    run = record_run(runs, "20261120-120000-starter-lora-9c9c", events, alive=True)
    wait = {"what": "turn", "said": HELD, "place": 2, "of": 3, "since": NOON}
    write_atomically(run.waiting_file, json.dumps(wait))
    return run


@pytest.fixture
def held(runs: Path) -> Iterator[Place]:
    """The processor, held by another run: this process has its ticket."""
    place = Place(RunDirectory(runs / "20261120-110000-hers"), make_plan(), 0.9, "running")
    yield place
    place.leave()


async def test_the_list_tells_the_place_and_the_monitor_the_reason(runs: Path) -> None:
    run = queued_run(runs)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "◷ queued" in shown(pilot))
        assert "place 2 of 3" in shown(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen) and HELD in shown(pilot))
        run.waiting_file.unlink()
        await until(pilot, lambda: "● running" in shown(pilot))
        assert HELD not in shown(pilot).split("Loss")[0]


async def test_what_others_hold_is_told_and_a_run_can_be_queued_behind_it(
    runs: Path, held: Place, fixed_plans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Terms] = []

    def launch(recipe: Recipe, plan: Plan, name: str, *, terms: Terms, lineage: Lineage | None) -> RunDirectory:
        started.append(terms)
        return record_run(runs, "20261120-started", training_events(5), alive=True)

    monkeypatch.setattr("tunewright.engine.runs.launch.launch", launch)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "run 20261120-110000-hers holds the processor" in shown(pilot))
        await walk_to_launch(pilot)
        await until(pilot, lambda: "The processor is held by" in shown(pilot))
        assert "Press enter to start." in shown(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "When it begins" in shown(pilot))
        await pilot.press("right", "down", "right", "right", "down", "right", "enter")
        await until(pilot, lambda: "Press enter to queue it" in shown(pilot))
        await settle(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert started == [Terms(queue=True, wait_at_most_hours=12.0, nice=5)]


async def walk_to_launch(pilot: Pilot[None]) -> None:
    for _ in range(5):
        await settle(pilot)
        await pilot.press("enter")
    await settle(pilot)


async def test_a_waiting_run_is_moved_and_begun_by_keys(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = queued_run(runs)
    first = Place(RunDirectory(runs / "20261120-110000-first"), make_plan(), 0.9, "waiting")
    second = Place(run, make_plan(), 0.9, "waiting")
    async with TunewrightApp().run_test(size=WIDE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "◷ queued" in shown(pilot))
        await pilot.press("f")
        await until(pilot, lambda: "first of your places" in shown(pilot))
        assert [ticket.run for ticket in first.look()] == [run.id, "20261120-110000-first"]
        await pilot.press("b")
        await until(pilot, lambda: "The run begins" in shown(pilot))
        kept = json.loads((run.path / "terms.json").read_text())
        assert (kept["queue"], kept["wait_for_memory"]) == (False, False)
    first.leave()
    second.leave()


async def test_the_unit_is_shown_before_it_is_installed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no systemd that could be asked
    file = tmp_path / "config" / "systemd" / "user" / "tunewright-resume.service"
    async with TunewrightApp().run_test(size=WIDE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "No run yet" in shown(pilot))
        await pilot.press("u")
        await until(pilot, lambda: "Install (y)" in shown(pilot))
        assert "ExecStart=" in shown(pilot)
        assert not file.exists()
        await pilot.press("y")
        await until(pilot, lambda: file.exists())
        await until(pilot, lambda: "No manager of this user" in shown(pilot))
        await pilot.press("u")
        await until(pilot, lambda: "Remove (y)" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: not file.exists())
