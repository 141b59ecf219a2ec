"""Memory: what a run takes, one function a term, each with its source.

On a GPU the terms add up to the peak that torch's allocator has handed out (`max_memory_allocated`); on a processor
to the peak resident set of the trainer's process. Constants marked "fitted" come from the measured H200 rows that
`tests/engine/test_memory.py` holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from .anatomy import Anatomy, Targets
from .plan import Backend, Precision

GIB = 2**30
Checkpointing = Literal["off", "on", "offloaded"]

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight with its doubly quantised constants, block 64 (arXiv 2305.14314 §3)."""
NF4_SINGLE_BYTES = 0.5 + 4 / 64
"""Bytes of a 4-bit weight with a 32-bit constant a block of 64."""
ADAMW_8BIT_BYTES = 2 * (1 + 4 / 256)
"""Bytes of both states of a parameter: one byte each and a constant a block of 256 (bitsandbytes optimizer.py)."""
LOSS_CHUNK_TOKENS = {"transformers": 256, "unsloth": 1024}
"""Tokens whose logits exist at once on a GPU: TRL's chunked loss (sft_trainer.py), and Unsloth's fused one (fitted)."""
LOSS_BYTES = {"transformers": 16.0, "unsloth": 6.8}
"""Bytes a logit of such a chunk: logits, their logarithms and gradients in fp32; Unsloth's fitted."""
UNSLOTH_BUFFERS_GIB = 0.035
"""Position tables and the like beside Unsloth's weights; fitted: 0.03 to 0.04 in all measured rows."""
FULL_TRANSIENT_GIB = 1.15
"""What full tuning holds at the end of its backward pass beside gradients and one layer; fitted: 1.06 to 1.25 in
the three measured rows of 1 and 8 billion parameters."""
TRAINER_GIB = 0.085
"""On a processor: data set, trainer and the answers before training, beside the libraries; fitted to runs of the
starter model."""
HEAP_SHARE = 1.35
"""What a processor's heap grows to for each byte of activations, for it is never quite full; fitted likewise."""
CUDA_CONTEXT_GIB = 0.6
"""The driver's and the libraries' own memory on a card, outside torch's allocator; 0.14 on a T4, 0.5 on newer ones."""


class TuningMethod(Protocol):
    """What the terms ask of a method; `recipes.model.Method` has it."""

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

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch, padding counted."""
        return self.rows * self.tokens_per_row

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def predict_memory(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> dict[str, float]:
    """Return the terms of the peak by name, in GiB; they add up to it."""
    terms = {
        "libraries": setting.libraries_gib,
        "trainer": 0.0 if setting.on_gpu else TRAINER_GIB,
        "weights": weights_gib(anatomy, tuning, setting),
        "adapters": adapters_gib(anatomy, tuning, setting),
        "gradients": gradients_gib(anatomy, tuning, setting),
        "optimizer": optimizer_gib(anatomy, tuning, setting),
        "activations": activations_gib(anatomy, tuning, setting),
        "layer": layer_gib(anatomy, tuning, setting),
        "loss": loss_gib(anatomy, tuning, setting),
        "dequantisation": dequantisation_gib(anatomy, tuning, setting),
        "buffers": buffers_gib(setting),
    }
    return {name: gib for name, gib in terms.items() if gib > 0}


def peak_gib(terms: dict[str, float]) -> float:
    """Return the sum of the terms."""
    return sum(terms.values())


def reserved_gib(terms: dict[str, float], backend: Backend) -> float:
    """Return what torch's allocator takes from the card for these terms, in GiB: the peak and its slack."""
    return peak_gib(terms) + slack_gib(terms, backend)


def slack_gib(terms: dict[str, float], backend: Backend) -> float:
    """Return the allocator's unusable rest: a share of what comes and goes, for that is what leaves holes.

    Fitted: 12 % up to 5 GiB and 4 % beyond for transformers, half as much for Unsloth.
    """
    standing = sum(terms.get(name, 0.0) for name in ("weights", "adapters", "buffers", "libraries"))
    moving = peak_gib(terms) - standing
    slack = 0.12 * min(moving, 5) + 0.04 * max(0.0, moving - 5)
    return slack / 2 if backend == "unsloth" else slack


def needed_gib(terms: dict[str, float], setting: Setting) -> float:
    """Return the free memory that the run must find, in GiB: on a GPU with slack and the CUDA context."""
    if not setting.on_gpu:
        return peak_gib(terms)
    return reserved_gib(terms, setting.backend) + CUDA_CONTEXT_GIB


def merging_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting, terms: dict[str, float]) -> float:
    """Return what merging needs at the end: the base model once more, whole, beside all that training leaves behind."""
    left = sum(gib for name, gib in terms.items() if name not in {"activations", "layer", "loss", "dequantisation"})
    again = weight_bytes(tuning, setting) * anatomy.total_parameters / GIB
    return left + again + (CUDA_CONTEXT_GIB if setting.on_gpu else 0.0)


def weight_bytes(tuning: Tuning, setting: Setting) -> int:
    """Return the bytes of an unquantised weight: 4 on a processor, and for full tuning in fp16, which scales losses."""
    if setting.precision == "fp32" or (tuning.kind == "full" and setting.precision == "fp16"):
        return 4
    return 2


