"""Memory: what a run takes at its most, in GiB by term, on a GPU or on a processor.

On a GPU the terms add up to the peak that torch's allocator has handed out (`max_memory_allocated`); on a processor
to the peak resident set of the trainer's process.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..foundation.units import GIB
from . import gpu_memory, processor_memory, states
from .anatomy import Anatomy
from .gpu_memory import CUDA_CONTEXT_GIB, Moment
from .plan import Backend
from .setting import Setting, Tuning

TERMS: dict[str, str] = {
    "libraries": "Python, torch and the training libraries, before a model is loaded.",
    "trainer": "The data set, the trainer and the answers from before training.",
    "weights": "The base model: 2 bytes a parameter in 16 bits, about half a byte in 4 bits.",
    "adapters": "The trained matrices beside the frozen weights, in 32 bits.",
    "gradients": "One for each trained parameter; a smaller rank or fewer targets shrink it.",
    "optimizer": "AdamW's two running means for each trained parameter; 8-bit ones take a quarter.",
    "activations": "What the backward pass needs of every layer; recomputing keeps only the layers' inputs.",
    "layer": "One layer at work: what its recomputation and its backward pass hold.",
    "loss": "The logits of as many tokens as are compared at once; it grows with the vocabulary.",
    "dequantisation": "The largest 4-bit matrix, expanded for its product.",
    "step": "What the optimizer holds only while it updates the parameters.",
    "parallelism": "What several GPUs hold to exchange gradients or gather weights.",
    "buffers": "The libraries' own tables and workspaces, and the room in which checkpoints and weights are moved.",
}
"""What each term is."""

SLACK = {
    "transformers": {"layer": 0.285, "loss": 0.277, "activations": 0.028, "gradients": 0.042, "step": 0.042, "optimizer": 0.042},
    "unsloth": {"layer": 0.147, "loss": 0.155, "activations": 0.012, "gradients": 0.013, "step": 0.013, "optimizer": 0.013},
}  # fmt: skip
"""The share of a term that torch's allocator reserves beyond it: what comes and goes leaves holes. Fitted."""
UNCERTAIN = {"transformers": 0.27, "unsloth": 0.08}
"""By how much more than predicted the allocator reserved in the worst of the measured runs, as a share of what comes and
goes."""
HOST_LIBRARIES_GIB = 4.0
"""The resident set of a process with CUDA's libraries, torch and Unsloth; assumed from 3 to 4 GiB seen."""


def predict_memory(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> dict[str, float]:
    """Return the terms of the peak by name, in GiB; they add up to it."""
    if setting.on_gpu:
        return gpu_memory.peak_moment(anatomy, tuning, setting).terms
    return processor_memory.peak_terms(anatomy, tuning, setting)


def predict_moments(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> tuple[Moment, ...]:
    """Return what is allocated at each moment of a step; on a processor there is only one."""
    if setting.on_gpu:
        return tuple(gpu_memory.moments(anatomy, tuning, setting))
    return (Moment("a step", processor_memory.peak_terms(anatomy, tuning, setting)),)


def peak_gib(terms: Mapping[str, float]) -> float:
    """Return the sum of the terms."""
    return sum(terms.values())


def reserved_gib(terms: Mapping[str, float], backend: Backend) -> float:
    """Return what torch's allocator takes from the card for these terms, in GiB: the peak and its slack."""
    slack = SLACK[backend]
    return sum(gib * (1 + slack.get(name, 0.0)) for name, gib in terms.items())


def needed_gib(terms: Mapping[str, float], setting: Setting) -> float:
    """Return the free memory that the run must find, in GiB.

    On a GPU this is the peak, the allocator's slack with the worst that was seen, as far as something comes and goes,
    and the CUDA context.
    """
    if not setting.on_gpu:
        return peak_gib(terms)
    passing = sum(terms.get(name, 0.0) for name in ("layer", "loss", "activations", "gradients", "step"))
    return reserved_gib(terms, setting.backend) + UNCERTAIN[setting.backend] * passing + CUDA_CONTEXT_GIB


def evaluation_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the peak of an evaluation in GiB: what stands between two steps, one layer's forward pass and the loss.

    Nothing is kept for a backward pass, so it is never more than a training step with the same micro-batch.
    """
    if not setting.on_gpu:
        return peak_gib(processor_memory.peak_terms(anatomy, tuning, setting))
    standing = sum(gpu_memory.standing_terms(anatomy, tuning, setting).values())
    state = 4 if tuning.kind == "qlora" and setting.backend == "transformers" else 2
    layer = setting.tokens * state * (3.0 * anatomy.ffn + 2 * anatomy.hidden)
    loss = gpu_memory.loss_bytes(anatomy, Tuning("lora"), setting)
    return standing + max(layer, loss) / GIB


def saving_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the peak on the device while a checkpoint is written: what stands; tensors are copied one at a time."""
    return sum(gpu_memory.standing_terms(anatomy, tuning, setting).values()) if setting.on_gpu else 0.0


def merging_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting, terms: Mapping[str, float]) -> float:
    """Return what merging needs at the end: the base model once more, whole, beside all that training leaves behind."""
    passing = {"activations", "layer", "loss", "dequantisation", "step"}
    left = sum(gib for name, gib in terms.items() if name not in passing)
    again = states.weight_bytes(tuning, setting) * anatomy.total_parameters / GIB
    return left + again + (CUDA_CONTEXT_GIB if setting.on_gpu else 0.0)


def host_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the host's memory that a run on a GPU takes in GiB: libraries, one shard while loading, moved checkpoints.

    Checkpoints that Unsloth moves lie in pinned memory, which the kernel cannot swap; paged optimizer states too.
    """
    if not setting.on_gpu:
        return peak_gib(processor_memory.peak_terms(anatomy, tuning, setting))
    shard = min(5.0, anatomy.checkpoint_bytes * anatomy.total_parameters / GIB)
    moved = 0.0
    if setting.checkpointing == "offloaded":
        moved = 2.0 * setting.tokens * anatomy.layers * anatomy.hidden / GIB
    if setting.optimizer.startswith("paged"):
        bytes_ = states.ADAMW_8BIT_BYTES if setting.optimizer.endswith("8bit") else 8
        moved += bytes_ * tuning.trainable_parameters(anatomy) / GIB
    return setting.gpus * (HOST_LIBRARIES_GIB + shard + moved)
