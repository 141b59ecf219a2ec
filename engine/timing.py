"""Timing: where the seconds of a whole run go, and how often it looks up from training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import speed
from .flop import Load
from .search import Candidate, Surroundings
from .setting import GIB
from .work import Work

EVALUATIONS_A_RUN = 8
EVALUATION_SHARE = 0.10
"""An evaluation and the checkpoint beside it may take this share of the training time."""
CHECKPOINT_MINUTES = 30.0
"""No more than this is lost when a machine goes down."""
SAMPLED_PROMPTS = 3
ROWS_RENDERED_A_SECOND = 2500.0
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
    sampling = generation_seconds(work, around, candidate, SAMPLED_PROMPTS)
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
    ready += rows / ROWS_RENDERED_A_SECOND + BUILDING_SECONDS
    sampled = SAMPLED_PROMPTS if work.judged or work.validation else 0
    saving = speed.checkpoint_seconds(anatomy, tuning, setting)
    training = steps * candidate.step_seconds + compiling
    training += math.ceil(steps / cadence.evaluate) * evaluation_seconds(work, around, candidate)
    training += math.ceil(steps / cadence.checkpoint) * saving
    training += steps // cadence.sample * generation_seconds(work, around, candidate, sampled)
    merging = work.merged_gib * 4 + 1 if work.merges else 0.0
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


def disk_gib(work: Work, candidate: Candidate) -> float:
    """Return what a run leaves on the disk: two checkpoints and one being written, what was tuned, the merged model."""
    checkpoint = speed.checkpoint_bytes(work.anatomy, work.tuning, candidate.setting) / GIB
    tuned = work.merged_gib if work.tuning.kind == "full" else checkpoint / 3
    return 3 * checkpoint + tuned + (work.merged_gib if work.merges else 0.0)
