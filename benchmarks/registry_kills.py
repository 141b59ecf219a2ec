"""Kill the registry's writers at random moments, and see that nothing they acknowledged is lost.

`python benchmarks/registry_kills.py [--kills 1000] [--writers 3] [--out FILE]`

Each round some child processes write at once (recipes, evidence, aliases, runs), each naming on a pipe what has been
committed. All get SIGKILL in the middle of it. Then the file is checked: SQLite's integrity and foreign keys, the full-text
index, the counts that triggers keep, and every write that was acknowledged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tunewright.recipes.registry import Evidence, IndexedRun, open_registry

KILLS, WRITERS = 1000, 3
LONGEST_LIFE_SECONDS = 0.6
"""Writers are killed at a random moment within this time of their first acknowledgement."""


def write_for_ever(path: Path, said: int, name: str) -> None:
    """Write one thing after another, and name each on the pipe `said` once it is committed."""
    with open_registry(path) as registry:
        base = registry.get("starter-lora")
        number = 0
        while True:
            key = f"{name}-{number}"
            match number % 4:
                case 0:
                    text = base.toml.replace("rank = 16", f"rank = {1 + number % 1000}").replace(
                        "seed = 42", f"seed = {number}"
                    )
                    registry.add(text, f"w-{name}-{number % 40}", origin="fork", parents=[base.hash], note=key)
                case 1:
                    registry.record_evidence(
                        Evidence(revision=base.hash, kind="local", status="finished", hardware="cpu", run=key)
                    )
                case 2:
                    registry.index_run(
                        IndexedRun(
                            id=key,
                            folder="/",
                            recipe=base.hash,
                            title="t",
                            method="lora",
                            model="m",
                            state="finished",
                            created=1.0,
                        )
                    )
                case _:
                    registry.set_alias(f"alias-{name}", "starter-lora")
            os.write(said, f"{number % 4} {key}\n".encode())
            number += 1


def start_writer(path: Path, name: str) -> tuple[int, int]:
    """Start a process that writes, forked before any connection is open; returns its id and what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            write_for_ever(path, writing, name)
        finally:
            os._exit(1)
    os.close(writing)
    return child, reading


def kill_round(path: Path, number: int, writers: int, chosen: random.Random) -> tuple[list[str], int]:
    """Let writers write, kill them, and return what they acknowledged and how many died by the kill."""
    children = [start_writer(path, f"{number}x{writer}") for writer in range(writers)]
    select.select([reading for _, reading in children], [], [])  # one has written; others may still be opening the file
    time.sleep(chosen.uniform(0, LONGEST_LIFE_SECONDS))
    order = list(children)
    chosen.shuffle(order)
    killed = 0
    for child, _ in order:
        os.kill(child, signal.SIGKILL)
    for child, _ in order:
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    acknowledged: list[str] = []
    for _, reading in children:
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read()
        acknowledged += text.decode().split("\n")[:-1]  # a line that was cut short acknowledges nothing
    return acknowledged, killed


def faults_of(path: Path) -> list[str]:
    """Return what is wrong with the file; the first process that opens it after a kill rolls back what was half done."""
    with open_registry(path), contextlib.closing(sqlite3.connect(path)) as connection:
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        faults += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        try:
            connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        except sqlite3.DatabaseError as error:
            faults.append(f"full-text index: {error}")
        counted = connection.execute(
            "SELECT count(*) FROM tallies AS t WHERE t.finished <> (SELECT count(*) FROM evidence AS e WHERE"
            " e.revision = t.revision AND e.kind = 'local' AND e.status = 'finished' AND e.metric IS NULL)"
        ).fetchone()[0]
        shelved = connection.execute(
            "SELECT count(*) FROM recipes AS r LEFT JOIN shelf AS s ON s.recipe = r.id"
            " WHERE (r.withdrawn IS NULL AND s.edition IS NOT r.edition) OR (r.withdrawn IS NOT NULL AND s.recipe IS NOT NULL)"
        ).fetchone()[0]
        return (
            faults
            + ([f"{counted} wrong tallies"] if counted else [])
            + ([f"{shelved} wrong shelves"] if shelved else [])
        )


def lost_of(path: Path, acknowledged: list[str]) -> list[str]:
    """Return what was acknowledged and is not in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        kept = {
            "0": {row[0] for row in connection.execute("SELECT note FROM editions")},
            "1": {row[0] for row in connection.execute("SELECT run FROM evidence")},
            "2": {row[0] for row in connection.execute("SELECT id FROM runs")},
            "3": {row[0].removeprefix("alias-") for row in connection.execute("SELECT name FROM aliases")},
        }
    lost: list[str] = []
    for line in acknowledged:
        kind, _, key = line.partition(" ")
        if (key.rpartition("-")[0] if kind == "3" else key) not in kept[kind]:
            lost.append(line)
    return lost


def torture(folder: Path, kills: int, writers: int, seed: int = 7) -> dict[str, Any]:
    """Kill writers until `kills` have died, and return what was found."""
    chosen = random.Random(seed)
    path = folder / "registry.db"
    open_registry(path).close()
    began, done, rounds = time.monotonic(), 0, 0
    acknowledged: list[str] = []
    faults: list[str] = []
    journals = 0
    while done < kills:
        said, killed = kill_round(path, rounds, writers, chosen)
        acknowledged += said
        done, rounds = done + killed, rounds + 1
        journals += path.with_name(path.name + "-journal").exists()
        faults += faults_of(path)
        if sys.stderr.isatty():
            print(f"\r{done} kills, {len(acknowledged):,} writes", end="", file=sys.stderr)
    lost = lost_of(path, acknowledged)
    return {
        "kills": done,
        "writers_at_once": writers,
        "acknowledged_writes": len(acknowledged),
        "lost_writes": len(lost),
        "integrity_faults": len(faults),
        "rounds_that_left_a_hot_journal": journals,
        "sqlite": sqlite3.sqlite_version,
        "seconds": round(time.monotonic() - began, 1),
        "faults": (faults + lost)[:10],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--writers", type=int, default=WRITERS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = torture(Path(folder), arguments.kills, arguments.writers)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 1 if result["lost_writes"] or result["integrity_faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
