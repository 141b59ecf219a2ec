"""The speed of a GPU: matrix products at the card's rate, what moves memory between them, and the host's launches.

A pass takes what the card needs or what the host needs to launch it, whichever is longer. The coefficients are fitted
to measured steps (`benchmarks/fit.py`); the report of their error is `make bench-report`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..foundation.units import GIB
from . import states
from .activations import Path, path_of, strings_together
from .anatomy import Anatomy
from .cards import Card
from .flop import Load, adapted_projections, forward_flop_per_token, trained_tensors
from .setting import Setting, Tuning

TOKEN_SECONDS = 5e-3
"""What `generate` does for a token beside the model's own pass; timed on a processor."""
MASKED_SCORE_BYTES = 28
"""Bytes moved for each pair of tokens and head where Unsloth's compiled attention falls back to a whole mask, which it
does for full tuning of models that normalise each head, over several documents in a row; from two measured runs."""
ACCUMULATED_BYTES = 6
"""Bytes moved for each trained weight when a micro-batch's gradient is added to those before: it is read again, and the
sum read and written, in 16 bits."""
LAUNCHES_A_LAYER, LAUNCH_SECONDS = 90, 6e-6
"""Launches of one layer's forward pass while generating, and the seconds of each; assumed."""
OVERLAP = 0.7
"""The share of the traffic between GPUs that is hidden behind computing; assumed."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What is fitted; the fields end in the path of the code that they are for, or in the method."""

    matrix: float = 0.9079
    """The share of a large product's rate that a model's own products reach."""
    attention: float = 0.5097
    adapter: float = 0.5
    """The same for products with an adapter's rank; not fitted."""
    moved_plain: float = 204.3
    """Bytes moved beside the products for each of T · L · (q + 2 kv + ffn), in both passes; a third more when
    recomputing."""
    moved_plain_full: float = 234.2
    moved_liger: float = 87.39
    moved_liger_full: float = 88.41
    moved_accelerated: float = 98.0
    """Set by the rows of `benchmarks/rows/side_by_side.jsonl` rather than fitted."""
    moved_accelerated_full: float = 20.0
    moved_fast: float = 104.8
    moved_compiled: float = 84.43
    moved_compiled_full: float = 92.76
    moved_fp32: float = 1.647
    """How much more that is beside 4-bit weights with transformers, where hidden states are fp32."""
    adapted_plain: float = 43.62
    """Bytes moved for each of T · Σ (in + out) of adapted projections."""
    adapted_liger: float = 33.15
    adapted_accelerated: float = 4.0
    idle_accelerated: float = 285.0
    """The tokens that a micro-batch's products could hold beyond its own in the same time: a few thousand do not fill the
    card; from runs of one recipe in micro-batches of 2, 4 and 8 rows."""
    adapted_fast: float = 0.0
    adapted_compiled: float = 3.225
    dequantised_unsloth: float = 0.0
    """How often a 4-bit weight's bytes are moved to expand it, each pass; 0: hidden behind the products."""
    dequantised_transformers: float = 4.59
    layer_plain: float = 662.9
    """Microseconds in which the host launches a third of a layer's two passes."""
    layer_liger: float = 751.9
    layer_accelerated: float = 500.0
    layer_fast: float = 707.4
    layer_compiled: float = 523.2
    projection_plain: float = 144.3
    """What an adapter adds to that."""
    projection_liger: float = 132.1
    projection_accelerated: float = 60.0
    projection_fast: float = 40.87
    projection_compiled: float = 0.0
    quantised_unsloth: float = 52.91
    """What a 4-bit projection adds."""
    quantised_transformers: float = 48.13
    document: float = 470.0
    """Microseconds in a layer's two passes for every document of another length that Unsloth's attention keeps apart,
    while the card waits; from runs on chat-like lengths."""
    recomputed_unsloth: float = 1.852
    """Launching again when recomputing, in thirds of both passes."""
    recomputed_transformers: float = 2.133
    recomputed_4bit: float = 2.767
    step: float = 16.56
    """Milliseconds of a micro-batch beside its layers: the loss, the loader, the trainer."""
    sharpness: float = 4.659
    """How sharply card and host take turns in being the slower one."""
    tensor_8bit: float = 22.06
    """Microseconds of updating a tensor with 8-bit states."""
    update_8bit: float = 54.76
    """How often a gradient's bytes are moved to clip it and update its parameter."""
    update_32bit: float = 29.89


