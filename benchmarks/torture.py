"""Kills runs at random moments, resumes them, and holds what comes out against the same run undisturbed.

`python benchmarks/torture.py [--kills 500] [--methods full,lora,qlora] [--workers 2] [--seed 1] [--out torture.json [--add]]`; `make torture`
With `--gpus 0,1 --backends unsloth,transformers` the runs train on these cards, so many kills with each backend.

A kill is SIGKILL to the trainer, to the supervisor or to both, whatever they are doing: importing, loading, stepping,
evaluating, saving. After each, no checkpoint that the run had told of may be lost and the run must be readable; at its
end every loss has to be that of the undisturbed run by `repr`, and the weights its bytes. Then each file of a checkpoint is
flipped in one bit, cut short and removed in turn: a resume has to find that before it loads anything, say so, and take the
checkpoint before.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from losses import losses

STEPS, CHECKPOINT_EVERY, EVALUATE_EVERY = 24, 2, 3
AIMS = ("any moment", "loading", "training", "evaluating", "saving")
"""Where a kill is aimed: saving takes milliseconds, and importing most of the time, which any moment would mostly hit."""
AIMED_SECONDS = 0.06
"""A kill comes within so much of the phase that it is aimed at."""
TARGETS = ("trainer", "supervisor", "both")
TOLD = (
    "method",
    "backend",
    "kills",
    "resumed_after",
    "first_other_step",
    "other_losses",
    "other_weights",
    "largest_difference",
)
"""What is told of a run that came out otherwise."""
LONGEST_SECONDS = 300.0
"""A run that has not ended or gone by then hangs."""


def main(arguments: list[str]) -> int:
    """Torture runs in several processes, print what was found, and return 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--methods", default="full,lora,qlora")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gpus", help="the numbers of the cards to train on, separated by commas")
    parser.add_argument("--backends", default="transformers", help="with --gpus: what trains, separated by commas")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after this nothing more is killed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", action="store_true", help="add what is found to the figures that --out has")
    options = parser.parse_args(arguments)
    if options.add and not options.out:
        parser.error("--add adds to the file that --out names")
    began = time.monotonic()
    methods: list[str] = options.methods.split(",")
    backends: list[str] = options.backends.split(",")
    cards: list[str | None] = options.gpus.split(",") if options.gpus else [None]
    kills = max(1, len(backends) * options.kills // options.workers)
    shares = [
        (
            methods,
            Place(cards[worker % len(cards)], backends[worker // len(cards) % len(backends)]),
            kills,
            options.seed + worker,
            options.seconds,
        )
        for worker in range(options.workers)
    ]
    with multiprocessing.get_context("spawn").Pool(options.workers + len(methods)) as pool:
        beside = pool.starmap_async(damages, [(method, shares[0][1]) for method in methods])
        found = [each for worker in pool.starmap(torture, shares) for each in worker]
        damaged = [each for method in beside.get() for each in method]
    report = {
        "kills": sum(len(each["kills"]) for each in found),
        "runs": len(found),
        "by_phase": dict(Counter(kill["phase"] for each in found for kill in each["kills"]).most_common()),
        "by_target": dict(Counter(kill["target"] for each in found for kill in each["kills"])),
        "by_backend": dict(Counter(each["backend"] for each in found for _ in each["kills"])),
        "by_method": dict(Counter(each["method"] for each in found for _ in each["kills"])),
        "lost_checkpoints": sum(kill["lost"] for each in found for kill in each["kills"]),
        "unreadable_runs": sum(each["unreadable"] for each in found),
        "other_losses": sum(each["other_losses"] for each in found),
        "other_weights": sum(each["other_weights"] for each in found),
        "runs_that_differ": [
            {name: each[name] for name in TOLD} for each in found if each["other_losses"] or each["other_weights"]
        ],
        "proofs_of_continuity": sum(each["proofs"] for each in found),
        "broken_proofs": sum(each["broken_proofs"] for each in found),
        "damaged_files": len(damaged),
        "damages_not_found": [
            f"{each['method']}: {each['file']} {each['how']}" for each in damaged if not each["found"]
        ],
        "seconds": round(time.monotonic() - began),
    }
    if options.add:
        report = add_up(json.loads(options.out.read_text(encoding="utf-8")), report)
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    bad = ("lost_checkpoints", "unreadable_runs", "other_losses", "other_weights", "broken_proofs", "damages_not_found")
    return 1 if any(report[name] for name in bad) else 0


def add_up(one: Any, other: Any) -> Any:
    """Return two reports as one: numbers are added, lists joined, tables added key by key."""
    if isinstance(one, dict):
        return {
            key: add_up(one[key], other[key]) if key in one and key in other else (one | other)[key]
            for key in one | other
        }
    return one + other


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where runs are trained, and by what."""

    gpu: str | None = None
    """The card's number; None for the processor."""
    backend: str = "transformers"


def torture(methods: list[str], place: Place, kills: int, seed: int, seconds: float) -> list[dict[str, Any]]:
    """Return what became of runs that were killed so often together, each in a home of this process's own."""
    ending = time.monotonic() + seconds
    drawn, found = random.Random(seed), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="tunewright-torture-", ignore_cleanup_errors=True) as home:
        os.environ["TUNEWRIGHT_HOME"] = home
        undisturbed: dict[str, tuple[Any, str]] = {}
        while kills > 0 and time.monotonic() < ending:
            method = methods[(seed + len(found)) % len(methods)]
            if method not in undisturbed:
                run = begin(method, place)
                wait(run, LONGEST_SECONDS)
                undisturbed[method] = (losses(run), weights(run))
            found.append(survive(method, place, drawn, kills, ending, undisturbed[method]))
            kills -= len(found[-1]["kills"])
    return found


def begin(method: str, place: Place = Place()) -> Any:
    """Start a short run with dropout and many saves."""
    from tunewright.cli.recipe_argument import change_recipe
    from tunewright.engine.machine import inspect_machine
    from tunewright.engine.planner import plan_recipe
    from tunewright.engine.runs.launch import launch
    from tunewright.engine.several import read_wish
    from tunewright.recipes.registry import open_registry

    with open_registry() as registry:
        recipe = registry.get(f"starter-{method}").recipe
    changes = [f"training.steps={STEPS}", 'data.validation={"kind": "rows", "value": 20}']
    recipe = change_recipe(recipe, changes + (["method.dropout=0.1"] if method != "full" else []))
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
    machine = inspect_machine(Path(tempfile.gettempdir()))
    wish = read_wish(f"{place.gpu},", machine) if place.gpu else None
    plan = plan_recipe(recipe, machine, backend=cast("Any", place.backend), wish=wish)
    plan = dataclasses.replace(
        plan, evaluate_every_steps=EVALUATE_EVERY, checkpoint_every_steps=CHECKPOINT_EVERY, sample_every_steps=STEPS,
        threads=1, merge=False,
    )  # fmt: skip
    return launch(recipe, plan, f"torture-{method}")


def survive(
    method: str, place: Place, drawn: random.Random, most: int, ending: float, undisturbed: tuple[Any, str]
) -> dict[str, Any]:
    """Kill one run again and again until it has finished all the same, and return what was found of it.

    It is killed at most so often, and not after `ending` on the monotonic clock.
    """
    from tunewright.engine.runs.checkpoint import newest_good
    from tunewright.engine.runs.directory import standing
    from tunewright.engine.runs.events import Continuity, read_events
    from tunewright.engine.runs.launch import resume
    from tunewright.engine.runs.supervise import read_history

    run, kills, unreadable = begin(method, place), list[dict[str, Any]](), 0
    started, offset, resumed_after = time.monotonic(), 0, list[int]()
    while True:
        if len(kills) < most and time.monotonic() < ending:
            aim = drawn.choice(AIMS)
            if aim == AIMS[0]:
                patience = drawn.uniform(0.0, 1.2) * (typical_seconds(run) or 8.0)
                wait(run, max(0.0, started + patience - time.monotonic()))
            else:
                wait_for_phase(run, aim, drawn.randint(1, 4), offset)
                time.sleep(drawn.uniform(0.0, AIMED_SECONDS))
            history = read_history(run)
            phase = history.phase.name if history.phase else "starting"
            told = max((each.step for each in history.checkpoints), default=0)
            target = drawn.choice(TARGETS)
            if not kill(run, target):
                break
            wait(run, LONGEST_SECONDS)
            good, _ = newest_good(run.checkpoints)
            kills.append({"phase": phase, "target": target, "lost": (good.step if good else 0) < told})
        else:
            wait(run, LONGEST_SECONDS)
            break
        now = standing(run)
        unreadable += now == "damaged"
        if now == "finished":
            break
        started, offset = time.monotonic(), run.events_file.stat().st_size
        resumed_after.append(resume(run))
    wait(run, LONGEST_SECONDS)
    events, _ = read_events(run.events_file, limit_bytes=2**30)
    proofs = [each for each in events if isinstance(each, Continuity)]
    row = {
        "method": method,
        "backend": place.backend,
        "kills": kills,
        "unreadable": unreadable + (standing(run) != "finished"),
        "other_losses": losses(run) != undisturbed[0],
        "other_weights": weights(run) != undisturbed[1],
        "resumed_after": resumed_after,
        "first_other_step": next(
            (one[0] for one, other in zip(losses(run), undisturbed[0], strict=False) if one != other), None
        ),
        "largest_difference": largest_difference(losses(run), undisturbed[0]),
        "proofs": len(proofs),
        "broken_proofs": sum(each.largest_difference != 0 for each in proofs),
    }
    if not any(row[name] for name in ("unreadable", "other_losses", "other_weights", "broken_proofs")):
        shutil.rmtree(run.path)
    return row


def damages(method: str, place: Place) -> list[dict[str, Any]]:
    """Return what `damage_all` finds, in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="tunewright-damage-", ignore_cleanup_errors=True) as home:
        os.environ["TUNEWRIGHT_HOME"] = home
        return damage_all(method, place)


def damage_all(method: str, place: Place = Place(), each_way: bool = True) -> list[dict[str, Any]]:
    """Return, of every file of a run's newest checkpoint and every way to damage it, whether a resume found that.

    Without `each_way` every file is damaged in one way only, which change from file to file.
    """
    from tunewright.engine.runs.checkpoint import saved_checkpoints
    from tunewright.engine.runs.supervise import read_history

    run, found = begin(method, place), list[dict[str, Any]]()
    while len(read_history(run).checkpoints) < 3:
        time.sleep(0.02)
    kill(run, "both")
    wait(run, LONGEST_SECONDS)
    newest, before, *_ = saved_checkpoints(run.checkpoints)
    files = sorted(each for each in newest.path.rglob("*") if each.is_file())
    for number, file in enumerate(files):
        content = file.read_bytes()
        for how, damage in list(DAMAGES.items()) if each_way else [list(DAMAGES.items())[number % len(DAMAGES)]]:
            damage(file)
            name = str(file.relative_to(newest.path))
            found.append({"method": method, "file": name, "how": how, "found": goes_on_from(run, before.step, file)})
            file.write_bytes(content)
    return found


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda file: os.truncate(file, file.stat().st_size - 1),
    "removed": Path.unlink,
}


def goes_on_from(run: Any, step: int, damaged: Path) -> bool:
    """Tell whether a resume says that a file is damaged, and starts a trainer from `step`; it is killed before it loads."""
    from tunewright.engine.runs.checkpoint import MANIFEST
    from tunewright.engine.runs.events import Notice, Status, read_events
    from tunewright.engine.runs.launch import resume

    offset = run.events_file.stat().st_size
    taken = resume(run)
    ending = time.monotonic() + LONGEST_SECONDS
    while not trainer_alive(run) and time.monotonic() < ending:  # a trainer that nobody knows of yet would go on
        time.sleep(0.01)
    kill(run, "both")
    wait(run, LONGEST_SECONDS)
    events, _ = read_events(run.events_file, offset)
    said = [each.message for each in events if isinstance(each, Notice) and each.title == "Checkpoint damaged"]
    named = damaged.name if damaged.name != MANIFEST else "manifest"
    started = [each.reason for each in events if isinstance(each, Status) and each.state == "running"]
    return taken == step and started == [f"from step {step}"] and len(said) == 1 and named in said[0]


def wait_for_phase(run: Any, name: str, times: int, offset: int) -> None:
    """Wait until the run has entered a phase so many times after this byte of its events, or works no more."""
    from tunewright.engine.runs.directory import is_live
    from tunewright.engine.runs.events import Phase, read_events

    while times > 0 and is_live(run):
        events, offset = read_events(run.events_file, offset)
        times -= sum(isinstance(each, Phase) and each.name == name and each.done is None for each in events)
        time.sleep(0.002)


def typical_seconds(run: Any) -> float | None:
    """Return about how long a process of this run needs to its end."""
    from tunewright.engine.runs.supervise import read_history

    history = read_history(run)
    to_first = history.measured.get("seconds_to_first_step")
    left = STEPS - history.step
    pace = [each.seconds for each in history.steps[1:]]
    return to_first + left * (sum(pace) / len(pace) + 0.05) if to_first and pace else None


def kill(run: Any, target: str) -> bool:
    """Send SIGKILL to what `target` names, and tell whether there was anything to kill."""
    from tunewright.engine.runs.directory import is_live

    processes = run.processes() if is_live(run) else None
    if processes is None:
        return False
    which = {"trainer": (processes.trainer,), "supervisor": (processes.supervisor,)}
    for each in which.get(target, (processes.supervisor, processes.trainer)):
        if each is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
    return True


def wait(run: Any, seconds: float) -> None:
    """Wait until nothing works on the run any more, but no longer than so many seconds."""
    from tunewright.engine.runs.directory import is_live

    ending = time.monotonic() + seconds
    while time.monotonic() < ending and (is_live(run) or trainer_alive(run)):
        time.sleep(0.02)


def trainer_alive(run: Any) -> bool:
    """Tell whether the trainer is still on its way out after its supervisor was killed."""
    processes = run.processes()
    return processes is not None and processes.trainer is not None and processes.trainer.alive


def largest_difference(some: list[tuple[int, str, str]], others: list[tuple[int, str, str]]) -> float:
    """Return by how much of their size losses of the same steps differ at most; infinity where steps are missing."""
    if [each[0] for each in some] != [each[0] for each in others]:
        return math.inf
    pairs = [(float(one[1]), float(other[1])) for one, other in zip(some, others, strict=True)]
    return max((abs(one - other) / abs(other) for one, other in pairs), default=0.0)


def weights(run: Any) -> str:
    """Return the hash of what was tuned, empty where nothing is."""
    files = [*run.adapter.glob("*.safetensors"), *run.model.glob("*.safetensors")]
    return hashlib.sha256(files[0].read_bytes()).hexdigest() if files else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
