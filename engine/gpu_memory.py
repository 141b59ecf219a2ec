"""Memory on a GPU: the moments of a step at which its peak can lie, each as the sum of its terms.

Which one is the highest depends on the method, the lengths and what is recomputed, so all are computed. The terms are
those that torch's allocator hands out (`max_memory_allocated`); `reserved_gib` adds what it cannot reuse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..foundation.units import GIB
from . import states
from .activations import (
    UNSLOTH_LAYERS,
    adapts_mlp,
    kept_bytes,
    passing_bytes,
    path_of,
    recomputed_bytes,
    strings_together,
)
from .anatomy import Anatomy
from .setting import Setting, Tuning

MIB = 2**20
LOSS_CHUNK_TOKENS = 256
"""Tokens whose logits TRL computes at once (sft_trainer.py, `_chunked_cross_entropy_loss`)."""
LOGIT_BYTES = 16
"""Bytes of such a logit: itself, in fp32, its softmax and its gradient."""
SOFTCAP_BYTES = 4
"""What a softcap adds to that."""
UNFUSED_LOGIT_BYTES = 10
"""Bytes of a logit of a whole micro-batch where Liger has no fused loss."""
LIGER_UNFUSED = frozenset({"granite", "granitemoe"})
"""Families for which Liger leaves the loss as it is (liger_kernel/transformers/monkey_patch.py)."""
FUSED_LOSS_BYTES = 256 * MIB
"""The logits that Unsloth has at once in the loss of adapters (unsloth_zoo/fused_losses/fused_linear.py)."""
COMPILED_LOSS_BYTES = 820 * MIB
"""The same in a model that Unsloth compiles; measured."""
UNSLOTH_TABLES_BYTES = 31 * MIB
"""What Unsloth allocates while it loads one of the models that it has layers for; measured."""
ACCELERATED_LOGIT_BYTES = 2**30
"""The logits of one part of the loss, and their gradients in their place (training/acceleration/loss.py)."""
PROCESSORS = 132
"""Streaming multiprocessors of an H100 and an H200; other cards have fewer, or a few more."""
CUDA_CONTEXT_GIB = 0.55
"""The driver's and the libraries' own memory on a card, outside torch's allocator; 0.14 on a T4, 0.52 on an H200."""
ROPE_POSITIONS = 32768
"""Positions that Unsloth's own tables of rotations hold at first (models/llama.py)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a step, with what is allocated then."""

    name: str
    terms: dict[str, float]
    """GiB by term."""

    @property
    def gib(self) -> float:
        return sum(self.terms.values())


