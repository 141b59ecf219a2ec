"""The probe from the launch step: its words while it goes on, the plan after it, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot
from tunewright.foundation.errors import TunewrightError
from tunewright.tui.app import TunewrightApp

from .recorded import make_plan, settle, shown, until

WIDE = (120, 40)


async def launch_step(pilot: Pilot[None]) -> None:
    for _ in range(5):
        await settle(pilot)
        await pilot.press("enter")
    await settle(pilot)
    assert "Press enter to start." in shown(pilot)


async def test_a_probe_is_told_and_its_figures_are_planned_with(
    runs: Path, fixed_plans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, plans = Event(), Event(), [make_plan()]
    monkeypatch.setattr("tunewright.engine.planner.plan_recipe", lambda recipe, machine: plans[-1])

    def probe_recipe(recipe: Any, machine: Any, say: Callable[[str], None], cancelled: Callable[[], bool]) -> Any:
        say("training 5 steps on the longest rows")
        begun.set()
        assert go_on.wait(20)
        assert not cancelled()
        plans.append(replace(make_plan(), total_steps=777))
        return SimpleNamespace(measured=object(), verdict="Fits")

    monkeypatch.setattr("tunewright.engine.probe.probe_recipe", probe_recipe)
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("p")  # nothing before there is a plan
        await launch_step(pilot)
        await pilot.press("p")
        await until(pilot, lambda: "Probing: training 5 steps on the longest rows…" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "A probe is going on" in shown(pilot))
        await pilot.press("p")
        assert begun.is_set()
        go_on.set()
        await until(pilot, lambda: "777" in shown(pilot))
        await until(pilot, lambda: "Press enter to start." in shown(pilot))


@pytest.mark.parametrize("fits", [True, False])
async def test_what_goes_wrong_is_in_the_dialog(
    runs: Path, fixed_plans: None, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    def probe_recipe(recipe: Any, machine: Any, say: Callable[[str], None], cancelled: Callable[[], bool]) -> Any:
        if fits:
            raise TunewrightError("The probe failed", "It ended with status 1.", "See `tunewright doctor`.")
        return SimpleNamespace(measured=None, verdict="Does not fit: memory ran out.")

    monkeypatch.setattr("tunewright.engine.probe.probe_recipe", probe_recipe)
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await launch_step(pilot)
        await pilot.press("p")
        await until(pilot, lambda: ("The probe failed" if fits else "Does not fit: memory") in shown(pilot))
        await pilot.press("escape")
        await settle(pilot)
        assert "Press enter to start." in shown(pilot)
