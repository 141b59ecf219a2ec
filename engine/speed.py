"""Speed: what the parts of a run take in seconds, on a card or on a processor."""

from __future__ import annotations

from ..foundation.units import GIB
from . import gpu_speed, processor_speed
from .activations import Path, path_of
from .anatomy import Anatomy
from .calibration import ThreadRates
from .cards import Card
from .flop import Load
from .setting import Setting, Tuning
from .states import ADAMW_8BIT_BYTES, weight_bytes

Device = Card | ThreadRates
PROMPTS_AT_ONCE = 50
"""Prompts that are answered together (`results/evaluate.py`)."""
WRITTEN_GB_PER_SECOND = 0.6
"""Checkpoints are written, flushed and hashed; assumed for a cloud disk."""
CHECKPOINT_SECONDS = 0.08
"""What a checkpoint takes however small it is; timed."""
IMPORT_SECONDS = {"unsloth": 25.0, "transformers": 14.7}
"""Imports beside a GPU; measured."""
COMPILING_SECONDS: dict[Path, float] = {"plain": 1.0, "liger": 1.6, "accelerated": 25.0, "fast": 2.0, "compiled": 16.0}
"""What the first step takes beyond the others, by the code that runs the layers; medians of measured runs."""
PADDED_COMPILING_SECONDS = 22.0
"""What it takes on top where Unsloth compiles whole blocks for padded rows; measured. Four times that in 4 bits, as
Unsloth says (unsloth/utils/padding_choice.py)."""
FLEX_COMPILE_SECONDS = 45.0
"""What it takes on top with flex attention; measured."""


def compiling_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what the first step on a GPU takes beyond the others."""
    path = path_of(anatomy, tuning, setting)
    seconds = COMPILING_SECONDS[path]
    if setting.padded and path == "fast":
        seconds += PADDED_COMPILING_SECONDS * (4 if tuning.kind == "qlora" else 1)
    if setting.packed and setting.backend == "transformers" and not setting.compiled:
        seconds += FLEX_COMPILE_SECONDS
    return seconds


def micro_batch_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, device: Device) -> float:
    """Return the seconds of one forward and backward pass."""
    if isinstance(device, ThreadRates):
        return processor_speed.micro_batch_seconds(anatomy, tuning, setting, load, device)
    return gpu_speed.micro_batch_seconds(anatomy, tuning, setting, load, device)


def step_seconds(
    anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, accumulation: int, device: Device
) -> float:
    """Return the seconds of one optimizer step."""
    passes = accumulation * micro_batch_seconds(anatomy, tuning, setting, load, device)
    if isinstance(device, ThreadRates):
        return passes + processor_speed.optimizer_seconds(anatomy, tuning)
    passes += gpu_speed.optimizer_seconds(anatomy, tuning, setting, device)
    return passes + gpu_speed.traffic_seconds(anatomy, tuning, setting, device, passes)


def evaluation_seconds(
    anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, batches: float, device: Device
) -> float:
    """Return the seconds of the validation loss: forward passes alone."""
    if isinstance(device, ThreadRates):
        once = processor_speed.forward_seconds(anatomy, tuning, load, device) + processor_speed.TRAINER_SECONDS
    else:
        once = gpu_speed.forward_seconds(anatomy, tuning, setting, load, device)
    return batches * once


def generation_seconds(
    anatomy: Anatomy,
    tuning: Tuning,
    setting: Setting,
    prompts: int,
    prompt_tokens: float,
    answer_tokens: float,
    device: Device,
) -> float:
    """Return the seconds in which `prompts` are answered greedily with `answer_tokens` each, in batches."""
    if prompts <= 0 or answer_tokens <= 0:
        return 0.0
    batches = -(-prompts // PROMPTS_AT_ONCE)
    rows = prompts / batches
    asked = Load(rows * prompt_tokens, prompt_tokens)
    if isinstance(device, ThreadRates):
        prompt = processor_speed.forward_seconds(anatomy, tuning, asked, device)
        token = processor_speed.forward_seconds(anatomy, tuning, Load(rows, prompt_tokens), device)
        token += processor_speed.TOKEN_SECONDS
    else:
        prompt = gpu_speed.prompt_seconds(anatomy, asked, device)
        token = gpu_speed.token_seconds(anatomy, tuning, setting, device)
    return batches * (prompt + answer_tokens * token)


def checkpoint_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the bytes of one checkpoint: what is trained, with the optimizer's states."""
    trained = tuning.trainable_parameters(anatomy)
    own = 4 if tuning.kind != "full" else weight_bytes(tuning, setting)
    states = ADAMW_8BIT_BYTES if setting.optimizer == "adamw_8bit" else 2 * own
    return trained * (own + states)


def checkpoint_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the seconds in which one checkpoint is written."""
    return CHECKPOINT_SECONDS + checkpoint_bytes(anatomy, tuning, setting) / (WRITTEN_GB_PER_SECOND * 1e9)


def loading_seconds(anatomy: Anatomy, backend: str) -> float:
    """Return the seconds in which a model is read from a disk cache; Unsloth also patches it (measured 5 to 10 s)."""
    gib = anatomy.checkpoint_bytes * anatomy.total_parameters / GIB
    return 5.0 + 0.3 * gib if backend == "unsloth" else 0.3 + 0.2 * gib


def starting_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what differs between backends before the first step on a GPU: imports, loading, compiling."""
    ready = IMPORT_SECONDS[setting.backend] + loading_seconds(anatomy, setting.backend)
    return ready + compiling_seconds(anatomy, tuning, setting)