FITTED = Coefficients()


def micro_batch_seconds(
    anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, card: Card, fitted: Coefficients = FITTED
) -> float:
    """Return the seconds of one forward and backward pass: the card's or the host's, whichever is longer."""
    sharpness = fitted.sharpness
    at_work = card_seconds(anatomy, tuning, setting, load, card, fitted)
    launching = host_seconds(anatomy, tuning, setting, fitted)
    longer = max(at_work, launching)
    together = longer * ((at_work / longer) ** sharpness + (launching / longer) ** sharpness) ** (1 / sharpness)
    return together + documents_seconds(anatomy, setting, fitted)


def documents_seconds(anatomy: Anatomy, setting: Setting, fitted: Coefficients = FITTED) -> float:
    """Return the seconds in which Unsloth's attention goes through documents of different lengths, one by one."""
    if setting.backend != "unsloth" or setting.documents < 2:
        return 0.0
    return 1e-6 * fitted.document * setting.documents * anatomy.layers * (1 + _recomputed_share(setting) / 3)


def card_seconds(
    anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, card: Card, fitted: Coefficients = FITTED
) -> float:
    """Return the seconds in which the card computes a forward and backward pass."""
    rate, bandwidth = card.matrix_tflops * 1e12, card.bandwidth_gb_per_second * 1e9
    path, full = path_of(anatomy, tuning, setting), tuning.kind == "full"
    again = _recomputed_share(setting)
    passes = (3 if full else 2) + again
    flop = 2.0 * load.tokens * passes * (anatomy.linear_parameters + _active_experts(anatomy))
    # TRL computes each chunk of logits twice; all others find gradients in the forward pass.
    loss_again = 0 if setting.backend == "unsloth" or setting.liger or setting.compiled else 1
    flop += 2.0 * load.tokens * anatomy.vocabulary * anatomy.hidden * ((3 if full else 2) + loss_again)
    seconds = flop / (fitted.matrix * rate)
    attended = load.attended if anatomy.sliding_window is None else min(load.attended, anatomy.sliding_window)
    scores = 2.0 * load.tokens * attended * anatomy.attention_width * anatomy.layers
    seconds += (3.5 + again) * scores / (fitted.attention * rate)
    widths = anatomy.attention_width + 2 * anatomy.kv_width + anatomy.ffn
    moved = load.tokens * anatomy.layers * widths * (1 + again / 3)
    seconds += moved * _moved(path, tuning, fitted) / bandwidth
    if not full:
        seconds += 2.0 * load.tokens * tuning.multiplied_parameters(anatomy) * (3 + again) / (fitted.adapter * rate)
        names = set(tuning.adapted(anatomy))
        beside = sum((each.inputs + each.outputs) * each.count for each in anatomy.projections if each.name in names)
        seconds += load.tokens * beside * (1 + again / 3) * _of(fitted, "adapted", path) / bandwidth
    if path == "accelerated":
        seconds *= 1 + fitted.idle_accelerated / load.tokens
    if full and setting.accumulation > 1:
        seconds += ACCUMULATED_BYTES * anatomy.total_parameters / setting.shards / bandwidth
    if full and anatomy.head_norms == "head" and setting.backend == "unsloth" and strings_together(setting):
        pairs = float(setting.tokens) * load.tokens * anatomy.heads * anatomy.layers
        seconds += MASKED_SCORE_BYTES * pairs * (1 + again / 3) / bandwidth
    if tuning.kind == "qlora":
        share = fitted.dequantised_unsloth if setting.backend == "unsloth" else fitted.dequantised_transformers
        seconds += share * passes * anatomy.quantisable_parameters * (states.NF4_BYTES + 2) / bandwidth
    return seconds


