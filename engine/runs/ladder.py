"""The memory ladder: what a run that ran out of memory goes on with, rung by rung; the global batch never changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..plan import Plan


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to run a plan in less memory than the way above it."""

    plan: Plan
    change: str
    """What is different from the rung above, in words; empty for the plan as it was made."""


def ladder(plan: Plan) -> tuple[Rung, ...]:
    """Return the plan as it was made, and below it what takes ever less memory and computes the same.

    First the micro-batch is halved and the accumulation doubled, down to one row; then layers are recomputed in the
    backward pass; then the optimizer's states may be paged to the host.
    """
    rungs = [Rung(plan, "")]

    def add(change: str, **values: object) -> None:
        rungs.append(Rung(replace(rungs[-1].plan, **values), change))  # pyright: ignore[reportArgumentType]

    while (above := rungs[-1].plan).micro_batch > 1:
        rows = above.micro_batch * above.accumulation
        micro_batch = next(size for size in range(above.micro_batch // 2, 0, -1) if rows % size == 0)
        add(
            f"micro-batches of {micro_batch} rows and {rows // micro_batch} accumulation steps",
            micro_batch=micro_batch,
            accumulation=rows // micro_batch,
        )
    if rungs[-1].plan.gradient_checkpointing == "off" or rungs[-1].plan.recompute_every > 1:
        add("every layer recomputed in the backward pass", gradient_checkpointing="on", recompute_every=1)
    if rungs[-1].plan.device == "cuda" and rungs[-1].plan.optimizer_placement == "device":
        add("the optimizer's states paged to the host", optimizer_placement="paged")
    return tuple(rungs)
