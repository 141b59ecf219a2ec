"""Fits the coefficients of the formulas to the measured rows, and prints them beside those that are shipped.

`python benchmarks/fit.py`: the steps' seconds by least squares on the logarithms, with outliers weighing less; the
allocator's slack by least absolute deviations. It needs scipy, which Tunewright itself does not.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy
from measured import BUSY_HOST, Row, coefficients, kept_out, measured_rows, step_seconds
from numpy.typing import NDArray
from tunewright.engine import memory
from tunewright.engine.gpu_speed import FITTED, Coefficients

Floats = NDArray[numpy.float64]
FITTED_SETS = ("paths", "sweep", "alone")
UNFITTED = frozenset({"adapter", "document"})
"""Coefficients that are not fitted to these rows, which have no documents of different lengths."""
HOST = "host"
"""How much slower the busy host is, fitted beside the coefficients."""
SMALL_MODEL_WEIGHT = 3
"""What a small model's rows count for that were measured alone: they are all that tells of an idle host."""
OUTLIER = 0.04
"""Beyond errors of this size a row's weight falls."""
LEAST = 1e-6
BOUNDS = {"matrix": (0.05, 1.0), "attention": (0.05, numpy.inf), "sharpness": (2.0, 12.0), HOST: (1.0, 1.8)}
START = {
    "matrix": 0.8, "attention": 0.5, "moved_plain": 300.0, "moved_plain_full": 150.0, "moved_liger": 110.0,
    "moved_liger_full": 80.0, "moved_fast": 90.0, "moved_compiled": 90.0, "moved_compiled_full": 90.0, "moved_fp32": 1.4,
    "adapted_plain": 15.0, "adapted_liger": 15.0, "adapted_fast": 5.0, "adapted_compiled": 5.0,
    "dequantised_unsloth": 1.0, "dequantised_transformers": 3.0, "layer_plain": 900.0, "layer_liger": 800.0,
    "layer_fast": 1500.0, "layer_compiled": 900.0, "projection_plain": 200.0, "projection_liger": 200.0,
    "projection_fast": 20.0, "projection_compiled": 20.0, "quantised_unsloth": 30.0, "quantised_transformers": 60.0,
    "recomputed_unsloth": 1.0, "recomputed_transformers": 1.0, "recomputed_4bit": 1.0, "step": 10.0, "sharpness": 5.0,
    "tensor_8bit": 30.0, "update_8bit": 20.0, "update_32bit": 10.0, HOST: 1.3,
}  # fmt: skip
"""Where the fit begins: far from where it ends, so that it finds its own way."""
SLACK_TERMS = (("layer",), ("activations",), ("gradients", "step", "optimizer"), ("loss",))
"""Terms of memory that are given one share of slack."""
ROUNDS = 200
LEAST_GIB = 1e-4


def rows_to_fit() -> list[Row]:
    """Return the rows that the time is fitted to, some of them several times."""
    rows = [row for row in measured_rows(*FITTED_SETS) if not kept_out(row)]
    small = [row for row in rows if row.set == "alone" and row.values["model"].endswith("1b")]
    return rows + (SMALL_MODEL_WEIGHT - 1) * small


def log_errors(rows: Sequence[Row], fitted: Coefficients, busy: float) -> Floats:
    """Return the logarithms of predicted over measured seconds, on a host that is `busy` times as slow."""
    slow = coefficients(busy, fitted)
    predicted = [step_seconds(row, fitted if row.host == 1 else slow) for row in rows]
    return numpy.log(predicted) - numpy.log([row.values["step_seconds"] for row in rows])


