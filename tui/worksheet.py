"""The workbench's arithmetic: parameters by rank, projections, memory by term and cost, for one model."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..engine.advice import MethodFigures, compare_methods
from ..engine.anatomy import Anatomy, Projection, read_anatomy
from ..engine.calibration import default_calibration, read_calibration
from ..engine.machine import Machine
from ..engine.memory import Checkpointing, Setting, Tuning, predict_memory
from ..engine.sources import BUILT_IN_MODELS, find_model

Targets = Literal["all-linear", "attention", "qv"]
TARGETS: tuple[Targets, ...] = ("all-linear", "attention", "qv")
RANKS = (8, 16, 32, 64)
ROWS_OF_A_RUN = 1000
Method = Literal["lora", "qlora", "full"]
METHODS: tuple[Method, ...] = ("lora", "qlora", "full")


@dataclass(frozen=True, slots=True)
class Case:
    """What is calculated for."""

    model: str = "tunewright/starter"
    targets: Targets = "all-linear"
    rank: int = 16
    tokens: int = 512
    rows: int = 4
    recomputing: bool = False


@dataclass(frozen=True, slots=True)
class ProjectionLine:
    """One projection: whether it gets an adapter, and what that costs."""

    projection: Projection
    targeted: bool
    adapter_parameters: int


@dataclass(frozen=True, slots=True)
class Worksheet:
    """The figures of one case."""

    case: Case
    machine: Machine
    anatomy: Anatomy
    by_rank: tuple[tuple[int, int], ...]
    projections: tuple[ProjectionLine, ...]
    memory: dict[Method, dict[str, float]]
    """GiB by term, for each method."""
    figures: tuple[MethodFigures, ...]
    """Each method's fastest plan for a run over ROWS_OF_A_RUN rows."""


def calculate(case: Case, machine: Machine) -> Worksheet:
    """Return the figures of `case` on `machine`; raises TunewrightError when the model is not understood."""
    anatomy = read_model(case.model)
    tokens = min(case.tokens, anatomy.context)
    gpu = machine.gpus[0] if machine.gpus else None
    calibration = read_calibration() or default_calibration(machine.cores)
    backend: Literal["unsloth", "transformers"] = (
        "unsloth" if gpu is not None and importlib.util.find_spec("unsloth") else "transformers"
    )
    checkpointing: Checkpointing = "off" if not case.recomputing else "offloaded" if backend == "unsloth" else "on"
    setting = Setting(
        device="cpu" if gpu is None else "cuda",
        backend=backend,
        precision="fp32" if gpu is None else "bf16" if gpu.supports_bf16 else "fp16",
        rows=case.rows,
        tokens_per_row=tokens,
        checkpointing=checkpointing,
        libraries_gib=calibration.libraries_gib if gpu is None else 0.0,
    )
    return Worksheet(
        case=case,
        machine=machine,
        anatomy=anatomy,
        by_rank=tuple((rank, anatomy.lora_parameters(rank, case.targets)) for rank in RANKS),
        projections=tuple(_line(anatomy, each, case) for each in anatomy.projections),
        memory={
            method: predict_memory(anatomy, Tuning(method, 0 if method == "full" else case.rank, case.targets), setting)
            for method in METHODS
        },
        figures=compare_methods(machine, anatomy, ROWS_OF_A_RUN, tokens),
    )


def read_model(name: str) -> Anatomy:
    """Return the anatomy of a built-in, local or cached model; of a local one the config.json is enough."""
    path = Path(name).expanduser()
    local = name not in BUILT_IN_MODELS and path.exists()
    return read_anatomy(path if local else find_model(name))


def _line(anatomy: Anatomy, projection: Projection, case: Case) -> ProjectionLine:
    targeted = projection.name in anatomy.target_names(case.targets)
    return ProjectionLine(
        projection, targeted, anatomy.lora_parameters(case.rank, (projection.name,)) if targeted else 0
    )
