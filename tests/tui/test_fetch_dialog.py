"""The wizard fetches what is on the Hub: a real server, real files, and a line that stalls."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tunewright import starter
from tunewright.engine.sources import find_data, find_model, find_weights
from tunewright.foundation.errors import TunewrightError
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.data_step import DataStep
from tunewright.tui.screens.tune import TuneScreen
from tunewright.tui.widgets.fetch_dialog import FetchDialog

from ..hub_server import Fault, HubServer
from .recorded import settle, shown, until

MODEL, DATA = "owner/starter", "owner/sets"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(hub_server: HubServer, runs: Path) -> HubServer:
    """A Hub with the built-in model and some of its data under other names."""
    hub_server.model(MODEL, {path.name: path.read_bytes() for path in starter.MODEL.iterdir() if path.is_file()})
    rows = b"".join(starter.TRAINING_DATA.read_bytes().splitlines(keepends=True)[:48])
    hub_server.data(DATA, {"README.md": b"# Orders", "train.jsonl": rows})
    return hub_server


async def open_data(pilot: Pilot[None], model: str | None = None, source: str | None = None) -> DataStep:
    """Walk to the data step, and name a model and data there."""
    for _ in range(2):
        await settle(pilot)
        await pilot.press("enter")
    step = pilot.app.screen.query_one(DataStep)
    for name, value in (("#model", model), ("#source", source)):
        if value is not None:
            step.query_one(name, Input).value = value
    await settle(pilot)
    return step


def wanted(hub: HubServer) -> set[str]:
    return {each.path.rpartition("/")[2] for each in hub.seen if each.store and each.method == "GET"}


async def press(pilot: Pilot[None], *keys: str) -> str:
    for key in keys:
        await pilot.press(key)
        await settle(pilot)
    return shown(pilot)


async def test_what_is_named_is_offered_and_fetched(hub: HubServer) -> None:
    app = TunewrightApp()
    async with app.run_test(size=(80, 24)) as pilot:
        step = await open_data(pilot, MODEL, DATA)
        seen = shown(pilot)
        assert f"✗ {MODEL}  the model can be had from the Hub: g fetches" in seen
        assert f"✗ {DATA}  the data can be had from the Hub: g fetches" in seen
        assert "press g to fetch" in (step.obstacle() or "")
        seen = await press(pilot, "g")
        assert isinstance(app.screen, FetchDialog)
        for words in (MODEL, DATA, "to fetch", "free", "Fetch (y)", "Without weights", "Cancel (esc)", "commit"):
            assert words in seen, words
        assert wanted(hub) == set()
        seen = await press(pilot, "y")
        assert find_weights(MODEL).is_dir() and find_data(DATA)
        assert "fetches" not in seen and "48 rows" in seen and "parameters" in seen
        assert step.obstacle() is None


async def test_a_model_without_its_weights_is_planned_for_and_the_launch_asks_for_them(hub: HubServer) -> None:
    app = TunewrightApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_data(pilot, MODEL)
        await press(pilot, "g", "tab", "enter")
        assert WEIGHTS not in wanted(hub) and find_model(MODEL).is_dir()
        with pytest.raises(TunewrightError, match="Model without weights"):
            find_weights(MODEL)
        assert f"· {MODEL}  the weights can be had from the Hub: g fetches" in shown(pilot)
        await press(pilot, "enter", "enter", "enter")
        screen = app.screen
        assert isinstance(screen, TuneScreen) and screen.steps[screen.present].name_in_rail == "launch"
        assert "to the first step" in shown(pilot), "planned without the weights"
        seen = await press(pilot, "enter")
        assert isinstance(app.screen, FetchDialog) and "Without weights" not in seen
        await press(pilot, "escape")
        assert app.screen is screen
        await press(pilot, "g", "y")
        assert app.screen is screen, "g fetches and starts nothing"
        assert find_weights(MODEL).is_dir()


async def test_a_transfer_is_shown_stopped_and_gone_on_with(hub: HubServer) -> None:
    hub.faults[WEIGHTS] = [Fault("stall", after_bytes=2_000_000)]
    app = TunewrightApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await open_data(pilot, MODEL)
        await press(pilot, "g")
        dialog = app.screen
        await pilot.press("y")
        await until(pilot, hub.stalled.is_set)
        await until(pilot, lambda: "5 of 6 files" in shown(pilot))
        seen = shown(pilot)
        for words in ("━", " %", "MiB of", "/s ·", "Stop (esc)"):
            assert words in seen, words
        assert "Fetch (y)" not in seen
        await press(pilot, "escape")
        assert app.screen is not dialog
        await until(pilot, lambda: "What has arrived stays" in shown(pilot))
        seen = await press(pilot, "g")
        assert "MiB is here already" in seen
        await press(pilot, "y")
        assert (find_weights(MODEL) / WEIGHTS).read_bytes() == (starter.MODEL / WEIGHTS).read_bytes()
        assert hub.gets(WEIGHTS)[-1].headers["range"].startswith("bytes=2000000-")


async def test_what_stands_in_the_way_is_a_page_and_can_be_tried_again(hub: HubServer) -> None:
    hub.repos[f"models/{MODEL}"].gated = True
    app = TunewrightApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_data(pilot, MODEL)
        seen = await press(pilot, "g")
        for words in ("Gated model", "What to do", "hf auth login", "Try again (y)", "Close (esc)"):
            assert words in seen, words
        hub.repos[f"models/{MODEL}"].gated = False
        seen = await press(pilot, "y")
        assert "to fetch" in seen and "Gated" not in seen
        await press(pilot, "y")
        assert find_weights(MODEL).is_dir()
