"""The recipe editor: fields are changed, checked as they are typed, weighed by the planner, and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tunewright.recipes.editing import change_text, keep_fork, read_change
from tunewright.recipes.registry import open_registry
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.editor import EditorScreen, Foreseen
from tunewright.tui.screens.tune import TuneScreen
from tunewright.tui.widgets.pane import FixedText
from tunewright.tui.widgets.row_list import RowList

from .recorded import settle, shown, until
from .test_library import WIDE, open_library, type_words


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no data be small enough to be counted while one edits, for tests that look at something else."""
    monkeypatch.setattr("tunewright.tui.outlook.LARGEST_COUNTED_BYTES", -1)


async def open_editor(pilot: Pilot[None], name: str = "starter-lora") -> EditorScreen:
    """Open the editor on a recipe of the library, and wait for what the planner says of it."""
    await open_library(pilot)
    pilot.app.screen.query_one(RowList).choose(name)
    await pilot.press("e")
    await until(pilot, lambda: isinstance(pilot.app.screen, EditorScreen))
    await settle(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, EditorScreen)
    return screen


async def go_to(pilot: Pilot[None], path: str) -> None:
    screen = pilot.app.screen
    screen.query_one(RowList).choose(path)
    await pilot.pause()
    assert isinstance(screen, EditorScreen) and screen.filled == path


def fields_shown(screen: EditorScreen) -> list[str]:
    return [slot.name for slot in screen.work.slots()]


async def type_value(pilot: Pilot[None], path: str, words: str) -> None:
    await go_to(pilot, path)
    await pilot.press("enter")
    await type_words(pilot, words)
    await pilot.press("enter")
    await pilot.pause()


