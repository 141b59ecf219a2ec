"""The cache of rendered rows: made once, found again by content, and never believed where it is not as it was written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewright import starter
from tunewright.engine.data import entries
from tunewright.engine.data.cache import prepare_once
from tunewright.engine.data.entries import MANIFEST, content_of, entry_of
from tunewright.engine.data.measuring import measure_rows
from tunewright.engine.data.preparing import Prepared, Rows, prepare
from tunewright.engine.data.reading import open_source
from tunewright.recipes.model import Recipe, validate_recipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the entries are."""
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "cache" / "rows"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = starter.TRAINING_DATA.read_bytes().splitlines(keepends=True)[:60]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(rows))
    return file


def recipe(
    source: Path, training: dict[str, Any] | None = None, model: str = "tunewright/starter", **data: Any
) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": model},
            "data": {"source": str(source), **data},
            "method": {"kind": "full"},
            "training": {"learning_rate": 1e-3, "epochs": 1.0, **(training or {})},
        },
        "test",
    )


def assert_alike(one: Prepared, other: Prepared) -> None:
    for name in ("training", "validation"):
        ours, theirs = vars(getattr(one, name)), vars(getattr(other, name))
        for member, value in ours.items():
            if isinstance(value, Rows):
                assert list(value) == list(theirs[member])
            else:
                assert (value is None and theirs[member] is None) or np.array_equal(value, theirs[member])
    assert one.kept_out == other.kept_out
    assert (one.cut, one.dropped, one.faulty, one.chosen) == (other.cut, other.dropped, other.faulty, other.chosen)


@pytest.mark.parametrize("objective", ["sft", "cpt", "dpo", "kto"])
def test_rows_are_made_once_and_the_same_the_second_time(tmp_path: Path, source: Path, objective: str) -> None:
    if objective in ("dpo", "kto"):
        rows = [
            {"prompt": f"How many of {number}?", "chosen": "mugs " * (number + 1), "rejected": "none"}
            for number in range(30)
        ]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = recipe(source, {"objective": objective}, max_length=120)
    first = prepare_once(wanted)
    again = prepare_once(wanted)
    assert (first.from_cache, again.from_cache) == (False, True)
    assert_alike(first.prepared, prepare(wanted))
    assert_alike(again.prepared, prepare(wanted))
    assert (again.prepared.training.rejected is not None) == (objective == "dpo")
    assert (again.prepared.training.desirable is not None) == (objective == "kto")


def test_plan_and_trainer_share_the_rows(source: Path) -> None:
    wanted = recipe(source)
    measured = measure_rows(wanted)
    kept = prepare_once(wanted)
    assert kept.from_cache
    assert measured is not None
    assert list(measured.training) == kept.prepared.training.lengths
    assert list(measured.supervised) == kept.prepared.training.supervised
    packed = recipe(source, packing=True)
    assert prepare_once(packed).from_cache  # the same rows, put together otherwise
    assert measure_rows(packed) == measured


def test_another_place_of_the_same_content_is_the_same(tmp_path: Path, source: Path) -> None:
    prepare_once(recipe(source))
    os.utime(source, (1, 1))
    assert prepare_once(recipe(source)).from_cache
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(source, tmp_path / "elsewhere" / "rows.jsonl")
    assert prepare_once(recipe(Path(copy))).from_cache


