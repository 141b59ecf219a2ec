"""What was measured on this machine: how fast its processor is, and how far past predictions were off."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, cast

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from .anatomy import Anatomy
from .calibration_file import entries, positive, store, stored, word
from .plan import Plan

KEPT_RUNS = 50
QUIET_CORES = 0.3
DISTURBED_HOURS = 1.0
"""A measurement that other programs disturbed is kept no longer than this."""
CORRECTING_RUNS = 3
TRUSTED_RATIOS = (0.25, 4.0)
"""A ratio outside these says that something else happened, and is cut."""
MEASURING_SECONDS = 180.0
"""How long the measurement may take at most, imports from a cold disk included."""
OutcomeKind = Literal["run", "probe"]


@dataclass(frozen=True, slots=True)
class ThreadRates:
    """What the processor does with a number of threads."""

    threads: int
    small_gflops: float
    """Matrix products of 256 columns, forward and backward, as small models have them."""
    large_gflops: float
    """Matrix products of 1,024 columns and more."""
    layer_seconds: float
    """One decoder layer's forward and backward pass on a single token of a tiny model: overhead alone."""
    adapter_seconds: float
    """What an adapter on a projection adds to that."""
    score_seconds: float
    """Forward and backward pass of attention for each pair of tokens and head, beyond its matrix products."""
    logit_seconds: float
    """Forward and backward pass of the loss for each token and word of the vocabulary."""
    dequantised_per_second: float
    """4-bit weights that pass through a product, forward or backward, in a second."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The measured rates of this machine's processor."""

    device: str
    torch_version: str
    measured: bool
    """False for the documented defaults that stand in until the machine is measured."""
    libraries_gib: float
    """The resident set of a process that has imported all that the trainer imports."""
    import_seconds: float
    others_busy_cores: float
    """How many cores other programs kept busy during the measurement."""
    time: float
    """When it was measured, in seconds since the epoch."""
    rates: tuple[ThreadRates, ...]

    @property
    def disturbed(self) -> bool:
        """Whether other programs took enough of the processor to make it look slow."""
        return self.others_busy_cores > QUIET_CORES

    def with_threads(self, threads: int) -> ThreadRates:
        """Return the rates that were measured with the nearest number of threads."""
        return min(self.rates, key=lambda each: abs(each.threads - threads))


def default_calibration(cores: int) -> Calibration:
    """Return what stands in for a measurement: one core of a 2024 server, every further one adding 60 % of it."""
    scale = 1 + 0.6 * (max(1, cores) - 1)
    rates = [ThreadRates(1, 90.0, 85.0, 6e-4, 8.5e-5, 6e-9, 7e-9, 3e9)]
    if cores > 1:
        rates.append(ThreadRates(cores, 90 * scale, 85 * scale, 7e-4, 1e-4, 6e-9 / scale, 7e-9 / scale, 2e9))
    return Calibration("processor", "", False, 0.48, 9.0, 0.0, 0.0, tuple(rates))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one finished run, or one probe, took beside what had been predicted."""

    machine: str
    model: str
    """The model's shape in a few words (`shape_name`)."""
    method: str
    predicted_peak_gib: float
    measured_peak_gib: float
    predicted_seconds: float
    """The training phase alone, or a probe's step, as predicted before any correction by earlier runs."""
    measured_seconds: float
    time: float
    kind: OutcomeKind = "run"
    backend: str = ""
    checkpointing: str = ""
    watts: float | None = None
    """The mean power of the GPU while training."""

    @property
    def peak_ratio(self) -> float:
        return self.measured_peak_gib / self.predicted_peak_gib

    @property
    def seconds_ratio(self) -> float:
        return self.measured_seconds / self.predicted_seconds


