"""The planner: takes the fastest plan that fits this machine, and says why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..foundation.errors import TunewrightError
from ..recipes.model import Recipe
from . import cost, memory, preflight
from .anatomy import Anatomy, read_anatomy
from .calibration import Calibration, Correction, correction, measured_watts, read_calibration, shape_name
from .cards import Card
from .machine import Machine
from .plan import Alternative, Backend, Plan, Prediction, Reason
from .remedies import nothing_fits
from .search import (
    NEARLY_AS_FAST,
    ONE_THREAD_PARAMETERS,
    PROBED_ROWS,
    Candidate,
    Surroundings,
    is_installed,
    look_around,
    probe_seconds,
    search,
)
from .setting import Setting
from .several import UNSLOTH_ALONE, Wish, choose_together, obstacle, parallelism_reason, together
from .timing import EVALUATION_SHARE, Cadence, Timing, choose_cadence, disk_gib, time_run
from .work import LARGEST_MERGED_GIB, Work

SHOWN_ALTERNATIVES = 5
UNCORRECTED = Correction(seconds=1.0, peak=1.0, runs=0)
TIME_ERROR = {"measured": 0.25, "datasheet": 0.4, "assumed": 0.7, "calibrated": 0.25, "default": 0.6, "repeated": 0.15}
"""How far the total time may be off either way, by where the device's figures come from."""


def plan_recipe(
    recipe: Recipe, machine: Machine, hourly_rate: float | None = None, backend: Backend | None = None,
    wish: Wish = None,
) -> Plan:  # fmt: skip
    """Return the fastest plan that fits `machine`, for the recipe's own model and its data as rendered for training.

    `hourly_rate` is the machine's price in any currency; `backend` is taken instead of our own choice. Raises TunewrightError when the model or data cannot be
    used, or when nothing fits.
    """
    from .data.measuring import measure_rows
    from .data.reading import count_rows, open_source
    from .sources import find_model

    folder = find_model(recipe.base.model, recipe.base.revision)
    found = preflight.check(recipe, folder)
    anatomy = read_anatomy(folder)
    rows = measure_rows(recipe)
    assert rows is not None, "nobody cancels"
    preflight.require_lengths(recipe, max(rows.training, default=0))
    judged = 0
    if recipe.evaluation.source:
        judged = min(recipe.evaluation.rows, count_rows(open_source(recipe.evaluation.source))[0])
    plan = make_plan(
        recipe,
        machine,
        anatomy,
        rows.training,
        rows.validation,
        rows.supervised,
        read_calibration(),
        hourly_rate,
        judged,
        backend,
        wish,
    )
    return replace(plan, notes=(*found, *plan.notes))