CHANGES: dict[str, Any] = {
    "seed": {"training": {"seed": 7}},
    "objective": {"training": {"objective": "cpt"}},
    "format": {"format": "messages"},
    "template": {"template": "chatml"},
    "system": {"system": "drop"},
    "system_prompt": {"system_prompt": "Be brief."},
    "thinking": {"thinking": "drop"},
    "loss_on": {"loss_on": "all"},
    "max_length": {"max_length": 99},
    "overlong": {"overlong": "drop"},
    "faulty": {"faulty": "drop"},
    "share": {"share": 0.5},
    "validation": {"validation": {"kind": "rows", "value": 3.0}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_may_change_the_tokens_changes_the_entry(source: Path, change: str) -> None:
    assert entry_of(recipe(source, **CHANGES[change]), starter.MODEL) != entry_of(recipe(source), starter.MODEL)


def test_data_and_tokenizer_are_told_by_their_bytes(tmp_path: Path, source: Path) -> None:
    model = Path(shutil.copytree(starter.MODEL, tmp_path / "model"))
    wanted = recipe(source)
    known = {entry_of(wanted, model)}
    assert known == {entry_of(wanted, starter.MODEL)}

    times = source.stat()
    data = source.read_bytes()
    source.write_bytes(data[:-20] + data[-20:].swapcase())
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    known.add(entry_of(wanted, model))
    assert len(known) == 2  # the same size, the same times
    for name, text in (
        ("tokenizer.json", (model / "tokenizer.json").read_text() + " "),
        ("tokenizer_config.json", (model / "tokenizer_config.json").read_text() + " "),
        ("chat_template.jinja", "{{ messages[0].content }}"),
        ("additional_chat_templates/tools.jinja", "{{ messages }}"),
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(text)
        entry = entry_of(wanted, model)
        assert entry not in known, name
        known.add(entry)
    other = source.with_name("other.jsonl")
    other.write_bytes(data)
    kept_out = {"kind": "file", "source": str(other), "value": 4.0}
    first = entry_of(recipe(source, validation=kept_out), model)
    other.write_bytes(data[: len(data) // 2])
    assert entry_of(recipe(source, validation=kept_out), model) != first


def test_large_data_is_hashed_whole_and_only_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "HASHED_AT_ONCE_BYTES", 0)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    opened = open_source(str(source))
    digest = content_of(opened)
    with monkeypatch.context() as without_reading:
        without_reading.setattr(entries, "_sha256", None)
        assert content_of(opened) == digest
    with source.open("r+b") as file:
        file.seek(500)
        file.write(b"#")
    assert content_of(open_source(str(source))) != digest
    with pytest.raises(TypeError), monkeypatch.context() as without_reading:  # it was changed only just now
        without_reading.setattr(entries, "_sha256", None)
        content_of(open_source(str(source)))


def entry_in(folder: Path) -> Path:
    (entry,) = (each for each in folder.iterdir() if not each.name.startswith("."))
    return entry


DAMAGES = ["cut short", "a bit turned", "taken away", "manifest torn", "manifest of nothing", "another's examples"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_found_and_made_anew(folder: Path, source: Path, damage: str) -> None:
    wanted = recipe(source)
    prepare_once(wanted)
    entry = entry_in(folder)
    file = entry / "training.tokens.npy"
    if damage == "cut short":
        os.truncate(file, file.stat().st_size - 4)
    elif damage == "a bit turned":
        data = bytearray(file.read_bytes())
        data[-7] ^= 1
        times = file.stat()
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif damage == "taken away":
        file.unlink()
    elif damage == "manifest torn":
        os.truncate(entry / MANIFEST, 40)
    elif damage == "manifest of nothing":
        (entry / MANIFEST).write_text("{}")
    else:
        (entry / "examples.json").write_text("[]")
    again = prepare_once(wanted)
    assert not again.from_cache
    assert_alike(again.prepared, prepare(wanted))
    assert prepare_once(wanted).from_cache  # and kept


def test_only_lengths_are_kept_of_rows_that_take_too_much(
    folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright.engine.data.cache.SHARE_OF_FREE", 0.0)
    wanted = recipe(source)
    assert not prepare_once(wanted).from_cache
    assert not prepare_once(wanted).from_cache
    assert not (entry_in(folder) / "training.tokens.npy").exists()
    with monkeypatch.context() as without_child:
        without_child.setattr("tunewright.engine.data.child.DataProcess.__init__", None)
        assert measure_rows(wanted) is not None


def test_the_entry_that_was_not_used_for_longest_goes_first(
    folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (recipe(source, max_length=length) for length in (100, 101, 102))
    for age, wanted in ((300, one), (200, two)):
        prepare_once(wanted)
        used = os.stat(folder).st_mtime - age
        os.utime(entry_of(wanted, starter.MODEL) / MANIFEST, (used, used))
    prepare_once(one)  # used again
    size = sum(file.stat().st_size for file in entry_of(one, starter.MODEL).iterdir())
    monkeypatch.setattr(entries, "LARGEST_BYTES", int(2.5 * size))
    prepare_once(three)
    assert entry_of(one, starter.MODEL).exists()
    assert entry_of(three, starter.MODEL).exists()
    assert not entry_of(two, starter.MODEL).exists()


def test_a_cache_that_cannot_be_written_only_costs_time(folder: Path, source: Path) -> None:
    folder.parent.parent.mkdir(parents=True)
    folder.parent.write_text("a file where the folder would be")
    wanted = recipe(source)
    kept = prepare_once(wanted)
    assert not kept.from_cache
    assert_alike(kept.prepared, prepare(wanted))
    measured = measure_rows(wanted)
    assert measured is not None
    assert list(measured.training) == kept.prepared.training.lengths


def test_a_full_disk_leaves_nothing_half_written(folder: Path, source: Path) -> None:
    """Files may not grow beyond 4 KiB here, which is an error in the middle of writing, as a full disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        kept = prepare_once(recipe(source))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(kept.prepared.training) == 57
    assert not [each for each in folder.iterdir() if each.is_dir()]
    assert not prepare_once(recipe(source)).from_cache


def test_what_a_killed_process_left_is_swept(folder: Path, source: Path) -> None:
    left = folder / ".writing-left"
    left.mkdir(parents=True)
    (left / "training.tokens.npy").write_bytes(b"half")
    os.utime(left, (1, 1))
    prepare_once(recipe(source))
    assert not left.exists()


def test_of_many_processes_one_makes_the_rows(source: Path) -> None:
    script = (
        "import sys; from tunewright.engine.data.cache import prepare_once; "
        "from tunewright.recipes.model import Recipe; kept = prepare_once(Recipe.model_validate_json(sys.argv[1])); "
        "print(kept.from_cache, len(kept.prepared.training), int(kept.prepared.training.tokens.sum()))"
    )
    asked = recipe(source).model_dump_json(exclude_none=True)
    running = [
        subprocess.Popen([sys.executable, "-c", script, asked], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    told = sorted(process.communicate()[0].split() for process in running)
    assert [words[0] for words in told] == ["False", "True", "True", "True"]
    assert len({tuple(words[1:]) for words in told}) == 1
