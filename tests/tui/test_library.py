"""The library: recipes are narrowed, forked, compared, published and pulled from the screen."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot
from tunewright.recipes.registry import open_registry
from tunewright.tui.app import TunewrightApp

from .recorded import settle, shown, until

WIDE = (120, 40)


async def type_words(pilot: Pilot[None], words: str) -> None:
    await pilot.press(*("space" if each == " " else each for each in words))


async def open_library(pilot: Pilot[None]) -> None:
    await pilot.press("3")
    await settle(pilot)
    await until(pilot, lambda: "3 recipes" in shown(pilot))


async def test_the_list_is_narrowed_by_what_is_chosen(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await open_library(pilot)
        await pilot.press("f", "down", "down", "down", "down", "q", "enter")
        await until(pilot, lambda: "1 recipe " in shown(pilot))
        assert "only qlora" in shown(pilot) and "starter-qlora" in shown(pilot)
        await pilot.press("f", "down", "down", *"huge", "enter")
        await until(pilot, lambda: "Size not understood" in shown(pilot))


async def test_a_fork_is_made_and_compared(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await open_library(pilot)
        await pilot.press("k", "down")
        await type_words(pilot, "training.seed=7")
        await pilot.press("enter")
        await until(pilot, lambda: "4 recipes" in shown(pilot))
        with open_registry() as registry:
            (made,) = (entry for entry in registry.list() if entry.origin == "fork")
            assert made.recipe.training.seed == 7
            assert registry.parents(made.hash)
        while "my-starter" not in (pilot.app.screen.chosen_entry().name):  # type: ignore[attr-defined]
            await pilot.press("down")
        await pilot.press("d", "enter")
        await until(pilot, lambda: "training.seed" in shown(pilot))
        assert "7" in shown(pilot) and "Other chance" in shown(pilot)
        await pilot.press("escape", "h")
        await until(pilot, lambda: "Forked from" in shown(pilot))


async def test_a_recipe_is_removed_once_that_was_agreed_to(runs: Path) -> None:
    with open_registry() as registry:
        registry.add(registry.get("starter-lora").toml, "mine", origin="fork")
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "4 recipes" in shown(pilot))
        while pilot.app.screen.chosen_entry().name != "mine":  # type: ignore[attr-defined]
            await pilot.press("down")
        await pilot.press("r", "escape")
        assert "4 recipes" in shown(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "history and evidence stay" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: "3 recipes" in shown(pilot))
        with open_registry() as registry:
            assert "mine" not in [each.name for each in registry.list()] and registry.get("mine").origin == "fork"
        await pilot.press("home", "r", "y")
        await until(pilot, lambda: "is built in" in shown(pilot))


async def test_a_recipe_goes_out_and_comes_in_as_a_strangers(runs: Path, tmp_path: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await open_library(pilot)
        place = tmp_path / "team" / "shared"
        await pilot.press("p")
        await type_words(pilot, str(place))
        await pilot.press("enter")
        await until(pilot, lambda: "Publish this?" in shown(pilot))
        assert "recipe.toml" in shown(pilot)
        assert not place.exists()
        await pilot.press("y")
        await until(pilot, lambda: (place / "tunewright.json").exists())
        await settle(pilot)
        await pilot.press("g")
        await type_words(pilot, str(place))
        await pilot.press("enter")
        await until(pilot, lambda: "Keep this?" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: "4 recipes" in shown(pilot))
        with open_registry() as registry:
            (pulled,) = (entry for entry in registry.list() if entry.origin == "hub")
            assert not pulled.accepted
        while pilot.app.screen.chosen_entry().name != pulled.name:  # type: ignore[attr-defined]
            await pilot.press("down")
        assert "A stranger's" in shown(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "nobody here has accepted" in shown(pilot).replace("\n", " "))
        await pilot.press("escape", "a", "y")
        await until(pilot, lambda: "A stranger's: read" not in shown(pilot))
        with open_registry() as registry:
            assert registry.get(pulled.name).accepted
