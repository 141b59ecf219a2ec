"""States: the bytes of weights, adapters, gradients and optimizer, which stand as long as a run trains."""

from __future__ import annotations

from .anatomy import Anatomy
from .setting import GIB, Setting, Tuning

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight with its doubly quantised constants, block 64 (arXiv 2305.14314 §3)."""
NF4_SINGLE_BYTES = 0.5 + 4 / 64
"""Bytes of a 4-bit weight with a 32-bit constant a block of 64."""
ADAMW_8BIT_BYTES = 2 * (1 + 4 / 256)
"""Bytes of both states of a parameter: one byte each and a constant a block of 256 (bitsandbytes optimizer.py)."""
EMBEDDING_STATE_BYTES = 8
"""Bytes of both states of an embedding's parameter, which transformers keeps in 32 bits (trainer.py)."""


def weight_bytes(tuning: Tuning, setting: Setting) -> int:
    """Return the bytes of an unquantised weight: 4 on a processor, and for full tuning in fp16, which scales losses."""
    if setting.precision == "fp32" or (tuning.kind == "full" and setting.precision == "fp16"):
        return 4
    return 2


def adapter_bytes(tuning: Tuning, setting: Setting) -> int:
    """Return the bytes of a trained parameter.

    Adapters are kept in fp32, by PEFT, by Unsloth and by the trainer; TRL alone casts them to bf16 beside 4-bit weights.
    """
    if tuning.kind == "full":
        return weight_bytes(tuning, setting)
    casts = setting.adapters == "library" and setting.backend == "transformers" and tuning.kind == "qlora"
    return 2 if casts and setting.on_gpu else 4


def weights_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the base model: bytes · P; with QLoRA the linear layers in NF4 and the rest unquantised.

    transformers' preparation for 4-bit training casts that rest to fp32 (measured: 7.35 GiB at 8 billion).
    """
    if tuning.kind != "qlora":
        return weight_bytes(tuning, setting) * anatomy.total_parameters / setting.shards / GIB
    block = NF4_BYTES if tuning.double_quantisation else NF4_SINGLE_BYTES
    quantised = anatomy.quantisable_parameters
    rest = 2 if setting.backend == "unsloth" else 4
    return (block * quantised + rest * (anatomy.total_parameters - quantised)) / setting.shards / GIB


def adapters_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the adapters: bytes · r · Σ (in + out)."""
    if tuning.kind == "full":
        return 0.0
    return adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy) / setting.shards / GIB


def gradients_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return all gradients: one for each trained parameter, in its own type."""
    return adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy) / setting.shards / GIB


def optimizer_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the optimizer's states on the device.

    AdamW has two in the parameter's own type, or of 8 bits with a constant a block of 256; Adafactor a row and a
    column; paged ones are in memory that the driver moves, outside torch's allocator.
    """
    trained = tuning.trainable_parameters(anatomy)
    match setting.optimizer:
        case "adamw_8bit":
            embedding = anatomy.embedding_parameters if tuning.kind == "full" and setting.on_gpu else 0
            states = ADAMW_8BIT_BYTES * (trained - embedding) + EMBEDDING_STATE_BYTES * embedding
        case "adafactor":
            states = 0.002 * trained
        case "paged_adamw" | "paged_adamw_8bit" if setting.on_gpu:
            states = 0.0
        case _:
            states = 2 * adapter_bytes(tuning, setting) * trained
    return states / setting.shards / GIB


def step_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what the optimizer holds only while it steps.

    torch's AdamW updates all tensors at once, with a temporary for each (torch/optim/adam.py,
    `_multi_tensor_adam`); Adafactor takes four in fp32, a tensor at a time (transformers/optimization.py).
    """
    match setting.optimizer:
        case "adamw":
            return gradients_gib(anatomy, tuning, setting)
        case "adafactor":
            largest = anatomy.embedding_parameters if tuning.kind == "full" else tuning.rank * anatomy.ffn
            return 4 * 4 * largest / setting.shards / GIB
        case _:
            return 0.0
