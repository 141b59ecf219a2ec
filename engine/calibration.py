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
from typing import Any, cast

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text, write_atomically
from ..foundation.home import calibration_path
from ..foundation.text import one_line
from .anatomy import Anatomy
from .plan import Plan

FORM = 1
"""The version of the file's form; another one is measured anew."""
KEPT_RUNS = 50
QUIET_CORES = 0.3
DISTURBED_HOURS = 1.0
"""A measurement that other programs disturbed is kept no longer than this."""
CORRECTING_RUNS = 3
TRUSTED_RATIOS = (0.25, 4.0)
"""A ratio outside these says that something else happened, and is cut."""
MEASURING_SECONDS = 180.0
"""How long the measurement may take at most, imports from a cold disk included."""


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
    """What one finished run took, beside what had been predicted."""

    machine: str
    model: str
    """The model's shape in a few words (`shape_name`)."""
    method: str
    predicted_peak_gib: float
    measured_peak_gib: float
    predicted_seconds: float
    """The training phase alone, as planned before any correction by earlier runs."""
    measured_seconds: float
    time: float

    @property
    def peak_ratio(self) -> float:
        return self.measured_peak_gib / self.predicted_peak_gib

    @property
    def seconds_ratio(self) -> float:
        return self.measured_seconds / self.predicted_seconds


def read_calibration() -> Calibration | None:
    """Return what was measured on this machine with the installed torch, or None when nothing valid was."""
    stored = _stored().get("calibration")
    try:
        values = cast("dict[str, Any]", stored)
        rates = tuple(map(_rates, values["rates"]))
        found = Calibration(
            device=one_line(str(values["device"]), 120),
            torch_version=one_line(str(values["torch_version"]), 40),
            measured=True,
            libraries_gib=_positive(values["libraries_gib"]),
            import_seconds=_positive(values["import_seconds"]),
            others_busy_cores=max(0.0, float(values["others_busy_cores"])),
            time=_positive(values["time"]),
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
    command = [sys.executable, "-m", "tunewright.engine.training.calibrate"]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=MEASURING_SECONDS, check=True, stdin=subprocess.DEVNULL
        )
        values = cast("dict[str, Any]", json.loads(child.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or str(error)
        last = said.strip().splitlines()[-1] if isinstance(said, str) and said.strip() else "it printed nothing"
        raise TunewrightError(
            "Measuring this machine failed",
            f"{' '.join(command[1:])}: {one_line(last, 300)}.",
            "`tunewright doctor` shows what is missing; predictions go on with defaults.",
        ) from error
    stored = _stored() | {"form": FORM, "calibration": values}
    write_atomically(calibration_path(), json.dumps(stored, indent=1) + "\n")
    measured = read_calibration()
    assert measured is not None, "the child's figures are positive numbers"
    return measured


def record(outcome: Outcome) -> None:
    """Keep what a finished run took beside what was predicted; raises TunewrightError when the disk does not allow it."""
    figures = (
        outcome.predicted_peak_gib,
        outcome.measured_peak_gib,
        outcome.predicted_seconds,
        outcome.measured_seconds,
    )
    if not all(math.isfinite(figure) and figure > 0 for figure in figures):
        return  # a run that measured nothing teaches nothing
    stored = _stored()
    runs = [*_run_list(stored), asdict(outcome)][-KEPT_RUNS:]
    write_atomically(calibration_path(), json.dumps(stored | {"form": FORM, "runs": runs}, indent=1) + "\n")


def shape_name(anatomy: Anatomy) -> str:
    """Return a model's shape in a few words: the same for every model that takes the same memory and time."""
    return f"{anatomy.family} {anatomy.layers}x{anatomy.hidden}x{anatomy.ffn} v{anatomy.vocabulary}"


def outcome_of(plan: Plan, anatomy: Anatomy, method: str, peak_gib: float, training_seconds: float) -> Outcome | None:
    """Return what a run under `plan` measured beside the formulas' own prediction; None when nothing was predicted."""
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
    )


@dataclass(frozen=True, slots=True)
class Correction:
    """By what earlier runs say predictions must be multiplied."""

    seconds: float
    peak: float
    runs: int


def correction(machine: str, model: str, method: str) -> Correction:
    """Return the median ratio of the last runs of this shape and method on this machine, 1 without any."""
    latest = outcomes(machine, model, method)[-CORRECTING_RUNS:]
    if not latest:
        return Correction(1.0, 1.0, 0)
    low, high = TRUSTED_RATIOS
    seconds = statistics.median(each.seconds_ratio for each in latest)
    peak = statistics.median(each.peak_ratio for each in latest)
    return Correction(min(high, max(low, seconds)), min(high, max(low, peak)), len(latest))


def outcomes(machine: str, model: str, method: str) -> tuple[Outcome, ...]:
    """Return what finished runs of this shape and method took on this machine, the latest last."""
    found: list[Outcome] = []
    for values in _run_list(_stored()):
        if (values.get("machine"), values.get("model"), values.get("method")) != (machine, model, method):
            continue
        try:
            figures = {name: _positive(values[name]) for name in _FIGURES}
        except (TypeError, ValueError, KeyError):
            continue
        found.append(Outcome(machine, model, method, **figures))
    return tuple(found)


_FIGURES = ("predicted_peak_gib", "measured_peak_gib", "predicted_seconds", "measured_seconds", "time")


def _stored() -> dict[str, Any]:
    """Return the file's object; an unreadable one counts as empty, for it can be measured again."""
    path = calibration_path()
    if not os.path.exists(path):
        return {}
    try:
        value = json.loads(read_text(path))
    except (TunewrightError, ValueError, RecursionError):
        return {}
    stored = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return stored if stored.get("form") == FORM else {}


def _run_list(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs = stored.get("runs")
    entries = cast("list[Any]", runs) if isinstance(runs, list) else []
    return [cast("dict[str, Any]", each) for each in entries if isinstance(each, dict)]


def _rates(values: Mapping[str, Any]) -> ThreadRates:
    return ThreadRates(
        threads=int(_positive(values["threads"])),
        small_gflops=_positive(values["small_gflops"]),
        large_gflops=_positive(values["large_gflops"]),
        layer_seconds=_positive(values["layer_seconds"]),
        adapter_seconds=_positive(values["adapter_seconds"]),
        score_seconds=_positive(values["score_seconds"]),
        logit_seconds=_positive(values["logit_seconds"]),
        dequantised_per_second=_positive(values["dequantised_per_second"]),
    )


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError("not a positive number")
    return value
