"""The workbench and the recipe search: figures follow the keys, and typing finds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tunewright.cli.parser import run
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.workbench import PANES, WorkbenchScreen

from .recorded import GPU_MACHINE, settle, shown

SMALL, WIDE, VAST = (80, 24), (120, 40), (200, 60)


async def press(pilot: Pilot[None], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


async def fill(pilot: Pilot[None], key: str, field: str, value: str) -> None:
    """Go to a field with its key, and enter `value`."""
    await pilot.press(key)
    pilot.app.screen.query_one(field, Input).value = value
    await pilot.press("enter")
    await settle(pilot)


def line_of(pilot: Pilot[None], start: str) -> str:
    """Return the rest of the first line on the screen in which `start` begins a column."""
    found = next(line for line in shown(pilot).splitlines() if f" {start}" in line)
    return found.partition(f" {start}")[2]


def cost_of_qlora(pilot: Pilot[None]) -> str:
    """Return the line of the cost pane that is QLoRA's."""
    return next(found[0] for line in shown(pilot).splitlines() if (found := re.search(r"QLoRA +\d.*", line)))


async def test_keys_change_the_case_and_the_figures(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        text = shown(pilot)
        assert "f LoRA  t all-linear  r rank 16  n 512 tokens  b batch of 4  k no recomputing  o adamw" in text
        # 4 layers: 16 · (2·(256+256) + 2·(256+128) + 2·(256+512) + (512+256)) = 262,144
        assert "262 k trained, 9.08 %" in text
        await press(pilot, "f", "t", "r", "n", "b", "k", "o", "e")
        settings = "f full  t attention  r rank 32  n 1,024 tokens  b batch of 8  k recomputing  o adamw 8bit"
        assert settings in shown(pilot)
        assert "2 epochs" in shown(pilot)
        await press(pilot, "F", "T", "R", "N", "B", "O", "E")
        settings = "f LoRA  t all-linear  r rank 16  n 512 tokens  b batch of 4  k recomputing  o adamw  u"
        assert settings in shown(pilot)


async def test_the_figures_are_those_of_the_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        ["estimate", "--config", "8b", "--gpu", "RTX 4090", "--method", "qlora", "--sequence", "512",
         "--micro-batch", "4", "--checkpointing", "off", "--backend", "unsloth", "--json"]
    )  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4", "f", "f")
        await fill(pilot, "m", "#model", "8b")
        await fill(pilot, "c", "#card", "RTX 4090")
        screen = pilot.app.screen
        assert isinstance(screen, WorkbenchScreen)
        assert screen.worksheet is not None
        found = screen.worksheet.chosen
        assert (found.needed_gib, found.tokens_per_second) == (printed["needed_gib"], printed["tokens_per_second"])
        assert found.terms == printed["terms"]
        assert f"{found.needed_gib:.1f} GiB of 23.6 GiB ✓ fits" in shown(pilot)


async def test_another_card_is_asked_about(runs: Path) -> None:
    async with TunewrightApp().run_test(size=VAST) as pilot:
        await press(pilot, "4")
        assert "AMD Ryzen 9 7950X" in shown(pilot).splitlines()[0]
        await fill(pilot, "m", "#model", "8b")
        await fill(pilot, "c", "#card", "4090")
        text = shown(pilot)
        assert "what if: RTX 4090" in text.splitlines()[0]
        assert "u Unsloth" in text
        marked = [line for line in text.splitlines() if "RTX 4090  " in line and "←" in line]
        assert len(marked) == 1
        assert "USD" in text
        await press(pilot, "c", "down", "down")  # from what was typed to the first known ones
        assert "what if: RTX 3060" in shown(pilot).splitlines()[0]
        await press(pilot, "up", "up", "enter")
        assert "AMD Ryzen 9 7950X" in shown(pilot).splitlines()[0]
        await fill(pilot, "c", "#card", "Voodoo 2")
        assert "✗ Unknown card" in shown(pilot)
        assert pilot.app.screen.query_one("#card").has_class("-invalid")
        await fill(pilot, "c", "#card", "")
        assert "✗ Unknown card" not in shown(pilot)


