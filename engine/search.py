"""The search: every plan that keeps a recipe's meaning, with its memory and time on one machine."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..foundation.errors import TunewrightError
from ..recipes.model import Recipe
from . import memory, speed
from .anatomy import Anatomy
from .batches import Lengths, divisors, measure_lengths, pack, rows_seen, steps_of
from .calibration import Calibration, ThreadRates, default_calibration
from .cards import Card, find_card
from .flop import Load
from .machine import GpuDevice, Machine
from .memory import GIB, Checkpointing, Setting, Tuning
from .plan import Backend, Precision

GPU_MARGIN = 0.06
"""The share of a card's free memory that a plan leaves alone: three times the memory model's error on measured rows."""
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
EVALUATIONS_A_RUN = 8
EVALUATION_SHARE = 0.10
"""An evaluation and the checkpoint beside it may take this share of the training time."""
CHECKPOINT_MINUTES = 30.0
"""No more than this is lost when a machine goes down."""
LARGEST_MERGED_GIB = 2.0
SAMPLED_PROMPTS = 3
ROWS_RENDERED_A_SECOND = 2500.0
BUILDING_SECONDS = 1.0
"""Building TRL's trainer over the rows."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is fixed before the search starts."""

    gpu: GpuDevice | None
    backend: Backend
    precision: Precision
    threads: int
    device: Card | ThreadRates
    calibration: Calibration
    free_gib: float
    budget_gib: float

    @property
    def kind(self) -> Literal["cuda", "cpu"]:
        return "cpu" if self.gpu is None else "cuda"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan of the search, with its figures."""

    micro_batch: int
    accumulation: int
    setting: Setting
    load: Load
    terms: dict[str, float]
    needed_gib: float
    step_seconds: float

    @property
    def summary(self) -> str:
        recomputing = "" if self.setting.checkpointing == "off" else f", checkpointing {self.setting.checkpointing}"
        return f"{self.micro_batch} × {self.accumulation} rows{recomputing}"


@dataclass(frozen=True)
class Work:
    """What a recipe and its data ask for, whatever the machine."""

    recipe: Recipe
    anatomy: Anatomy
    training: tuple[int, ...]
    validation: tuple[int, ...]
    supervised: float
    """Tokens of a row on which a loss is taken, on average."""
    longest_answer: int
    judged: int
    """Rows that are answered before and after."""

    @cached_property
    def tuning(self) -> Tuning:
        return Tuning.of(self.recipe.method)

    @cached_property
    def drawn(self) -> Lengths:
        """The rows that are drawn: packed ones with packing."""
        if self.recipe.data.packing:
            return measure_lengths(pack(self.training, self.recipe.data.max_length))
        return measure_lengths(self.training)

    @cached_property
    def validation_rows(self) -> Lengths | None:
        return measure_lengths(self.validation) if self.validation else None

    @property
    def steps(self) -> int:
        plan = self.recipe.training
        return steps_of(self.drawn.rows, plan.global_batch, plan.epochs, plan.steps)

    @property
    def tokens(self) -> int:
        """Useful tokens over the whole run."""
        return round(rows_seen(self.drawn.rows, self.recipe.training.global_batch, self.steps) * self.drawn.mean)


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a run looks up from training, in steps."""

    evaluate: int
    checkpoint: int
    sample: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the seconds of a run go."""

    first_step: float
    training: float
    total: float


def look_around(
    work: Work, machine: Machine, calibration: Calibration | None, wanted: Backend | None = None
) -> Surroundings:
    """Return device, backend, precision and threads for `work` on `machine`; `wanted` is the backend asked for."""
    used = calibration or default_calibration(machine.cores)
    if not machine.gpus:
        if wanted == "unsloth":
            raise TunewrightError(
                "Unsloth needs a GPU", machine.accelerator_note, "Leave the choice to the plan, or take transformers."
            )
        rates = _choose_threads(work, used)
        free = machine.memory_free_gib
        budget = free * (1 - PROCESSOR_MARGIN)
        return Surroundings(None, "transformers", "fp32", rates.threads, rates, used, free, budget)
    gpu = max(machine.gpus, key=lambda each: each.memory_free_gib)
    backend: Backend = wanted or ("unsloth" if importlib.util.find_spec("unsloth") else "transformers")
    card = find_card(gpu.name)
    free = gpu.memory_free_gib
    precision: Precision = "bf16" if gpu.supports_bf16 else "fp16"
    threads = max(1, min(machine.cores, 8))
    return Surroundings(gpu, backend, precision, threads, card, used, free, free * (1 - GPU_MARGIN))


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
    """Yield every plan that keeps the recipe's global batch, with its memory and speed."""
    batch = work.recipe.training.global_batch
    rows = min(batch, work.drawn.rows)
    recomputing: Checkpointing = "offloaded" if around.backend == "unsloth" else "on"
    for micro_batch in divisors(batch):
        if micro_batch > rows and micro_batch > 1:
            break  # no batch would ever be that large
        for checkpointing in ("off", recomputing):
            yield price(work, around, micro_batch, checkpointing)


