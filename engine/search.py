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
from .plan import Backend, Batching, Checkpointing, Parallelism, Precision
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
DEVIATIONS = 4.5
"""A micro-batch without padding is given room for this many standard deviations beyond the mean."""
BEYOND = 1.05
"""The largest micro-batch that is still to come, as a factor of the largest of the tens of thousands that were looked at."""
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
COMPILED_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Families whose layers and loss `training/acceleration.py` computes as transformers does."""


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
    gpu_indices: tuple[int, ...] = (0,)
    """The GPUs that train, by the driver's numbering."""
    parallelism: Parallelism = "one"

    @property
    def gpus(self) -> int:
        return len(self.gpu_indices)

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
        if setting.gpus > 1:
            words[0] += f" on each of {setting.gpus} GPUs"
            words.append(setting.parallelism.upper())
        if setting.device == "cuda":
            words.append(setting.backend + (" with Liger" if setting.liger else ""))
            words += ["compiled"] if setting.compiled else []
            words.append(self.batching)
        if setting.checkpointing != "off":
            every = "" if setting.recompute_every == 1 else f" in every {_ORDINALS[setting.recompute_every]} layer"
            words.append(f"checkpointing {setting.checkpointing}{every}")
        if setting.optimizer.startswith("paged"):
            words.append("paged optimizer")
        return ", ".join(words)


_ORDINALS = {2: "second", 4: "fourth"}


def look_around(
    work: Work, machine: Machine, calibration: Calibration | None, wanted: Backend | None = None,
    wish: int | tuple[int, ...] | None = None,
) -> Surroundings:  # fmt: skip
    """Return device, backends, precision and threads for `work` on `machine`.

    `wanted` is the backend asked for, `wish` the GPUs; these are surroundings for one of them, the freest.
    """
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
    named = [gpu for gpu in machine.gpus if isinstance(wish, tuple) and gpu.index in wish]
    gpu = max(named or machine.gpus, key=lambda each: each.memory_free_gib)
    installed: tuple[Backend, ...] = ("unsloth", "transformers") if is_installed("unsloth") else ("transformers",)
    if work.tuning.saved:
        installed = ("transformers",)  # the planner's reasons say why
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
    liger = is_installed("liger_kernel") and not work.tuning.saved  # its loss takes no output layer in 32 bits
    return Surroundings(
        gpu, backends, liger, precision, threads, card, used, free, budget, workspace, rates, (gpu.index,)
    )


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
    pages = around.gpu is not None and around.parallelism != "fsdp2"
    if pages and all(each.needed_gib > around.budget_gib for each in found):
        yield from _search(work, around, f"paged_{work.recipe.training.optimizer}")


def _search(work: Work, around: Surroundings, optimizer: str) -> Iterator[Candidate]:
    batch = work.recipe.training.global_batch // around.gpus
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
            accumulation=work.recipe.training.global_batch // around.gpus // micro_batch,
            cuda_workspace_mib=around.workspace_mib,
            gpus=around.gpus,
            parallelism=around.parallelism,
            whole_logits=work.takes_whole_logits(backend),
        )
        for kernels in _kernels(work, around, plain):
            for checkpointing, every in _recomputing(around, backend):
                yield _lay_out(work, replace(kernels, checkpointing=checkpointing, recompute_every=every))


def _kernels(work: Work, around: Surroundings, plain: Setting) -> Iterator[Setting]:
    """Yield `plain`, and with transformers what makes it faster: Liger's kernels, or layers that are compiled."""
    yield plain
    if plain.backend == "transformers" and around.gpu is not None:
        if around.liger and work.anatomy.family in LIGER_FAMILIES and work.recipe.training.objective != "orpo":
            yield replace(plain, liger=True)
        if _compiles(work, around):
            yield replace(plain, compiled=True)


def _compiles(work: Work, around: Surroundings) -> bool:
    """Tell whether layers can be compiled and adapters fused: for what `training/acceleration.py` knows."""
    method, anatomy = work.recipe.method, work.anatomy
    return (
        is_installed("triton")
        and around.precision == "bf16"
        and around.parallelism != "fsdp2"
        and anatomy.family in COMPILED_FAMILIES
        and anatomy.sliding_window is None
        and work.recipe.training.objective in ("sft", "cpt")
        and not work.tuning.saved
        and not getattr(method, "dora", False)
        and not getattr(method, "dropout", 0.0)
    )


