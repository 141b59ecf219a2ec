"""What every main screen looks like, small and usual, over fixed data.

Read a difference in snapshot_report.html; `pytest tests/tui --snapshot-update` accepts it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from tunewright.foundation.errors import TunewrightError
from tunewright.tui.app import TunewrightApp
from tunewright.tui.messages import Failed
from tunewright.tui.screens.monitor import MonitorScreen
from tunewright.tui.widgets.row_list import RowList

from .recorded import (
    NOON,
    QLORA_RECIPE,
    failed_events,
    finished_events,
    make_faulty_data,
    make_gpu_plan,
    make_outlook,
    preference_events,
    record_run,
    settle,
    shown,
    starting_events,
    training_events,
    until,
)

Compare = Callable[..., bool]
SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
pytestmark = pytest.mark.usefixtures("runs", "fixed_plans", "frozen_time")


@SIZES
@pytest.mark.parametrize("steps", range(6), ids=["machine", "goal", "data", "method", "recipe", "launch"])
def test_wizard(snap_compare: Compare, size: tuple[int, int], steps: int) -> None:
    async def walk(pilot: Pilot[None]) -> None:
        await settle(pilot)
        for _ in range(steps):
            await pilot.press("enter")
            await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=walk)


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        ((80, 24), ("tab",)),
        ((80, 24), ("tab", "tab")),
        ((120, 40), ("l", "v")),
        ((200, 60), ()),
        ((80, 24), ("c",)),
        ((80, 24), ("o",)),
    ],
    ids=["findings-80x24", "tokens-80x24", "tokens-of-a-row-120x40", "all-200x60", "columns-80x24", "options-80x24"],
)
def test_faulty_data(
    snap_compare: Compare,
    size: tuple[int, int],
    keys: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_faulty_data(tmp_path / "faulty.jsonl")
    # A path that is the same on every machine.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tunewright.engine.sources.BUILT_IN_DATA", {"tunewright/starter-orders": Path("faulty.jsonl")})

    async def walk(pilot: Pilot[None]) -> None:
        await settle(pilot)
        for key in ("enter", "enter", *keys):
            await pilot.press(key)
            await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=walk)


@SIZES
def test_machine_with_gpus(snap_compare: Compare, size: tuple[int, int], gpu_machine: None) -> None:
    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=settle)


@SIZES
def test_runs(snap_compare: Compare, size: tuple[int, int], runs: Path) -> None:
    record_run(runs, "20261120-110000-starter-lora-0a1b", finished_events(), "finished")
    record_run(runs, "20261120-112000-starter-qlora-77aa", failed_events(), "failed", recipe=QLORA_RECIPE)
    record_run(runs, "20261120-114000-starter-lora-31c2", training_events(90))
    record_run(runs, "20261120-120000-starter-lora-9c9c", training_events(212), alive=True)

    async def open_list(pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: "● running" in shown(pilot))
        await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=open_list)


def open_monitor(path: Path, said: str) -> Callable[[Pilot[None]], object]:
    """Return what opens the monitor of the run at `path` and waits until it says `said`."""
    from tunewright.engine.runs.directory import RunDirectory

    async def before(pilot: Pilot[None]) -> None:
        await settle(pilot)
        pilot.app.push_screen(MonitorScreen(RunDirectory(path)))
        await until(pilot, lambda: said in shown(pilot))
        await settle(pilot)

    return before


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"])
def test_monitor_of_a_live_run(snap_compare: Compare, size: tuple[int, int], runs: Path) -> None:
    run = record_run(runs, "20261120-120000-starter-lora-9c9c", training_events(212), alive=True)
    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=open_monitor(run.path, "step 212 of 360"))


@SIZES
def test_monitor_of_a_starting_run(snap_compare: Compare, size: tuple[int, int], runs: Path) -> None:
    run = record_run(runs, "20261120-120000-starter-lora-9c9c", starting_events(), alive=True, plan=make_gpu_plan())
    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=open_monitor(run.path, "212 of 291"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"])
def test_monitor_of_a_run_on_a_card(snap_compare: Compare, size: tuple[int, int], runs: Path) -> None:
    name = "20261120-120000-starter-dpo-9c9c"
    run = record_run(runs, name, preference_events(212), alive=True, plan=make_gpu_plan())
    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=open_monitor(run.path, "step 212 of 360"))


def test_monitor_with_one_pane(snap_compare: Compare, runs: Path) -> None:
    run = record_run(runs, "20261120-120000-starter-lora-9c9c", training_events(300), alive=True)
    opening = open_monitor(run.path, "step 300 of 360")

    async def zoom(pilot: Pilot[None]) -> None:
        await opening(pilot)  # pyright: ignore[reportGeneralTypeIssues]
        await pilot.press("z")
        await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=(120, 40), run_before=zoom)


@SIZES
def test_monitor_of_a_finished_run(snap_compare: Compare, size: tuple[int, int], runs: Path) -> None:
    run = record_run(runs, "20261120-120000-starter-lora-0a1b", finished_events(), "finished")
    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=open_monitor(run.path, "step 360 of 360"))


def test_monitor_of_a_failed_run(snap_compare: Compare, runs: Path) -> None:
    run = record_run(runs, "20261120-120000-starter-lora-77aa", failed_events(), "failed")
    assert snap_compare(TunewrightApp(), terminal_size=(80, 24), run_before=open_monitor(run.path, "Even one row"))


@SIZES
def test_recipes(snap_compare: Compare, size: tuple[int, int]) -> None:
    async def read(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("down")
        await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=read)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"])
def test_recipe_editor(snap_compare: Compare, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fields are changed, a third one in a way that is refused."""
    monkeypatch.setattr("tunewright.tui.outlook.rough_outlook", lambda recipe, *rest: make_outlook(recipe))
    monkeypatch.setattr("tunewright.tui.outlook.exact_outlook", lambda *arguments: None)

    async def edit(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await settle(pilot)
        await until(pilot, lambda: "3 recipes" in shown(pilot))
        await pilot.press("down", "e")
        await until(pilot, lambda: "0.92 GiB" in shown(pilot))
        for path, keys in (("training.warmup.value", "7"), ("method.kind", "qlora"), ("method.rank", "64")):
            pilot.app.screen.query_one(RowList).choose(path)
            await pilot.pause()
            await pilot.press("enter", *keys, "enter")
            await pilot.pause()
        pilot.app.screen.query_one(RowList).choose("training.warmup.value")
        await pilot.pause()
        await pilot.press("u")
        await until(pilot, lambda: "1.80 GiB" in shown(pilot))
        await pilot.press("enter", "7", "enter")
        await settle(pilot)
        pilot.app.screen.query_one(RowList).choose("method.rank")
        await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=edit)


@SIZES
def test_help(snap_compare: Compare, size: tuple[int, int]) -> None:
    async def ask(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.press("question_mark")
        await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=size, run_before=ask)


def test_error_dialog_in_the_light_theme(snap_compare: Compare) -> None:
    async def fail(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.press("ctrl+t")
        pilot.app.post_message(
            Failed(TunewrightError("The disk is full", "Writing needs more space than is left.", "Free some space."))
        )
        await settle(pilot)

    assert snap_compare(TunewrightApp(), terminal_size=(80, 24), run_before=fail)


def test_too_small(snap_compare: Compare) -> None:
    assert snap_compare(TunewrightApp(), terminal_size=(40, 8), run_before=settle)


def test_the_clock_stands() -> None:
    from tunewright.tui.figures import clock

    assert clock(NOON) == "12:00"