def make_plan(
    recipe: Recipe,
    machine: Machine,
    anatomy: Anatomy,
    training_lengths: Sequence[int],
    validation_lengths: Sequence[int],
    supervised: Sequence[int],
    calibration: Calibration | None,
    hourly_rate: float | None = None,
    judged: int = 0,
    backend: Backend | None = None,
    wish: Wish = None,
) -> Plan:
    """Return the fastest plan that fits `machine` for rows of these lengths, in tokens.

    `supervised` counts the tokens of each row on which a loss is taken, `judged` the rows that are answered before
    and after. Raises TunewrightError when nothing fits, with the smallest change that would.
    """
    assert training_lengths, "a recipe without rows is refused when its data is prepared"
    if anatomy.dequantised_from and recipe.method.kind == "qlora":
        raise TunewrightError(
            "Quantised checkpoint",
            f"The model's files are quantised with {anatomy.dequantised_from.upper()}, and QLoRA cannot quantise them again.",
            'Take the model\'s 16-bit weights, or method.kind = "lora".',
        )
    work = Work(
        recipe,
        anatomy,
        tuple(training_lengths),
        tuple(validation_lengths),
        sum(supervised) / len(supervised) if supervised else 0.0,
        max(supervised, default=0),
        judged,
    )
    around = look_around(work, machine, calibration, backend, wish)
    asked = len(wish) if isinstance(wish, tuple) else wish
    shared = list(together(work, around, machine, wish)) if backend != "unsloth" or (asked or 1) > 1 else []
    if backend == "unsloth" and shared:
        raise TunewrightError(
            "Unsloth trains on one GPU", UNSLOTH_ALONE, "Leave the backend to the plan, or the others out: --gpus 1."
        )
    surroundings = [around, *shared] if (asked or 1) == 1 or around.gpu is None else shared
    found = [(each, way) for way in surroundings for each in search(work, way)]
    candidates = [each for each, _ in found]
    fitting = _fitting(work, machine, found)
    if not fitting:
        raise nothing_fits(work, surroundings[-1], candidates)
    chosen = choose_together(fitting, asked=wish is not None)
    around = next(way for each, way in found if each is chosen)
    cadence = choose_cadence(work, around, chosen)
    timing = time_run(work, around, chosen, cadence)
    kind = (recipe.method.kind, chosen.setting.backend, chosen.setting.checkpointing)
    earlier = correction(machine.short_name, shape_name(anatomy), *kind) if around.gpus == 1 else UNCORRECTED
    return Plan(
        machine=machine.short_name,
        backend=chosen.setting.backend,
        device=around.kind,
        precision=around.precision,
        micro_batch=chosen.micro_batch,
        accumulation=chosen.accumulation,
        gradient_checkpointing=chosen.setting.checkpointing,
        batching=chosen.batching,
        attention=_attention(around, chosen),
        threads=around.threads,
        total_steps=work.steps,
        training_rows=len(work.training),
        validation_rows=len(work.validation),
        evaluate_every_steps=cadence.evaluate,
        checkpoint_every_steps=cadence.checkpoint,
        sample_every_steps=cadence.sample,
        merge=work.merges,
        recompute_every=chosen.setting.recompute_every,
        liger=chosen.setting.liger,
        compiled=chosen.setting.compiled,
        optimizer_placement="paged" if chosen.setting.optimizer.startswith("paged") else "device",
        gpu_indices=around.gpu_indices,
        parallelism=around.parallelism,
        prediction=predict(work, around, chosen, timing, earlier, hourly_rate),
        reasons=tuple(reasons(work, machine, around, candidates, chosen, cadence, asked=wish is not None)),
        alternatives=tuple(alternatives(work, around, candidates, chosen, cadence, earlier)),
        notes=tuple(notes(work, machine, around, chosen, timing, earlier)),
    )


def _fitting(work: Work, machine: Machine, found: Sequence[tuple[Candidate, Surroundings]]) -> list[Candidate]:
    """Return the plans that fit, by the formulas and by what earlier runs like them took beyond these."""
    grown: dict[tuple[str, str], float] = {}
    fitting: list[Candidate] = []
    for each, around in found:
        kind = (each.setting.backend, each.setting.checkpointing)
        if kind not in grown:
            earlier = correction(machine.short_name, shape_name(work.anatomy), work.tuning.kind, *kind)
            grown[kind] = max(1.0, earlier.peak)
        beyond = grown[kind] if around.gpus == 1 else 1.0  # what one GPU took says little of several
        if beyond * each.needed_gib <= around.budget_gib:
            fitting.append(each)
    return fitting


def predict(
    work: Work,
    around: Surroundings,
    chosen: Candidate,
    timing: Timing,
    earlier: Correction,
    hourly_rate: float | None,
) -> Prediction:
    """Return the figures of the chosen plan, corrected by what earlier runs took."""
    training = timing.training * earlier.seconds
    total = timing.total - timing.training + training
    error = time_error(around, earlier.runs)
    anatomy, tuning, setting = work.anatomy, work.tuning, chosen.setting
    peak = memory.peak_gib(chosen.terms) * earlier.peak
    saving = memory.saving_gib(anatomy, tuning, setting)
    if work.merges:
        saving = max(saving, memory.merging_gib(anatomy, tuning, setting, chosen.terms))
    return Prediction(
        trainable_parameters=work.tuning.trainable_parameters(work.anatomy),
        total_parameters=work.anatomy.total_parameters,
        peak_gib=peak,
        memory_terms={name: gib * earlier.peak for name, gib in chosen.terms.items()},
        tokens=work.tokens,
        tokens_per_second=work.tokens / training,
        seconds_to_first_step=timing.first_step,
        training_seconds=training,
        total_seconds=total,
        total_seconds_range=(total * (1 - error), total * (1 + error)),
        disk_gib=disk_gib(work, chosen),
        step_seconds=chosen.step_seconds * earlier.seconds,
        reserved_gib=memory.reserved_gib(chosen.terms, setting.backend) * earlier.peak if setting.on_gpu else peak,
        evaluation_gib=memory.evaluation_gib(anatomy, tuning, setting),
        saving_gib=saving,
        host_gib=memory.host_gib(anatomy, tuning, setting),
        cost=cost.money(total, hourly_rate),
        seconds_correction=earlier.seconds,
        peak_correction=earlier.peak,
    )


