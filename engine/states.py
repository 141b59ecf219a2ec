"""States: the bytes of weights, adapters, gradients and optimizer, which stand as long as a run trains."""

from __future__ import annotations

from ..foundation.units import GIB
from .anatomy import Anatomy
from .setting import Setting, Tuning

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


def trained_shards(tuning: Tuning, setting: Setting) -> int:
    """Return into how many parts what is trained is split: with FSDP2 the weights, but adapters stay whole everywhere."""
    return setting.shards if tuning.kind == "full" else 1


def weights_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the base model: bytes · P; with QLoRA the linear layers in NF4 and the rest unquantised.

    transformers' preparation for 4-bit training casts that rest to fp32 (measured: 7.35 GiB at 8 billion), which is left
    out where layers are compiled.
    """
    if tuning.kind != "qlora":
        return weight_bytes(tuning, setting) * anatomy.total_parameters / setting.shards / GIB
    block = NF4_BYTES if tuning.double_quantisation else NF4_SINGLE_BYTES
    quantised = anatomy.quantisable_parameters
    rest = 2 if setting.backend == "unsloth" or setting.compiled else 4
    return (block * quantised + rest * (anatomy.total_parameters - quantised)) / setting.shards / GIB


def adapters_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the adapters, bytes · r · Σ (in + out), and the copies of modules that are trained whole beside them."""
    if tuning.kind == "full":
        return 0.0
    return adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy) / trained_shards(tuning, setting) / GIB


def gradients_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return all gradients: one for each trained parameter, in its own type."""
    return adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy) / trained_shards(tuning, setting) / GIB


def optimizer_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the optimizer's states on the device.

    AdamW has two in the parameter's own type, or of 8 bits with a constant a block of 256; Adafactor a row and a
    column; paged ones are in memory that the driver moves, outside torch's allocator.
    """
    trained = tuning.trainable_parameters(anatomy)
    match setting.optimizer:
        case "adamw_8bit":
            embedding = 0
            if setting.on_gpu:
                whole = tuning.kind == "full"
                embedding = anatomy.embedding_parameters if whole else tuning.saved_parameters(anatomy, "embedding")
            states = ADAMW_8BIT_BYTES * (trained - embedding) + EMBEDDING_STATE_BYTES * embedding
        case "adafactor":
            states = 0.002 * trained
        case "paged_adamw" | "paged_adamw_8bit" if setting.on_gpu:
            states = 0.0
        case _:
            states = 2 * adapter_bytes(tuning, setting) * trained
    return states / trained_shards(tuning, setting) / GIB


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
            return 4 * 4 * largest / trained_shards(tuning, setting) / GIB
        case _:
            return 0.0


def dora_expanded_bytes(anatomy: Anatomy, tuning: Tuning) -> float:
    """Return what DoRA holds while it takes the norm of one adapted weight W + BA, in fp32.

    The product BA in the computing type and in fp32, W, the scaled product and their sum, and the unit matrix by which
    BA is computed. Source: peft 0.21, tuners/lora/dora.py, `DoraLinearLayer.forward`.
    """
    if not tuning.dora:
        return 0.0
    names = set(tuning.adapted(anatomy))
    adapted = (each for each in anatomy.projections if each.name in names)
    return max(18.0 * each.outputs * each.inputs + 4.0 * each.inputs**2 for each in adapted)


def dora_copied_bytes(anatomy: Anatomy, tuning: Tuning) -> float:
    """Return the 16-bit copies of all adapted weights that DoRA with dropout keeps until the backward pass.

    What is dropped makes the frozen product another one, so that DoRA computes it again by itself.
    """
    if not tuning.dora or not tuning.dropout:
        return 0.0
    names = set(tuning.adapted(anatomy))
    return sum(2.0 * each.weights for each in anatomy.projections if each.name in names)


def dora_kept_bytes(anatomy: Anatomy, tuning: Tuning) -> float:
    """Return what DoRA keeps of a token in one layer: both products of each adapted weight, which the magnitude scales."""
    if not tuning.dora:
        return 0.0
    names = set(tuning.adapted(anatomy))
    return sum(4.0 * each.outputs * each.count / anatomy.layers for each in anatomy.projections if each.name in names)
