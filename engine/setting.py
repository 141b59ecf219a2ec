"""The setting of a run as far as memory and speed depend on it: the method, and the side of a plan that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from .anatomy import Anatomy, Targets
from .plan import Backend, Checkpointing, Parallelism, Precision

GIB = 2**30


class TuningMethod(Protocol):
    """What the formulas ask of a method; `recipes.model.Method` has it."""

    @property
    def kind(self) -> Literal["full", "lora", "qlora"]: ...


@dataclass(frozen=True, slots=True)
class Tuning:
    """A method as far as memory and speed are concerned."""

    kind: Literal["full", "lora", "qlora"]
    rank: int = 0
    targets: Targets = "all-linear"
    dora: bool = False
    double_quantisation: bool = True

    @staticmethod
    def of(method: TuningMethod) -> Tuning:
        """Return the tuning that a recipe's method means."""
        if method.kind == "full":
            return Tuning("full")
        return Tuning(
            method.kind,
            rank=getattr(method, "rank", 16),
            targets=getattr(method, "targets", "all-linear"),
            dora=getattr(method, "dora", False),
            double_quantisation=getattr(method, "double_quantisation", True),
        )

    def trainable_parameters(self, anatomy: Anatomy) -> int:
        """Return how many parameters are trained."""
        if self.kind == "full":
            return anatomy.total_parameters
        return anatomy.lora_parameters(self.rank, self.targets, self.dora)


@dataclass(frozen=True, slots=True)
class Setting:
    """The side of a plan that memory and speed depend on."""

    device: Literal["cuda", "cpu"]
    backend: Backend
    precision: Precision
    rows: int
    """Rows of a micro-batch; 1 when packed."""
    tokens_per_row: int
    """Tokens of its longest row, to which all are padded."""
    checkpointing: Checkpointing
    optimizer: str = "adamw"
    packed: bool = False
    liger: bool = False
    libraries_gib: float = 0.0
    """On a processor: what the process holds before it loads a model."""
    accumulation: int = 1
    """Micro-batches of an optimizer step: with more than one, gradients are there from the first on."""
    padded: bool = False
    """Whether Unsloth pads rows; by itself it strings them together, without padding."""
    adapters: Literal["fp32", "library"] = "fp32"
    """The adapters' type: as the trainer keeps them, or as the libraries by themselves do (bf16 beside 4-bit weights)."""
    gpus: int = 1
    parallelism: Parallelism = "one"
    documents: int = 0
    """Rows that are strung together without padding; 0: as many as `rows`."""
    recompute_every: int = 1
    """Recomputing spares memory in every n-th layer; the others keep what they need."""
    cuda_workspace_mib: int = 32
    """cuBLAS's workspace for each thread that multiplies: 32 on Hopper and newer, 8 before."""

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch, padding counted."""
        return self.rows * self.tokens_per_row

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def strung(self) -> int:
        """The documents that a micro-batch holds."""
        return self.documents or self.rows

    @property
    def shards(self) -> int:
        """Into how many parts weights, gradients and states are split."""
        return self.gpus if self.parallelism == "fsdp2" else 1
