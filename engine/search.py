"""The search: every plan that keeps a recipe's meaning, with its memory and time on one machine."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from ..foundation.errors import TunewrightError
from . import memory, speed
from .activations import UNSLOTH_PADS
from .batches import Lengths, divisors
from .calibration import Calibration, ThreadRates, default_calibration
from .cards import Card, find_card
from .flop import Load
from .machine import GpuDevice, Machine
from .measuring import CardRates, read_card_rates
from .plan import Backend, Batching, Checkpointing, Precision
from .setting import Setting
from .work import Work

GPU_MARGIN = 0.03
"""The share of a card's free memory that a plan leaves alone, beside what `memory.needed_gib` adds for its error."""
PROCESSOR_MARGIN = 0.15
"""The share of the machine's free memory that a plan leaves alone: what else runs here needs some too."""
NEARLY_AS_FAST = 1.02
"""Among plans within 2 % of the fastest, which is less than is known, the smallest is taken."""
PROBED_ROWS = 8
WORTH_THREADS = 1.5
"""More processor threads must be half as fast again: in a whole trainer they wait for each other more than in a
measurement of one layer."""
ONE_THREAD_PARAMETERS = 50_000_000
"""A smaller model is trained with one thread: for the starter two took 20 to 50 % longer with adapters and gained 8 %
without, though a layer alone was faster with them. It also keeps the digits of a run the same, however the machine was
measured."""
RECOMPUTED = (1, 2, 4)
"""Recomputing may be asked of every layer, every second or every fourth."""
DEVIATIONS = 4.0
"""A micro-batch without padding is given room for this many standard deviations beyond the mean."""
LIGER_FAMILIES = frozenset(
    {
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi3",
        "granite",
        "olmo2",
        "smollm3",
        "glm4",
    }
)
"""Families that Liger's kernels know (liger_kernel/transformers/monkey_patch.py)."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is fixed before the search starts."""

    gpu: GpuDevice | None
    backends: tuple[Backend, ...]
    """Those that are installed and may be taken."""
    liger: bool
    """Whether Liger's kernels are installed."""
    precision: Precision
    threads: int
    device: Card | ThreadRates
    calibration: Calibration
    free_gib: float
    budget_gib: float
    workspace_mib: int = 32
    card_rates: CardRates | None = None
    """What was measured on this very card, where `device` has it from."""

    @property
    def kind(self) -> Literal["cuda", "cpu"]:
        return "cpu" if self.gpu is None else "cuda"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan of the search, with its figures."""

    micro_batch: int
    accumulation: int
    batching: Batching
    setting: Setting
    load: Load
    terms: dict[str, float]
    needed_gib: float
    step_seconds: float
    training_seconds: float
    """All steps, and what differs between backends before the first: imports, loading, compiling."""

    @property
    def summary(self) -> str:
        """The plan in a few words."""
        setting = self.setting
        words = [f"{self.micro_batch} × {self.accumulation} rows"]
        if setting.device == "cuda":
            words.append(setting.backend + (" with Liger" if setting.liger else ""))
            words.append(self.batching)
        if setting.checkpointing != "off":
            every = "" if setting.recompute_every == 1 else f" in every {_ORDINALS[setting.recompute_every]} layer"
            words.append(f"checkpointing {setting.checkpointing}{every}")
        if setting.optimizer.startswith("paged"):
            words.append("paged optimizer")
        return ", ".join(words)


_ORDINALS = {2: "second", 4: "fourth"}


def look_around(
    work: Work, machine: Machine, calibration: Calibration | None, wanted: Backend | None = None
) -> Surroundings:
    """Return device, backends, precision and threads for `work` on `machine`; `wanted` is the backend asked for."""
    used = calibration or default_calibration(machine.cores)
    if not machine.gpus:
        if wanted == "unsloth":
            raise TunewrightError(
                "Unsloth needs a GPU", machine.accelerator_note, "Leave the choice to the plan, or take transformers."
            )
        rates = _choose_threads(work, used)
        free = machine.memory_free_gib
        budget = free * (1 - PROCESSOR_MARGIN)
        return Surroundings(None, ("transformers",), False, "fp32", rates.threads, rates, used, free, budget)
    gpu = machine.freest_gpu
    installed: tuple[Backend, ...] = ("unsloth", "transformers") if is_installed("unsloth") else ("transformers",)
    backends: tuple[Backend, ...] = (wanted,) if wanted else installed
    rates, card = read_card_rates(gpu.name, machine.driver), find_card(gpu.name)
    free = gpu.memory_free_gib
    precision: Precision = "bf16" if gpu.supports_bf16 else "fp16"
    threads = max(1, min(machine.cores, 8))
    budget = free * (1 - GPU_MARGIN)
    if rates is not None:
        card = rates.of(card)
        budget -= max(0.0, rates.context_gib - memory.CUDA_CONTEXT_GIB)  # `memory.needed_gib` counts the usual one
    workspace = 32 if gpu.compute_capability >= (9, 0) else 8
    liger = is_installed("liger_kernel")
    return Surroundings(gpu, backends, liger, precision, threads, card, used, free, budget, workspace, rates)


@cache
def is_installed(package: str) -> bool:
    """Tell whether Python finds `package`, without importing it."""
    return importlib.util.find_spec(package) is not None


def _choose_threads(work: Work, calibration: Calibration) -> ThreadRates:
    """Return the rates of the fewest threads that are nearly as fast as any.

    More threads wait for one another whenever another program takes a core, so they must be worth it.
    """
    if work.anatomy.total_parameters < ONE_THREAD_PARAMETERS:
        return min(calibration.rates, key=lambda each: each.threads)
    seconds = {each.threads: probe_seconds(work, each) for each in calibration.rates}
    limit = WORTH_THREADS * min(seconds.values())
    return min((each for each in calibration.rates if seconds[each.threads] <= limit), key=lambda each: each.threads)


def probe_seconds(work: Work, rates: ThreadRates) -> float:
    """Return the seconds of a micro-batch of 8 rows with these rates, to compare numbers of threads."""
    rows = min(PROBED_ROWS, work.recipe.training.global_batch)
    length = work.drawn.mean
    setting = Setting("cpu", "transformers", "fp32", rows, math.ceil(length), "off")
    return speed.micro_batch_seconds(work.anatomy, work.tuning, setting, Load(rows * length, length), rates)


def search(work: Work, around: Surroundings) -> Iterator[Candidate]:
    """Yield every plan that keeps the recipe's global batch, with its memory and speed.

    An optimizer whose states are paged to the host is slow, and only tried when nothing fits without.
    """
    found = list(_search(work, around, work.recipe.training.optimizer))
    yield from found
    if around.gpu is not None and all(each.needed_gib > around.budget_gib for each in found):
        yield from _search(work, around, f"paged_{work.recipe.training.optimizer}")


def _search(work: Work, around: Surroundings, optimizer: str) -> Iterator[Candidate]:
    batch = work.recipe.training.global_batch
    rows = min(batch, work.drawn.rows)
    for micro_batch in divisors(batch):
        if micro_batch > rows and micro_batch > 1:
            break  # no batch would ever be that large
        for setting, batching in _ways(work, around, micro_batch, optimizer):
            yield price(work, around, micro_batch, setting, batching)


def _ways(work: Work, around: Surroundings, micro_batch: int, optimizer: str) -> Iterator[tuple[Setting, Batching]]:
    """Yield the ways in which micro-batches of this many rows can be trained, without their lengths."""
    for backend in around.backends:
        plain = Setting(
            device=around.kind,
            backend=backend,
            precision=around.precision,
            rows=micro_batch,
            tokens_per_row=work.drawn.longest,
            checkpointing="off",
            optimizer=optimizer,
            libraries_gib=around.calibration.libraries_gib if around.gpu is None else 0.0,
            accumulation=work.recipe.training.global_batch // micro_batch,
            cuda_workspace_mib=around.workspace_mib,
        )
        kernels = (False, True) if backend == "transformers" and _takes_liger(work, around) else (False,)
        for liger in kernels:
            for checkpointing, every in _recomputing(around, backend):
                setting = replace(plain, liger=liger, checkpointing=checkpointing, recompute_every=every)
                yield _lay_out(work, setting)


def _recomputing(around: Surroundings, backend: Backend) -> tuple[tuple[Checkpointing, int], ...]:
    if backend == "unsloth":
        return (("off", 1), ("offloaded", 1))
    if around.gpu is None:
        return (("off", 1), ("on", 1))
    return (("off", 1), *(("on", every) for every in RECOMPUTED))


def _takes_liger(work: Work, around: Surroundings) -> bool:
    return around.liger and around.gpu is not None and work.anatomy.family in LIGER_FAMILIES


def _lay_out(work: Work, setting: Setting) -> tuple[Setting, Batching]:
    """Return `setting` with the lengths that its memory must be found for, and how rows make a micro-batch."""
    if work.recipe.data.packing:
        tokens = setting.rows * work.drawn.longest
        documents = math.ceil(setting.rows * len(work.training) / work.drawn.rows)
        return replace(setting, rows=1, tokens_per_row=tokens, documents=documents, packed=True), "packed"
    if setting.backend == "unsloth" and work.anatomy.family not in UNSLOTH_PADS:
        tokens = longest_together(work.drawn, setting.rows)
        return replace(setting, rows=1, tokens_per_row=tokens, documents=setting.rows), "padding-free"
    return replace(setting, padded=setting.backend == "unsloth"), "padded"


def longest_together(lengths: Lengths, rows: int) -> int:
    """Return the tokens that `rows` rows drawn together will hardly exceed, and never less than the longest with others."""
    likely = max(
        lengths.longest + (rows - 1) * lengths.mean, rows * lengths.mean + DEVIATIONS * lengths.deviation * rows**0.5
    )
    most, left = 0, rows
    for length, count in reversed(lengths.counts):
        taken = min(left, count)
        most += taken * length
        left -= taken
    return math.ceil(min(likely, most))


def price(work: Work, around: Surroundings, micro_batch: int, setting: Setting, batching: Batching) -> Candidate:
    """Return the memory and speed of one plan: memory for its longest rows, speed for average ones."""
    load = load_of(work, micro_batch, batching)
    accumulation = work.recipe.training.global_batch // micro_batch
    terms = memory.predict_memory(work.anatomy, work.tuning, setting)
    seconds = speed.step_seconds(work.anatomy, work.tuning, setting, load, accumulation, around.device)
    needed = memory.needed_gib(terms, setting)
    if work.merges:
        needed = max(needed, memory.merging_gib(work.anatomy, work.tuning, setting, terms))
    start = 0.0 if around.gpu is None else speed.starting_seconds(work.anatomy, work.tuning, setting)
    training = work.steps * seconds + start
    return Candidate(micro_batch, accumulation, batching, setting, load, terms, needed, seconds, training)


def load_of(work: Work, micro_batch: int, batching: Batching) -> Load:
    """Return what an average micro-batch holds, and how far attention reaches in it."""
    if batching == "padded":
        length = work.drawn.padded_length(micro_batch)
        return Load(length * micro_batch, length)
    return Load(work.drawn.mean * micro_batch, work.rows.attended)


def choose(fitting: Sequence[Candidate]) -> Candidate:
    """Return the smallest, to a GiB, of the plans that are as good as the fastest."""
    fastest = min(each.training_seconds for each in fitting)
    return min(
        (each for each in fitting if each.training_seconds <= NEARLY_AS_FAST * fastest),
        key=lambda each: (round(each.needed_gib), each.step_seconds),
    )