def host_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, fitted: Coefficients = FITTED) -> float:
    """Return the seconds in which the host launches a forward and backward pass."""
    path = path_of(anatomy, tuning, setting)
    layer = _of(fitted, "layer", path) * anatomy.layers
    if tuning.kind != "full":
        layer += _of(fitted, "projection", path) * adapted_projections(anatomy, tuning)
    if tuning.kind == "qlora":
        each = fitted.quantised_unsloth if setting.backend == "unsloth" else fitted.quantised_transformers
        layer += each * sum(projection.count for projection in anatomy.projections if projection.quantisable)
    if setting.backend == "unsloth":
        again = fitted.recomputed_unsloth
    else:
        again = fitted.recomputed_4bit if tuning.kind == "qlora" else fitted.recomputed_transformers
    return 1e-6 * layer * (3 + again * _recomputed_share(setting)) + 1e-3 * fitted.step


def optimizer_seconds(
    anatomy: Anatomy, tuning: Tuning, setting: Setting, card: Card, fitted: Coefficients = FITTED
) -> float:
    """Return the seconds of clipping and updating: memory moved for each trained parameter, and launches a tensor."""
    bytes_ = states.adapter_bytes(tuning, setting) * tuning.trainable_parameters(anatomy)
    bytes_ /= states.trained_shards(tuning, setting)
    eight_bit = setting.optimizer.endswith("8bit")
    moved = (fitted.update_8bit if eight_bit else fitted.update_32bit) * bytes_
    tensors = fitted.tensor_8bit * trained_tensors(anatomy, tuning) if eight_bit else 0.0
    return moved / (card.bandwidth_gb_per_second * 1e9) + 1e-6 * tensors


def traffic_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, card: Card, computing: float) -> float:
    """Return the seconds in which several GPUs wait for each other's data, in one optimizer step.

    DDP adds up all gradients once (a ring moves each twice); FSDP2 gathers the weights for every pass and scatters
    gradients. What fits behind `computing` seconds is hidden.
    """
    if setting.gpus == 1:
        return 0.0
    share = (setting.gpus - 1) / setting.gpus
    gradients = states.gradients_gib(anatomy, tuning, setting) * states.trained_shards(tuning, setting) * GIB
    moved = 2 * share * gradients
    if setting.parallelism == "fsdp2":
        passes = 2 + _recomputed_share(setting)
        weights = states.weights_gib(anatomy, tuning, setting) * setting.shards * GIB
        # Gradients of split weights are scattered in every micro-batch, those of adapters averaged once.
        once = setting.accumulation * gradients if tuning.kind == "full" else 2 * gradients
        moved = share * (passes * setting.accumulation * weights + once)
    seconds = moved / (card.link_gb_per_second * 1e9)
    return max(seconds - OVERLAP * computing, (1 - OVERLAP) * seconds)


def forward_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, card: Card) -> float:
    """Return the seconds of a forward pass without gradients: a third of one with them."""
    return micro_batch_seconds(anatomy, tuning, setting, load, card) / 3


def prompt_seconds(anatomy: Anatomy, load: Load, card: Card) -> float:
    """Return the seconds in which prompts are read before the first token is written."""
    flop = load.tokens * forward_flop_per_token(anatomy, load.attended)
    return flop / (FITTED.matrix * card.matrix_tflops * 1e12)


def token_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, card: Card) -> float:
    """Return the seconds of one generated token: all weights are read, or all operations launched."""
    weights = anatomy.linear_parameters + _active_experts(anatomy) + anatomy.vocabulary * anatomy.hidden
    read = states.weight_bytes(tuning, setting) * weights / (card.bandwidth_gb_per_second * 1e9)
    return max(read, anatomy.layers * LAUNCHES_A_LAYER * LAUNCH_SECONDS) + TOKEN_SECONDS


def _recomputed_share(setting: Setting) -> float:
    """Return the share of the layers that are computed once more in the backward pass."""
    return 0.0 if setting.checkpointing == "off" else 1 / setting.recompute_every


def _active_experts(anatomy: Anatomy) -> int:
    return anatomy.experts.active_parameters if anatomy.experts else 0


def _moved(path: Path, tuning: Tuning, fitted: Coefficients) -> float:
    if tuning.kind == "full":
        return _of(fitted, "moved", path if path == "fast" else f"{path}_full")
    moved = _of(fitted, "moved", path)
    return moved * fitted.moved_fp32 if tuning.kind == "qlora" and path in ("plain", "liger") else moved


def _of(fitted: Coefficients, what: str, path: str) -> float:
    value: float = getattr(fitted, f"{what}_{path}")
    return value
