"""The monitor and the chat: a run that is written while one looks, stopping it, and two models answering."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from tunewright.engine.runs.circumstances import Difference, OtherCircumstances
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import EventLog, Gpu, Status, encode
from tunewright.engine.runs.extend import Extensible
from tunewright.engine.runs.retry import Retrial, why_failed
from tunewright.engine.runs.terms import Terms, write_terms
from tunewright.engine.schedule import Choice
from tunewright.foundation.errors import TunewrightError
from tunewright.tui.app import TunewrightApp
from tunewright.tui.messages import RunsListed
from tunewright.tui.run_state import RunState
from tunewright.tui.screens.chat import ChatScreen
from tunewright.tui.screens.monitor import MonitorScreen
from tunewright.tui.screens.run_words import gauges
from tunewright.tui.screens.runs import RunsScreen
from tunewright.tui.screens.tune import TuneScreen
from tunewright.tui.widgets.chart import Chart
from tunewright.tui.widgets.choice_line import ChoiceLine
from tunewright.tui.widgets.error_dialog import ErrorDialog
from tunewright.tui.widgets.field import Field

from .recorded import (
    failed_events,
    finished_events,
    make_gpu_plan,
    preference_events,
    record_run,
    settle,
    shown,
    starting_events,
    training_events,
    until,
)

WIDE = (120, 40)


async def test_a_run_is_followed_while_it_is_written(runs: Path) -> None:
    events = training_events(200)
    run = record_run(runs, "live", events[:60], alive=True)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "step 50 of 360" in shown(pilot))
        line = encode(events[-1]).encode()
        log = EventLog(run.events_file)
        for event in events[60:-1]:
            log.append(event)
        with run.events_file.open("ab") as file:
            file.write(line[:30])
        await until(pilot, lambda: "step 200 of 360" in shown(pilot))
        assert isinstance(app.screen, MonitorScreen)
        assert len(app.screen.state.curves.loss) == 200
        assert "● running" in shown(pilot)


async def test_only_what_is_seen_is_read_and_painted(runs: Path) -> None:
    run = record_run(runs, "live", training_events(60), alive=True)
    log = EventLog(run.events_file)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await app.switch_mode("runs")
        listed, monitor = app.screen, MonitorScreen(run)
        assert isinstance(listed, RunsScreen)
        await until(pilot, lambda: listed.chosen_run() is not None)
        app.push_screen(monitor)
        await until(pilot, lambda: "step 60 of 360" in shown(pilot))
        listed.post_message(
            RunsListed(())
        )  # what was being read when it was covered: to show it paints the terminal anew
        await settle(pilot)
        assert listed.chosen_run() is not None
        assert monitor.is_seen and not listed.is_seen
        app.action_help()
        await settle(pilot)
        assert monitor.is_seen and not listed.is_seen
        app.pop_screen()
        app.push_screen(MonitorScreen(run))
        await settle(pilot)
        assert not monitor.is_seen
        log.append(training_events(62)[-1])
        await app.switch_mode("tune")
        assert not monitor.is_seen
        await app.switch_mode("runs")
        assert not monitor.is_seen
        app.pop_screen()
        assert monitor.is_seen
        await until(pilot, lambda: "step 62 of 360" in shown(pilot))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_every_pane_can_be_reached_by_tab(runs: Path, size: tuple[int, int]) -> None:
    run = record_run(runs, "done", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=size) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "step 360 of 360" in shown(pilot))
        seen = shown(pilot)
        for _ in range(4):
            await pilot.press("tab")
            await settle(pilot)
            seen += shown(pilot)
        for said in ("Learning rate", "Nothing to tell.", "training on 2 threads", '{"name":"Mira"'):
            assert said in seen


async def test_an_ended_run_tells_why(runs: Path) -> None:
    run = record_run(runs, "bad", failed_events(), "failed")
    app = TunewrightApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "Even one row at a time does not fit." in shown(pilot))
        assert "✗ failed" in shown(pilot)
        assert "Use QLoRA" in shown(pilot)


async def test_a_run_that_starts_shows_where_its_time_goes_then_what_it_learns(runs: Path) -> None:
    run = record_run(runs, "live", starting_events(time.time() - 20), alive=True, plan=make_gpu_plan())
    app = TunewrightApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "so far · 29 s predicted" in shown(pilot))
        assert "importing" in shown(pilot) and "212 of 291" in shown(pilot)
        log = EventLog(run.events_file)
        for event in preference_events(60)[5:]:
            log.append(event)
        await until(pilot, lambda: '{"name":"Mira"' in shown(pilot))
        assert "so far" not in shown(pilot)
        assert "47.0 %" in shown(pilot)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_one_pane_can_have_the_whole_window(runs: Path, size: tuple[int, int]) -> None:
    run = record_run(runs, "done", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=size) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "step 360 of 360" in shown(pilot))
        await pilot.press("z")
        await settle(pilot)
        assert "Predicted and measured" not in shown(pilot)
        heads = [line for line in shown(pilot).splitlines() if "step 60 " in line]
        assert heads and "step 360" in heads[0]  # the first answers beside the last
        seen = ""
        for _ in range(4):
            await pilot.press("tab")
            await settle(pilot)
            seen += shown(pilot)
        for said in ("Learning rate", "starting", "Nothing to tell.", "on 2 threads"):
            assert said in seen
        await pilot.press("z")
        await settle(pilot)
        assert "Predicted and measured" in shown(pilot)


async def test_preferences_have_charts_of_their_own(runs: Path) -> None:
    run = record_run(runs, "dpo", preference_events(100), alive=True, plan=make_gpu_plan())
    app = TunewrightApp()
    async with app.run_test(size=(200, 60)) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "step 100 of 360" in shown(pilot))
        for said in ("MFU % · 47", "Preferred %", "Margin", "slowed by power", "61.2 GiB", "Out of memory"):
            assert said in shown(pilot)


def test_eight_gpus_have_a_line_each() -> None:
    state = RunState(plan=make_gpu_plan())
    gpus = [Gpu(index=index, utilisation_percent=90 + index, memory_used_gib=60 + index, memory_total_gib=140,
                temperature_celsius=60, power_watts=600, throttled_by="heat" if index == 3 else "")
            for index in range(8)]  # fmt: skip
    state.history.add(gpus)
    lines = gauges(state, 52).plain.splitlines()
    assert len(lines) == 8
    assert lines[3].startswith("GPU 3") and lines[3].endswith("93 %  63 GiB  600 W !")
    assert max(map(len, lines)) <= 52


async def test_the_loss_can_be_drawn_logarithmically(runs: Path) -> None:
    run = record_run(runs, "done", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        app.push_screen(MonitorScreen(run))
        await until(pilot, lambda: "step 360 of 360" in shown(pilot))
        await pilot.press("l")
        await settle(pilot)
        assert app.screen.query_one("#loss", Chart).logarithmic
        assert "logarithmic" in shown(pilot)


async def test_stopping_asks_first(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr("tunewright.engine.runs.launch.stop", lambda run: stopped.append(run.id))
    record_run(runs, "live", training_events(20), alive=True)
    app = TunewrightApp()
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "● running" in shown(pilot))
        await pilot.press("s")
        await settle(pilot)
        assert "Stop the run?" in shown(pilot)
        await pilot.press("escape")
        await settle(pilot)
        assert stopped == []
        await pilot.press("s")
        await settle(pilot)
        await pilot.press("y")
        await settle(pilot)
        assert stopped == ["live"]
        await until(pilot, lambda: "saves at its next step" in shown(pilot))


async def test_a_run_is_paused_when_that_is_agreed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[str] = []
    monkeypatch.setattr("tunewright.engine.runs.launch.pause", lambda run: paused.append(run.id))
    record_run(runs, "live", [*training_events(20), Status(state="pausing")], alive=True)
    record_run(runs, "kept", training_events(20), "paused")
    app = TunewrightApp()
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "◐ pausing" in shown(pilot) and "‖ paused" in shown(pilot))
        await pilot.press("p")
        await settle(pilot)
        assert "Pause the run?" in shown(pilot)
        await pilot.press("y")
        await until(pilot, lambda: paused == ["live"])


async def test_a_failed_run_is_tried_again_from_where_one_says(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[bool, bool]] = []

    def again(run: RunDirectory, from_start: bool, agreed: bool, terms: Terms) -> Retrial:
        tried.append((from_start, terms.queue))
        return Retrial(why_failed(run), 0 if from_start else 90)

    monkeypatch.setattr("tunewright.engine.runs.retry.retry", again)
    error = {"title": "Not a number", "message": "At step 130 [/loss] is NaN.\x1b[2J", "remedy": "Lower the rate."}
    record_run(runs, "bad", failed_events(), "failed", error=error)
    app = TunewrightApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "✗ failed" in shown(pilot))
        await pilot.press("t")
        await until(pilot, lambda: "It had failed at step 130: Not a number" in shown(pilot))
        assert "likely to lead there" in shown(pilot) and "\x1b" not in shown(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "goes on from step 90" in shown(pilot))
        await pilot.press("t")
        await until(pilot, lambda: "Try the run again?" in shown(pilot))
        await pilot.press("right", "down", "right", "enter")
        await until(pilot, lambda: tried == [(False, False), (True, True)])


async def test_a_run_like_another_is_made_in_the_wizard(runs: Path) -> None:
    record_run(runs, "20261120-120000-orders-77aa", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "✓ finished" in shown(pilot))
        await pilot.press("k")
        await until(pilot, lambda: "Changed against 20261120-120000-orders-77aa" in shown(pilot))
        await settle(pilot)
        assert "Nothing yet" in shown(pilot)
        field = app.screen.query_one("#training-learning_rate", Field)
        field.value = "1e-4"
        await settle(pilot)
        assert "training.learning_rate  3.0e-3 → 1.0e-4" in shown(pilot)
        assert isinstance(app.screen, TuneScreen)
        assert app.screen.draft.parent is not None
        await app.screen.action_restart()
        assert app.screen.draft.parent is None


async def test_a_run_under_other_circumstances_goes_on_when_that_is_agreed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = (Difference("torch", "2.13.0", "2.14.0"), Difference("rows", "1a2b3c", "[/4d5e6f]\x1b[31m"))
    resumed: list[bool] = []

    def resume(run: RunDirectory, agreed: bool, terms: Terms | None) -> int:
        resumed.append(agreed)
        if not agreed:
            raise OtherCircumstances(run, changed)
        return 7

    monkeypatch.setattr("tunewright.engine.runs.launch.resume", resume)
    record_run(runs, "failed", failed_events(), "failed")
    app = TunewrightApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "failed" in shown(pilot))
        await pilot.press("r")
        await until(pilot, lambda: "Not the same circumstances" in shown(pilot))
        assert "torch: 2.13.0 when the run began, 2.14.0 now" in shown(pilot)
        assert "\x1b" not in shown(pilot)
        await pilot.press("escape")
        await settle(pilot)
        assert resumed == [False]
        await pilot.press("r")
        await until(pilot, lambda: "Not the same circumstances" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: "goes on from step 7" in shown(pilot))
        assert resumed == [False, False, True]


async def test_a_run_is_resumed_in_turn(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[Terms | None] = []
    monkeypatch.setattr("tunewright.engine.runs.launch.resume", lambda run, agreed, terms: resumed.append(terms) or 7)
    run = record_run(runs, "kept", training_events(20), "stopped")
    write_terms(run, Terms(nice=5))
    app = TunewrightApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "stopped" in shown(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "When it begins" in shown(pilot) and "Resume (enter)" in shown(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: resumed == [Terms(nice=5, queue=True)])


async def test_the_learning_rate_is_stated_before_a_run_is_extended(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extended: list[str] = []

    def extend(found: Extensible, way: Choice, agreed: bool, terms: Terms) -> RunDirectory:
        extended.append(f"{way.name} {way.extension.steps} {way.extension.peak} {terms.wait_for_memory}")
        return found.run

    monkeypatch.setattr("tunewright.engine.runs.extend.extend", extend)
    record_run(runs, "done", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "✓ finished" in shown(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "Extend the run?" in shown(pilot))
        await until(pilot, lambda: "down to" in shown(pilot) and "no warm-up" in shown(pilot))
        app.screen.query_one("#steps", Field).value = "no number"
        await until(pilot, lambda: "whole numbers" in shown(pilot))
        await pilot.press("enter")
        assert extended == []
        app.screen.query_one("#steps", Field).value = "40"
        app.screen.query_one("#schedule", ChoiceLine).choose("constant")
        app.screen.query_one("#peak", Field).value = "1e-4"
        app.screen.query_one("#begin", ChoiceLine).choose("wait")
        await until(pilot, lambda: "0.0001" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: extended == ["constant 40 0.0001 True"])


async def test_what_cannot_be_done_ends_in_the_dialog(runs: Path) -> None:
    record_run(runs, "done", finished_events(), "finished")
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "✓ finished" in shown(pilot))
        for key, title in (
            ("s", "Run not running"),
            ("p", "Run not running"),
            ("r", "Run is finished"),
            ("t", "Run has not failed"),
        ):
            await pilot.press(key)
            await settle(pilot)
            assert isinstance(app.screen, ErrorDialog)
            assert title in shown(pilot)
            await pilot.press("escape")
            await settle(pilot)
            assert isinstance(app.screen, RunsScreen)


class Echo:
    """Two models that answer at once, one of them with escapes."""

    def __init__(self, run: RunDirectory) -> None:
        self.closed = threading.Event()

    def ready(self, timeout_seconds: float = 0.0) -> bool:
        return True

    def ask(self, prompt: str) -> Iterator[tuple[Literal["base", "tuned", "end"], str]]:
        yield "base", f"I heard {prompt}"
        yield "tuned", '{"item":\x1b[31m'
        yield "tuned", '"[/mug]"}'
        yield "end", ""

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_both_models_answer(runs: Path, size: tuple[int, int]) -> None:
    run = record_run(runs, "done", finished_events(), "finished")
    chats: list[Echo] = []

    def start(run: RunDirectory) -> Echo:
        chats.append(Echo(run))
        return chats[0]

    app = TunewrightApp()
    async with app.run_test(size=size) as pilot:
        app.push_screen(ChatScreen(run, start))
        await until(pilot, lambda: "both models are loaded" in shown(pilot))
        await pilot.press(*"a mug", "enter")
        await until(pilot, lambda: '{"item":"[/mug]"}' in shown(pilot))
        if size[0] < 110:
            await pilot.press("tab")
            await settle(pilot)
        assert "I heard a mug" in shown(pilot)
        await pilot.press("escape")
        await settle(pilot)
        await until(pilot, chats[0].closed.is_set)


async def test_a_chat_that_cannot_start_ends_in_the_dialog(runs: Path) -> None:
    def start(run: RunDirectory) -> Echo:
        raise TunewrightError("Nothing to chat with yet", "It has no model.", "Let it finish.")

    run = record_run(runs, "live", training_events(5), alive=True)
    app = TunewrightApp()
    async with app.run_test(size=WIDE) as pilot:
        app.push_screen(ChatScreen(run, start))
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        await until(pilot, lambda: "Let it finish." in shown(pilot))