def read_calibration() -> Calibration | None:
    """Return what was measured on this machine with the installed torch, or None when nothing valid was."""
    try:
        values = cast("dict[str, Any]", stored().get("calibration"))
        rates = tuple(map(_rates, values["rates"]))
        found = Calibration(
            device=one_line(str(values["device"]), 120),
            torch_version=one_line(str(values["torch_version"]), 40),
            measured=True,
            libraries_gib=positive(values["libraries_gib"]),
            import_seconds=positive(values["import_seconds"]),
            others_busy_cores=max(0.0, float(values["others_busy_cores"])),
            time=positive(values["time"]),
            rates=rates,
        )
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return found if rates and _is_current(found) else None


def _is_current(found: Calibration) -> bool:
    """Tell whether the torch and the cores that were measured are still those of this machine, and were free."""
    if found.disturbed and time.time() - found.time > DISTURBED_HOURS * 3600:
        return False
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return False
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return found.torch_version == installed and max(each.threads for each in found.rates) == cores


def calibrate() -> Calibration:
    """Measure this machine in a child process, keep the result and return it; takes about ten seconds.

    Raises TunewrightError when the child fails, with the last line that it printed.
    """
    store("calibration", measure_in_child([], os.environ))
    measured = read_calibration()
    assert measured is not None, "the child's figures are positive numbers"
    return measured


