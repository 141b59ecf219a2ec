"""The probe: a few real steps of a recipe's plan on its longest rows, compared with what was predicted."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..foundation.errors import TunewrightError, explain_os_error
from ..foundation.files import read_text, write_atomically
from ..foundation.home import home
from ..foundation.text import clean, one_line
from ..recipes.model import Recipe
from . import memory, speed
from .anatomy import read_anatomy
from .batches import measure_lengths, pack
from .calibration import (
    Correction,
    Outcome,
    correction,
    measured_watts,
    read_calibration,
    record,
    shape_name,
)
from .cards import Card
from .data.reading import open_source
from .flop import Load
from .machine import Machine
from .measuring import measure, unmeasured
from .plan import Backend, Plan, write_plan
from .planner import plan_recipe
from .runs import outcome
from .runs.directory import RunDirectory
from .runs.fold import read_history
from .runs.supervise import trainer_environment
from .search import Surroundings, look_around
from .setting import Setting
from .several import Wish
from .sources import find_model, find_weights
from .work import Work

if TYPE_CHECKING:
    from .data.preparing import Prepared, Rows

WARM_STEPS, TIMED_STEPS = 2, 3
STEPS = WARM_STEPS + TIMED_STEPS
FINDINGS = "probe.json"
LIMIT_SECONDS = 900.0
"""How long the child process may take, imports and loading included."""
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Figures:
    """What the probed steps take: predicted, or measured."""

    peak_gib: float
    """Allocated on the GPU, or resident in the process without one."""
    reserved_gib: float
    """What torch's allocator takes from the card; the same as the peak on a processor."""
    step_seconds: float
    """One optimizer step on the longest rows: the median of the timed ones."""
    first_step_seconds: float
    """What the first step takes beyond the others."""
    saving_seconds: float
    checkpoint_bytes: float
    evaluation_gib: float | None = None
    """The peak of one evaluation batch, None without validation rows; on a processor that of the process so far."""
    evaluation_seconds: float | None = None
    watts: float | None = None
    """The GPU's mean power in the timed steps, None where too few samples were taken; predicted by the card's limit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found."""

    plan: Plan
    rows: int
    """The training rows of each step."""
    longest_tokens: int
    """Tokens of the longest of them."""
    predicted: Figures
    """By the formulas, corrected as the plan was."""
    measured: Figures | None
    """None when memory ran out."""
    failure: str
    """How memory ran out; empty when it did not."""
    free_gib: float
    """What was free on the device before."""
    earlier: Correction
    """What the plan was corrected by."""
    later: Correction
    """What later plans like it are corrected by."""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether the plan fits, in a sentence or two."""
        plan, predicted = self.plan, self.predicted
        rows = f"micro-batches of {plan.micro_batch} {'row' if plan.micro_batch == 1 else 'rows'}"
        if self.measured is None:
            return (
                f"Does not fit: {rows} of up to {self.longest_tokens:,} tokens ran out of memory ({self.failure}). "
                f"Predicted were {predicted.peak_gib:.2f} GiB, {predicted.reserved_gib:.2f} with what the allocator "
                f"reserves; {self.free_gib:.2f} GiB were free."
            )
        return f"Fits: {rows} of up to {self.longest_tokens:,} tokens, {self.rows} rows a step."


def probe_recipe(
    recipe: Recipe,
    machine: Machine,
    limit_seconds: float = LIMIT_SECONDS,
    say: Callable[[str], None] = lambda words: None,
    cancelled: Callable[[], bool] = lambda: False,
    backend: Backend | None = None,
    wish: Wish = None,
) -> Finding:
    """Probe the plan of `recipe` on `machine` in a child process, and keep by how much predictions were off.

    `say` is told what is done next, and `cancelled` asked whether to end; `backend` is taken instead of the plan's own
    choice. Raises TunewrightError when there is no plan, when the child fails other than by running out of memory, and
    when it takes longer than `limit_seconds`.
    """
    find_weights(recipe.base.model, recipe.base.revision)
    open_source(recipe.data.source, recipe.data.split)  # what is missing is said before anything is measured
    notes: list[str] = []
    if (device := unmeasured(machine)) is not None:
        say(f"measuring this {device} once, for the predictions")
        try:
            measure(machine)
        except TunewrightError as error:
            notes.append(f"{error.title}: {error.message}")
    say("planning")
    plan = plan_recipe(recipe, machine, backend=backend, wish=1 if wish is None else wish)
    if plan.gpus > 1:
        raise TunewrightError(
            "The probe measures one GPU",
            f"It was asked to use {plan.gpus}: what these take together is told by a short run.",
            "`tunewright train … --gpus` with --set training.steps=20 is one; or probe one GPU, such as --gpus 1.",
        )
    say(f"training {STEPS} steps on the longest rows")
    found = _run_child(recipe, plan, limit_seconds, cancelled)
    return _conclude(recipe, machine, plan, found, notes)


def longest_rows(prepared: Prepared, recipe: Recipe, micro_batch: int) -> Prepared:
    """Return the longest rows, the longest first: those of one step, and those of one evaluation batch."""

    def longest(rows: Rows, wanted: int) -> Rows:
        lengths = rows.lengths
        ordered = sorted(range(len(rows)), key=lambda row: -lengths[row])
        if not recipe.data.packing:
            return rows.take(ordered[:wanted])
        least, most = min(wanted, len(ordered)), len(ordered)  # as many as are packed into that many sequences
        while least < most:
            middle = (least + most + 1) // 2
            packed = pack([lengths[row] for row in ordered[:middle]], recipe.data.max_length)
            least, most = (middle, most) if len(packed) <= wanted else (least, middle - 1)
        return rows.take(ordered[:least])

    return replace(
        prepared,
        training=longest(prepared.training, recipe.training.global_batch),
        validation=longest(prepared.validation, micro_batch),
        kept_out=(),
    )


def _run_child(recipe: Recipe, plan: Plan, limit_seconds: float, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Return what the child wrote down, working in a folder that is gone afterwards; raises TunewrightError."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        # Beside the runs, so that a checkpoint goes to the disk that a run's would go to.
        place = tempfile.TemporaryDirectory(prefix=".probe-", dir=home(), ignore_cleanup_errors=True)
    except OSError as error:
        raise explain_os_error(error, home(), "Making a folder for the probe in") from error
    with place as name:
        directory = RunDirectory(Path(name))
        directory.checkpoints.mkdir()
        write_atomically(directory.recipe_file, recipe.to_toml())
        write_plan(plan, directory.plan_file)
        code = _wait(directory, plan, limit_seconds, cancelled)
        findings = directory.path / FINDINGS
        found = cast("dict[str, Any]", json.loads(read_text(findings))) if findings.exists() else {}
        if code == -signal.SIGKILL and found:
            return found | {"failure": "the system killed the process, as it does when memory runs out"}
        if not found or code not in (outcome.FINISHED, outcome.OUT_OF_MEMORY):
            raise _failure(directory, code)
        return found


def _wait(directory: RunDirectory, plan: Plan, limit_seconds: float, cancelled: Callable[[], bool]) -> int:
    """Run the child to its end and return its exit status; raises TunewrightError when it has to be ended."""
    command = [sys.executable, "-m", "tunewright.engine.training.probe", str(directory.path)]
    with directory.console_file.open("ab") as console:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=trainer_environment(plan),
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + limit_seconds
    try:
        while True:
            try:
                return child.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise TunewrightError(
                        "The probe took too long",
                        f"It had not ended after {limit_seconds:g} s, and was stopped. Nothing is left of it.",
                        "Give it more time with --limit SECONDS.",
                    ) from None
                if cancelled():
                    raise TunewrightError(
                        "The probe was stopped", "Nothing is left of it.", "Start it again when you like."
                    ) from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _failure(directory: RunDirectory, code: int) -> TunewrightError:
    """Return what the child said, or else the last lines that it printed."""
    told = [notice for notice in read_history(directory).notices if notice.level == "error"]
    if code == outcome.REFUSED and told:
        return TunewrightError(told[-1].title, told[-1].message, told[-1].remedy)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
    tail = clean("\n".join(directory.console_tail(12).splitlines()), 2000)
    return TunewrightError(
        "The probe failed", f"It ended with {how}. Its last lines:\n{tail}", "`tunewright doctor` shows what is amiss."
    )


def _conclude(recipe: Recipe, machine: Machine, plan: Plan, found: dict[str, Any], notes: list[str]) -> Finding:
    """Return the finding, after keeping what was measured beside what the formulas say."""
    anatomy = read_anatomy(find_model(recipe.base.model, recipe.base.revision))
    work = Work(recipe, anatomy, tuple(found["training"]), tuple(found["validation"]), 0.0, 0, 0)
    around = look_around(work, machine, read_calibration(), plan.backend)
    shape, kind = shape_name(anatomy), (recipe.method.kind, plan.backend, plan.gradient_checkpointing)
    earlier = correction(machine.short_name, shape, *kind)
    formulas = predict(work, plan, around, machine)
    measured = None if found.get("failure") else Figures(**found["measured"])
    if measured is not None:
        record(
            Outcome(
                machine=machine.short_name,
                model=shape,
                method=recipe.method.kind,
                predicted_peak_gib=formulas.peak_gib,
                measured_peak_gib=measured.peak_gib,
                predicted_seconds=formulas.step_seconds,
                measured_seconds=measured.step_seconds,
                time=time.time(),
                kind="probe",
                backend=plan.backend,
                checkpointing=plan.gradient_checkpointing,
                watts=measured.watts,
            )
        )
    predicted = replace(
        formulas,
        peak_gib=formulas.peak_gib * earlier.peak,
        reserved_gib=formulas.reserved_gib * earlier.peak,
        step_seconds=formulas.step_seconds * earlier.seconds,
    )
    return Finding(
        plan=plan,
        rows=len(work.training),
        longest_tokens=max(work.training),
        predicted=predicted,
        measured=measured,
        failure=one_line(str(found.get("failure") or ""), 300),
        free_gib=around.free_gib,
        earlier=earlier,
        later=correction(machine.short_name, shape, *kind),
        notes=tuple(notes),
    )


def predict(work: Work, plan: Plan, around: Surroundings, machine: Machine) -> Figures:
    """Return what the formulas say of a step on the rows of `work`, an evaluation batch and a checkpoint."""
    anatomy, tuning = work.anatomy, work.tuning
    device = around.calibration.with_threads(plan.threads) if around.gpu is None else around.device
    setting, load, batches = lay_out(work.recipe, plan, around, work.training)
    terms = memory.predict_memory(anatomy, tuning, setting)
    peak = memory.peak_gib(terms)
    figures = Figures(
        peak_gib=peak,
        reserved_gib=memory.reserved_gib(terms, plan.backend) if setting.on_gpu else peak,
        step_seconds=speed.step_seconds(anatomy, tuning, setting, load, batches, device),
        first_step_seconds=speed.compiling_seconds(anatomy, tuning, setting) if setting.on_gpu else 0.0,
        saving_seconds=speed.checkpoint_seconds(anatomy, tuning, setting),
        checkpoint_bytes=speed.checkpoint_bytes(anatomy, tuning, setting),
    )
    if around.gpu is not None and isinstance(device, Card):
        limit = around.gpu.power_limit_watts or device.watts
        figures = replace(figures, watts=measured_watts(machine.short_name) or limit)
    if not work.validation:
        return figures
    setting, load, batches = lay_out(work.recipe, plan, around, work.validation)
    return replace(
        figures,
        evaluation_gib=memory.evaluation_gib(anatomy, tuning, setting),
        evaluation_seconds=speed.evaluation_seconds(anatomy, tuning, setting, load, batches, device),
    )


def lay_out(recipe: Recipe, plan: Plan, around: Surroundings, lengths: Sequence[int]) -> tuple[Setting, Load, int]:
    """Return the setting that `plan` means for rows of these lengths, longest first: that of its largest micro-batch.

    With it come the mean micro-batch, and how many there are.
    """
    packed = plan.batching == "packed"
    drawn = sorted(pack(lengths, recipe.data.max_length), reverse=True) if packed else list(lengths)
    batches = [drawn[start : start + plan.micro_batch] for start in range(0, len(drawn), plan.micro_batch)]
    paged = "paged_" if plan.optimizer_placement == "paged" else ""
    setting = Setting(
        device=plan.device,
        backend=plan.backend,
        precision=plan.precision,
        rows=len(batches[0]),
        tokens_per_row=drawn[0],
        checkpointing=plan.gradient_checkpointing,
        optimizer=f"{paged}{recipe.training.optimizer}",
        packed=packed,
        liger=plan.liger,
        compiled=plan.compiled,
        libraries_gib=around.calibration.libraries_gib if around.gpu is None else 0.0,
        accumulation=len(batches),
        padded=plan.backend == "unsloth" and plan.batching == "padded",
        recompute_every=plan.recompute_every,
        cuda_workspace_mib=around.workspace_mib,
    )
    if plan.batching == "padded":
        tokens = [len(batch) * max(batch) for batch in batches]
        attended = sum(len(batch) * max(batch) ** 2 for batch in batches) / sum(tokens)
    else:
        tokens, attended = [sum(batch) for batch in batches], measure_lengths(lengths).attended
        documents = math.ceil(len(batches[0]) * len(lengths) / len(drawn))
        setting = replace(setting, rows=1, tokens_per_row=max(tokens), documents=documents)
    return setting, Load(sum(tokens) / len(batches), attended), len(batches)