def peak_moment(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> Moment:
    """Return the moment of a step at which the most is allocated."""
    return max(moments(anatomy, tuning, setting), key=lambda moment: moment.gib)


def moments(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> Iterator[Moment]:
    """Yield the moments of a step at which the peak can lie, in their order."""
    standing = standing_terms(anatomy, tuning, setting)
    gradients = states.gradients_gib(anatomy, tuning, setting)
    held = gradients if setting.accumulation > 1 else 0.0
    tokens = setting.tokens
    full, recomputing = tuning.kind == "full", setting.checkpointing != "off"
    head = _head_gradient_bytes(anatomy, tuning) / GIB
    first = _first_gradients_gib(anatomy, tuning, setting)
    stored = _stored_bytes(anatomy, tuning, setting)
    mask = _mask_bytes(anatomy, tuning, setting)
    copies = _cast_bytes(anatomy, tuning, setting)
    copies += 0.0 if recomputing else states.dora_copied_bytes(anatomy, tuning)

    def moment(name: str, **more: float) -> Moment:
        terms = dict(standing)
        for term, gib in more.items():
            terms[term] = terms.get(term, 0.0) + gib
        return Moment(name, {term: gib for term, gib in terms.items() if gib > 0})

    yield moment(
        "the loss",
        gradients=held,
        activations=(tokens * (stored + _ends_bytes(anatomy, tuning, setting)) + mask + copies) / GIB,
        loss=loss_bytes(anatomy, tuning, setting) / GIB,
    )
    if recomputing:
        layer = tokens * recomputed_bytes(anatomy, tuning, setting) + _expanded_bytes(anatomy, tuning, setting)
        offloaded = setting.backend == "unsloth"
        if not offloaded:
            yield moment(
                "the last layer's backward pass",
                gradients=held + (0.0 if held else head),
                activations=(tokens * stored + copies) / GIB,
                layer=layer / GIB,
            )
        yield moment(
            "the first layer's backward pass",
            gradients=max(held, gradients - first),
            activations=mask / GIB if offloaded else tokens * stored / anatomy.layers / GIB,
            layer=layer / GIB,
        )
    else:
        passing = passing_bytes(anatomy, tuning, setting)
        yield moment(
            "the last layer's backward pass",
            gradients=held + (0.0 if held else head),
            activations=(tokens * stored + copies) / GIB,
            layer=(tokens * passing + _expanded_bytes(anatomy, tuning, setting)) / GIB,
        )
    if full:
        again = head if anatomy.tied_embeddings else 0.0  # the embedding's gradient is added to the output layer's
        yield moment("the end of the backward pass", gradients=gradients + again)
    yield moment("the optimizer's step", gradients=gradients, step=states.step_gib(anatomy, tuning, setting))


def standing_terms(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> dict[str, float]:
    """Return what is allocated between two steps, in GiB by term."""
    return {
        "weights": states.weights_gib(anatomy, tuning, setting),
        "adapters": states.adapters_gib(anatomy, tuning, setting),
        "optimizer": states.optimizer_gib(anatomy, tuning, setting),
        "buffers": buffers_bytes(anatomy, tuning, setting) / GIB,
        "parallelism": parallelism_gib(anatomy, tuning, setting),
    }


def buffers_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return cuBLAS's workspaces, the backend's tables, and what Unsloth moves checkpoints and expands weights in."""
    workspace = setting.cuda_workspace_mib * MIB
    if setting.compiled:
        copies = 2.0 * tuning.trainable_parameters(anatomy) if tuning.kind != "full" else 0.0
        expanded = 2.0 * anatomy.largest_linear if tuning.kind == "qlora" else 0.0
        return 2.0 * workspace + copies + expanded
    if setting.backend == "transformers":
        return 2.0 * workspace  # one each for the forward and the backward pass's thread
    buffers = 2 * setting.tokens * anatomy.hidden * 2.0 if setting.checkpointing == "offloaded" else 0.0
    if path_of(anatomy, tuning, setting) == "compiled" and anatomy.family not in UNSLOTH_LAYERS:
        return buffers + 2 * workspace
    buffers += workspace + UNSLOTH_TABLES_BYTES
    if tuning.kind != "full":
        buffers += min(anatomy.context, ROPE_POSITIONS) * anatomy.head_dim * 4
    if tuning.kind == "qlora":
        buffers += 2 * anatomy.largest_linear  # one expanded weight is kept for all (unsloth/kernels/utils.py)
    return buffers


def parallelism_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what several GPUs take beside their shares.

    DDP copies all gradients into its buckets. FSDP2 gathers two blocks and the embedding and output layer, and holds
    one block's gradients while it adds them up (torch/distributed/fsdp).
    """
    match setting.parallelism:
        case "ddp":
            return states.gradients_gib(anatomy, tuning, setting)
        case "fsdp2":
            per_weight = states.NF4_BYTES if tuning.kind == "qlora" else states.weight_bytes(tuning, setting)
            block = anatomy.linear_parameters / anatomy.layers
            outside = 4 if tuning.kind == "qlora" else states.weight_bytes(tuning, setting)
            ends = outside * (anatomy.embedding_parameters + anatomy.head_parameters)
            gathered = 2 * per_weight * block + ends
            reduced = 4 * block if tuning.kind == "full" else 0.0
            return (gathered + reduced) / GIB
        case _:
            return 0.0


def loss_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the logits at hand, their gradients, and the gradient of the output layer, at their most."""
    tokens, hidden, vocabulary = setting.tokens, anatomy.hidden, anatomy.vocabulary
    head = 2.0 * vocabulary * hidden
    states_ = 2.0 * tokens * hidden
    if setting.whole_logits:
        return UNFUSED_LOGIT_BYTES * tokens * vocabulary + states_ + (head if tuning.kind == "full" else 0.0)
    match path_of(anatomy, tuning, setting):
        case "plain":
            bytes_ = LOGIT_BYTES + (SOFTCAP_BYTES if anatomy.logit_softcap else 0)
            logits = bytes_ * min(tokens, LOSS_CHUNK_TOKENS) * vocabulary
            if tuning.kind == "full":
                return max(logits + head, 3 * head) + states_
            if tuning.kind == "qlora":  # the output layer is fp32, and cast for every chunk
                return logits + head + 2 * states_
            return logits + states_
        case "accelerated":
            logits = min(2.0 * tokens * vocabulary, ACCELERATED_LOGIT_BYTES)
            loss = logits + 2 * states_ + (2 * head if tuning.kind == "full" else 0.0)
            return max(loss, ordered_gradient_bytes(anatomy, setting))
        case "liger":
            return _liger_loss_bytes(anatomy, tuning, setting)
        case "fast" if tuning.kind != "full":
            least, rows = 2048, FUSED_LOSS_BYTES / (2 * vocabulary)
            return 2 * vocabulary * max(1024, min(max(tokens, least), rows)) + 2 * states_
        case "compiled" if tuning.kind != "full":
            return min(4.0 * tokens * vocabulary, COMPILED_LOSS_BYTES) + 2 * states_
        case _:
            return 2 * head + FUSED_LOSS_BYTES + 2 * states_


def ordered_gradient_bytes(anatomy: Anatomy, setting: Setting) -> float:
    """Return the sums of a layer's gradient by query that flash attention takes in one order, after all logits are gone.

    Each part of the card that works on the same row and head has sums of its own, in 32 bits. Source: flash-attention,
    csrc/flash_attn/flash_api.cpp, `dq_accum` of `mha_varlen_bwd`.
    """
    parts = math.ceil(PROCESSORS / (setting.rows * anatomy.heads))
    return 4.0 * parts * setting.tokens * anatomy.attention_width


def _liger_loss_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the same for Liger, which halves its chunks until they are as wide as the hidden states.

    Source: liger_kernel/ops/fused_linear_cross_entropy.py.
    """
    tokens, hidden, vocabulary = setting.tokens, anatomy.hidden, anatomy.vocabulary
    if anatomy.family in LIGER_UNFUSED:
        cast = 2.0 * vocabulary * hidden if tuning.kind == "qlora" else 0.0
        return UNFUSED_LOGIT_BYTES * tokens * vocabulary + cast
    rows = math.ceil(tokens / math.ceil(vocabulary / hidden))
    chunk = 2 ** math.ceil(math.log2(max(1, rows)))
    states_ = 2.0 * tokens * hidden
    if tuning.kind == "full":
        return 4.0 * chunk * vocabulary + states_ + 2.0 * vocabulary * hidden
    if tuning.kind == "qlora":
        logits = 8.0 * chunk * vocabulary + 2.0 * vocabulary * hidden + 2 * states_
        return max(logits, tokens * (4.0 * anatomy.ffn + 4 * hidden))
    return max(8.0 * chunk * vocabulary, tokens * 2.0 * anatomy.ffn) + states_


def _stored_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what is kept of a token in all layers: what each keeps, its input, or the few inputs not yet moved."""
    if setting.checkpointing == "offloaded":
        return 4 * 2.0 * anatomy.hidden
    recomputed = 0 if setting.checkpointing == "off" else -(-anatomy.layers // setting.recompute_every)
    state = 4 if tuning.kind == "qlora" and setting.backend == "transformers" and not setting.compiled else 2
    whole = (anatomy.layers - recomputed) * kept_bytes(anatomy, tuning, setting)
    return recomputed * anatomy.hidden * state + whole


def _ends_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return what is kept of a token outside the layers: around the last norm and before the output layer."""
    if setting.backend == "unsloth":
        if setting.checkpointing == "offloaded":
            return 0.0
        return (6.2 if path_of(anatomy, tuning, setting) == "compiled" else 4.2) * anatomy.hidden
    if setting.compiled:
        return 8.0 * anatomy.hidden
    halves = {"full": 4 if setting.liger else 8, "lora": 2, "qlora": 4}[tuning.kind]
    return float(halves * anatomy.hidden)


def _cast_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the copies of fp32 adapters that autocast makes and keeps until the end of the forward pass."""
    if tuning.kind == "full":
        return 2.0 * anatomy.total_parameters if setting.precision == "fp16" else 0.0
    if setting.compiled or states.adapter_bytes(tuning, setting) == 2 or path_of(anatomy, tuning, setting) == "fast":
        return 0.0
    if setting.checkpointing != "off":
        return 0.0
    return 2.0 * tuning.trainable_parameters(anatomy)


def _head_gradient_bytes(anatomy: Anatomy, tuning: Tuning) -> float:
    return 2.0 * anatomy.vocabulary * anatomy.hidden if tuning.kind == "full" else 0.0


def _first_gradients_gib(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the gradients that are not there yet when the first layer's MLP is passed: its own and attention's."""
    if tuning.kind != "full":
        return 0.0
    bytes_ = states.weight_bytes(tuning, setting)
    embedding = 0 if anatomy.tied_embeddings else anatomy.embedding_parameters
    return bytes_ * (anatomy.linear_parameters / anatomy.layers + embedding) / setting.shards / GIB


def _mask_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return the mask of compiled attention over several documents in one row, when layers are recomputed."""
    compiled = path_of(anatomy, tuning, setting) == "compiled"
    masked = compiled and strings_together(setting) and setting.checkpointing != "off"
    return float(setting.tokens) ** 2 if masked else 0.0


def _expanded_bytes(anatomy: Anatomy, tuning: Tuning, setting: Setting) -> float:
    """Return a 4-bit weight that is expanded for its product, beside the one Unsloth keeps room for; DoRA expands any."""
    own = path_of(anatomy, tuning, setting) == "fast" and not setting.padded
    expands = tuning.kind == "qlora" and own and adapts_mlp(anatomy, tuning)
    return (2.0 * anatomy.largest_linear if expands else 0.0) + states.dora_expanded_bytes(anatomy, tuning)
