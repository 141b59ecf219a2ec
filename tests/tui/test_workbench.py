"""The workbench and the recipe search: figures follow the keys, and typing finds."""

from __future__ import annotations

import json
from pathlib import Path

from textual.widgets import Input
from tunewright.tui.app import TunewrightApp

from .recorded import settle, shown

WIDE = (120, 40)


async def test_keys_change_the_case_and_the_figures(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("4")
        await settle(pilot)
        text = shown(pilot)
        assert "all-linear rank 16  4 × 512 tokens" in text
        # 4 layers: 16 · (2·(256+256) + 2·(256+128) + 2·(256+512) + (512+256)) = 262,144
        assert "262 k" in text
        for key in ("t", "r", "n", "b", "k"):
            await pilot.press(key)
            await settle(pilot)
        text = shown(pilot)
        assert "attention rank 32  8 × 1,024 tokens, recomputing" in text
        assert "· gate_proj" in text


async def test_a_price_gives_the_cost(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("4")
        await settle(pilot)
        assert "Press p and give the machine's price" in shown(pilot)
        await pilot.press("p", *"36", "enter")
        await settle(pilot)
        assert "Press p" not in shown(pilot)
        await pilot.press("1")
        await settle(pilot)
        assert pilot.app.current_mode == "tune"


async def test_any_config_can_be_calculated_and_a_bad_one_is_told(runs: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shape = json.loads((tmp_path / "model" / "config.json").read_text())
    config.write_text(json.dumps({**shape, "num_hidden_layers": 32, "hidden_size": 4096, "vocab_size": 128_000}))
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await pilot.press("4")
        await settle(pilot)
        await pilot.press("m")
        pilot.app.screen.query_one("#model", Input).value = str(config)
        await pilot.press("enter")
        await settle(pilot)
        assert "32 layers × 4,096" in shown(pilot)
        await pilot.press("m")
        pilot.app.screen.query_one("#model", Input).value = str(tmp_path / "nothing.json")
        await pilot.press("enter")
        await settle(pilot)
        assert "✗ Model not found" in shown(pilot)


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
