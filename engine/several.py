"""Several GPUs: which of a machine's a run may take, and in which ways they can train it together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from ..foundation.units import GIB
from .batches import divisors
from .machine import GpuDevice, Machine
from .plan import Parallelism, Precision
from .search import Candidate, Surroundings, choose
from .work import Work

FREE_SHARE = 0.9
"""A GPU of whose memory others hold more than the rest is left to them, unless it is asked for."""
WORTH_A_GPU = 0.8
"""More GPUs must shorten a run to this share of its time: those that are not taken are free for something else."""
SHARED_MEMORY_GIB = 0.0625
"""What each GPU's process needs of /dev/shm: NCCL exchanges data there where GPUs do not reach each other, and containers
have 64 MiB of it by themselves."""
SHARED_MEMORY = "/dev/shm"

UNSLOTH_ALONE = "With several GPUs Unsloth was not measured, nor were its losses held against those of one; transformers is used there."
Wish = int | tuple[int, ...] | None
"""So many GPUs, or these by their numbers; None leaves it to the plan."""


def read_wish(text: str | None, machine: Machine) -> Wish:
    """Return what `--gpus` asks for: a number of GPUs, `all`, or their numbers, such as 0,1; raises TunewrightError."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    there = [gpu.index for gpu in machine.gpus]
    if words == ["all"]:
        return len(there) or 1
    if not all(word.isdecimal() and len(word) < 6 for word in words if word) or not any(words):
        raise TunewrightError(
            "Not a choice of GPUs",
            f"{one_line(text, 40)!r} is neither a number nor a list.",
            "Such as --gpus 2, all or 0,1.",
        )
    numbers = [int(word) for word in words if word]
    if len(words) == 1:
        if not 1 <= numbers[0] <= max(1, len(there)):
            raise TunewrightError(
                "Not that many GPUs",
                f"{numbers[0]} are asked for, and this machine has {len(there)}.",
                "A list, such as --gpus 0,1 or --gpus 1, with its comma, names GPUs by their numbers.",
            )
        return numbers[0]
    missing = [number for number in numbers if number not in there]
    if missing:
        raise TunewrightError(
            "No such GPU",
            f"GPU {missing[0]} is not here: there are {', '.join(map(str, there)) or 'none'}.",
            "`tunewright doctor` lists them.",
        )
    return tuple(dict.fromkeys(numbers))


