"""The kept fold: it opens a long run at once, it is the fold of the events and nothing else, and a doubt makes it anew."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import (
    Checkpoint,
    Continuity,
    Cpu,
    Ending,
    Eval,
    Event,
    EventLog,
    Gpu,
    Measured,
    Notice,
    Phase,
    Sample,
    Status,
    Step,
    encode,
)
from tunewright.engine.runs.fold import LEAST_KEPT_BYTES, Fold, glance, read_history
from tunewright.engine.runs.history import History

LONG = 5000


def events_of(steps: int, first: int = 1) -> list[Event]:
    """Return what a run tells of so many steps, with something of every kind."""
    rng = random.Random(steps + first)
    found: list[Event] = [Status(time=first, state="running", reason="from step 0"), Phase(time=first, name="training")]
    for number in range(first, first + steps):
        found.append(
            Step(time=number, step=number, total_steps=10 * LONG, epoch=number / 100, loss=rng.random(), learning_rate=1e-4,
                 grad_norm=rng.random(), tokens=1000, seconds=0.05, peak_gib=1.5, mfu=0.4)
        )  # fmt: skip
        if number % 10 == 0:
            found.append(Gpu(time=number, index=number // 10 % 2, utilisation_percent=90, memory_used_gib=1,
                             memory_total_gib=2, temperature_celsius=60, power_watts=None))  # fmt: skip
        if number % 200 == 0:
            found += [
                Eval(time=number, step=number, loss=rng.random(), rows=10),
                Sample(time=number, step=number, prompt="a", completion=f"é {number}"),
                Checkpoint(time=number, step=number, name=f"step-{number:06}", size_bytes=5, seconds=1),
            ]
    found += [
        Cpu(time=first, utilisation_percent=99, memory_gib=1),
        Continuity(time=first, step=3, compared=2, largest_difference=0.0),
        Measured(time=first, values={"peak_gib": 1.5}),
        Notice(time=first, level="info", title="T", message="M"),
        Ending(time=first, step=5, weights_step=4, reason="enough"),
    ]
    return found


@pytest.fixture(scope="module")
def lines() -> bytes:
    return b"".join(encode(event).encode() + b"\n" for event in events_of(LONG))


@pytest.fixture
def run(tmp_path: Path, lines: bytes) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.events_file.write_bytes(lines)
    return run


def plain(history: History) -> Any:
    return json.loads(json.dumps(history.to_json()))


def covered(run: RunDirectory) -> int:
    """Return up to which byte a fold begins that is opened now."""
    return Fold(run).offset


def test_a_history_comes_back_as_it_was_with_every_field(run: RunDirectory) -> None:
    history = read_history(run)
    again = History.from_json(plain(history))
    for each in dataclasses.fields(History):
        assert getattr(history, each.name), f"{each.name} is not tried here"
        if each.name != "curves":
            assert getattr(again, each.name) == getattr(history, each.name)
    assert again.curves.to_json() == history.curves.to_json()
    assert len(again.curves.loss) > 1000


def test_a_fold_that_is_gone_on_from_is_that_of_all_events(run: RunDirectory) -> None:
    read_history(run)
    size = run.events_file.stat().st_size
    assert covered(run) == size
    log = EventLog(run.events_file)
    for event in events_of(300, first=LONG - 99):  # a hundred steps are taken again
        log.append(event)
    fold = Fold(run)
    assert fold.offset == size
    whole = read_history(run)
    run.fold_file.unlink()
    assert plain(whole) == plain(read_history(run))
    assert whole.step == LONG + 200


def test_short_runs_have_none(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    log = EventLog(run.events_file)
    for event in events_of(200):
        log.append(event)
    assert run.events_file.stat().st_size < LEAST_KEPT_BYTES
    assert read_history(run).step == 200
    assert not run.fold_file.exists()


def test_a_copy_is_taken_at_its_word_after_a_look_at_every_byte(run: RunDirectory, tmp_path: Path) -> None:
    read_history(run)
    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    assert covered(copy) == run.events_file.stat().st_size
    content = bytearray(copy.events_file.read_bytes())
    place = content.index(b'"loss":0.', 1000) + 9
    content[place] = ord("9") if content[place] != ord("9") else ord("1")
    copy.events_file.write_bytes(content)  # of the same length, and far from its end
    other = copy.path / "other"
    shutil.copy(copy.events_file, other)
    os.replace(other, copy.events_file)
    assert covered(copy) == 0


@pytest.mark.parametrize("harm", ["shorter", "edited", "torn", "flipped", "version", "empty", "folder", "pipe", "json"])
def test_a_fold_in_doubt_is_made_anew(run: RunDirectory, harm: str) -> None:
    whole = plain(read_history(run))
    kept, events = run.fold_file.read_bytes(), run.events_file.read_bytes()
    head, _, body = kept.partition(b"\n")
    match harm:
        case "shorter":
            run.events_file.write_bytes(events[: events.rfind(b"\n", 0, -1) + 1])
        case "edited":
            run.events_file.write_bytes(events.replace(b'"reason":"enough"', b'"reason":"thirst"') + b"\n" * 10)
        case "torn":
            run.fold_file.write_bytes(kept[: len(kept) // 2])
        case "flipped":
            run.fold_file.write_bytes(kept.replace(b'"reason":"from step 0"', b'"reason":"from step 9"'))
        case "version":
            run.fold_file.write_bytes(json.dumps(json.loads(head) | {"version": 0}).encode() + b"\n" + body)
        case "empty":
            run.fold_file.write_bytes(b"")
        case "folder":
            run.fold_file.unlink()
            run.fold_file.mkdir()
        case "pipe":
            run.fold_file.unlink()
            os.mkfifo(run.fold_file)
        case _:
            run.fold_file.write_bytes(b"[" * 100_000)
    assert covered(run) == 0
    if harm not in ("shorter", "edited"):
        assert plain(read_history(run)) == whole
    if harm not in ("shorter", "edited", "folder"):
        assert covered(run) == len(events)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(run: RunDirectory) -> None:
    run.path.rename(run.path.with_name("kept"))
    run = RunDirectory(run.path.with_name("kept"))
    run.fold_file.mkdir()
    (run.fold_file / "in-the-way").touch()  # nothing can be renamed over it, whoever tries
    assert read_history(run).step == LONG


def test_leftovers_of_writers_that_were_killed_go(run: RunDirectory) -> None:
    old, new = run.path / ".fold.json.1.tmp", run.path / ".fold.json.2.tmp"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    read_history(run)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_glance_tells_the_newest_of_a_long_run_and_all_of_a_short_one(run: RunDirectory) -> None:
    glanced = glance(run)
    assert (glanced.step, glanced.ending is not None) == (LONG, True)
    assert glanced.steps[0].step > 1
    assert not run.fold_file.exists()
    read_history(run)
    assert plain(glance(run)) == plain(read_history(run))


def test_a_history_does_not_grow_with_its_run() -> None:
    history = History()
    events = events_of(2000)
    history.add(events)
    for number in range(3000):
        history.add([
            Eval(step=number, loss=1.0), Checkpoint(step=number, name="c", size_bytes=1, seconds=1),
            Measured(values={f"figure {number}": 1.0}), Gpu(index=number, utilisation_percent=1, memory_used_gib=1,
            memory_total_gib=1, temperature_celsius=1, power_watts=1),
        ])  # fmt: skip
    size = len(json.dumps(history.to_json()))
    assert size < 3 * 2**20
    assert history.evals[0].step == 0 and history.evals[-1].step == 2999
    assert max(len(getattr(history, each.name)) for each in dataclasses.fields(History)
               if isinstance(getattr(history, each.name), list | dict)) <= 2048  # fmt: skip
