"""The memory ladder: what a run that ran out of memory goes on with, rung by rung; the global batch never changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...foundation.files import write_atomically
from ..plan import Plan
from .directory import RunDirectory
from .events import PhaseName

Relief = Literal["activations", "optimizer"]
BEFORE_TRAINING: tuple[PhaseName, ...] = (
    "starting",
    "downloading",
    "tokenising",
    "importing",
    "loading",
    "quantising",
    "judging before",
)
"""Phases that hold the weights alone, or less: no rung takes anything from those."""
WITHOUT_ACTIVATIONS: tuple[PhaseName, ...] = ("evaluating", "saving")
"""Phases that keep no activations, and that have halved their own batches as far as they go."""
AFTER_TRAINING: tuple[PhaseName, ...] = ("judging after", "exporting")


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to run a plan in less memory than the way above it."""

    plan: Plan
    change: str
    """What is different from the rung above, in words; empty for the plan as it was made."""
    cost: str = ""
    """What that costs, in words."""
    relieves: Relief = "activations"
    """What takes less memory than on the rung above."""


def ladder(plan: Plan) -> tuple[Rung, ...]:
    """Return the plan as it was made, and below it what takes ever less memory and computes the same.

    First the micro-batch is halved and the accumulation doubled, down to one row; then layers are recomputed in the
    backward pass, and on a GPU what they keep is moved to the host; then the optimizer's states may be paged there.
    """
    rungs = [Rung(plan, "")]

    def add(change: str, cost: str, relieves: Relief = "activations", **values: object) -> None:
        changed = replace(rungs[-1].plan, **values)  # pyright: ignore[reportArgumentType]
        rungs.append(Rung(changed, change, cost, relieves))

    while (above := rungs[-1].plan).micro_batch > 1:
        rows = above.micro_batch * above.accumulation
        micro_batch = next(size for size in range(above.micro_batch // 2, 0, -1) if rows % size == 0)
        add(
            f"micro-batches of {micro_batch} {'row' if micro_batch == 1 else 'rows'} and "
            f"{rows // micro_batch} accumulation steps",
            "Steps take a little longer",
            micro_batch=micro_batch,
            accumulation=rows // micro_batch,
        )
    moves_to_host = plan.device == "cuda" and plan.parallelism != "fsdp2"
    if plan.gradient_checkpointing == "off" or plan.recompute_every > 1:
        add(
            "every layer recomputed in the backward pass",
            "Steps take about a third longer",
            gradient_checkpointing="on" if plan.gradient_checkpointing == "off" else plan.gradient_checkpointing,
            recompute_every=1,
        )
    if plan.gradient_checkpointing != "offloaded" and moves_to_host:
        add(
            "what the layers keep for the backward pass moved to the host's memory",
            "Steps take longer, by what the bus to the host allows",
            gradient_checkpointing="offloaded",
        )
    if plan.optimizer_placement == "device" and moves_to_host:
        add(
            "the optimizer's states paged to the host",
            "Steps take longer while memory is short",
            relieves="optimizer",
            optimizer_placement="paged",
        )
    return tuple(rungs)


def next_rung(rungs: Sequence[Rung], rung: int, phase: PhaseName, killed: bool = False) -> int | None:
    """Return the rung to go on with after memory ran out in `phase` on `rung`, None when none of them would help.

    A trainer that was `killed` had no chance to halve its own batches first.
    """
    if phase in BEFORE_TRAINING or phase in AFTER_TRAINING:
        return None
    for number in range(rung + 1, len(rungs)):
        if killed or phase not in WITHOUT_ACTIVATIONS or rungs[number].relieves == "optimizer":
            return number
    return None


def remember_rung(run: RunDirectory, rung: int) -> None:
    """Keep the rung that `run` stands on, so that a resume does not fail on the ones above again; raises TunewrightError."""
    write_atomically(run.rung_file, json.dumps({"rung": rung}))


def remembered_rung(run: RunDirectory, rungs: Sequence[Rung]) -> int:
    """Return the rung on which `run` stood last; the top one when nothing is kept, or nothing that can be read."""
    try:
        rung = int(json.loads(run.rung_file.read_text(encoding="utf-8"))["rung"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return min(max(0, rung), len(rungs) - 1)