def fit_seconds(rows: Sequence[Row]) -> tuple[Coefficients, float]:
    """Return the coefficients that fit the rows best, and how much slower the busy host was."""
    from scipy.optimize import least_squares

    names = list(START)

    def errors(values: Floats) -> Floats:
        given = dict(zip(names, map(float, values), strict=True))
        busy = given.pop(HOST)
        return log_errors(rows, replace(FITTED, **given), busy)

    start = numpy.array(list(START.values()))
    bounds = numpy.array([BOUNDS.get(name, (LEAST, numpy.inf)) for name in names]).T
    found = least_squares(
        errors, start, bounds=(bounds[0], bounds[1]), loss="soft_l1", f_scale=OUTLIER, x_scale=start, max_nfev=3000
    )
    given = dict(zip(names, map(float, found.x), strict=True))
    busy = given.pop(HOST)
    return replace(FITTED, **given), busy


def fit_slack(rows: Sequence[Row]) -> list[float]:
    """Return the share of each of `SLACK_TERMS` that the allocator reserves beyond it, by least absolute deviations."""
    predicted = [memory.predict_memory(row.anatomy, row.tuning, row.setting) for row in rows]
    parts = numpy.array([[sum(terms.get(name, 0.0) for name in names) for names in SLACK_TERMS] for terms in predicted])
    beyond = numpy.array([row.values["peak_reserved_gib"] - row.values["peak_allocated_gib"] for row in rows])
    weights = 1 / numpy.array([row.values["peak_reserved_gib"] for row in rows])
    parts, beyond = parts * weights[:, None], beyond * weights
    shares = numpy.linalg.lstsq(parts, beyond, rcond=None)[0]
    for _ in range(ROUNDS):
        root = numpy.maximum(numpy.abs(beyond - parts @ shares), LEAST_GIB) ** -0.5
        shares = numpy.linalg.lstsq(parts * root[:, None], beyond * root, rcond=None)[0]
    return [max(0.0, float(share)) for share in shares]


def tell_errors(what: str, rows: Sequence[Row], fitted: Coefficients, busy: float) -> None:
    """Print the errors of the seconds over these rows, with the shipped coefficients and with those just fitted."""
    print(f"# {what}, {len(rows)} rows:")
    for name, errors in (("shipped", log_errors(rows, FITTED, BUSY_HOST)), ("fitted", log_errors(rows, fitted, busy))):
        shares = numpy.exp(errors) - 1
        sizes = numpy.sort(numpy.abs(shares))
        cost = OUTLIER**2 * float(numpy.sum(numpy.sqrt(1 + (errors / OUTLIER) ** 2) - 1))
        middle, high = statistics.median(sizes), sizes[math.ceil(0.95 * len(sizes)) - 1]
        ends = f"{100 * shares.min():+.1f} to {100 * shares.max():+.1f} %"
        print(f"#   {name:<8} median {100 * middle:.2f} %, 95th percentile {100 * high:.1f} %, {ends}, cost {cost:.4f}")


def main() -> None:
    """Fit both, and print them."""
    if importlib.util.find_spec("scipy") is None:
        sys.exit("scipy does the fit and is not installed here; `pip install scipy` adds it.")
    rows = rows_to_fit()
    fitted, busy = fit_seconds(rows)
    print(f"# Seconds, fitted to {len(rows)} rows: field = fitted  # shipped")
    shipped = asdict(FITTED)
    for name, value in asdict(fitted).items():
        print(f"{name} = {value:.4g}  # {shipped[name]:.4g}{', not fitted' if name in UNFITTED else ''}")
    print(f"BUSY_HOST = {busy:.4g}  # {BUSY_HOST:.4g}")
    tell_errors("rows of the fit", rows, fitted, busy)
    tell_errors("those measured alone", measured_rows("alone"), fitted, busy)
    tell_errors("held out of the fit", measured_rows("held_out"), fitted, busy)
    print("\n# Slack of the allocator: term = fitted  # shipped")
    for backend, shares in memory.SLACK.items():
        own = [row for row in measured_rows("paths", "sweep") if row.values["backend"] == backend]
        for names, share in zip(SLACK_TERMS, fit_slack(own), strict=True):
            print(f"{backend} {', '.join(names)} = {share:.3f}  # {shares[names[0]]:.3f}")


if __name__ == "__main__":
    main()
