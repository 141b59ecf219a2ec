"""Utilisation: the useful arithmetic of each step, and the share of the card's measured matrix rate that it reached."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from ...foundation.errors import TunewrightError
from ...foundation.home import runs_folder
from ..anatomy import Anatomy
from ..calibration_file import entries, positive, store
from ..data.examples import IGNORED
from ..flop import flop_per_token
from ..machine import inspect_machine
from ..measuring import KEPT_CARDS, read_card_rates
from ..plan import Plan
from ..setting import Tuning

MEASURING_SECONDS = 0.5
PRODUCT_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Counted:
    """What a step trained on, padding left out."""

    tokens: int
    seen: int
    """Over all tokens, how many each one's attention reaches: itself and those before it in its document."""


class Tally:
    """Counts tokens on the device while the model trains, so that nothing waits for it; `take` reads once a step."""

    def __init__(self, window: int | None = None) -> None:
        """`window` is the longest reach of the attention, None where it has no limit."""
        self.window = window
        self._counts: torch.Tensor | None = None

    def watch(self, model: Any) -> None:
        """Count whatever passes forward through `model` with gradients."""
        model.register_forward_pre_hook(self._see, with_kwargs=True)

    @torch.compiler.disable
    def _see(self, model: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = named.get("input_ids", arguments[0] if arguments else None)
        if model.training and torch.is_grad_enabled() and isinstance(tokens, torch.Tensor):
            self.add(tokens, named.get("attention_mask"), named.get("position_ids"), named.get("labels"))

    def add(self, tokens: torch.Tensor, mask: Any = None, positions: Any = None, labels: Any = None) -> None:
        """Count a micro-batch: `tokens` (rows, length), its `mask` of what is no padding, and the places in documents.

        One without any of the `labels` that are learned only fills up the short step of several GPUs.
        """
        with torch.no_grad():
            real = torch.ones_like(tokens, dtype=torch.long)
            if isinstance(mask, torch.Tensor) and mask.shape == tokens.shape:
                real = (mask != 0).long()
            if isinstance(labels, torch.Tensor):
                real = real * (labels != IGNORED).any()
            if isinstance(positions, torch.Tensor) and positions.dim() == 2:
                reach = (positions + 1).expand_as(tokens)
            else:
                reach = real.cumsum(-1)
            if self.window is not None:
                reach = reach.clamp(max=self.window)
            counts = torch.stack((real.sum(), (reach * real).sum()))
            self._counts = counts if self._counts is None else self._counts + counts.to(self._counts.device)

    def take(self) -> Counted:
        """Return what was counted since the last call; on a GPU this waits for the work that was launched."""
        counts, self._counts = self._counts, None
        if counts is None:
            return Counted(0, 0)
        tokens, seen = counts.tolist()
        return Counted(int(tokens), int(seen))


def useful_flop(anatomy: Anatomy, tuning: Tuning, counted: Counted) -> float:
    """Return the FLOP of training on `counted`, forward and backward; what is recomputed is not counted.

    A token's forward pass takes 2 · (weights + s · width · layers), where s is twice what its attention reaches; both
    passes take 3 times that for full tuning and 2 + ρ times for adapters, of the frozen weights' share ρ (`flop.py`).
    """
    if not counted.tokens:
        return 0.0
    attended = 2 * counted.seen / counted.tokens
    return counted.tokens * flop_per_token(anatomy, tuning, attended, recomputing=False)


def utilisation(flop: float, seconds: float, tflops: float | None) -> float | None:
    """Return the MFU: useful FLOP over what the card does of large matrix products in that time; None if not measured."""
    return flop / (seconds * tflops * 1e12) if tflops and seconds > 0 else None


def matrix_tflops(plan: Plan) -> float | None:
    """Return the TFLOP/s of large matrix products on the plan's card, as was measured once; None without a card.

    Where neither a calibration nor a run measured this card with this driver and torch, half a second of products is
    timed here and kept.
    """
    machine = inspect_machine(runs_folder())
    if plan.device != "cuda" or not torch.cuda.is_available() or not machine.gpus:
        return None
    card = next((gpu for gpu in machine.gpus if gpu.index in plan.gpu_indices), machine.gpus[0]).name
    if rates := read_card_rates(card, machine.driver):
        return rates.matrix_tflops
    key = {"card": card, "driver": machine.driver or "", "torch_version": version("torch")}
    known = entries("matrix_rates")
    for found in known:
        with contextlib.suppress(ValueError):  # damaged: measured anew
            if all(found.get(name) == value for name, value in key.items()):
                return positive(found.get("matrix_tflops"))
    measured = measure_matrix_tflops()
    others = [each for each in known if any(each.get(name) != value for name, value in key.items())]
    with contextlib.suppress(TunewrightError):  # it is measured again by the next run
        store("matrix_rates", [*others, {**key, "matrix_tflops": measured, "time": time.time()}][-KEPT_CARDS:])
    return measured


def measure_matrix_tflops(device: str = "cuda", side: int = PRODUCT_SIDE) -> float:
    """Return the TFLOP/s of products of two square matrices in bf16, fp16 before Ampere: the best within half a second.

    The best, since a card that comes from idling, or a host that is busy, would make every later step look better.
    """
    on_gpu = device == "cuda"
    dtype = torch.bfloat16 if not on_gpu or torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    own = torch.Generator(device).manual_seed(0)  # the training's random state stays as it is
    left, right = (torch.randn(side, side, device=device, dtype=dtype, generator=own) for _ in range(2))
    product = torch.empty_like(left)

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    torch.mm(left, right, out=product)  # the library is loaded and the clock rises
    wait()
    products, best, ending = 8 if on_gpu else 1, 0.0, time.perf_counter() + MEASURING_SECONDS
    while (started := time.perf_counter()) < ending:
        for _ in range(products):
            torch.mm(left, right, out=product)
        wait()
        best = max(best, products / (time.perf_counter() - started))
    del left, right, product
    if on_gpu:
        torch.cuda.empty_cache()
    return best * 2 * side**3 / 1e12
