"""The measured rows, and what today's formulas predict for each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from cases import DEFAULTS
from shapes import SHAPES
from tunewright.engine import gpu_speed, memory
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.cards import find_card
from tunewright.engine.flop import Load
from tunewright.engine.gpu_speed import Coefficients
from tunewright.engine.setting import Setting, Tuning

ROWS = Path(__file__).resolve().parent / "rows"
ALONE = ROWS.parent.parent / "tests" / "engine" / "measured" / "h200_fixed_length.jsonl"
"""Rows measured while nothing else ran on the host."""
BUSY_HOST = 1.65
"""How much longer the host took to launch the work while other processes imported and loaded; fitted (`fit.py`)."""
IDLE = frozenset({"alone", "two_gpus"})
"""Sets that were measured while the host did nothing else."""
GPUS = {"one": 1, "ddp": 2, "fsdp2": 2}
"""GPUs of the rows that were measured, by how they shared the work."""
WHAT_WAS_ASKED = ("model", "backend", "method", "rank", "targets", "optimizer", "sequence", "micro_batch", "checkpointing", "liger")  # fmt: skip
"""Fields by which a prediction is known again."""


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration and what was measured of it."""

    set: str
    """The file that it stands in, without its ending; "alone" for the rows that the tests hold."""
    values: Mapping[str, Any]

    @property
    def anatomy(self) -> Anatomy:
        return anatomy_of(self.values["model"])

    @property
    def tuning(self) -> Tuning:
        return Tuning(self.values["method"], self.values["rank"] or 0, self.values["targets"] or "all-linear")

    @property
    def setting(self) -> Setting:
        """The setting as the libraries ran it."""
        row = self.values
        recomputing = "offloaded" if row["backend"] == "unsloth" else "on"
        return Setting(
            "cuda", row["backend"], "bf16", row["micro_batch"], row["sequence"],
            checkpointing=recomputing if row["checkpointing"] else "off", optimizer=row["optimizer"],
            liger=row["liger"], padded=row["batching"] == "padded", adapters=row["adapters"],
            gpus=GPUS[row["parallelism"]], parallelism=row["parallelism"], recompute_every=row["recompute_every"],
        )  # fmt: skip

    @property
    def host(self) -> float:
        """By how much the host was slower than an idle one."""
        return 1.0 if self.set in IDLE else BUSY_HOST

    @property
    def summary(self) -> str:
        """The configuration in a few words."""
        row = self.values
        words = [row["model"], row["backend"], row["method"]]
        if row["method"] != "full":
            words.append(f"{self.tuning.targets} r{row['rank']}")
        words.append(f"{row['micro_batch']} × {row['sequence']}")
        words += [word for word in ("checkpointing", "liger") if row[word]]
        return " ".join([*words, row["optimizer"]])


@dataclass(frozen=True, slots=True)
class Figures:
    """What is predicted of a row; None where nothing was."""

    peak_allocated_gib: float
    peak_reserved_gib: float
    needed_gib: float
    step_seconds: float


@cache
def anatomy_of(model: str) -> Anatomy:
    """Return the anatomy of a model that was measured."""
    return parse_anatomy(SHAPES[model], model)


def read_rows(name: str) -> list[Row]:
    """Return all rows of a set, those that failed among them."""
    defaults = DEFAULTS | {"batching": "padded"} if name == "alone" else DEFAULTS
    path = ALONE if name == "alone" else ROWS / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Row(name, defaults | json.loads(line)) for line in lines]


def measured_rows(*names: str) -> list[Row]:
    """Return the rows of these sets on rows of one length that ended with all figures."""
    rows = [row for name in names for row in read_rows(name)]
    return [row for row in rows if "peak_reserved_gib" in row.values and not row.values["lengths"]]


def failed_rows(*names: str) -> Iterator[tuple[Row, str]]:
    """Yield the rows that failed or ran out of memory, with why."""
    for name in names:
        for row in read_rows(name):
            why = row.values.get("error") or row.values.get("out_of_memory")
            if why:
                yield row, why


def kept_out(row: Row) -> str:
    """Return why a row's time is not what the formulas for time are for, or nothing."""
    if row.values["optimizer"] in ("adafactor", "paged_adamw_8bit"):
        return "only AdamW has a formula for its time"
    if row.setting.backend == "unsloth" and row.tuning.kind == "full" and row.anatomy.head_norms == "head":
        return "Unsloth builds masks and repeated heads for such a model instead of taking a fused attention"
    return ""


def coefficients(host: float, fitted: Coefficients = gpu_speed.FITTED) -> Coefficients:
    """Return the coefficients for a host that takes `host` times as long to launch the work."""
    slower = [each.name for each in fields(fitted) if each.name.startswith(("layer_", "projection_", "quantised_"))]
    return replace(fitted, **{name: host * getattr(fitted, name) for name in [*slower, "step"]})


def step_seconds(row: Row, fitted: Coefficients) -> float:
    """Return the predicted seconds of a step with these coefficients."""
    anatomy, tuning, setting = row.anatomy, row.tuning, row.setting
    card = find_card(row.values["gpu"])
    load = Load(setting.tokens, setting.tokens_per_row)
    seconds = gpu_speed.micro_batch_seconds(anatomy, tuning, setting, load, card, fitted)
    seconds += gpu_speed.optimizer_seconds(anatomy, tuning, setting, card, fitted)
    return seconds + gpu_speed.traffic_seconds(anatomy, tuning, setting, card, seconds)


def predict(row: Row) -> Figures:
    """Return what today's formulas say of a row."""
    setting = row.setting
    terms = memory.predict_memory(row.anatomy, row.tuning, setting)
    return Figures(
        memory.peak_gib(terms),
        memory.reserved_gib(terms, setting.backend),
        memory.needed_gib(terms, setting),
        step_seconds(row, coefficients(row.host)),
    )


def written_down(rows: list[Row]) -> list[Figures]:
    """Return what was predicted of these held-out rows before they were measured."""
    lines = (ROWS / "held_out_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    told = {_asked(values): values for values in map(json.loads, lines)}
    names = [each.name for each in fields(Figures)]
    return [Figures(**{name: told[_asked(row.values)][name] for name in names}) for row in rows]


def _asked(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[name] for name in WHAT_WAS_ASKED)