def together(work: Work, around: Surroundings, machine: Machine, wish: Wish) -> Iterator[Surroundings]:
    """Yield the ways in which several GPUs like `around`'s may train `work`, without looking at memory or speed.

    Raises TunewrightError where GPUs are asked for that cannot train it together.
    """
    asked = wish if isinstance(wish, int) else len(wish or ())
    if around.gpu is None or wish == 1 or asked == 1:
        return
    alike = like(around.gpu, machine, wish)
    batch = work.recipe.training.global_batch
    why = obstacle(len(alike) if wish is None else asked)
    if why and asked > 1:
        raise TunewrightError("GPUs cannot train together", why, "Give the container more, such as --shm-size=1g.")
    if asked > len(alike):
        raise TunewrightError(
            "GPUs of different kinds",
            f"{asked} are asked for, and only {len(alike)} are {around.gpu.name}: the slowest would hold up the others.",
            "`tunewright doctor` lists them; name those of one kind, such as --gpus 0,1.",
        )
    if asked > 1 and batch % asked:
        fits = ", ".join(str(each) for each in divisors(batch) if 1 < each <= len(alike)) or "1"
        raise TunewrightError(
            "Batch cannot be shared out",
            f"training.global_batch is {batch}, which {asked} GPUs cannot share evenly.",
            f"Take a number of GPUs that divides it ({fits}), or another global batch.",
        )
    if why:
        return
    for gpus in (asked,) if asked else [each for each in divisors(batch) if 1 < each <= len(alike)]:
        taken = alike[:gpus]
        free = min(gpu.memory_free_gib for gpu in taken)
        indices = tuple(sorted(gpu.index for gpu in taken))
        held = around.free_gib - around.budget_gib  # what a plan leaves alone
        for parallelism in ways(work, around.precision):
            yield replace(
                around,
                backends=("transformers",),
                liger=around.liger and parallelism == "ddp",  # its loss reaches for weights that are not gathered
                threads=max(1, min(around.threads, machine.cores // gpus)),
                gpu_indices=indices,
                parallelism=parallelism,
                free_gib=free,
                budget_gib=free - held,
            )


def like(gpu: GpuDevice, machine: Machine, wish: Wish) -> list[GpuDevice]:
    """Return the GPUs that may train together with `gpu`, itself first: of its kind, and free unless they are asked for."""
    others = [
        each
        for each in machine.gpus
        if each is not gpu
        and each.name == gpu.name
        and (each.index in wish if isinstance(wish, tuple) else wish or is_free(each))
    ]
    return [gpu, *sorted(others, key=lambda each: (-round(each.memory_free_gib), each.index))]


def is_free(gpu: GpuDevice) -> bool:
    """Tell whether nobody else uses the GPU to speak of."""
    return gpu.memory_free_gib >= FREE_SHARE * gpu.memory_total_gib


def ways(work: Work, precision: Precision) -> tuple[Parallelism, ...]:
    """Return how GPUs may train `work` together: with a copy of the weights on each, or with them split among all.

    Split weights are not whole where DoRA measures a matrix, where a module is copied to be trained whole, and where a
    preference is learned beside a copy of the model; and torch's scaling of fp16 losses knows no parts of weights.
    """
    method, objective = work.tuning, work.recipe.training.objective
    needs_whole = method.dora or method.saved or objective not in ("sft", "cpt")
    scaled = precision == "fp16" and method.kind == "full"
    return ("ddp",) if needs_whole or scaled else ("ddp", "fsdp2")


def obstacle(gpus: int) -> str | None:
    """Return why this machine's processes could not exchange data, None where they can."""
    try:
        place = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None  # not a system that has one
    free, needed = place.f_bavail * place.f_frsize / GIB, gpus * SHARED_MEMORY_GIB
    if free >= needed:
        return None
    return (
        f"{SHARED_MEMORY} has {1024 * free:.0f} MiB free, and {gpus} GPUs exchange data over {1024 * needed:.0f} of it."
    )


def choose_together(fitting: Sequence[Candidate], asked: bool) -> Candidate:
    """Return the best plan over all numbers of GPUs: more of them only where that is worth it.

    Split weights are taken only where a copy of them does not fit, for every pass waits for them; and states that are
    paged to the host only where neither fits. `asked` tells that the number of GPUs is the user's.
    """
    unpaged = [each for each in fitting if not each.setting.optimizer.startswith("paged")] or list(fitting)
    copied = [each for each in unpaged if each.setting.parallelism != "fsdp2"] or unpaged
    best = None
    for gpus in sorted({each.setting.gpus for each in copied}):
        found = choose([each for each in copied if each.setting.gpus == gpus])
        if best is None or asked or found.training_seconds < WORTH_A_GPU * best.training_seconds:
            best = found
    assert best is not None, "nothing fits is told before"
    return best


def parallelism_reason(
    candidates: Sequence[Candidate], chosen: Candidate, budget_gib: float, asked: bool, obstacle: str | None
) -> tuple[str, str]:
    """Return what was chosen of one GPU and several, and why, with the figures of the others."""
    setting = chosen.setting
    names = {"one": "one GPU", "ddp": f"DDP on {setting.gpus} GPUs", "fsdp2": f"FSDP2 on {setting.gpus} GPUs"}
    others = [
        each
        for each in candidates
        if (each.setting.gpus, each.setting.parallelism) != (setting.gpus, setting.parallelism)
    ]
    said = list(_others(others, budget_gib))
    match setting.parallelism:
        case "one":
            because = "It was asked for." if asked else "More would not be worth it."
            if obstacle:
                because = f"{obstacle} Give the container more, such as --shm-size=1g."
            elif not others and not asked:
                because = "The recipe's global batch cannot be shared out, or the others are in use or of another kind."
        case "ddp":
            because = f"Each holds a copy of the weights and takes {chosen.micro_batch * chosen.accumulation} rows of every step, which takes {chosen.step_seconds:.3g} s."
        case "fsdp2":
            because = f"The weights are split among them, for a copy on each does not fit; a step takes {chosen.step_seconds:.3g} s and {chosen.needed_gib:.1f} GiB of each."
    return names[setting.parallelism], " ".join([because, *said])


def _others(candidates: Sequence[Candidate], budget_gib: float) -> Iterator[str]:
    """Yield what the other numbers of GPUs, and the other ways to use them, would take."""
    kinds = sorted({(each.setting.gpus, each.setting.parallelism) for each in candidates})
    for gpus, parallelism in kinds:
        alike = [each for each in candidates if (each.setting.gpus, each.setting.parallelism) == (gpus, parallelism)]
        fitting = [each for each in alike if each.needed_gib <= budget_gib]
        name = "One GPU" if gpus == 1 else f"{gpus} with {parallelism.upper()}"
        if fitting:
            best = choose(fitting)
            yield f"{name}: {best.step_seconds:.3g} s and {best.needed_gib:.1f} GiB."
        else:
            least = min(each.needed_gib for each in alike)
            yield f"{name}: {least:.1f} GiB needed, {budget_gib:.1f} may be used."
