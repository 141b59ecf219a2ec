"""Checkpoints: written aside, hashed into a manifest, flushed, renamed into place; read only when every byte is right."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...foundation.errors import TunewrightError
from ...foundation.files import sync_folder
from ...foundation.units import size

MANIFEST = "MANIFEST.json"
KEPT = 2
"""How many checkpoints are kept; an older one goes only after the newer one is verified."""
MARGIN_BYTES = 2**20
"""What has to be free beyond a checkpoint's own bytes: its manifest, the folders, and the events meanwhile."""


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint in its place."""

    path: Path
    step: int

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def checkpoint_name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint's folder is called after."""
    return int(checkpoint.name.removeprefix("step-"))


def commit_checkpoint(written: Path, folder: Path, step: int) -> SavedCheckpoint:
    """Move the files in `written`, on the same file system, into place as the checkpoint of `step`.

    Raises OSError when the disk is full; then nothing is in place and older checkpoints are as they were.
    """
    entries = {
        str(file.relative_to(written)): {"size": file.stat().st_size, "sha256": _hash(file, flush=True)}
        for file in sorted(written.rglob("*"))
        if file.is_file()
    }
    manifest = written / MANIFEST
    with manifest.open("w", encoding="utf-8") as file:
        json.dump({"step": step, "files": entries}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for inner in [written, *(path for path in written.rglob("*") if path.is_dir())]:
        sync_folder(inner)
    place = folder / checkpoint_name(step)
    if place.exists():  # a resumed run takes the same step again
        shutil.rmtree(place)
    written.rename(place)
    sync_folder(folder)
    return SavedCheckpoint(place, step)


def require_space(folder: Path, step: int, needed_bytes: int) -> None:
    """Raise TunewrightError when the disk of `folder` has not the space that the checkpoint of `step` takes.

    What is asked for is known before the first byte is written, and what was saved before stays as it is.
    """
    free = shutil.disk_usage(folder).free
    if free >= needed_bytes + MARGIN_BYTES:
        return
    kept = saved_checkpoints(folder)
    intact = f"The checkpoint of step {kept[0].step:,} is intact" if kept else "None was saved before"
    raise TunewrightError(
        "The disk is full",
        f"The checkpoint of step {step:,} takes {size(needed_bytes)}, and {size(free)} are free on the disk of {folder}. {intact}.",
        f"Free {size(needed_bytes + MARGIN_BYTES - free)} or more (`tunewright runs` lists what each run takes), then resume the run.",
    )


def verify(checkpoint: SavedCheckpoint) -> str | None:
    """Return what is wrong with a checkpoint, None when every file is there with its size and hash."""
    try:
        manifest = json.loads((checkpoint.path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["step"] != checkpoint.step:
            return f"its manifest is that of step {manifest['step']}"
        for name, entry in manifest["files"].items():
            file = checkpoint.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["size"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['size']}"
            if _hash(file) != entry["sha256"]:
                return f"{name} was changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is missing or cannot be read"
    return None


def saved_checkpoints(folder: Path) -> list[SavedCheckpoint]:
    """Return the checkpoints in `folder`, newest first, unverified."""

    def found() -> Iterator[SavedCheckpoint]:
        for path in folder.glob("step-*"):
            if path.is_dir() and path.name.removeprefix("step-").isdecimal():
                yield SavedCheckpoint(path, step_of(path))

    return sorted(found(), key=lambda checkpoint: checkpoint.step, reverse=True)


def newest_good(folder: Path) -> tuple[SavedCheckpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and what was wrong with the newer ones."""
    faults: list[str] = []
    for checkpoint in saved_checkpoints(folder):
        fault = verify(checkpoint)
        if fault is None:
            return checkpoint, faults
        faults.append(f"{checkpoint.path.name}: {fault}")
    return None, faults


def prune(folder: Path, newest: SavedCheckpoint, best_step: int | None = None) -> None:
    """Keep the newest checkpoints and the best one, and remove the others, once the newest is found to be whole.

    Checkpoints of later steps belong to a branch that this run went back behind; they go too, lest a resume take them.
    """
    if verify(newest) is None:
        kept = [each for each in saved_checkpoints(folder) if each.step <= newest.step][:KEPT]
        for old in saved_checkpoints(folder):
            if old not in kept and (old.step != best_step or old.step > newest.step):
                shutil.rmtree(old.path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what an interrupted save left behind."""
    for leftover in folder.glob(".writing*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _hash(path: Path, flush: bool = False) -> str:
    digest = hashlib.sha256()
    with path.open("rb+" if flush else "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
        if flush:
            os.fsync(file.fileno())
    return digest.hexdigest()
