"""The speed of a processor: matrix products, element-wise work, and the overhead of every operation.

The rates are measured on the machine (`calibration.py`). The shares below say how a whole model's work relates to
them; they are fitted to 33 timings of models of 2 to 80 million parameters on one core, every method, 87 to 4,096
tokens (mean error 4 %, worst 13 %).
"""

from __future__ import annotations

from .anatomy import Anatomy
from .calibration import ThreadRates
from .flop import Load, adapted_projections, forward_flop_per_token, trained_tensors
from .setting import Setting, Tuning

PROCESSOR_EFFICIENCY = 0.92
"""The share of the measured matrix rate that a whole model reaches."""
THIN_EFFICIENCY = 0.52
"""The same for products with an adapter's rank, which are too thin to fill vectors."""
LOGIT_SHARE = 1.5
"""The loss's work on a logit against that in the measurement."""
STATE_SHARE = 0.33
"""Element-wise work on an element of hidden and MLP state, against that on a logit in the measurement."""
SCORE_SHARE = 0.8
"""Work on an attention score against that in the measurement."""
DEQUANTISED_SHARE = 0.45
"""The rate at which small layers' 4-bit weights are expanded, against the measured layer's."""
QUANTISED_OVERHEAD = 1.5
"""What a 4-bit projection takes however small it is, in an adapter's overheads."""
TENSOR_UPDATE_SECONDS = 40e-6
"""AdamW and clipping for each tensor, and for each parameter; timed."""
PARAMETER_UPDATE_SECONDS = 2e-9
TRAINER_SECONDS = 11e-3
"""What transformers' trainer and TRL do around a micro-batch; timed."""
GRADIENT_SECONDS = 1e-9
"""Adding up the gradient of a parameter, in every micro-batch; timed."""
TOKEN_SECONDS = 5e-3
"""What `generate` does for a token beside the model's own pass; timed."""


def micro_batch_seconds(anatomy: Anatomy, tuning: Tuning, setting: Setting, load: Load, rates: ThreadRates) -> float:
    """Return the seconds of one forward and backward pass: products, element-wise work, overhead, 4-bit weights."""
    recomputing = setting.checkpointing != "off"
    passes = (3 if tuning.kind == "full" else 2) + (1 if recomputing else 0)
    seconds = passes * forward_products_seconds(anatomy, load, rates)
    # TRL computes the logits chunk by chunk, and again in the backward pass.
    seconds += products_seconds(2.0 * load.tokens * anatomy.vocabulary * anatomy.hidden, anatomy, rates)
    again = 4 / 3 if recomputing else 1.0
    if tuning.kind != "full":
        flop = 6.0 * load.tokens * tuning.multiplied_parameters(anatomy)
        seconds += again * products_seconds(flop, anatomy, rates) * PROCESSOR_EFFICIENCY / THIN_EFFICIENCY
    seconds += again * (elements_seconds(anatomy, load, rates) + overhead_seconds(anatomy, tuning, rates))
    if tuning.kind == "qlora":
        seconds += passes * anatomy.linear_parameters / (DEQUANTISED_SHARE * rates.dequantised_per_second)
    return seconds + TRAINER_SECONDS + GRADIENT_SECONDS * tuning.trainable_parameters(anatomy)


def forward_seconds(anatomy: Anatomy, tuning: Tuning, load: Load, rates: ThreadRates) -> float:
    """Return the seconds of a forward pass without gradients; element-wise work and overhead are a third of all three."""
    seconds = forward_products_seconds(anatomy, load, rates)
    if tuning.kind != "full":
        flop = 2.0 * load.tokens * tuning.multiplied_parameters(anatomy)
        seconds += products_seconds(flop, anatomy, rates) * PROCESSOR_EFFICIENCY / THIN_EFFICIENCY
    seconds += (elements_seconds(anatomy, load, rates) + overhead_seconds(anatomy, tuning, rates)) / 3
    if tuning.kind == "qlora":
        seconds += anatomy.linear_parameters / (DEQUANTISED_SHARE * rates.dequantised_per_second)
    return seconds


def forward_products_seconds(anatomy: Anatomy, load: Load, rates: ThreadRates) -> float:
    """Return the seconds of the frozen weights' and attention's products in one forward pass."""
    return products_seconds(load.tokens * forward_flop_per_token(anatomy, load.attended), anatomy, rates)


def products_seconds(flop: float, anatomy: Anatomy, rates: ThreadRates) -> float:
    """Return the seconds of matrix products of `flop` FLOP in this model's width."""
    return flop / (PROCESSOR_EFFICIENCY * matrix_rate(anatomy, rates) * 1e9)


def elements_seconds(anatomy: Anatomy, load: Load, rates: ThreadRates) -> float:
    """Return what element-wise operations take: on attention scores, logits, and hidden and MLP states."""
    scores = load.attended * anatomy.heads * anatomy.layers
    states = anatomy.layers * (anatomy.hidden + anatomy.ffn)
    return load.tokens * (
        SCORE_SHARE * scores * rates.score_seconds
        + (LOGIT_SHARE * anatomy.vocabulary + STATE_SHARE * states) * rates.logit_seconds
    )


def overhead_seconds(anatomy: Anatomy, tuning: Tuning, rates: ThreadRates) -> float:
    """Return what the layers and adapters take however few tokens there are."""
    overheads = adapted_projections(anatomy, tuning)
    if tuning.kind == "qlora":
        overheads += QUANTISED_OVERHEAD * anatomy.layers * len(anatomy.projections)
    return anatomy.layers * rates.layer_seconds + overheads * rates.adapter_seconds


def matrix_rate(anatomy: Anatomy, rates: ThreadRates) -> float:
    """Return the GFLOP/s in products of this model's width, between the two measured sizes."""
    share = min(1.0, max(0.0, (anatomy.hidden - 256) / (1024 - 256)))
    return rates.small_gflops + share * (rates.large_gflops - rates.small_gflops)


def optimizer_seconds(anatomy: Anatomy, tuning: Tuning) -> float:
    """Return the seconds of clipping and AdamW, tensor by tensor."""
    trained = tuning.trainable_parameters(anatomy)
    return trained_tensors(anatomy, tuning) * TENSOR_UPDATE_SECONDS + trained * PARAMETER_UPDATE_SECONDS