def time_error(around: Surroundings, earlier_runs: int) -> float:
    """Return how far the total time may be off either way, as a share of it."""
    if earlier_runs:
        return TIME_ERROR["repeated"]
    if isinstance(around.device, Card):
        return TIME_ERROR[around.device.source]
    return TIME_ERROR["calibrated" if around.calibration.measured else "default"]


def _attention(around: Surroundings, chosen: Candidate) -> str:
    if chosen.setting.compiled:
        return "varlen"
    masks_packs = chosen.batching == "packed" and around.gpu is not None and chosen.setting.backend == "transformers"
    return "flex_attention" if masks_packs else "sdpa"


def reasons(
    work: Work,
    machine: Machine,
    around: Surroundings,
    candidates: Sequence[Candidate],
    chosen: Candidate,
    cadence: Cadence,
    asked: bool = False,
) -> Iterator[Reason]:
    """Yield every choice of the plan with its reason and numbers."""
    if around.gpu is None:
        yield Reason("device", "cpu", machine.accelerator_note)
    elif around.gpus == 1:
        most = len(machine.gpus) > 1 and around.gpu is machine.freest_gpu
        yield Reason(
            "device",
            f"GPU {around.gpu.index}",
            f"{around.gpu.name} has {around.free_gib:.1f} of {around.gpu.memory_total_gib:.1f} GiB free"
            + (", the most of all." if most else "."),
        )
    else:
        yield Reason(
            "device",
            f"GPUs {', '.join(map(str, around.gpu_indices))}",
            f"Each {around.gpu.name} has at least {around.free_gib:.1f} of {around.gpu.memory_total_gib:.1f} GiB free.",
        )
    if len(machine.gpus) > 1:
        why = obstacle(len(machine.gpus))
        yield Reason("parallelism", *parallelism_reason(candidates, chosen, around.budget_gib, asked, why))
    yield _backend_reason(work, around, candidates, chosen)
    yield Reason("precision", around.precision, _PRECISIONS[around.precision])
    yield _batch_reason(work, candidates, chosen)
    yield _checkpointing_reason(around, candidates, chosen)
    yield _batching_reason(work, chosen)
    if around.gpu is None:
        yield _threads_reason(work, around)
    evaluations = math.ceil(work.steps / cadence.evaluate)
    yield Reason(
        "cadence",
        f"every {cadence.evaluate} steps",
        f"{evaluations} evaluations in {work.steps} steps, aiming at no more than {100 * EVALUATION_SHARE:.0f} % of the "
        f"time; a checkpoint every {cadence.checkpoint} steps, so at most that much is lost.",
    )
    if work.tuning.kind != "full":
        size = work.merged_gib
        verdict = "is small enough to keep beside" if work.merges else "is left to `tunewright export`, beside"
        yield Reason(
            "merge",
            "yes" if work.merges else "no",
            f"The merged model of {size:.2f} GiB {verdict} the adapter (limit {LARGEST_MERGED_GIB:.0f} GiB).",
        )


_PRECISIONS = {
    "bf16": "The card computes in bfloat16, which needs no loss scaling.",
    "fp16": "The card is older than Ampere and has no bfloat16; float16 with loss scaling is its fast type.",
    "fp32": "Processors train fastest and most exactly in 32 bits.",
}


