"""Fills disks at every point of what a run writes, and holds what is left against what was there.

`python benchmarks/full_disk.py [--runs 40] [--out full_disk.json]`; `make torture`

Needs Linux and leave to mount a tmpfs in a namespace of its own (`unshare -rm`). First each writer writes onto a disk with 0, 1, 2 …
free pages, until it succeeds: it has to fail with a reason, and what was there has to be there still. Then whole runs are
started on disks of sizes spread over what a run takes: each has to be refused, to stop with a clear word, or to finish; given
space it goes on, and its losses and weights are those of a run that met no full disk.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from losses import losses

PAGE = os.sysconf("SC_PAGE_SIZE")
WRITERS_DISK_MIB = 4
MOST_PAGES = 512
"""A writer that has not succeeded with so many free pages does not succeed at all."""
ROOMY_MIB = 400
SPREAD = 1.2
"""The largest disk for a run beside what the run leaves on one: while it saves, it takes more."""
STEPS = 8


def main(arguments: list[str]) -> int:
    """Fill disks, print what was found, and return 0 when nothing was torn and every stop was clear."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="how many sizes of disk whole runs are started on")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.inside:
        return subprocess.call(["unshare", "-rm", sys.executable, __file__, "--inside", *arguments])
    began = time.monotonic()
    writers = try_writers()
    runs = try_runs(options.runs)
    report = {
        "writers": writers,
        "full_disks_while_writing": sum(each["failures"] for each in writers.values()),
        "runs": len(runs),
        "runs_by_end": dict(Counter(each["end"] for each in runs).most_common()),
        "torn": sum(each["torn"] for each in writers.values()) + sum(bool(each["torn"]) for each in runs),
        "unclear_stops": sum(each["unclear"] for each in writers.values()) + sum(each["unclear"] for each in runs),
        "other_results": sum(each["other_result"] for each in runs),
        "faults": [each for each in runs if each["torn"] or each["unclear"] or each["other_result"]],
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if report["torn"] or report["unclear_stops"] or report["other_results"] else 0


@contextlib.contextmanager
def disk(mebibytes: int) -> Generator[Path]:
    """Yield the folder of a file system of this size."""
    folder = Path(tempfile.mkdtemp(prefix="tunewright-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def leave_free(folder: Path, pages: int) -> None:
    """Fill the disk of `folder` up to so many pages."""
    free = shutil.disk_usage(folder).free - pages * PAGE
    with (folder / "filler").open("ab") as filler:
        filler.write(b"\1" * max(0, free))


def try_writers() -> dict[str, dict[str, int]]:
    """Return, of each writer, how often the disk was full, and how often that tore something or was not told."""
    found: dict[str, dict[str, int]] = {}
    for name, writer in WRITERS.items():
        found[name] = {"failures": 0, "torn": 0, "unclear": 0}
        for pages in range(MOST_PAGES):
            with disk(WRITERS_DISK_MIB) as folder:
                write, whole = writer(folder)
                leave_free(folder, pages)
                error = failure_of(write)
                (folder / "filler").unlink()
                found[name]["torn"] += not whole(error is None)
                if error is None:
                    break
                found[name]["failures"] += 1
                found[name]["unclear"] += not is_clear(error)
        else:
            found[name]["unclear"] += 1
    return found


def failure_of(write: Callable[[], Any]) -> Exception | None:
    """Return what `write` raised, None when it was done."""
    try:
        write()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
        return error
    return None


def is_clear(error: Exception) -> bool:
    """Tell whether an error says that the disk is full."""
    from tunewright.foundation.errors import TunewrightError

    if isinstance(error, TunewrightError):
        return error.title == "The disk is full"
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


Writer = Callable[[Path], tuple[Callable[[], Any], Callable[[bool], bool]]]
"""Prepares a disk, and returns what writes onto it and what tells, given whether that was done, if all is as it should be."""


def checkpoint_writer(folder: Path) -> tuple[Callable[[], Any], Callable[[bool], bool]]:
    """A second checkpoint beside a first one."""
    from tunewright.engine.runs.checkpoint import commit_checkpoint, newest_good, sweep

    def write(step: int) -> None:
        aside = folder / ".writing-1" / f"checkpoint-{step}"
        (aside / "rank").mkdir(parents=True)
        for name, size in (("adapter.safetensors", 40_000), ("optimizer.pt", 30_000), ("rank/rng_state.pth", 9_000)):
            (aside / name).write_bytes(bytes([step]) * size)
        commit_checkpoint(aside, folder, step)

    def whole(done: bool) -> bool:
        sweep(folder)
        good, faults = newest_good(folder)
        return good is not None and good.step == (2 if done else 1) and not faults and not list(folder.glob(".*"))

    write(1)
    return lambda: write(2), whole


def events_writer(folder: Path) -> tuple[Callable[[], Any], Callable[[bool], bool]]:
    """Twenty events, and one more by another process once there is space again."""
    from tunewright.engine.runs.events import EventLog, Notice, read_events

    file, told = folder / "events.jsonl", list[str]()
    log = EventLog(file)

    def write() -> None:
        for number in range(20):
            log.append(Notice(level="info", title=f"{number}", message="m" * 700))
            told.append(f"{number}")

    def whole(done: bool) -> bool:
        other = EventLog(file)
        other.append(Notice(level="info", title="after", message=""))
        log.append(Notice(level="info", title="last", message=""))
        read = [each.title for each in read_events(file)[0] if isinstance(each, Notice)]
        return read == [*told, "after", "last"]

    return write, whole


def file_writer(folder: Path) -> tuple[Callable[[], Any], Callable[[bool], bool]]:
    """A file in the place of another."""
    from tunewright.foundation.files import write_atomically

    place, old, new = folder / "result.json", "o" * 30_000, "n" * 60_000
    place.write_text(old)
    return lambda: write_atomically(
        place, new
    ), lambda done: place.read_text() == (new if done else old) and not list(folder.glob(".*"))


def folder_writer(folder: Path) -> tuple[Callable[[], Any], Callable[[bool], bool]]:
    """A tuned model in the place of another."""
    from tunewright.foundation.files import replaced_whole

    place = folder / "model"

    def write(mark: bytes) -> None:
        with replaced_whole(place) as aside:
            (aside / "model.safetensors").write_bytes(mark * 50_000)
            (aside / "config.json").write_bytes(mark * 5_000)

    def whole(done: bool) -> bool:
        marks = {file.read_bytes()[:1] for file in place.iterdir()}
        return marks == {b"n" if done else b"o"} and len(list(place.iterdir())) == 2 and not list(folder.glob(".*"))

    write(b"o")
    return lambda: write(b"n"), whole


def run_writer(folder: Path) -> tuple[Callable[[], Any], Callable[[bool], bool]]:
    """The directory of a new run."""
    from tunewright.engine.runs.directory import create_run, list_runs, standing

    recipe, plan = starter()

    def whole(done: bool) -> bool:
        runs = list_runs(folder)
        left = [each for each in folder.glob(".*") if each.name != ".locks"]
        return [standing(run) for run in runs] == (["starting"] if done else []) and not left

    return lambda: create_run(recipe, plan, "full", folder), whole


def registry_writer(folder: Path) -> tuple[Callable[[], Any], Callable[[bool], bool]]:
    """A recipe into the registry."""
    from tunewright.recipes.registry import open_registry

    place = folder / "registry.db"
    recipe, _ = starter()
    with open_registry(place):
        pass

    def write() -> None:
        with open_registry(place) as registry:
            registry.add(recipe.to_toml(), "kept")

    def whole(done: bool) -> bool:
        import sqlite3

        with contextlib.closing(sqlite3.connect(place)) as connection:
            sound = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        with open_registry(place) as registry:
            return sound and ("kept" in {each.name for each in registry.list()}) == done

    return write, whole


WRITERS: dict[str, Writer] = {
    "checkpoint": checkpoint_writer,
    "events": events_writer,
    "file": file_writer,
    "model": folder_writer,
    "run": run_writer,
    "registry": registry_writer,
}


def starter() -> tuple[Any, Any]:
    """Return a short recipe for the built-in model, and its plan on a roomy disk."""
    from tunewright.cli.recipe_argument import change_recipe
    from tunewright.engine.machine import inspect_machine
    from tunewright.engine.planner import plan_recipe
    from tunewright.recipes.registry import open_registry

    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    recipe = change_recipe(recipe, [f"training.steps={STEPS}"])
    return recipe, plan_recipe(recipe, inspect_machine(Path(tempfile.gettempdir())))


def try_runs(count: int) -> list[dict[str, Any]]:
    """Return what became of runs on so many disks, whose sizes are spread over what a run takes."""
    if not count:
        return []
    with disk(ROOMY_MIB) as folder:
        begun = start_run(folder)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        (run,) = runs_in(folder)
        undisturbed = outcome_of(run)
        taken = shutil.disk_usage(folder).used / 2**20
    return [try_run(max(1, round(SPREAD * taken * (number + 1) / count)), undisturbed) for number in range(count)]


def try_run(mebibytes: int, undisturbed: Any) -> dict[str, Any]:
    """Return what became of a run on a disk of this size, and of the same run once the disk has grown."""
    from tunewright.engine.runs.checkpoint import newest_good
    from tunewright.engine.runs.directory import standing
    from tunewright.engine.runs.supervise import read_history

    with disk(mebibytes) as folder:
        ended = start_run(folder)
        said = ended.stdout + ended.stderr
        row = {
            "mebibytes": mebibytes,
            "end": "refused",
            "torn": "",
            "unclear": 0,
            "other_result": 0,
            "said": said[-500:],
        }
        row["unclear"] = int("Traceback" in said)
        runs = runs_in(folder)
        grow = ["mount", "-o", f"remount,size={ROOMY_MIB}m", str(folder)]
        if not runs:
            row["unclear"] |= "disk is full" not in said.lower() or ended.returncode != 2
            return row
        run = runs[0]
        row["end"] = standing(run)
        told = max((each.step for each in read_history(run).checkpoints), default=0)
        good, faults = newest_good(run.checkpoints)
        if (good.step if good else 0) < told or faults:
            row["torn"] = f"checkpoint {told} was told of, {good} is there: {faults}"
        if row["end"] == "failed":
            row["unclear"] |= (run.result() or {})["error"]["title"] != "The disk is full"
        elif row["end"] != "finished":
            row["unclear"] = 1
        subprocess.run(grow, check=True)
        if row["end"] != "finished":
            resumed = command(folder, "resume", run.id, "--follow")
            row["said"] = (resumed.stdout + resumed.stderr)[-500:]
        row["other_result"] = int(outcome_of(run) != undisturbed)
        return row


def start_run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Train the built-in model with many saves, and wait until that has ended."""
    changes = [f"training.steps={STEPS}", "evaluation.rows=1", 'data.validation={"kind": "rows", "value": 20}']
    return command(folder, "train", "starter-lora", "--follow", *(word for each in changes for word in ("--set", each)))


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of tunewright whose home is in `folder`."""
    environment = {**os.environ, "TUNEWRIGHT_HOME": str(folder / "home")}
    line = [sys.executable, "-m", "tunewright", *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600, check=False)


def runs_in(folder: Path) -> list[Any]:
    """Return the runs of the home in `folder`."""
    from tunewright.engine.runs.directory import list_runs

    return list_runs(folder / "home" / "runs")


def outcome_of(run: Any) -> tuple[list[tuple[int, str, str]], list[str]]:
    """Return what every step lost, and the hashes of the tuned weights."""
    return losses(run), [hashlib.sha256(each.read_bytes()).hexdigest() for each in run.adapter.glob("*.safetensors")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
