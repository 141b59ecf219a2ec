"""A checkpoint is used only when every byte of it is right."""

import os
import shutil
from pathlib import Path

import pytest
from tunewright.engine.runs.checkpoint import (
    MANIFEST,
    commit_checkpoint,
    newest_good,
    prune,
    saved_checkpoints,
    sweep,
    verify,
)


def save(folder: Path, step: int) -> None:
    writing = folder / ".writing-1" / f"checkpoint-{step}"
    (writing / "inner").mkdir(parents=True)
    (writing / "weights.safetensors").write_bytes(os.urandom(1000) + bytes([step]))
    (writing / "inner" / "state.json").write_text(f'{{"step": {step}}}')
    commit_checkpoint(writing, folder, step)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (10, 20):
        save(tmp_path, step)
    return tmp_path


def test_the_newest_whole_checkpoint_is_found(folder: Path) -> None:
    checkpoint, faults = newest_good(folder)
    assert checkpoint is not None
    assert (checkpoint.step, faults) == (20, [])
    assert checkpoint.size_bytes > 1000


@pytest.mark.parametrize("name", ["weights.safetensors", "inner/state.json", MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "cut", "removed"])
def test_any_damage_is_found_and_the_one_before_is_used(folder: Path, name: str, damage: str) -> None:
    file = folder / "step-000020" / name
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0x40
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    checkpoint, faults = newest_good(folder)
    assert checkpoint is not None
    assert checkpoint.step == 10
    assert len(faults) == 1 and "step-000020" in faults[0]


def test_pruning_keeps_two_and_the_branch_left_behind_goes(folder: Path) -> None:
    save(folder, 30)
    newest = saved_checkpoints(folder)[0]
    prune(folder, newest)
    assert [each.step for each in saved_checkpoints(folder)] == [30, 20]
    prune(folder, saved_checkpoints(folder)[1])  # went back to 20
    assert [each.step for each in saved_checkpoints(folder)] == [20]


def test_the_best_checkpoint_stays_however_old_it_is(folder: Path) -> None:
    for step in (30, 40):
        save(folder, step)
        prune(folder, saved_checkpoints(folder)[0], best_step=10)
    assert [each.step for each in saved_checkpoints(folder)] == [40, 30, 10]
    save(folder, 50)
    prune(folder, saved_checkpoints(folder)[0], best_step=50)
    assert [each.step for each in saved_checkpoints(folder)] == [50, 40]
    prune(folder, saved_checkpoints(folder)[1], best_step=50)  # a best one of a branch that was left is none
    assert [each.step for each in saved_checkpoints(folder)] == [40]


def test_nothing_is_pruned_for_a_checkpoint_that_is_not_whole(folder: Path) -> None:
    save(folder, 30)
    newest = saved_checkpoints(folder)[0]
    (newest.path / "weights.safetensors").write_bytes(b"")
    prune(folder, newest)
    assert [each.step for each in saved_checkpoints(folder)] == [30, 20, 10]


def test_leftovers_are_swept_and_names_that_are_no_checkpoint_passed_over(folder: Path) -> None:
    (folder / ".writing-99").mkdir()
    (folder / "step-evil").mkdir()
    (folder / "notes.txt").touch()
    sweep(folder)
    assert not (folder / ".writing-99").exists()
    assert [each.step for each in saved_checkpoints(folder)] == [20, 10]


def test_saving_the_same_step_again_replaces_it(folder: Path) -> None:
    before = (folder / "step-000020" / "weights.safetensors").read_bytes()
    save(folder, 20)
    checkpoint = saved_checkpoints(folder)[0]
    assert verify(checkpoint) is None
    assert (checkpoint.path / "weights.safetensors").read_bytes() != before


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest_good(tmp_path) == (None, [])
    shutil.rmtree(tmp_path)
    assert newest_good(tmp_path) == (None, [])
