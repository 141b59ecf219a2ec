"""Run directories as strangers, other versions, crashes and mistakes leave them: each is listed for what it is.

None is ever fatal to the list, waited for, or run. The commands are processes of their own here, with a time limit, as a
directory that hangs them would hang the test as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tunewright.cli import attach
from tunewright.cli import runs as runs_command
from tunewright.engine.runs.directory import RunDirectory, find_run, list_runs, standing
from tunewright.engine.runs.fold import glance
from tunewright.engine.runs.launch import resume
from tunewright.foundation.errors import TunewrightError
from tunewright.tui.app import TunewrightApp
from tunewright.tui.run_summary import RunShelf
from tunewright.tui.screens.monitor import MonitorScreen

from ...tui.recorded import finished_events, record_run, settle, shown, training_events, until

SECONDS = 60
EVIL = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\u202e\x9b31m[/nope]"
UNSAFE = "\x1b\x07\u202e\x9b"

Making = Callable[[RunDirectory], None]
CASES: dict[str, tuple[Making, str]] = {}
"""What is done to a run that has finished, and how it stands then."""


def case(stands: str = "finished") -> Callable[[Making], Making]:
    def keep(make: Making) -> Making:
        CASES[make.__name__.replace("_", "-")] = (make, stands)
        return make

    return keep


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


@case()
def sound(run: RunDirectory) -> None:
    """Nothing is done."""


@case()
def newer_plan_and_recipe(run: RunDirectory) -> None:
    edit(run.plan_file, lambda values: values.update(version=99, colour={"of": "blue"}))
    run.recipe_file.write_text(run.recipe_file.read_text() + '\n[quantum]\nqubits = "all"\n')


@case()
def older_plan(run: RunDirectory) -> None:
    edit(run.plan_file, lambda values: [values.pop(name) for name in list(values)[3:]])


@case()
def newer_events(run: RunDirectory) -> None:
    lines = run.events_file.read_text().splitlines()
    lines.insert(3, '{"event":"teleport","time":1,"where":"Mars"}')
    lines = [line.replace('{"event":"step",', '{"event":"step","qubits":[1],') for line in lines]
    run.events_file.write_text("\n".join(lines) + "\n")


@case()
def older_events(run: RunDirectory) -> None:
    lines = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    for values in lines:
        for name in ("mfu", "reserved_gib", "metrics"):
            values.pop(name, None)
    run.events_file.write_text("".join(json.dumps(values) + "\n" for values in lines))


@case()
def hand_edited_events(run: RunDirectory) -> None:
    wrong = [
        "null", "[]", "{", '"text"', '{"event":["step"]}', '{"event":"step","step":"many"}', "[" * 50_000,
        '{"event":"step","step":-5,"total_steps":-1,"epoch":1,"loss":1e308,"learning_rate":-1,"grad_norm":NaN,"tokens":-7,"seconds":-3,"peak_gib":-1}',
        '{"event":"step","step":5,"total_steps":0,"epoch":1e308,"loss":Infinity,"learning_rate":0,"grad_norm":1,"tokens":1,"seconds":0,"peak_gib":1e308}',
        '{"event":"gpu","index":-3,"utilisation_percent":1e300,"memory_used_gib":5,"memory_total_gib":0,"temperature_celsius":null,"power_watts":null}',
        '{"event":"phase","name":"dreaming","done":5,"total":-1}', '{"event":"status","state":"levitating"}',
        '{"event":"notice","level":"scream","title":"T","message":"M"}', '{"event":"measured","values":{"peak_gib":-1}}',
        '{"event":"checkpoint","step":-9,"name":"../../../etc","size_bytes":-1,"seconds":-1}',
        '{"event":"eval","step":0,"exact_match":1e300}', '{"event":"eval","step":9,"exact_match":-5,"rows":-1}',
        '{"event":"sample","step":1,"prompt":"","completion":""}', "\u2028", "\0\0\0",
    ]  # fmt: skip
    with run.events_file.open("a", encoding="utf-8") as file:
        file.write("\n".join(wrong) + "\n")


@case()
def a_torn_tail(run: RunDirectory) -> None:
    run.events_file.write_bytes(run.events_file.read_bytes()[:-7])


@case()
def binary_events(run: RunDirectory) -> None:
    run.events_file.write_bytes(bytes(range(256)) * 4000)


@case()
def escapes_everywhere(run: RunDirectory) -> None:
    run.console_file.write_text(f"{EVIL}\n", encoding="utf-8")
    run.recipe_file.write_text(run.recipe_file.read_text().replace("Starter: LoRA", "\\u001b[31mred\\u202e"))
    told = {"event": "notice", "level": "error", "title": EVIL, "message": EVIL, "remedy": EVIL}
    with run.events_file.open("a") as file:
        file.write(json.dumps(told) + "\n" + json.dumps({"event": "status", "state": EVIL, "reason": EVIL}) + "\n")
        file.write(json.dumps({"event": "phase", "name": EVIL, "detail": EVIL}) + "\n")
    edit(run.result_file, lambda values: values.update(reason=EVIL))
    edit(run.process_file, lambda values: values.update(detached_by=EVIL))


@case()
def hand_edited_result(run: RunDirectory) -> None:
    wrong = {"step": "many", "total_steps": [1], "exact_match_after": 10**400, "measured": None, "predicted": 7}
    edit(run.result_file, lambda values: values.update(wrong))


@case("damaged")
def a_result_of_another_kind(run: RunDirectory) -> None:
    run.result_file.write_text("[" * 50_000)


@case("damaged")
def a_state_that_is_none(run: RunDirectory) -> None:
    edit(run.result_file, lambda values: values.update(state="levitating"))


@case("damaged")
def half_copied(run: RunDirectory) -> None:
    run.plan_file.unlink()
    run.events_file.unlink()
    run.recipe_file.write_bytes(run.recipe_file.read_bytes()[:40])


@case("damaged")
def empty(run: RunDirectory) -> None:
    shutil.rmtree(run.path)
    run.path.mkdir()


@case("lost")
def without_result_and_processes(run: RunDirectory) -> None:
    run.result_file.unlink()
    run.process_file.unlink()
    os.utime(run.path, (1, 1))


@case("damaged")
def hand_edited_processes(run: RunDirectory) -> None:
    run.result_file.unlink()
    edit(run.process_file, lambda values: values.update(supervisor={"pid": "1; rm -rf /", "started": 10**400}))


@case("elsewhere")
def of_another_machine(run: RunDirectory) -> None:
    run.result_file.unlink()
    edit(run.process_file, lambda values: values.update(host=f"other{EVIL}"))


def files(run: RunDirectory) -> list[Path]:
    return [
        run.events_file,
        run.console_file,
        run.recipe_file,
        run.plan_file,
        run.process_file,
        run.result_file,
        run.fold_file,
    ]


@case("damaged")
def pipes_in_place_of_files(run: RunDirectory) -> None:
    for path in files(run):
        replace(path, os.mkfifo)


@case()
def a_pipe_in_place_of_events(run: RunDirectory) -> None:
    for path in (run.events_file, run.console_file, run.fold_file):
        replace(path, os.mkfifo)


@case("damaged")
def folders_in_place_of_files(run: RunDirectory) -> None:
    for path in files(run):
        replace(path, Path.mkdir)


@case("damaged")
def devices_in_place_of_files(run: RunDirectory) -> None:
    for path in files(run):
        replace(path, lambda each: each.symlink_to("/dev/zero"))


@case("damaged")
def links_that_lead_nowhere(run: RunDirectory) -> None:
    for path in files(run):
        replace(path, lambda each: each.symlink_to(each))


@case()
def links_to_its_own_folders(run: RunDirectory) -> None:
    (run.path / "again").symlink_to(run.path)
    (run.exports / "up").symlink_to(run.path.parent)
    (run.path / "root").symlink_to("/")


@case("damaged")
def huge_small_files(run: RunDirectory) -> None:
    for path in (run.recipe_file, run.plan_file, run.process_file, run.result_file):
        os.truncate(path, 2**40)  # holes: a terabyte that takes nothing


@case()
def huge_events(run: RunDirectory) -> None:
    os.truncate(run.events_file, 2**40)
    os.truncate(run.console_file, 2**40)


@case()
def one_endless_line(run: RunDirectory) -> None:
    with run.events_file.open("ab") as file:
        file.write(b'{"event":"notice","title":"' + 20_000_000 * b"x")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one run of every case, and with things among the runs that are none."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "runs"
    folder.mkdir()
    for name, (make, _) in CASES.items():
        make(record_run(folder, f"20260101-{name}", finished_events(), "finished"))
    record_run(folder, f"name{EVIL.replace('/', '')}\n\r", training_events(3), "stopped")
    record_run(folder, os.fsdecode(b"bytes\xff\xfe"), training_events(3), "stopped")
    (folder / "a-file").write_text("no run")
    os.mkfifo(folder / "a-pipe")
    (folder / "a-loop").symlink_to(folder / "a-loop")
    (folder / "a-link").symlink_to(folder / "20260101-sound")
    (folder / "gone").symlink_to(folder / "nothing-here")
    return home


@pytest.fixture(autouse=True)
def in_that_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(home))


def run_of(home: Path, name: str) -> RunDirectory:
    return RunDirectory(home / "runs" / f"20260101-{name}")


def tunewright(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_the_list_has_each_of_them_for_what_it_is(home: Path) -> None:
    answer = tunewright("runs", "--all", "--json")
    assert answer.returncode == 0, answer.stderr
    found = {each["id"]: each for each in json.loads(answer.stdout)["runs"]}
    assert {name: found[f"20260101-{name}"]["standing"] for name in CASES} == {
        name: stands for name, (_, stands) in CASES.items()
    }
    assert len(found) == len(CASES) + 3  # the two with odd names, and the link
    assert not [each for each in found if any(letter in each for letter in UNSAFE)]
    for name in ("sound", "newer-plan-and-recipe", "newer-events", "older-events", "a-torn-tail", "older-plan"):
        assert (found[f"20260101-{name}"]["step"], found[f"20260101-{name}"]["exact_match_after"]) == (360, 0.935)
    assert all(each["size_mib"] < 30 for each in found.values())


def test_the_list_is_text_that_leaves_the_terminal_alone() -> None:
    answer = tunewright("runs", "--all")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert not [letter for letter in UNSAFE if letter in answer.stdout]
    assert len(answer.stdout.splitlines()) == len(CASES) + 4


@pytest.mark.parametrize("name", CASES)
def test_each_can_be_shown_and_attached_to(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(home, name)
    assert standing(run) == CASES[name][1]
    if name != "huge-events":  # a terabyte of holes is read to its end
        print(runs_command.run_text(runs_command.explain(run)))
        assert json.dumps(runs_command.explain(run))
    if name not in ("huge-events", "of-another-machine"):  # which somebody else goes on with
        attach.follow_in_lines(run)
    glance(run)
    assert run.console_tail() is not None
    told = capsys.readouterr().out
    assert not [letter for letter in UNSAFE if letter in told]


def test_those_that_would_hang_a_command_do_not() -> None:
    names = ("pipes-in-place-of-files", "a-pipe-in-place-of-events", "devices-in-place-of-files")
    commands = [("runs", "show", name) for name in names]
    commands += [("attach", names[1], "--plain"), ("attach", names[1], "--json")]
    started = [
        subprocess.Popen([sys.executable, "-m", "tunewright", *each], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for each in commands
    ]
    try:
        for command, process in zip(commands, started, strict=True):
            told = process.communicate(timeout=SECONDS)[1]
            assert process.returncode in (0, 2), (command, told)
            assert b"Traceback" not in told
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize("name", [name for name, (_, stands) in CASES.items() if stands == "damaged"])
def test_what_cannot_be_resumed_is_refused_in_words(name: str, home: Path) -> None:
    with pytest.raises(TunewrightError, match="cannot be resumed"):
        resume(run_of(home, name))


def test_a_name_of_bytes_is_found_by_what_can_be_typed(home: Path) -> None:
    assert find_run("bytes").path == home / "runs" / os.fsdecode(b"bytes\xff\xfe")
    with pytest.raises(TunewrightError, match="Run not found"):
        find_run("a-loop")
    assert len(list_runs()) == len(CASES) + 3


async def test_the_interface_lists_each_of_them(home: Path) -> None:
    summaries = {summary.run.id: summary for summary in RunShelf().look()}
    assert {name: summaries[f"20260101-{name}"].standing for name in CASES} == {
        name: stands for name, (_, stands) in CASES.items()
    }
    app = TunewrightApp()
    async with app.run_test(size=(140, 45)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: f"{len(CASES) + 3} in all" in shown(pilot))
        assert shown(pilot).count("damaged") == sum(stands == "damaged" for _, stands in CASES.values())
        assert not [letter for letter in UNSAFE if letter in shown(pilot)]


ODDEST = (
    "hand-edited-events", "escapes-everywhere", "binary-events", "newer-plan-and-recipe", "hand-edited-result", "half-copied",
    "a-pipe-in-place-of-events", "devices-in-place-of-files", "one-endless-line",
)  # fmt: skip


async def test_the_monitor_opens_on_the_oddest_of_them(home: Path) -> None:
    app = TunewrightApp()
    async with app.run_test(size=(120, 40)) as pilot:
        for name in ODDEST:
            monitor, stands = MonitorScreen(run_of(home, name)), CASES[name][1]
            app.push_screen(monitor)
            await until(pilot, lambda m=monitor, s=stands: m.state.share_read >= 1 and m.state.standing == s)
            assert not [letter for letter in UNSAFE if letter in shown(pilot)]
            await settle(pilot)
            while len(app.screen_stack) > 1:
                app.pop_screen()
            await settle(pilot)
        assert app.is_running
