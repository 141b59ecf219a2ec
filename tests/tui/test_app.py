"""The application: modes, help, palette, small terminals, errors, leaving, and text that strangers wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color
from textual.widgets import Input
from tunewright.foundation.errors import TunewrightError
from tunewright.tui.app import TunewrightApp, open_app
from tunewright.tui.messages import Failed
from tunewright.tui.screens.monitor import MonitorScreen
from tunewright.tui.theme import LIGHT
from tunewright.tui.widgets.error_dialog import ErrorDialog

from .recorded import finished_events, record_run, settle, shown, training_events, until

WIDE = (120, 40)


async def test_number_keys_switch_between_the_modes(runs: Path) -> None:
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        for key, mode in (("2", "runs"), ("3", "recipes"), ("4", "workbench"), ("1", "tune")):
            await pilot.press(key)
            await settle(pilot)
            assert app.current_mode == mode
            assert f"tunewright › {mode.title()}" in shown(pilot)


async def test_help_shows_the_keys_and_closes(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await settle(pilot)
        await pilot.press("question_mark")
        await settle(pilot)
        assert "Show every key" in shown(pilot)
        await pilot.press("escape")
        await settle(pilot)
        assert "Show every key" not in shown(pilot)


async def test_the_palette_offers_modes_and_the_screens_own_keys(runs: Path) -> None:
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("2")
        await settle(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles[:4] == ["Tune (1)", "Runs (2)", "Recipes (3)", "Workbench (4)"]
        assert {"Stop (s)", "Resume (r)", "Quit (q)", "Help (?)"} <= set(titles)
        await pilot.press("ctrl+p", *"workb")
        await settle(pilot)
        await until(pilot, lambda: "Workbench (4)" in shown(pilot))
        await pilot.press("enter")
        await settle(pilot)
        await until(pilot, lambda: app.current_mode == "workbench")


@pytest.mark.parametrize("size", [(20, 5), (4, 2)])
async def test_a_terminal_too_small_says_what_is_needed_and_comes_back(runs: Path, size: tuple[int, int]) -> None:
    record_run(runs, "one", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for key in ("1", "2"):
            await pilot.press(key)
            await settle(pilot)
            before = shown(pilot)
            await pilot.resize_terminal(*size)
            await settle(pilot)
            small = shown(pilot)
            assert "tunewright ›" not in small
            assert "72×20" in small or size[0] < 11
            await pilot.resize_terminal(80, 24)
            await settle(pilot)
            assert shown(pilot).split() == before.split()


async def test_an_error_ends_in_the_dialog_with_its_three_parts(runs: Path) -> None:
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        app.post_message(Failed(TunewrightError("Disk [full]", "No \x1b[31mroom[/nope].", "Free some.")))
        await settle(pilot)
        assert isinstance(app.screen, ErrorDialog)
        text = shown(pilot)
        assert "✗ Disk [full]" in text
        assert "No room[/nope]." in text
        assert "Free some." in text
        await pilot.press("escape")
        await settle(pilot)
        assert not isinstance(app.screen, ErrorDialog)


async def test_an_unexpected_exception_is_told_and_logged(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("tunewright.engine.machine.inspect_machine", fail)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert isinstance(app.screen, ErrorDialog)
        assert "ZeroDivisionError: a bug" in shown(pilot)
    assert "Traceback" in (runs.parent / "tunewright.log").read_text()


async def test_leaving_says_which_runs_go_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(runs, "20261120-live", training_events(10), alive=True)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0
    assert "1 run goes on without this window" in capsys.readouterr().err


def test_without_a_terminal_it_names_the_commands() -> None:
    with pytest.raises(TunewrightError, match="Not a terminal"):
        open_app()


async def test_keys_of_modes_are_letters_in_a_field(runs: Path) -> None:
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("slash", "q", "2")
        await settle(pilot)
        assert app.current_mode == "recipes"
        assert app.screen.query_one("#search", Input).value == "q2"


async def test_hostile_text_reaches_no_screen(runs: Path) -> None:
    bad = "\x1b]52;c;ZXZpbA==\x07\x1b[2J[/nope][@click=app.quit]press[/]\u202e"
    run = record_run(runs, "evil", training_events(130, hostile=True), alive=True)
    run.console_file.write_text(f"{bad}\n", encoding="utf-8")
    run.recipe_file.write_text(run.recipe_file.read_text().replace("Starter: LoRA", "[/nope][bold]Evil"))
    hostile_folder = runs / "\x1b[31mred\x07[b]"
    hostile_folder.mkdir()
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("2")
        await settle(pilot)
        await until(pilot, lambda: "damaged" in shown(pilot))
        listed = shown(pilot)
        assert "[/nope][bold]Evil" in listed
        for letter in ("\x1b", "\x07", "\u202e", "\x9b"):
            assert letter not in listed
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "[@click=app.quit]press[/]" in shown(pilot))
        for letter in ("\x1b", "\x07", "\u202e", "\x9b"):
            assert letter not in shown(pilot)
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                meta = segment.style.meta if segment.style else {}
                assert "@click" not in meta


async def test_a_theme_reaches_the_screens_of_every_mode(runs: Path) -> None:
    async with TunewrightApp(mode="recipes").run_test() as pilot:
        await settle(pilot)
        for mode in ("2", "3"):
            await pilot.press(mode)
            await settle(pilot)
        pilot.app.action_toggle_theme()  # pyright: ignore[reportAttributeAccessIssue]
        await settle(pilot)
        for mode in ("2", "3", "4"):
            await pilot.press(mode)
            await settle(pilot)
            assert pilot.app.screen.styles.background == Color.parse(LIGHT.background or "")


async def test_only_the_asked_mode_is_made(runs: Path) -> None:
    async with TunewrightApp(mode="recipes").run_test() as pilot:
        await until(pilot, lambda: "3 recipes" in shown(pilot))
        with pytest.raises(KeyError):
            pilot.app.get_screen_stack("tune")
