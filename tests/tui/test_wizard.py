"""The wizard: enter walks it, escape goes back, faults are told with their lines, and what one types is checked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tunewright.engine.plan import Plan
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.lineage import Lineage
from tunewright.engine.runs.terms import Terms
from tunewright.recipes.model import Recipe
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.launch_step import memory_text, prediction_text
from tunewright.tui.screens.monitor import MonitorScreen
from tunewright.tui.screens.tune import TuneScreen
from tunewright.tui.widgets.path_field import complete

from .recorded import GPU_MACHINE, make_gpu_plan, record_run, settle, shown, training_events, until

WIDE = (120, 40)


def wizard(pilot: Pilot[None]) -> TuneScreen:
    assert isinstance(pilot.app.screen, TuneScreen)
    return pilot.app.screen


async def go_on(pilot: Pilot[None], steps: int) -> None:
    for _ in range(steps):
        await settle(pilot)
        await pilot.press("enter")
    await settle(pilot)


async def test_enter_alone_walks_from_the_machine_to_a_running_monitor(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Recipe, Plan, str]] = []

    def launch(recipe: Recipe, plan: Plan, name: str, *, terms: Terms, lineage: Lineage | None) -> RunDirectory:
        assert (terms, lineage) == (Terms(), None)
        started.append((recipe, plan, name))
        return record_run(runs, "20261120-started", training_events(5), alive=True)

    monkeypatch.setattr("tunewright.engine.runs.launch.launch", launch)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        for name in ("machine", "goal", "data", "method", "recipe"):
            await settle(pilot)
            assert f"› Tune › {name}" in shown(pilot)
            await pilot.press("enter")
        await settle(pilot)
        assert "Press enter to start." in shown(pilot)
        assert wizard(pilot).draft.plan is not None
        await pilot.press("enter")
        await settle(pilot)
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: "step 5 of 360" in shown(pilot))
        assert app.current_mode == "runs"
    [(recipe, plan, name)] = started
    assert (recipe.base.model, recipe.method.kind, name) == ("tunewright/starter", "lora", "starter-lora")
    assert plan.total_steps > 0


async def test_going_back_keeps_every_step(runs: Path, fixed_plans: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 1)
        await pilot.press("down", "right")
        await go_on(pilot, 3)
        assert wizard(pilot).draft.answers == {"rows": "none"}
        await pilot.press("escape", "escape", "escape")
        await settle(pilot)
        assert "‹ fewer than 20 ›" in shown(pilot)
        assert wizard(pilot).furthest == 4


async def test_a_bad_line_is_named_and_stops_the_wizard(runs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    good = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    bad.write_text(f'{good}\n{{"prompt": "no messages"}}\n{good}\nnot json\n', encoding="utf-8")
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 2)
        wizard(pilot).query_one("#source", Input).value = str(bad)
        await settle(pilot)
        text = shown(pilot)
        assert re.search(r"line 2:? +no `messages`; its keys are: prompt", text)
        assert re.search(r"line 4:? +not JSON", text)
        await pilot.press("enter")
        await settle(pilot)
        assert "Press d to leave these rows out" in shown(pilot)
        assert wizard(pilot).present == 2


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("#source", "/nowhere/at/all.jsonl", "Data not found"),
        ("#model", "/nowhere", "Model not found"),
        ("#model", "[/nope]", "Model not found"),
    ],
)
async def test_what_is_not_there_is_said_beside_the_field(runs: Path, field: str, value: str, said: str) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 2)
        wizard(pilot).query_one(field, Input).value = value
        await settle(pilot)
        assert said in shown(pilot)
        assert wizard(pilot).query_one(field).has_class("-invalid")


async def test_trained_tokens_are_underlined(runs: Path) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 2)
        underlined = "".join(
            segment.text
            for strip in pilot.app.screen._compositor.render_strips()
            for segment in strip
            if segment.style and segment.style.underline
        )
        assert '{"item":"mug","order":0}<|end|>' in underlined
        assert "Hello!" not in underlined


async def test_values_are_checked_as_they_are_typed(runs: Path, fixed_plans: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 4)
        rate = wizard(pilot).query_one("#training-learning_rate", Input)
        rate.value = "7"
        await settle(pilot)
        assert "less than or equal to 1" in shown(pilot)
        await pilot.press("enter")
        await settle(pilot)
        assert wizard(pilot).present == 4
        rate.value = "2e-4"
        await settle(pilot)
        recipe = wizard(pilot).draft.recipe
        assert recipe is not None
        assert recipe.training.learning_rate == 2e-4
        await go_on(pilot, 1)
        assert wizard(pilot).present == 5


async def test_a_chosen_recipe_opens_in_the_wizard(runs: Path, fixed_plans: None) -> None:
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("down", "down", "enter")
        await settle(pilot)
        assert app.current_mode == "tune"
        assert wizard(pilot).draft.recipe is not None
        assert wizard(pilot).draft.recipe.method.kind == "qlora"
        await go_on(pilot, 1)
        assert "Press enter to start." in shown(pilot)


async def test_another_method_brings_another_recipe(runs: Path, fixed_plans: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 3)
        assert wizard(pilot).draft.method == "lora"
        await pilot.press("down")
        await go_on(pilot, 1)
        assert wizard(pilot).draft.recipe is not None
        assert wizard(pilot).draft.recipe.method.kind == "full"
        assert not wizard(pilot).query_one("#method-rank").parent.display


async def test_beginning_anew_forgets_everything(runs: Path, fixed_plans: None) -> None:
    async with TunewrightApp().run_test(size=WIDE) as pilot:
        await go_on(pilot, 4)
        await pilot.press("ctrl+n")
        await settle(pilot)
        assert wizard(pilot).present == 0
        assert wizard(pilot).draft.recipe is None
        await go_on(pilot, 5)
        assert "Press enter to start." in shown(pilot)


def test_paths_are_completed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orders.jsonl").write_text("")
    (tmp_path / "data" / "orders.txt").write_text("")
    (tmp_path / "data" / "evil\x1b.jsonl").write_text("")
    assert complete(f"{tmp_path}/da", ".jsonl") == f"{tmp_path}/data/"
    assert complete(f"{tmp_path}/data/or", ".jsonl") == f"{tmp_path}/data/orders.jsonl"
    assert complete(f"{tmp_path}/data/ev", ".jsonl") is None
    assert complete(f"{tmp_path}/none/x", ".jsonl") is None


def test_the_plan_is_shown_with_its_layout_and_every_peak() -> None:
    plan = replace(make_gpu_plan(), gpu_indices=(0, 1), parallelism="ddp")
    figures = prediction_text(plan, 100).plain
    assert "flex_attention attention" in figures and "compiled" in figures and "GPUs 0, 1 by DDP" in figures
    assert "4 × 4 rows each, on each of 2 GPUs" in figures
    memory = memory_text(plan, GPU_MACHINE, 100).plain
    assert "reserved 62.0 GiB · evaluating 31.5 GiB · saving 17.2 GiB · host 6.40 GiB" in memory