def _backend_reason(work: Work, around: Surroundings, candidates: Sequence[Candidate], chosen: Candidate) -> Reason:
    setting = chosen.setting
    value = _software(setting)
    if around.gpu is None:
        return Reason("backend", value, "Unsloth needs a GPU.")
    others = [each for each in candidates if each.setting.backend != setting.backend]
    if others:
        fitting = [each for each in others if each.needed_gib <= around.budget_gib] or others
        best = min(fitting, key=lambda each: each.training_seconds)
        because = (
            f"The fastest plan with {_software(best.setting)} takes "
            f"{best.training_seconds:.0f} s of training and start, this one {chosen.training_seconds:.0f}."
        )
    elif setting.gpus > 1:
        because = UNSLOTH_ALONE
    elif setting.backend == "transformers" and not is_installed("unsloth"):
        because = "Unsloth is not installed; `pip install tunewright[gpu]` adds it."
    elif setting.backend == "transformers" and work.tuning.saved:
        because = (
            "Unsloth lays aside the originals of modules that are trained whole, so that the model as it was before "
            "could not be asked any more."
        )
    else:
        because = "It was asked for."
    return Reason("backend", value, because)


def _software(setting: Setting) -> str:
    """Return what runs the layers, in words."""
    more = " with Liger" if setting.liger else ", compiled and fused" if setting.compiled else ""
    return setting.backend + more


def _batch_reason(work: Work, candidates: Sequence[Candidate], chosen: Candidate) -> Reason:
    batch = work.recipe.training.global_batch
    same = [each for each in candidates if _alike(each, chosen, but="micro-batch")]
    slowest = max(same, key=lambda each: each.step_seconds)
    because = f"{chosen.step_seconds:.3g} s a step of {batch} rows"
    if slowest is not chosen and slowest.step_seconds > NEARLY_AS_FAST * chosen.step_seconds:
        because += f", against {slowest.step_seconds:.3g} s with {slowest.summary}"
    return Reason(
        "micro-batch",
        f"{chosen.micro_batch} × {chosen.accumulation}",
        f"{because}; the global batch stays {batch}. The longest micro-batch holds {chosen.setting.tokens:,} tokens.",
    )


def _alike(one: Candidate, other: Candidate, but: str) -> bool:
    """Tell whether two plans differ in nothing that people choose between, `but` for one thing."""
    a, b = one.setting, other.setting
    same = (a.backend, a.liger, a.compiled, a.optimizer, a.gpus, a.parallelism) == (
        b.backend, b.liger, b.compiled, b.optimizer, b.gpus, b.parallelism
    )  # fmt: skip
    recomputing = (a.checkpointing, a.recompute_every) == (b.checkpointing, b.recompute_every)
    return same and (recomputing if but == "micro-batch" else one.micro_batch == other.micro_batch)


def _checkpointing_reason(around: Surroundings, candidates: Sequence[Candidate], chosen: Candidate) -> Reason:
    setting = chosen.setting
    value = setting.checkpointing if setting.recompute_every == 1 else f"on, every {setting.recompute_every} layers"
    others = [each for each in candidates if _alike(each, chosen, but="checkpointing")]
    other = next(each for each in others if (each.setting.checkpointing == "off") != (setting.checkpointing == "off"))
    if setting.checkpointing == "off":
        saved, slower = chosen.needed_gib - other.needed_gib, other.step_seconds / chosen.step_seconds - 1
        because = f"Recomputing would save {saved:.2f} GiB, which are not needed, and take {100 * slower:.0f} % longer."
    else:
        because = (
            f"Without recomputing, {other.needed_gib:.1f} GiB would be needed and {around.budget_gib:.1f} may be used."
            if other.needed_gib > around.budget_gib
            else f"A larger micro-batch with recomputing is faster than {other.step_seconds:.3g} s without."
        )
    return Reason("gradient checkpointing", value, because)


def _batching_reason(work: Work, chosen: Candidate) -> Reason:
    if chosen.batching == "packed":
        return Reason(
            "batching",
            "packed",
            f"The recipe asks for it: {len(work.training):,} rows make {work.drawn.rows:,} sequences of at most "
            f"{work.drawn.longest:,} tokens.",
        )
    if chosen.batching == "padding-free":
        padded = work.deal(chosen.micro_batch, chosen.setting.gpus, "sorted").padded
        return Reason(
            "batching",
            "padding-free",
            f"Rows are strung together and kept apart in attention; padded, {padded / chosen.load.tokens:.1f} "
            "times as many tokens would be computed.",
        )
    useful = work.drawn.mean * chosen.micro_batch / chosen.load.tokens
    return Reason(
        "batching",
        "padded",
        f"Packing is not in the recipe, as it changes what a step learns from; rows of {work.drawn.mean:.0f} tokens on "
        f"average, dealt to micro-batches by length, are padded to {chosen.load.tokens / chosen.micro_batch:.0f}, so "
        f"{100 * (1 - useful):.0f} % of the work is padding.",
    )