def _recomputing(around: Surroundings, backend: Backend) -> tuple[tuple[Checkpointing, int], ...]:
    if backend == "unsloth":
        return (("off", 1), ("offloaded", 1))
    if around.gpu is None:
        return (("off", 1), ("on", 1))
    return (("off", 1), *(("on", every) for every in RECOMPUTED))


def _lay_out(work: Work, setting: Setting) -> tuple[Setting, Batching]:
    """Return `setting` with the lengths that its memory must be found for, and how rows make a micro-batch."""
    if work.recipe.data.packing:
        tokens = setting.rows * work.drawn.longest
        documents = math.ceil(setting.rows * len(work.training) / work.drawn.rows)
        return replace(setting, rows=1, tokens_per_row=tokens, documents=documents, packed=True), "packed"
    strings = setting.compiled or (setting.backend == "unsloth" and work.anatomy.family not in UNSLOTH_PADS)
    if strings and not work.is_compared:
        tokens = largest_of(work, setting.rows, setting.gpus)
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


def largest_of(work: Work, rows: int, gpus: int) -> int:
    """Return the tokens that a micro-batch of `rows` rows will hardly exceed when those of every step are balanced.

    That is known as far as it was looked ahead. Beyond it a step may hold more than all before, by far less than
    DEVIATIONS of its sum, and the longest row may come.
    """
    dealt = work.deal(rows, gpus, "balanced")
    if dealt.complete:
        return dealt.largest
    batch, lengths = work.recipe.training.global_batch, work.drawn
    likely = rows * (lengths.mean + DEVIATIONS * lengths.deviation / batch**0.5)
    likely = max(likely, BEYOND * dealt.largest) + lengths.longest - dealt.longest
    return max(dealt.largest, min(math.ceil(likely), longest_together(lengths, rows)))


def price(work: Work, around: Surroundings, micro_batch: int, setting: Setting, batching: Batching) -> Candidate:
    """Return the memory and speed of one plan: memory for its longest rows, speed for average ones."""
    load = load_of(work, micro_batch, batching, setting.gpus)
    accumulation = setting.accumulation
    terms = memory.predict_memory(work.anatomy, work.tuning, setting)
    seconds = speed.step_seconds(work.anatomy, work.tuning, setting, load, accumulation, around.device)
    needed = memory.needed_gib(terms, setting)
    if work.merges:
        needed = max(needed, memory.merging_gib(work.anatomy, work.tuning, setting, terms))
    start = 0.0 if around.gpu is None else speed.starting_seconds(work.anatomy, work.tuning, setting)
    if asked := accumulation * work.forward_passes[0]:
        seconds += speed.evaluation_seconds(work.anatomy, work.tuning, setting, load, asked, around.device)
    training = work.steps * seconds + start
    return Candidate(micro_batch, accumulation, batching, setting, load, terms, needed, seconds, training)


def load_of(work: Work, micro_batch: int, batching: Batching, gpus: int = 1) -> Load:
    """Return what an average micro-batch holds, and how far attention reaches in it; of several GPUs the busiest's."""
    if batching == "padded":
        dealt = work.deal(micro_batch, gpus, "sorted")
        return Load(dealt.padded * dealt.unevenness, dealt.attended / work.answers_a_row)
    dealt = work.deal(micro_batch, gpus, "balanced")
    return Load(work.drawn.mean * micro_batch * dealt.unevenness, work.rows.attended)


def choose(fitting: Sequence[Candidate]) -> Candidate:
    """Return the smallest, to a GiB, of the plans that are as good as the fastest."""
    fastest = min(each.training_seconds for each in fitting)
    return min(
        (each for each in fitting if each.training_seconds <= NEARLY_AS_FAST * fastest),
        key=lambda each: (round(each.needed_gib), each.step_seconds),
    )