def price(work: Work, around: Surroundings, micro_batch: int, checkpointing: Checkpointing) -> Candidate:
    """Return the memory and speed of one plan: memory for its longest rows, speed for average ones."""
    packed = work.recipe.data.packing
    longest = micro_batch * work.drawn.longest if packed else work.drawn.longest
    setting = Setting(
        device=around.kind,
        backend=around.backend,
        precision=around.precision,
        rows=1 if packed else micro_batch,
        tokens_per_row=longest,
        checkpointing=checkpointing,
        optimizer=work.recipe.training.optimizer,
        packed=packed,
        libraries_gib=around.calibration.libraries_gib if around.gpu is None else 0.0,
    )
    length = work.drawn.mean * micro_batch if packed else work.drawn.padded_length(micro_batch)
    load = Load(length if packed else length * micro_batch, length)
    accumulation = work.recipe.training.global_batch // micro_batch
    terms = memory.predict_memory(work.anatomy, work.tuning, setting)
    seconds = speed.step_seconds(work.anatomy, work.tuning, setting, load, accumulation, around.device)
    needed = memory.needed_gib(terms, setting)
    if merges(work):
        needed = max(needed, memory.merging_gib(work.anatomy, work.tuning, setting, terms))
    return Candidate(micro_batch, accumulation, setting, load, terms, needed, seconds)


def choose(fitting: Sequence[Candidate]) -> Candidate:
    """Return the smallest of the plans that are as good as the fastest; more memory never makes the choice slower."""
    fastest = min(each.step_seconds for each in fitting)
    return min(
        (each for each in fitting if each.step_seconds <= NEARLY_AS_FAST * fastest),
        key=lambda each: (each.needed_gib, each.step_seconds),
    )


def choose_cadence(work: Work, around: Surroundings, candidate: Candidate) -> Cadence:
    """Return how often to evaluate, save and sample: about eight times a run, less where it would cost too much."""
    steps = work.steps
    evenly = math.ceil(steps / EVALUATIONS_A_RUN)
    looking = evaluation_seconds(work, around, candidate)
    looking += speed.checkpoint_seconds(work.anatomy, work.tuning, candidate.setting)
    affordable = math.ceil(looking / (EVALUATION_SHARE * candidate.step_seconds))
    evaluate = min(steps, max(evenly, affordable))
    halves = max(1, steps // 2)
    timely = max(1, int(CHECKPOINT_MINUTES * 60 / candidate.step_seconds))
    checkpoint = min(evaluate, halves, timely)
    sampling = generation_seconds(work, around, candidate, SAMPLED_PROMPTS)
    sample = min(steps, max(evenly, math.ceil(sampling / (EVALUATION_SHARE * candidate.step_seconds))))
    return Cadence(evaluate, checkpoint, sample)


def time_run(work: Work, around: Surroundings, candidate: Candidate, cadence: Cadence) -> Timing:
    """Return the seconds to the first step, of the training and of the whole run."""
    anatomy, tuning, setting = work.anatomy, work.tuning, candidate.setting
    steps = work.steps
    judging = generation_seconds(work, around, candidate, work.judged)
    if around.gpu is None:
        ready = around.calibration.import_seconds
        compiling = 0.0
    else:
        ready = speed.IMPORT_SECONDS[around.backend]
        compiling = speed.FIRST_STEP_SECONDS[around.backend]
        if setting.packed and around.backend == "transformers":
            compiling += speed.FLEX_COMPILE_SECONDS
    rows = len(work.training) + len(work.validation)
    ready += speed.loading_seconds(anatomy, around.backend) + rows / ROWS_RENDERED_A_SECOND + BUILDING_SECONDS
    sampled = SAMPLED_PROMPTS if work.judged or work.validation else 0
    saving = speed.checkpoint_seconds(anatomy, tuning, setting)
    training = steps * candidate.step_seconds + compiling
    training += math.ceil(steps / cadence.evaluate) * evaluation_seconds(work, around, candidate)
    training += math.ceil(steps / cadence.checkpoint) * saving
    training += steps // cadence.sample * generation_seconds(work, around, candidate, sampled)
    merging = merged_gib(work) * 4 + 1 if merges(work) else 0.0
    total = ready + judging + training + judging + saving + merging
    return Timing(ready + judging + compiling, training, total)


def evaluation_seconds(work: Work, around: Surroundings, candidate: Candidate) -> float:
    rows = work.validation_rows
    if rows is None:
        return 0.0
    length = rows.padded_length(min(candidate.micro_batch, rows.rows))
    load = Load(length * candidate.micro_batch, length)
    batches = rows.rows / candidate.micro_batch
    return speed.evaluation_seconds(work.anatomy, work.tuning, candidate.setting, load, batches, around.device)


def generation_seconds(work: Work, around: Surroundings, candidate: Candidate, prompts: int) -> float:
    answer = min(work.recipe.evaluation.max_new_tokens, work.longest_answer)
    asked = max(1.0, sum(work.training) / len(work.training) - work.supervised)
    return speed.generation_seconds(work.anatomy, work.tuning, candidate.setting, prompts, asked, answer, around.device)


def merges(work: Work) -> bool:
    return work.tuning.kind != "full" and merged_gib(work) <= LARGEST_MERGED_GIB


def merged_gib(work: Work) -> float:
    return work.anatomy.checkpoint_bytes * work.anatomy.total_parameters / GIB


def disk_gib(work: Work, candidate: Candidate) -> float:
    """Return what a run leaves on the disk: two checkpoints and one being written, what was tuned, the merged model."""
    checkpoint = speed.checkpoint_bytes(work.anatomy, work.tuning, candidate.setting) / GIB
    tuned = merged_gib(work) if work.tuning.kind == "full" else checkpoint / 3
    return 3 * checkpoint + tuned + (merged_gib(work) if merges(work) else 0.0)