def measure_in_child(arguments: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what the measuring child prints; raises TunewrightError when it fails."""
    command = [sys.executable, "-m", "tunewright.engine.training.calibrate", *arguments]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=MEASURING_SECONDS, check=True, stdin=subprocess.DEVNULL,
            env=dict(environment),
        )  # fmt: skip
        return cast("dict[str, Any]", json.loads(child.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or str(error)
        last = said.strip().splitlines()[-1] if isinstance(said, str) and said.strip() else "it printed nothing"
        raise TunewrightError(
            "Measuring this machine failed",
            f"{' '.join(command[1:])}: {one_line(last, 300)}.",
            "`tunewright doctor` shows what is missing; predictions go on with defaults.",
        ) from error


def record(outcome: Outcome) -> None:
    """Keep what a run or a probe took beside what was predicted; raises TunewrightError when the disk refuses."""
    figures = (
        outcome.predicted_peak_gib,
        outcome.measured_peak_gib,
        outcome.predicted_seconds,
        outcome.measured_seconds,
    )
    if not all(math.isfinite(figure) and figure > 0 for figure in figures):
        return  # a run that measured nothing teaches nothing
    name = _LISTS[outcome.kind]
    store(name, [*entries(name), asdict(outcome)][-KEPT_RUNS:])


_LISTS: dict[OutcomeKind, str] = {"run": "runs", "probe": "probes"}
"""The lists of the file that outcomes are kept in."""


def shape_name(anatomy: Anatomy) -> str:
    """Return a model's shape in a few words: the same for every model that takes the same memory and time."""
    return f"{anatomy.family} {anatomy.layers}x{anatomy.hidden}x{anatomy.ffn} v{anatomy.vocabulary}"


def outcome_of(
    plan: Plan,
    anatomy: Anatomy,
    method: str,
    peak_gib: float,
    training_seconds: float,
    watts: float | None = None,
) -> Outcome | None:
    """Return what a run under `plan` measured beside the formulas' own prediction; None when nothing was predicted.

    `watts` is the mean power of its GPU while training.
    """
    predicted = plan.prediction
    if predicted is None:
        return None
    return Outcome(
        machine=plan.machine,
        model=shape_name(anatomy),
        method=method,
        predicted_peak_gib=predicted.peak_gib / predicted.peak_correction,
        measured_peak_gib=peak_gib,
        predicted_seconds=predicted.training_seconds / predicted.seconds_correction,
        measured_seconds=training_seconds,
        time=time.time(),
        backend=plan.backend,
        checkpointing=plan.gradient_checkpointing,
        watts=watts,
    )


@dataclass(frozen=True, slots=True)
class Correction:
    """By what earlier runs, or a probe, say predictions must be multiplied."""

    seconds: float
    peak: float
    runs: int
    """How many runs say so: 0 where nothing is corrected, or a probe corrects."""
    probed: bool = False

    @property
    def because(self) -> str:
        """Who says so and by how much, in a sentence; nothing where nothing is corrected."""
        if not (self.runs or self.probed):
            return ""
        runs = "a probe" if self.probed else "1 earlier run" if self.runs == 1 else f"{self.runs} earlier runs"
        return (
            f"Corrected by {runs} of this model shape and method here: time × {self.seconds:.2f}, memory × "
            f"{self.peak:.2f}."
        )


def correction(
    machine: str, model: str, method: str, backend: str | None = None, checkpointing: str | None = None
) -> Correction:
    """Return the median ratio of the last runs of this shape and method on this machine, 1 without any.

    Those with this backend and checkpointing come first, where they are named; a probe counts while there is no run.
    """

    def alike(each: Outcome) -> bool:
        return (each.backend, each.checkpointing) == (backend, checkpointing)

    runs, probes = (outcomes(machine, model, method, kind) for kind in _LISTS)
    for said in (filter(alike, runs), filter(alike, probes), runs, probes):
        if latest := tuple(said)[-CORRECTING_RUNS:]:
            break
    else:
        return Correction(1.0, 1.0, 0)
    probed = latest[-1].kind == "probe"
    if probed:
        latest = latest[-1:]
    low, high = TRUSTED_RATIOS
    seconds = statistics.median(each.seconds_ratio for each in latest)
    peak = statistics.median(each.peak_ratio for each in latest)
    runs_said = 0 if probed else len(latest)
    return Correction(min(high, max(low, seconds)), min(high, max(low, peak)), runs_said, probed)


def measured_watts(machine: str) -> float | None:
    """Return one GPU's mean power while training, by the last runs on this machine, or else by its last probes."""
    for kind in _LISTS:
        found = (_outcome(values, kind) for values in entries(_LISTS[kind]))
        drawn = [each.watts for each in found if each is not None and each.machine == machine and each.watts]
        if drawn:
            return statistics.median(drawn[-CORRECTING_RUNS:])
    return None


def outcomes(machine: str, model: str, method: str, kind: OutcomeKind = "run") -> tuple[Outcome, ...]:
    """Return what finished runs, or probes, of this shape and method took on this machine, the latest last."""
    found = (_outcome(values, kind) for values in entries(_LISTS[kind]))
    wanted = (machine, model, method)
    return tuple(each for each in found if each is not None and (each.machine, each.model, each.method) == wanted)


def _outcome(values: Mapping[str, Any], kind: OutcomeKind) -> Outcome | None:
    """Return a stored outcome, None when it cannot be read; entries of earlier versions lack the plan and the power."""
    try:
        machine, model, method = (word(values[name]) for name in ("machine", "model", "method"))
        backend, checkpointing = (word(values.get(name, "")) for name in ("backend", "checkpointing"))
        figures = {name: positive(values[name]) for name in _FIGURES}
        watts = None if values.get("watts") is None else positive(values["watts"])
        return Outcome(
            machine, model, method, **figures, kind=kind, backend=backend, checkpointing=checkpointing, watts=watts
        )
    except (TypeError, ValueError, KeyError):
        return None


_FIGURES = ("predicted_peak_gib", "measured_peak_gib", "predicted_seconds", "measured_seconds", "time")


def _rates(values: Mapping[str, Any]) -> ThreadRates:
    return ThreadRates(
        threads=int(positive(values["threads"])),
        small_gflops=positive(values["small_gflops"]),
        large_gflops=positive(values["large_gflops"]),
        layer_seconds=positive(values["layer_seconds"]),
        adapter_seconds=positive(values["adapter_seconds"]),
        score_seconds=positive(values["score_seconds"]),
        logit_seconds=positive(values["logit_seconds"]),
        dequantised_per_second=positive(values["dequantised_per_second"]),
    )