def adapter_bytes(tuning: Tuning, setting: Setting) -> int:
    """Return the bytes of a trained parameter: adapters are kept in fp32, by PEFT, by Unsloth and by the trainer."""
    return weight_bytes(tuning, setting) if tuning.kind == "full" else 4


def weights_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the base model: bytes · P; with QLoRA the projections in NF4 and the rest unquantised.

    transformers' preparation for 4-bit training casts that rest to fp32 (measured: 7.35 GiB at 8 billion).
    """
    if tuning.kind != "qlora":
        return weight_bytes(tuning, setting) * anatomy.total_parameters / GIB
    block = NF4_BYTES if tuning.double_quantisation else NF4_SINGLE_BYTES
    rest = 2 if setting.backend == "unsloth" else 4
    unquantised = anatomy.total_parameters - anatomy.linear_parameters
    return (block * anatomy.linear_parameters + rest * unquantised) / GIB


def adapters_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the adapters: bytes · r · Σ (in + out)."""
    if tuning.kind == "full":
        return 0.0
    return adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy) / GIB


def gradients_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the gradients: one for each trained parameter, in its own type."""
    return adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy) / GIB


def optimizer_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return AdamW's two states: in the parameter's own type, or of 8 bits with a constant a block of 256."""
    trained = tuning.trainable_parameters(anatomy)
    if setting.optimizer == "adamw_8bit":
        return ADAMW_8BIT_BYTES * trained / GIB
    return 2 * adapter_bytes(tuning, setting) * trained / GIB


def stored_elements(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the elements that one layer keeps a token for its backward pass when nothing is recomputed.

    Counted from the modelling code (two residuals, two normed inputs, queries, keys and values before and after
    rotation, the attention's output, the MLP's products) and checked: 15 and 43 GiB at 8 billion, within 2 %.
    """
    h, q, kv, ffn = anatomy.hidden, anatomy.attention_width, anatomy.kv_width, anatomy.ffn
    if setting.backend == "unsloth" and setting.on_gpu:
        return 4.25 * h + 3 * q + 2 * kv + 2 * ffn
    copies = 0 if tuning.kind == "full" else 3 * h
    if setting.liger:
        return 4 * h + copies + 3 * q + 3 * kv + 3 * ffn
    return 10 * h + copies + 3 * q + 3 * kv + 4 * ffn


def activations_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what is kept for the backward pass: every layer's elements, or only its input when recomputing.

    Full tuning peaks where all gradients are there, at the end of the backward pass, when the inputs are gone again.
    Unsloth moves the inputs to the host and keeps two buffers (unsloth_zoo/gradient_checkpointing.py).
    """
    bytes_ = hidden_bytes(tuning, setting)
    match setting.checkpointing:
        case "off":
            stored = anatomy.layers * stored_elements(anatomy, tuning, setting)
        case "offloaded":
            stored = 2.0 * anatomy.hidden
        case "on":
            peaks_late = tuning.kind == "full" and setting.on_gpu
            stored = float(anatomy.hidden if peaks_late else anatomy.layers * anatomy.hidden)
    return (1.0 if setting.on_gpu else HEAP_SHARE) * bytes_ * setting.tokens * stored / GIB


def hidden_bytes(tuning: Tuning, setting: Setting) -> int:
    """Return the bytes of a hidden state's element: fp32 after transformers' preparation for 4-bit training."""
    if setting.precision == "fp32":
        return 4
    return 4 if tuning.kind == "qlora" and setting.backend == "transformers" and setting.checkpointing != "off" else 2


def layer_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the working set of one layer's recomputation and backward pass: bytes · T · ffn, the MLP's being largest.

    Fitted bytes: Unsloth 17.6 (13.2 packed), transformers 23.25, with Liger 18.95, beside 4-bit weights 30.4.
    """
    if not setting.on_gpu:
        per_ffn = 4 * 6.0
    elif setting.backend == "unsloth":
        per_ffn = 13.2 if setting.packed else 17.6
    elif tuning.kind == "qlora":
        per_ffn = 30.4
    else:
        per_ffn = 18.95 if setting.liger else 23.25
    working = 0.0 if setting.checkpointing == "off" else per_ffn * setting.tokens * anatomy.ffn / GIB
    transient = FULL_TRANSIENT_GIB if tuning.kind == "full" and setting.on_gpu else 0.0
    return working + transient


def loss_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what the logits and their loss take beyond one layer's working set: both are not there at once."""
    if setting.on_gpu:
        tokens = min(setting.tokens, LOSS_CHUNK_TOKENS[setting.backend])
        logits = LOSS_BYTES[setting.backend] * tokens * anatomy.vocabulary / GIB
    else:
        logits = 16.0 * min(setting.tokens, LOSS_CHUNK_TOKENS["transformers"]) * anatomy.vocabulary / GIB
    return max(0.0, logits - layer_gib(anatomy, tuning, setting))


def dequantisation_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the largest 4-bit projection, expanded for its matrix product (unsloth/kernels/utils.py)."""
    if tuning.kind != "qlora" or (setting.on_gpu and setting.checkpointing != "off"):
        return 0.0  # recomputing, the layer's working set was fitted with it
    return (4 if setting.precision == "fp32" else 2) * anatomy.largest_linear / GIB


def buffers_gib(setting: Setting) -> float:
    """Return the backend's own tables."""
    return UNSLOTH_BUFFERS_GIB if setting.backend == "unsloth" and setting.on_gpu else 0.0
