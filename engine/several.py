"""Several GPUs: what a run would take on all of a machine's, with the weights copied or split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import memory, speed
from .batches import divisors
from .plan import Parallelism
from .search import Candidate, Surroundings
from .setting import Setting
from .work import Work


@dataclass(frozen=True, slots=True)
class Share:
    """A plan on several GPUs, with its figures for each of them."""

    gpus: int
    parallelism: Parallelism
    micro_batch: int
    setting: Setting
    needed_gib: float
    step_seconds: float


def several_gpus(work: Work, around: Surroundings, chosen: Candidate, gpus: int) -> str:
    """Return in a sentence what `gpus` GPUs would bring; this version trains on one."""
    shares = [each for each in share_out(work, around, chosen, gpus) if each.needed_gib <= around.budget_gib]
    if not shares:
        return f"One of {gpus} GPUs is used; the recipe's global batch cannot be shared out among them."
    best = min(shares, key=lambda each: each.step_seconds)
    how = "a copy of the weights on each (DDP)" if best.parallelism == "ddp" else "the weights split among them (FSDP2)"
    return (
        f"One of {gpus} GPUs is used. With {how}, a step would take {best.step_seconds:.3g} s instead of "
        f"{chosen.step_seconds:.3g} s and {best.needed_gib:.1f} GiB of each; this version trains on one GPU."
    )


def share_out(work: Work, around: Surroundings, chosen: Candidate, gpus: int) -> Iterator[Share]:
    """Yield the plans on `gpus` GPUs that keep the global batch: DDP with the chosen backend, FSDP2 with transformers."""
    batch = work.recipe.training.global_batch
    if batch % gpus:
        return
    for parallelism in ("ddp", "fsdp2"):
        for micro_batch in divisors(batch // gpus):
            setting = replace(
                chosen.setting,
                gpus=gpus,
                parallelism=parallelism,
                rows=micro_batch,
                tokens_per_row=work.drawn.longest,
                documents=0,
                accumulation=batch // gpus // micro_batch,
                backend=chosen.setting.backend if parallelism == "ddp" else "transformers",
                checkpointing="on" if parallelism == "fsdp2" else chosen.setting.checkpointing,
            )
            length = work.drawn.padded_length(micro_batch)
            load = speed.Load(length * micro_batch, length)
            terms = memory.predict_memory(work.anatomy, work.tuning, setting)
            needed = memory.needed_gib(terms, setting)
            seconds = speed.step_seconds(work.anatomy, work.tuning, setting, load, setting.accumulation, around.device)
            yield Share(gpus, parallelism, micro_batch, setting, needed, seconds)
