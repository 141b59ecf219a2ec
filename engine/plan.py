"""The plan: everything that only changes what a run costs, chosen for one machine, with reasons."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text, write_atomically

Backend = Literal["unsloth", "transformers"]
Precision = Literal["bf16", "fp16", "fp32"]
Batching = Literal["padded", "packed", "padding-free"]
Checkpointing = Literal["off", "on", "offloaded"]
Parallelism = Literal["one", "ddp", "fsdp2"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One choice of the plan, and why it was made."""

    choice: str
    value: str
    because: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that lost, with its figures."""

    summary: str
    peak_gib: float
    total_seconds: float
    lost_because: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run is expected to take; memory in GiB, time in seconds."""

    trainable_parameters: int
    total_parameters: int
    peak_gib: float
    """Peak memory: allocated on the GPU, or resident in the trainer's process without one."""
    memory_terms: dict[str, float]
    """GiB by term; they add up to `peak_gib`."""
    tokens: int
    """Useful tokens over the whole run."""
    tokens_per_second: float
    seconds_to_first_step: float
    training_seconds: float
    """From the first step's start to the last step's end, evaluations and checkpoints included."""
    total_seconds: float
    total_seconds_range: tuple[float, float]
    disk_gib: float
    step_seconds: float = 0.0
    """One optimizer step."""
    reserved_gib: float = 0.0
    """What torch's allocator takes from the card; the same as the peak on a processor."""
    evaluation_gib: float = 0.0
    """The peak of an evaluation."""
    saving_gib: float = 0.0
    """The peak on the device while saving, or while the merged model is made."""
    host_gib: float = 0.0
    """The host's memory that the run takes."""
    cost: float | None = None
    """Money at the user's hourly rate, None without one."""
    seconds_correction: float = 1.0
    """By what the times were multiplied because of earlier runs; divide by it to get the formulas' own figure."""
    peak_correction: float = 1.0
    """The same for `peak_gib`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one recipe is run on one machine."""

    machine: str
    backend: Backend
    device: Literal["cuda", "cpu"]
    precision: Precision
    micro_batch: int
    """Rows in one forward pass on one device."""
    accumulation: int
    """Forward passes in one optimizer step; micro_batch x accumulation x GPUs is the recipe's global batch."""
    gradient_checkpointing: Checkpointing
    batching: Batching
    attention: str
    threads: int
    """Processor threads of the trainer (OMP_NUM_THREADS)."""
    total_steps: int
    training_rows: int
    validation_rows: int
    evaluate_every_steps: int
    checkpoint_every_steps: int
    sample_every_steps: int
    merge: bool
    """Whether the merged model is written beside the adapter at the end."""
    recompute_every: int = 1
    """Gradient checkpointing recomputes every n-th layer."""
    liger: bool = False
    """Whether Liger's fused operations stand in for transformers' own."""
    optimizer_placement: Literal["device", "paged"] = "device"
    """Whether the optimizer's states may be paged to the host."""
    compiled: bool = False
    """Whether torch.compile makes one kernel of each layer's many small operations."""
    gpu_indices: tuple[int, ...] = (0,)
    """The GPUs that the run uses, by the driver's numbering (that of nvidia-smi)."""
    parallelism: Parallelism = "one"
    prediction: Prediction | None = None
    reasons: tuple[Reason, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def gpus(self) -> int:
        """How many GPUs train; each has a process."""
        return len(self.gpu_indices)

    @property
    def global_batch(self) -> int:
        """Rows in one optimizer step."""
        return self.micro_batch * self.accumulation * self.gpus

    def to_json(self) -> str:
        """Return the plan as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def write_plan(plan: Plan, path: Path) -> None:
    """Write `plan` to `path` in one step."""
    write_atomically(path, plan.to_json())


def read_plan(path: Path) -> Plan:
    """Return the plan at `path`; raises TunewrightError when it is not one."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Plan).validate_json(read_text(path))
    except ValidationError as error:
        raise TunewrightError(
            "Not a plan", f"{path} is not a plan of this version.", "Start the run anew from its recipe."
        ) from error