async def test_a_built_in_recipe_is_edited_weighed_and_kept_as_a_fork(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        screen = await open_editor(pilot)
        before = screen.outlooks[screen.work.before.hash()]
        assert before.exact and before.peak_gib
        assert "unchanged" in shown(pilot) and "For its own" in shown(pilot)
        await type_value(pilot, "method.rank", "256")
        assert "16 → 256" in shown(pilot) and "16 times the parameters" in shown(pilot)
        await until(pilot, lambda: screen.work.recipe.hash() in screen.outlooks)
        await settle(pilot)
        after = screen.outlooks[screen.work.recipe.hash()]
        assert after.exact and after.peak_gib and after.peak_gib > before.peak_gib
        assert f"{before.peak_gib:.2f} GiB → {after.peak_gib:.2f} GiB" in shown(pilot)
        await pilot.press("s")
        assert "not yours to change" in shown(pilot)
        await pilot.press("down", *"why", "enter")
        await until(pilot, lambda: pilot.app.screen.query("#search"))
        await until(pilot, lambda: "4 recipes" in shown(pilot))
        with open_registry() as registry:
            made = registry.get("my-starter-lora")
            assert registry.parents(made.hash) == [(screen.entry.hash, "fork")]
            assert registry.history(made.name)[0].note == "why"
        assert made.toml == screen.entry.toml.replace("rank = 16", "rank = 256")
        assert pilot.app.screen.chosen_entry().name == made.name  # type: ignore[attr-defined]


async def test_ones_own_recipe_gets_an_edition_and_its_parent_stands_beside(runs: Path, uncounted: None) -> None:
    with open_registry() as registry:
        parent = registry.get("starter-lora")
        text = change_text(parent.toml, [read_change("training.seed=7")], "mine")
        mine = keep_fork(registry, parent, text, "mine")
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("3")
        await settle(pilot)
        await until(pilot, lambda: "4 recipes" in shown(pilot))
        pilot.app.screen.query_one(RowList).choose("mine")
        await pilot.press("e")
        await settle(pilot)
        await go_to(pilot, "training.seed")
        assert "42 in starter-lora" in shown(pilot)
        await pilot.press("p")
        await type_value(pilot, "training.steps", "100")
        await pilot.press("ctrl+s", "enter")
        await until(pilot, lambda: pilot.app.screen.query("#search"))
        await settle(pilot)
        with open_registry() as registry:
            made = registry.get("mine")
            assert (made.recipe.training.seed, made.recipe.training.steps, made.recipe.training.epochs) == (
                42,
                100,
                None,
            )
            assert [each.hash for each in registry.history("mine")] == [made.hash, mine.hash]
            assert "# Small models bear a higher rate." in made.toml


WRONG = (
    ("method.rank", "x", "method.rank should be a valid integer"),
    ("method.rank", "5000", "method.rank should be less than or equal to 1024"),
    ("method.kind", "lra", "did you mean lora?"),
    ("base.model", "", "base.model is missing"),
    ("data.columns", "{ p", "data.columns is not TOML"),
    ("training.epochs", "", "training is not valid: give either epochs or steps"),
    ("data.validation.value", "0.5", "a number of validation rows is a whole number"),
)


async def test_what_is_not_valid_is_told_and_never_kept(runs: Path, uncounted: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        screen = await open_editor(pilot)
        field = screen.query_one("#value", Input)
        for path, words, said in WRONG:
            await go_to(pilot, path)
            field.value = words
            await pilot.pause()
            assert said in screen.query_one("#fault", FixedText)._shown.plain
            assert "✗ 1 problem" in shown(pilot)
            await pilot.press("s")
            await until(pilot, lambda: "nothing is kept until then" in shown(pilot))
            await pilot.press("escape", "u")
            await pilot.pause()
            assert "unchanged" in shown(pilot) and screen.work.edited.recipe == screen.work.before


async def test_hostile_text_stays_text(runs: Path, uncounted: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        screen = await open_editor(pilot)
        await go_to(pilot, "card.title")
        field = screen.query_one("#value", Input)
        field.focus()
        field.value = "\x1b]0;owned\x07[red]x[/red]\u202e" + "y" * 300
        await pilot.pause()
        assert screen.work.edited.recipe is None
        assert "card.title should have at most 200 characters" in shown(pilot)
        field.value = "\x1b[31m[red]x[/red]"
        await pilot.pause()
        assert screen.work.edited.recipe and screen.work.edited.recipe.card.title == "[red]x[/red]"
        assert "\x1b" not in screen.work.edited.text


async def test_a_model_that_nobody_knows_is_told_by_the_planner(runs: Path, uncounted: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        screen = await open_editor(pilot)
        await type_value(pilot, "base.model", "a/b")
        await until(pilot, lambda: "not known" in shown(pilot))
        assert "a/b is neither a folder here" in screen.outlooks[screen.work.recipe.hash()].because


async def test_choices_step_and_an_answer_of_before_is_not_shown(runs: Path, uncounted: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        screen = await open_editor(pilot)
        await go_to(pilot, "method.kind")
        await pilot.press("right")
        assert screen.work.recipe.method.kind == "qlora" and "quantisation" in fields_shown(screen)
        await pilot.press("left", "left")
        assert screen.work.recipe.method.kind == "full" and "rank" not in fields_shown(screen)
        await until(pilot, lambda: screen.work.recipe.hash() in screen.outlooks)
        full = screen.outlooks[screen.work.recipe.hash()]
        await pilot.press("u")
        assert screen.work.recipe == screen.work.before and "rank" in fields_shown(screen)
        await until(pilot, lambda: "unchanged" in shown(pilot))
        # What is still said of the other recipe, when this one is there again, is not shown.
        screen.post_message(Foreseen("another", replace(full, because="An answer of before.")))
        await pilot.pause()
        assert "An answer of before" not in shown(pilot)


async def test_leaving_asks_while_changes_are_not_kept(runs: Path, uncounted: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        screen = await open_editor(pilot)
        await type_value(pilot, "training.seed", "9")
        await go_to(pilot, "training.seed")
        await pilot.press("enter", "1", "escape")
        assert screen.work.recipe.training.seed == 9 and screen.query_one(RowList).list.has_focus
        await pilot.press("escape")
        assert "are not saved" in shown(pilot)
        await pilot.press("n", "q")
        await until(pilot, lambda: "are not saved" in shown(pilot))
        await pilot.press("n", "escape", "y")
        await until(pilot, lambda: pilot.app.screen.query("#search"))
        with open_registry() as registry:
            assert len(registry.list()) == 3
        await pilot.press("q")
        await until(pilot, lambda: not pilot.app.is_running)


async def test_the_wizards_recipe_is_edited_and_gone_on_with(runs: Path, uncounted: None, fixed_plans: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        wizard = pilot.app.screen
        assert isinstance(wizard, TuneScreen)
        await settle(pilot)
        with open_registry() as registry:
            wizard.start_from(registry.get("starter-lora"))
        await settle(pilot)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(pilot.app.screen, EditorScreen))
        await settle(pilot)
        await type_value(pilot, "training.weight_decay", "0.1")
        await go_to(pilot, "method.kind")
        await pilot.press("right")
        await pilot.press("s")
        await until(pilot, lambda: pilot.app.screen is wizard)
        await settle(pilot)
        recipe = wizard.draft.recipe
        assert recipe and (recipe.training.weight_decay, recipe.method.kind) == (0.1, "qlora")
        assert "starter-lora, qlora" in " ".join(shown(pilot).split())
        await pilot.press("escape", "enter")
        await settle(pilot)
        assert wizard.draft.recipe == recipe
        with open_registry() as registry:
            assert len(registry.list()) == 3
