"""The library: recipes are narrowed, forked, compared, published and pulled from the screen."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Static
from tunewright.recipes.registry import open_registry
from tunewright.tui.app import TunewrightApp
from tunewright.tui.widgets.field import Field
from tunewright.tui.widgets.row_list import RowList

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


AXOLOTL = """\
base_model: tunewright/starter
datasets:
  - path: rows.jsonl
    type: chat_template
adapter: lora
lora_r: 8
lora_alpha: 16
sequence_len: 512
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 2
learning_rate: 2e-4
wandb_project: "\\e]0;owned\\a[red]mine[/red]"
"""


async def test_another_tools_file_comes_in_after_it_was_shown(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "Mine (2).yml").write_text(AXOLOTL)
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await open_library(pilot)
        await pilot.press("i")
        pilot.app.screen.query_one("#file", Field).value = str(tmp_path / "Mine (2).yml")
        await pilot.press("enter")
        await until(pilot, lambda: "Keep this?" in shown(pilot))
        said = pilot.app.screen.query_one(".dialog-text Static", Static).render().plain  # type: ignore[union-attr]
        assert "Read as a configuration of axolotl" in said
        assert "lora_r = 8 → method.rank = 8" in said
        assert "Not in the file" in said and "training.optimizer" in said
        assert "wandb_project = [red]mine[/red]" in said and "\x1b" not in said
        with open_registry() as registry:
            assert len(registry.list()) == 3
        await pilot.press("y")
        await until(pilot, lambda: "Keep the recipe" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "4 recipes" in shown(pilot))
        with open_registry() as registry:
            made = registry.get("mine-2")
            assert (made.origin, made.recipe.training.global_batch) == ("import", 8)
        assert pilot.app.screen.chosen_entry().name == made.name  # type: ignore[attr-defined]


async def test_a_file_that_is_no_configuration_is_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text("colour: red\n")
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await open_library(pilot)
        for name, said in (("other.yml", "Format not recognised"), ("none.yml", "File not found")):
            await pilot.press("i")
            pilot.app.screen.query_one("#file", Field).value = str(tmp_path / name)
            await pilot.press("enter")
            await until(pilot, lambda said=said: said in shown(pilot))
            await pilot.press("escape")


async def test_a_recipe_is_written_for_another_tool(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.yml"
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await open_library(pilot)
        pilot.app.screen.query_one(RowList).choose("starter-lora")
        await pilot.press("x")
        pilot.app.screen.query_one("#file", Field).value = str(path)
        await pilot.press("enter")
        await until(pilot, lambda: "for axolotl" in shown(pilot))
        assert not path.exists()
        await pilot.press("y")
        await until(pilot, path.exists)
        assert "base_model: tunewright/starter" in path.read_text()
