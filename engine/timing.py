"""Timing: where the seconds of a whole run go, and how often it looks up from training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..foundation.units import GIB
from . import speed
from .flop import Load
from .search import Candidate, Surroundings
from .work import Work

EVALUATIONS_A_RUN = 8
EVALUATION_SHARE = 0.10
"""An evaluation and the checkpoint beside it may take this share of the training time."""
CHECKPOINT_MINUTES = 30.0
"""No more than this is lost when a machine goes down."""
SAMPLED_PROMPTS = 3
ROWS_TAKEN_A_SECOND = 50_000.0
"""From the cache and into the trainer's data set: planning has made them tokens."""
BUILDING_SECONDS = 1.0
"""Building TRL's trainer over the rows."""


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
    sampling = generation_seconds(work, around, candidate, sampled_prompts(work))
    sample = min(steps, max(evenly, math.ceil(sampling / (EVALUATION_SHARE * candidate.step_seconds))))
    return Cadence(evaluate, checkpoint, sample)


def time_run(work: Work, around: Surroundings, candidate: Candidate, cadence: Cadence) -> Timing:
    """Return the seconds to the first step, of the training and of the whole run."""
    anatomy, tuning, setting = work.anatomy, work.tuning, candidate.setting
    steps = work.steps
    judging = generation_seconds(work, around, candidate, work.judged)
    on_gpu = around.gpu is not None
    compiling = speed.compiling_seconds(anatomy, tuning, setting) if on_gpu else 0.0
    rows = len(work.training) + len(work.validation)
    ready = speed.IMPORT_SECONDS[setting.backend] if on_gpu else around.calibration.import_seconds
    ready += speed.loading_seconds(anatomy, setting.backend)
    ready += rows / ROWS_TAKEN_A_SECOND + BUILDING_SECONDS + asking_seconds(work, around, candidate)
    own = generation_seconds(work, around, candidate, len(work.recipe.evaluation.prompts))
    ready += own  # they are answered before the first step, and after the last
    saving = speed.checkpoint_seconds(anatomy, tuning, setting)
    training = own + steps * candidate.step_seconds + compiling
    training += math.ceil(steps / cadence.evaluate) * evaluation_seconds(work, around, candidate)
    training += math.ceil(steps / cadence.checkpoint) * saving
    training += steps // cadence.sample * generation_seconds(work, around, candidate, sampled_prompts(work))
    merging = work.merged_gib * 4 + 1 if work.merges else 0.0
    total = ready + judging + training + judging + saving + merging
    return Timing(ready + judging + compiling, training, total)


def sampled_prompts(work: Work) -> int:
    """Return how many prompts are answered while training: the recipe's own, or those of held-out rows."""
    if own := work.recipe.evaluation.prompts:
        return len(own)
    return SAMPLED_PROMPTS if work.judged or work.validation else 0


def evaluation_seconds(work: Work, around: Surroundings, candidate: Candidate) -> float:
    rows = work.validation_rows
    if rows is None:
        return 0.0
    load = Load(rows.mean * candidate.micro_batch, rows.attended)  # taken by length, so that hardly any are padded
    batches = rows.rows / candidate.micro_batch
    return speed.evaluation_seconds(work.anatomy, work.tuning, candidate.setting, load, batches, around.device)


def asking_seconds(work: Work, around: Surroundings, candidate: Candidate) -> float:
    """Return the seconds in which a reference is asked about every row before the first step."""
    _, passes = work.forward_passes
    batches = passes * len(work.training) / candidate.micro_batch
    setting, load = candidate.setting, candidate.load
    return speed.evaluation_seconds(work.anatomy, work.tuning, setting, load, batches, around.device) if passes else 0.0


def generation_seconds(work: Work, around: Surroundings, candidate: Candidate, prompts: int) -> float:
    answer = min(work.recipe.evaluation.max_new_tokens, work.longest_answer // work.answers_a_row)
    asked = max(1.0, (sum(work.training) / len(work.training) - work.supervised) / work.answers_a_row)
    return speed.generation_seconds(work.anatomy, work.tuning, candidate.setting, prompts, asked, answer, around.device)


def disk_gib(work: Work, candidate: Candidate) -> float:
    """Return what a run leaves on the disk: two checkpoints and one being written, what was tuned, the merged model.

    The best checkpoint is kept as well where the run may end with it.
    """
    checkpoint = speed.checkpoint_bytes(work.anatomy, work.tuning, candidate.setting) / GIB
    tuned = work.merged_gib if work.tuning.kind == "full" else checkpoint / 3
    kept = 4 if work.recipe.training.finish_with == "best" else 3
    return kept * checkpoint + tuned + (work.merged_gib if work.merges else 0.0)