def _threads_reason(work: Work, around: Surroundings) -> Reason:
    if work.anatomy.total_parameters < ONE_THREAD_PARAMETERS:
        return Reason(
            "threads", "1", "Threads that share matrices this small wait for each other more than they compute."
        )
    source = "as measured here" if around.calibration.measured else "by default figures"
    takes = " and ".join(
        f"{probe_seconds(work, rates):.2g} s with {rates.threads}" for rates in around.calibration.rates
    )
    rows = min(PROBED_ROWS, work.recipe.training.global_batch)
    return Reason("threads", str(around.threads), f"A micro-batch of {rows} rows takes {takes}, {source}.")


def alternatives(
    work: Work,
    around: Surroundings,
    candidates: Sequence[Candidate],
    chosen: Candidate,
    cadence: Cadence,
    earlier: Correction,
) -> Iterator[Alternative]:
    """Yield the fastest plans that lost, those that do not fit among them."""
    losers = sorted((each for each in candidates if each is not chosen), key=lambda each: each.training_seconds)
    for each in losers[:SHOWN_ALTERNATIVES]:
        slower = each.training_seconds / chosen.training_seconds - 1
        if each.needed_gib > around.budget_gib:
            because = f"needs {each.needed_gib:.1f} GiB, {around.budget_gib:.1f} may be used"
        elif slower >= NEARLY_AS_FAST - 1:
            because = f"{100 * slower:.0f} % slower"
        else:
            because = f"no faster to speak of, and takes {each.needed_gib - chosen.needed_gib:.2f} GiB more"
        total = time_run(work, around, each, cadence).total
        yield Alternative(each.summary, memory.peak_gib(each.terms) * earlier.peak, total * earlier.seconds, because)


def notes(
    work: Work, machine: Machine, around: Surroundings, chosen: Candidate, timing: Timing, earlier: Correction
) -> Iterator[str]:
    """Yield what people should know about the plan and its figures."""
    device = around.device
    if isinstance(device, Card):
        match device.source:
            case "measured" if around.card_rates is not None:
                yield "Speed is predicted from rates measured on this card."
            case "measured":
                yield f"Speed is predicted from rates measured on an NVIDIA {device.name}."
            case "datasheet":
                yield f"Speed is predicted from the {device.name}'s datasheet; `tunewright probe` measures this card."
            case _:
                yield "This card is not in the table of known ones; times are guesses until a run has ended here."
    elif not around.calibration.measured:
        yield "This processor was not measured yet, so the figures stand on defaults; `tunewright demo` measures it."
    elif around.calibration.disturbed:
        yield (
            f"Other programs kept {around.calibration.others_busy_cores:.1f} cores busy while this processor was "
            "measured; it may be faster than predicted."
        )
    if earlier.because:
        yield earlier.because
    if chosen.setting.optimizer.startswith("paged"):
        yield "The optimizer's states may be paged to the host's memory, for nothing fits otherwise; steps take longer."
    host = memory.host_gib(work.anatomy, work.tuning, chosen.setting)
    if around.gpu is not None and host > machine.memory_free_gib:
        yield f"The run takes about {host:.0f} GiB of the host's memory, and {machine.memory_free_gib:.0f} are free."
    if work.recipe.training.global_batch > work.drawn.rows:
        yield f"The global batch is larger than the {work.drawn.rows} training rows: every step sees all of them."
    if work.drawn.longest > work.anatomy.context:
        yield f"Rows of up to {work.drawn.longest} tokens exceed the model's context of {work.anatomy.context}."
    needed = disk_gib(work, chosen)
    if needed > 0.9 * machine.disk_free_gib:
        yield f"The run writes about {needed:.1f} GiB, and {machine.disk_free_gib:.1f} GiB are free on its disk."
    if work.recipe.method.kind == "qlora" and around.gpu is None:
        yield "On a processor 4-bit weights save memory but not time: each pass expands them again."
    drawn = measured_watts(machine.short_name)
    kwh = cost.energy_kwh(timing.total, machine, around.gpus, drawn)
    if kwh >= 0.01:
        yield f"About {kwh:.2f} kWh {cost.POWER_WORDS[cost.power_source(machine, drawn)]}."
