"""Events survive the file: whole lines only, unknown kinds passed over, torn tails mended."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine.runs import events
from tunewright.engine.runs.events import (
    Checkpoint,
    Cpu,
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
    decode,
    encode,
    read_events,
)
from tunewright.engine.runs.history import History

ONE_OF_EACH: list[Event] = [
    Phase(name="loading", detail="a model", done=1, total=2),
    Step(step=1, total_steps=9, epoch=0.1, loss=2.5, learning_rate=1e-3, grad_norm=0.5, tokens=10, seconds=0.5, peak_gib=1),
    Eval(step=1, loss=2.0, exact_match=0.5, rows=10, seconds=1),
    Gpu(index=0, utilisation_percent=50, memory_used_gib=1, memory_total_gib=2, temperature_celsius=None, power_watts=1),
    Cpu(utilisation_percent=100, memory_gib=1),
    Sample(step=1, prompt="a\nb\u2028c", completion="{}", reference="✓"),
    Checkpoint(step=1, name="step-000001", size_bytes=5, seconds=0.1),
    Notice(level="error", title="T", message="M", remedy="R"),
    Measured(values={"peak_gib": 1.5}),
    Status(state="running", reason=""),
]  # fmt: skip


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: event.kind)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert decode(encode(event)) == event
    assert "\n" not in encode(event)


@given(st.text(), st.floats())
def test_any_text_and_number_comes_back(text: str, number: float) -> None:
    text = text.encode("utf-8", "ignore").decode()
    notice = decode(encode(Notice(level="info", title=text, message="")))
    assert isinstance(notice, Notice)
    assert notice.title == text
    found = decode(encode(Eval(step=1, loss=number)))
    assert isinstance(found, Eval) and found.loss is not None
    assert found.loss == number or math.isnan(number)


@pytest.mark.parametrize(
    "line", ["", "{}", "[1]", '{"event":"future"}', '{"event":"step"}', "\x00", "[" * 100_000, "null"]
)
def test_a_line_that_is_no_event_is_passed_over(line: str) -> None:
    assert decode(line) is None


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    assert decode('{"event":"status","state":"running","colour":"blue"}') is not None


@pytest.mark.parametrize("block", [7, 64, 10_000])
def test_reading_in_blocks_finds_every_event_once(tmp_path: Path, block: int) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for event in ONE_OF_EACH:
        log.append(event)
    log.close()
    found: list[Event] = []
    offset = 0
    size = path.stat().st_size
    while offset < size:
        events, onward = read_events(path, offset, limit_bytes=max(block, 400))
        assert onward > offset
        found += events
        offset = onward
    assert found == ONE_OF_EACH


def test_every_torn_tail_is_the_end_of_the_file_and_is_read_when_whole(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    log = EventLog(whole)
    for event in ONE_OF_EACH[:3]:
        log.append(event)
    log.close()
    content = whole.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for cut in range(len(content) + 1):
        torn.write_bytes(content[:cut])
        events, offset = read_events(torn)
        assert events == ONE_OF_EACH[: content[:cut].count(b"\n")]
        torn.write_bytes(content)
        assert events + read_events(torn, offset)[0] == ONE_OF_EACH[:3]


def test_a_log_opened_after_a_crash_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(ONE_OF_EACH[0]).encode() + b'\n{"event":"st')
    log = EventLog(path)
    log.append(ONE_OF_EACH[-1])
    log.close()
    assert read_events(path)[0] == [ONE_OF_EACH[0], ONE_OF_EACH[-1]]


def step(number: int, loss: float = 1.0) -> Step:
    return Step(
        step=number, total_steps=10, epoch=0, loss=loss, learning_rate=1, grad_norm=1, tokens=100, seconds=0.5, peak_gib=1
    )  # fmt: skip


def test_a_resumed_run_replaces_the_steps_it_takes_again() -> None:
    history = History()
    history.add([Status(state="running"), step(1), step(2), Eval(step=2, loss=9.0), step(3)])
    history.add([step(2, 5.0), Eval(step=2, loss=4.0), step(3)])
    assert [(each.step, each.loss) for each in history.steps] == [(1, 1.0), (2, 5.0), (3, 1.0)]
    assert [each.loss for each in history.evals] == [4.0]
    assert history.step == 3
    assert history.tokens_per_second() == 200
    assert history.seconds_left() == 3.5


def test_exact_match_before_and_after_are_told_apart() -> None:
    history = History()
    history.add([Eval(step=0, exact_match=0.01), step(1), Eval(step=10, loss=1.0), Eval(step=10, exact_match=0.9)])
    assert (history.exact_match_before, history.exact_match_after) == (0.01, 0.9)
    assert len(history.evals) == 3


def history_of(*events: Event) -> History:
    history = History()
    history.add(events)
    return history


def test_what_comes_before_the_first_step_is_told_from_the_phases_until_it_is_measured() -> None:
    phases = [
        Measured(time=99, values={"seconds_planning": 2.0}),
        Status(time=100, state="running"),
        Phase(time=103, name="tokenising", total=10),
        Phase(time=104, name="tokenising", done=5, total=10),
        Phase(time=105, name="loading"),
    ]
    history = history_of(*phases)
    assert history.to_first_step(now=109.0) == {"planning": 2.0, "starting": 3.0, "tokenising": 2.0, "loading": 4.0}
    history.add([Measured(time=110, values={"seconds_loading": 4.5, "seconds_to_first_step": 4.5, "peak_gib": 1.0})])
    assert history.to_first_step(now=200.0) == {"loading": 4.5}
    history.add([Status(time=300, state="running"), Phase(time=301, name="importing")])
    history.add([Measured(time=310, values={"seconds_importing": 9.0, "seconds_to_first_step": 9.0})])
    assert history.to_first_step() == {"importing": 9.0}
    assert history.measured["peak_gib"] == 1.0


def test_a_phase_tells_how_long_it_still_takes() -> None:
    history = history_of(Status(time=100, state="running"), Phase(time=103, name="loading"))
    assert history.phase_seconds_left(now=104) is None
    history.add([Phase(time=107, name="loading", done=20, total=100)])
    assert history.phase_seconds_left(now=107) == pytest.approx(16)
    assert history.phase_seconds_left(now=110) == pytest.approx(13)
    assert history.phase_seconds_left(now=999) == 0


def test_a_resumed_run_answers_its_prompts_again() -> None:
    history = history_of(
        *(Sample(step=step, prompt=prompt, completion=f"{step}") for step in (1, 2) for prompt in "ab")
    )
    history.add([Sample(step=2, prompt="a", completion="again"), Sample(step=2, prompt="b", completion="again")])
    assert [(s.step, s.prompt, s.completion) for s in history.samples] == [
        (1, "a", "1"), (1, "b", "1"), (2, "a", "again"), (2, "b", "again"),
    ]  # fmt: skip


def test_utilisation_is_weighted_by_time() -> None:
    step = Step(step=1, total_steps=9, epoch=0.1, loss=2.5, learning_rate=1e-3, grad_norm=0.5, tokens=10, seconds=1,
                peak_gib=1, mfu=0.2)  # fmt: skip
    history = history_of(step, dataclasses.replace(step, step=2, seconds=3, mfu=0.6))
    assert history.mfu() == pytest.approx(0.5)
    assert history_of(dataclasses.replace(step, mfu=None)).mfu() is None


def test_a_long_history_is_read_without_its_older_samples_of_devices(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in range(1000):
        log.append(Cpu(utilisation_percent=number, memory_gib=1))
        if number % 100 == 0:
            log.append(Notice(level="info", title=str(number), message='{"event":"cpu",'))
    events, offset = read_events(path, all_samples=False)
    assert offset == path.stat().st_size
    assert [event.title for event in events if isinstance(event, Notice)] == [str(n) for n in range(0, 1000, 100)]
    samples = [event.utilisation_percent for event in events if isinstance(event, Cpu)]
    assert samples == [float(n) for n in range(1000 - len(samples), 1000)] and 0 < len(samples) < 1000


WRONG = [
    {"step": "7"}, {"step": 1.5}, {"loss": "nan"}, {"loss": None}, {"tokens": 10**30}, {"time": -1}, {"time": 1e300},
    {"time": math.nan}, {"metrics": [1]}, {"metrics": {"a": "b"}}, {"metrics": None}, {"mfu": "high"},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_hand_edited_event_is_passed_over_where_it_cannot_be(change: dict[str, object]) -> None:
    sound = json.loads(encode(step(1)))
    assert decode(json.dumps(sound)) is not None
    assert decode(json.dumps(sound | change)) is None


def test_a_whole_number_stands_for_a_figure_and_an_unknown_word_for_a_phase() -> None:
    assert decode(json.dumps(json.loads(encode(step(1))) | {"loss": 2, "epoch": 0, "mfu": None})) is not None
    assert decode('{"event":"phase","name":"dreaming"}') is not None


def test_no_secret_enters_an_event_and_no_text_is_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2c"
    told = decode(encode(Notice(level="error", title=token, message=f"GET https://u:{token}@host " + 10**6 * "x")))
    assert isinstance(told, Notice)
    assert token not in told.title + told.message
    assert len(told.message) < 17_000 and told.message.endswith("characters were left out)")
    answer = decode(encode(Sample(step=1, prompt="p", completion=f"api_key = {token}")))
    assert isinstance(answer, Sample) and token not in answer.completion


WRITER = """
import os, sys
from pathlib import Path
from tunewright.engine.runs.events import EventLog, Notice
log = EventLog(Path(sys.argv[1]))
write = os.write
def write_a_part_and_die(descriptor, data):
    write(descriptor, data[:int(sys.argv[2])])
    os.kill(os.getpid(), 9)
