"""The speed of a GPU: matrix products at the card's rate, and what moves memory or only launches operations.

Constants marked "fitted" come from the measured H200 rows that `tests/engine/test_speed.py` holds.
"""

from __future__ import annotations

from .anatomy import Anatomy
from .cards import Card
from .flop import Load, flop_per_token, forward_flop_per_token
from .memory import NF4_BYTES, Setting, Tuning, weight_bytes

MATRIX_EFFICIENCY = 0.85
"""The share of a large product's rate that a model's own products reach; set so that the rest can be fitted."""
MOVED_BYTES = {"unsloth": 130.0, "transformers": 465.0, "liger": 321.0, "4-bit": 680.0, "full": 168.0}
"""Bytes moved beside the matrix products for each of T · L · (h + ffn), with recomputing; fitted."""
MOVED_WITHOUT_RECOMPUTING = 0.75
"""The share of these that is left when nothing is recomputed; fitted (0.70 and 0.83)."""
STEP_OVERHEAD_SECONDS = {"unsloth": 0.02, "transformers": 0.05}
"""What a micro-batch takes however small it is; fitted."""
LAUNCHES = {"unsloth": 40, "transformers": 90}
"""Launches of one layer's forward pass, and the seconds of each; assumed, for no measured row is that small."""
LAUNCH_SECONDS = 6e-6
MASKED_ATTENTION_EFFICIENCY = 0.8
"""The share of the matrix rate in attention over packed rows, which computes what the mask then hides; fitted."""
SHAPE_CHANGE_SECONDS = 0.09
"""What a micro-batch of a length not seen before takes; fitted to packed rows."""
OPTIMIZER_BYTES = 16.0
OPTIMIZER_EFFICIENCY = 0.25
"""Bytes that clipping and AdamW move a trained parameter, and at which share of the bandwidth; fitted."""
DEQUANTISED_BYTES = NF4_BYTES + 2
"""Read and written to expand one 4-bit weight."""


TOKEN_SECONDS = 5e-3
"""What `generate` does for a token beside the model's own pass; timed on a processor."""


def micro_batch_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, card: Card) -> float:
    """Return the seconds of one forward and backward pass."""
    compute = compute_seconds(anatomy, tuning, setting, load, card)
    return max(compute, launch_floor_seconds(anatomy, setting)) + dequantisation_seconds(anatomy, tuning, setting, card)


def compute_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, card: Card) -> float:
    """Return the seconds of the matrix products, of the memory moved between them, and of masked attention."""
    recomputing = setting.checkpointing != "off"
    rate = card.matrix_tflops * 1e12
    attended = 0.0 if setting.packed else load.attended
    seconds = load.tokens * flop_per_token(anatomy, tuning, attended, recomputing) / (MATRIX_EFFICIENCY * rate)
    moved = MOVED_BYTES[_moving(tuning, setting)] * (1.0 if recomputing else MOVED_WITHOUT_RECOMPUTING)
    elements = load.tokens * anatomy.layers * (anatomy.hidden + anatomy.ffn)
    seconds += moved * elements / (card.bandwidth_gb_per_second * 1e9)
    seconds += STEP_OVERHEAD_SECONDS[setting.backend]
    if setting.packed:
        seconds += SHAPE_CHANGE_SECONDS
    if setting.packed and setting.backend == "unsloth":  # flex attention leaves out what is masked
        masked = 12.0 * load.attended * anatomy.attention_width * anatomy.layers * (4 / 3 if recomputing else 1)
        seconds += load.tokens * masked / (MASKED_ATTENTION_EFFICIENCY * rate)
    return seconds


def _moving(tuning: Tuning, setting: Setting) -> str:
    if setting.backend == "unsloth":
        return "unsloth"
    if tuning.kind == "full":
        return "full"
    if tuning.kind == "qlora":
        return "4-bit"
    return "liger" if setting.liger else "transformers"


def launch_floor_seconds(anatomy: Anatomy, setting: Setting) -> float:
    """Return the least time of a micro-batch on a GPU: every launch passes through the processor."""
    passes = 3 + (1 if setting.checkpointing != "off" else 0)
    return anatomy.layers * LAUNCHES[setting.backend] * passes * LAUNCH_SECONDS


def dequantisation_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, card: Card) -> float:
    """Return the seconds in which a GPU expands the 4-bit weights, once a pass."""
    if tuning.kind != "qlora":
        return 0.0
    passes = 2 + (1 if setting.checkpointing != "off" else 0)
    return passes * anatomy.linear_parameters * DEQUANTISED_BYTES / (card.bandwidth_gb_per_second * 1e9)


def optimizer_seconds(anatomy: Anatomy, tuning: Tuning, card: Card) -> float:
    """Return the seconds of clipping and AdamW: memory moved for every trained parameter."""
    moved = OPTIMIZER_BYTES * tuning.trainable_parameters(anatomy)
    return moved / (OPTIMIZER_EFFICIENCY * card.bandwidth_gb_per_second * 1e9)


def forward_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, card: Card) -> float:
    """Return the seconds of a forward pass without gradients: a third of one with them."""
    return micro_batch_seconds(anatomy, tuning, setting, load, card) / 3


def prompt_seconds(anatomy: Anatomy, load: Load, card: Card) -> float:
    """Return the seconds in which prompts are read before the first token is written."""
    flop = load.tokens * forward_flop_per_token(anatomy, load.attended)
    return flop / (MATRIX_EFFICIENCY * card.matrix_tflops * 1e12)


def token_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, card: Card) -> float:
    """Return the seconds of one generated token: all weights are read, or all operations launched."""
    weights = anatomy.linear_parameters + anatomy.vocabulary * anatomy.hidden
    read = weight_bytes(tuning, setting) * weights / (card.bandwidth_gb_per_second * 1e9)
    return max(read, anatomy.layers * LAUNCHES["transformers"] * LAUNCH_SECONDS) + TOKEN_SECONDS
