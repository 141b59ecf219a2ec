"""The setting of a run as far as memory and speed depend on it: the method, and the side of a plan that costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from .anatomy import Anatomy, Targets
from .plan import Backend, Checkpointing, Parallelism, Precision
from .saved_modules import adapted_names, saved_modules


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
    saved: tuple[str, ...] = ()
    """Modules that are trained whole beside the adapters."""
    dropout: float = 0.0
    """The share of the adapters' input that is dropped."""

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
            saved=getattr(method, "modules_to_save", None) or (),
            dropout=getattr(method, "dropout", 0.0),
        )

    def adapted(self, anatomy: Anatomy) -> tuple[str, ...]:
        """Return the projections that get an adapter."""
        return adapted_names(anatomy, self.targets, self.saved, self.kind == "qlora")

    def saved_parameters(self, anatomy: Anatomy, *kinds: str) -> int:
        """Return the parameters of the modules that are trained whole; of these kinds alone where some are given."""
        found = saved_modules(anatomy, self.saved, self.kind == "qlora") if self.saved else ()
        return sum(each.parameters for each in found if not kinds or each.kind in kinds)

    def trainable_parameters(self, anatomy: Anatomy) -> int:
        """Return how many parameters are trained."""
        return _trainable_parameters(self, anatomy)

    def multiplied_parameters(self, anatomy: Anatomy) -> int:
        """Return the trained parameters that every token is multiplied with: all but the embedding's rows.

        An embedding that is the output layer too is multiplied there.
        """
        rows = 0 if anatomy.tied_embeddings else self.saved_parameters(anatomy, "embedding")
        return self.trainable_parameters(anatomy) - rows


@lru_cache(maxsize=256)
def _trainable_parameters(tuning: Tuning, anatomy: Anatomy) -> int:
    """Return how many parameters are trained: kept, for a search asks for it hundreds of times."""
    if tuning.kind == "full":
        return anatomy.total_parameters
    adapters = anatomy.lora_parameters(tuning.rank, tuning.adapted(anatomy), tuning.dora)
    return adapters + tuning.saved_parameters(anatomy)


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
    compiled: bool = False
    """Whether transformers' layers are compiled and adapters fused (`training/acceleration.py`)."""
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
    whole_logits: bool = False
    """Whether the loss takes all logits of a micro-batch at once, rather than in parts."""
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