async def test_what_is_typed_replaces_what_was_there(runs: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        await press(pilot, "4", "m", *"8b", "enter", "d", *"20", "enter")
        assert "llama 8.03 B" in shown(pilot)
        assert pilot.app.screen.query_one("#rows", Input).value == "20"
        await press(pilot, "k", "escape", "k", "k")  # the keys are the screen's again
        assert "k recomputing" in shown(pilot)


async def test_the_smallest_card_follows_the_model(runs: Path) -> None:
    async with TunewrightApp().run_test(size=VAST) as pilot:
        await press(pilot, "4")
        await fill(pilot, "m", "#model", "70b")
        assert "none here" in line_of(pilot, "smallest card")
        await fill(pilot, "m", "#model", "1b")
        assert "none here" not in line_of(pilot, "smallest card")


async def test_each_method_has_its_own_optimizer_until_one_is_chosen(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        await fill(pilot, "m", "#model", "8b")
        assert "o adamw  u" in shown(pilot)
        _, _, full = line_of(pilot, "optimizer").split(" GiB")[:3]
        assert 14 < float(full) < 16  # 8-bit states: two bytes a parameter
        await press(pilot, "f")
        assert "o adamw 8bit  u" in shown(pilot)
        await press(pilot, "O")
        assert "o adamw  u" in shown(pilot)
        assert line_of(pilot, "optimizer").split(" GiB")[2] != full


async def test_backends_are_those_of_the_device(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4", "u")
        assert "u transformers" in shown(pilot)  # the only one on a processor
        await fill(pilot, "c", "#card", "H100")
        await press(pilot, "u")
        assert "u transformers + Liger" in shown(pilot)
        await press(pilot, "u")
        assert "u Unsloth" in shown(pilot)


async def test_this_machines_gpu_is_judged_by_what_is_free(runs: Path, gpu_machine: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        assert f"of {GPU_MACHINE.gpus[1].memory_free_gib:.1f} GiB" in shown(pilot)


async def test_data_and_price_give_the_cost(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        assert "p gives a price for an hour" in shown(pilot)
        assert "–" in cost_of_qlora(pilot)
        await fill(pilot, "p", "#price", "36")
        assert "p gives a price" not in shown(pilot)
        priced = cost_of_qlora(pilot)
        assert "–" not in priced
        await fill(pilot, "d", "#rows", "1,000,000")
        assert "1,000,000 rows of 512 tokens, 1 epoch" in shown(pilot)
        assert cost_of_qlora(pilot) != priced
        await fill(pilot, "d", "#rows", "many")
        assert pilot.app.screen.query_one("#rows").has_class("-invalid")
        await fill(pilot, "p", "#price", "-3")
        assert pilot.app.screen.query_one("#price").has_class("-invalid")
        await press(pilot, "1")
        assert pilot.app.current_mode == "tune"


async def test_any_config_can_be_calculated_and_a_bad_one_is_told(runs: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shape = json.loads((tmp_path / "model" / "config.json").read_text())
    config.write_text(json.dumps({**shape, "num_hidden_layers": 32, "hidden_size": 4096, "vocab_size": 128_000}))
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        await fill(pilot, "m", "#model", str(config))
        assert ", 32 × 4,096" in shown(pilot)
        config.write_text(json.dumps({**shape, "num_hidden_layers": 7}))
        await fill(pilot, "m", "#model", str(config))
        assert ", 7 × 256" in shown(pilot)  # the file is read again when it is named again
        await fill(pilot, "m", "#model", str(tmp_path / "nothing.json"))
        assert "✗ File not found" in shown(pilot)
        assert pilot.app.screen.query_one("#model").has_class("-invalid")


async def test_a_hostile_config_draws_nothing(runs: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "\x1b[2J[red]evil[/]", "quantization_config": None}))
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        await fill(pilot, "m", "#model", str(config))
        assert "\x1b" not in shown(pilot)
        assert "✗" in shown(pilot)


async def test_tabs_show_one_pane_at_a_time(runs: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        await press(pilot, "4")
        for name in (*PANES, "memory"):
            visible = [each for each in PANES if pilot.app.screen.query_one(f"#{each}").display]
            assert visible == [name]
            assert len(shown(pilot).splitlines()) == 24
            await press(pilot, "tab")
        await press(pilot, "shift+tab", "shift+tab")
        assert pilot.app.screen.query_one("#model-shape").display


def panes_at(pilot: Pilot[None]) -> Iterator[tuple[str, int, int, int]]:
    """Yield each pane that is shown with its left edge, its width and the width of its widest line."""
    for pane in pilot.app.screen.query(".pane"):
        if pane.region.area:
            lines = shown(pilot).splitlines()[pane.region.y + 1 : pane.region.bottom]
            inside = [line[pane.region.x : pane.region.right].rstrip() for line in lines]
            yield str(pane.id), pane.region.x, pane.region.width, max(map(len, inside), default=0)


@pytest.mark.parametrize(("size", "columns", "panes"), [(SMALL, 1, 1), (WIDE, 2, 6), (VAST, 3, 8)])
async def test_every_size_is_used_and_nothing_is_cut(
    runs: Path, size: tuple[int, int], columns: int, panes: int
) -> None:
    async with TunewrightApp().run_test(size=size) as pilot:
        await press(pilot, "4")
        await fill(pilot, "m", "#model", "70b")
        await fill(pilot, "c", "#card", "H200")
        await press(pilot, "n", "n", "n")
        found = list(panes_at(pilot))
        assert len({left for _, left, _, _ in found}) == columns
        assert len(found) == panes
        if size != SMALL:  # every table has a last column, which must be seen
            assert "money" in shown(pilot)
            assert "in memory" in shown(pilot)
        for _, _, width, widest in found:
            assert widest < width
        for line in shown(pilot).splitlines():
            assert len(line.rstrip()) <= size[0]


async def test_no_table_is_wrapped(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await press(pilot, "4")
        await fill(pilot, "m", "#model", "70b")
        await fill(pilot, "c", "#card", "A100-80")
        screen = pilot.app.screen
        assert isinstance(screen, WorkbenchScreen)
        sheet = screen.worksheet
        assert sheet is not None
        from tunewright.tui.screens import worksheet_words as words

        width = screen.query_one("#cost").size.width - 1
        for text in (words.cards_text(sheet, width), words.targets_text(sheet), words.batches_text(sheet),
                     words.model_text(sheet, width), words.ranks_text(sheet, width), words.cost_text(sheet, 99.0, width)):  # fmt: skip
            assert max(line.rstrip().cell_length for line in text.split("\n")) <= width


async def test_typing_finds_recipes(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("3")
        await settle(pilot)
        assert "3 recipes" in shown(pilot)
        await pilot.press("slash", *"qlo")
        await settle(pilot)
        text = shown(pilot)
        assert "1 recipe " in text
        assert "Starter: QLoRA" in text
        await pilot.press(*"zzz")
        await settle(pilot)
        assert "No recipe matches." in shown(pilot)