log.append(Notice(level="info", title="whole", message="m"))
os.write = write_a_part_and_die
log.append(Notice(level="info", title="torn", message="m"))
"""


def test_a_writer_killed_in_the_middle_of_a_line_spoils_no_line_of_another(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    other = EventLog(path)  # the supervisor's, open all the time
    for cut in (1, 40, 10_000):
        subprocess.run([sys.executable, "-c", WRITER, str(path), str(cut)], check=False)
        other.append(Status(state="failed", reason=f"killed after {cut}"))
    titles = [getattr(each, "title", None) or getattr(each, "reason", None) for each in read_events(path)[0]]
    assert titles == [
        "whole", "killed after 1", "whole", "killed after 40", "whole", "torn", "killed after 10000",
    ]  # fmt: skip


def test_a_full_disk_that_takes_a_part_of_a_line_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    write, room = os.write, [30]

    def fill(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = write(descriptor, data[: room[0]])
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(OSError, match="No space"):
        log.append(ONE_OF_EACH[1])
    room[0] = 10_000
    log.append(ONE_OF_EACH[-1])
    assert read_events(path)[0] == [ONE_OF_EACH[-1]]


def test_what_a_power_cut_left_as_zeros_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    line = encode(ONE_OF_EACH[-1]).encode() + b"\n"
    path.write_bytes(line + bytes(5000) + b"\n" + bytes(3000) + line)
    assert read_events(path)[0] == [ONE_OF_EACH[-1]] * 2


def test_events_without_end_become_rare_and_the_runs_own_state_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ALLOWANCE", 20_000)
    monkeypatch.setitem(events.ALLOWANCES, "notice", 5_000)
    now = [1000.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in range(7200):  # an hour of two GPUs and of a trainer that warns at every step
        now[0] += 0.5
        for index in (0, 1):
            log.append(Gpu(index=index, utilisation_percent=number, memory_used_gib=1, memory_total_gib=2,
                           temperature_celsius=None, power_watts=1))  # fmt: skip
        log.append(Notice(level="warning", title=f"again {number}", message="m"))
        log.append(step(number))
    log.append(Notice(level="error", title="the end", message="m"))
    log.append(Status(state="failed"))
    found = read_events(path)[0]
    gpus = [each for each in found if isinstance(each, Gpu)]
    assert {each.index for each in gpus} == {0, 1}
    assert 100 < len(gpus) < 1000
    assert (gpus[-1].utilisation_percent or 0) > 7100
    notices = [each for each in found if isinstance(each, Notice)]
    assert len(notices) < 400
    assert [each.title for each in notices].count("Events are left out") == 2
    assert len([each for each in found if isinstance(each, Step)]) == 7200
    assert isinstance(found[-1], Status)


def test_a_log_is_no_way_to_write_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        EventLog(tmp_path / "events.jsonl")
