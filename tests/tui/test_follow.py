"""Following a run: bytes are read once, torn lines wait, and the list sees what the monitor sees."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from queue import Queue

import pytest
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import EventLog, Step, encode
from tunewright.tui import follow
from tunewright.tui.follow import Follower, Reading
from tunewright.tui.run_state import RunState
from tunewright.tui.run_summary import RunShelf

from .recorded import failed_events, finished_events, record_run, training_events


def read_all(follower: Follower) -> list[Reading]:
    readings: list[Reading] = []
    while (reading := follower.read()) is not None:
        readings.append(reading)
    return readings


def test_a_torn_tail_waits_for_its_end(runs: Path) -> None:
    events = training_events(41)
    run = record_run(runs, "one", events[:-1], alive=True)
    follower = Follower(run, lambda reading: None)
    state = RunState()
    for reading in read_all(follower):
        state.add(reading)
    assert state.history.step == 40
    line = encode(events[-1]).encode() + b"\n"
    with run.events_file.open("ab") as file:
        file.write(line[:25])
        file.flush()
        assert read_all(follower) == []
        file.write(line[25:])
    for reading in read_all(follower):
        state.add(reading)
    assert state.history.step == 41
    assert len(state.curves.loss) == 41
    assert state.standing == "running"


def test_a_run_that_writes_nothing_is_not_read(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "STANDING_SECONDS", 1e9)
    run = record_run(runs, "one", training_events(40), alive=True)
    follower = Follower(run, lambda reading: None)
    read_all(follower)
    opened: list[str] = []
    watching = True
    sys.addaudithook(lambda event, values: opened.append(str(values[0])) if watching and event == "open" else None)
    assert follower.read() is None and follower.read() is None
    assert opened == []
    write(run, steps_told(41, 41))
    reading = follower.read()
    watching = False
    assert reading is not None and len(reading.events) == 1
    assert str(run.events_file) in opened


def test_nothing_is_read_while_nobody_sees_it(runs: Path) -> None:
    run = record_run(runs, "one", training_events(40), alive=True)
    delivered: Queue[Reading] = Queue()
    follower = Follower(run, delivered.put)
    follower.pause()
    thread = threading.Thread(target=follower.follow)
    thread.start()
    assert delivered.empty()
    follower.go_on()
    first = delivered.get(timeout=20)
    assert first.history is not None and first.history.step == 40
    follower.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_paused_follower_can_be_stopped(runs: Path) -> None:
    follower = Follower(record_run(runs, "one", training_events(40), alive=True), lambda reading: None)
    follower.pause()
    follower.stop()
    follower.follow()  # which returns


def steps_told(first: int, last: int) -> list[Step]:
    return [Step(step=number, total_steps=12_000, epoch=0, loss=1.0, learning_rate=1e-3, grad_norm=1.0, tokens=10,
                 seconds=0.1, peak_gib=0.1) for number in range(first, last + 1)]  # fmt: skip


def write(run: RunDirectory, steps: list[Step]) -> None:
    log = EventLog(run.events_file)
    for step in steps:
        log.append(step)
    log.close()


def test_a_history_is_read_once_and_its_newest_events_come_first(runs: Path) -> None:
    run = record_run(runs, "long", training_events(0), alive=True)
    write(run, steps_told(1, 12_000))
    readings = read_all(Follower(run, lambda reading: None))
    newest, whole = (reading.history for reading in readings if reading.history is not None)
    assert newest is not None and newest.step == 12_000 and newest.steps[0].step > 1
    assert whole is not None and whole.step == 12_000
    assert whole.curves.loss.xs[0] == 1 and whole.curves.loss.width == 8
    shares = [reading.share_read for reading in readings]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 1
    assert all(not reading.events for reading in readings)


def test_what_comes_after_the_history_is_read_once_in_batches(runs: Path) -> None:
    run = record_run(runs, "long", training_events(0), alive=True)
    follower = Follower(run, lambda reading: None)
    read_all(follower)
    write(run, steps_told(1, 6000))
    readings = read_all(follower)
    steps = [event.step for reading in readings for event in reading.events if isinstance(event, Step)]
    assert steps == list(range(1, 6001))
    assert len(readings) >= 2
    assert readings[-1].share_read == 1.0
    assert max(len(reading.events) for reading in readings) < follow.BATCH_EVENTS + follow.BLOCK_BYTES // 100


def test_the_console_comes_clean_and_only_when_it_grew(runs: Path) -> None:
    run = record_run(runs, "one", training_events(5), alive=True)
    run.console_file.write_bytes(b"\x1b[2Jloading \x1b]0;title\x07now\n")
    readings = read_all(Follower(run, lambda reading: None))
    assert readings[0].console == "loading now"
    assert all(reading.console is None for reading in readings[1:])


def test_the_list_tells_how_each_run_stands(runs: Path) -> None:
    record_run(runs, "a-finished", finished_events(), "finished")
    record_run(runs, "b-failed", failed_events(), "failed")
    record_run(runs, "c-lost", training_events(20))
    record_run(runs, "d-running", training_events(10), alive=True)
    (runs / "e-damaged").mkdir()
    shelf = RunShelf()
    found = {summary.run.id: summary for summary in shelf.look()}
    assert {name: summary.standing for name, summary in found.items()} == {
        "a-finished": "finished", "b-failed": "failed", "c-lost": "lost", "d-running": "running", "e-damaged": "damaged",
    }  # fmt: skip
    assert (found["a-finished"].exact_match_before, found["a-finished"].exact_match_after) == (0.0, 0.935)
    assert (found["d-running"].step, found["d-running"].total_steps) == (10, 360)
    again = {summary.run.id: summary for summary in shelf.look()}
    assert again["a-finished"] is found["a-finished"]


def test_the_list_sees_an_ended_run_go_on_and_end_again(runs: Path) -> None:
    run = record_run(runs, "one", finished_events(), "stopped")
    shelf = RunShelf()
    assert [summary.standing for summary in shelf.look()] == ["stopped"]
    going_on = record_run(runs, ".two", training_events(10), alive=True)
    run.result_file.rename(run.path / "result-before.json")
    going_on.process_file.replace(run.process_file)
    run.events_file.touch()
    assert [summary.standing for summary in shelf.look()] == ["running"]
    gone = record_run(runs, ".three", training_events(10))
    gone.process_file.replace(run.process_file)
    assert [summary.standing for summary in shelf.look()] == ["lost"]


def test_a_resumed_run_goes_on_from_where_it_was_rewound(runs: Path) -> None:
    run = record_run(runs, "one", [*training_events(100), *training_events(60)[-10:]], alive=True)
    state = RunState()
    for reading in read_all(Follower(run, lambda reading: None)):
        state.add(reading)
    assert state.history.step == 60
    assert len(state.curves.loss) == len(state.curves.smooth) == 60
