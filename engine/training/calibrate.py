"""Measures this machine's processor, or a card, as the trainer uses it; prints one line of JSON.

`python -m tunewright.engine.training.calibrate [--card INDEX]`. Imports aside it takes about three seconds. On the
processor the best of several repetitions counts, so that other work on the machine does not pass for slowness; on a
card the median, for its clock settles while it works.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from ...foundation.units import GIB
from ..calibration import Calibration, ThreadRates
from ..machine import sample_gpus

LIBRARIES = ("torch", "transformers", "datasets", "peft", "accelerate", "bitsandbytes", "trl")
"""What the trainer imports, in its order."""
NAMES = {
    "transformers": ("AutoModelForCausalLM", "AutoTokenizer", "BitsAndBytesConfig"),
    "trl": ("SFTConfig", "SFTTrainer"),
}
"""Names that these libraries load only when they are asked for."""
SECONDS_A_MEASUREMENT = 0.2
CARD_SECONDS_A_MEASUREMENT = 1.0
PRODUCT_SIDE = 8192
COPIED_BYTES = 2**29
"""Far more than any card's cache holds."""
HOST_BYTES = 2**28
REPEATED = 10
"""What runs on a card is timed so many times at once, so that launching it does not count."""


def main(arguments: list[str]) -> int:
    """Print the calibration of this machine's processor, or the rates of the card with the index that is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--card", type=int)
    card: int | None = parser.parse_args(arguments).card
    values = measure_processor() if card is None else measure_card(card)
    print(json.dumps(values))
    return 0


def measure_processor() -> dict[str, Any]:
    """Return the calibration of this machine's processor."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # libraries greet
        modules = {name: importlib.import_module(name) for name in LIBRARIES}
        for name, wanted in NAMES.items():
            for each in wanted:
                getattr(modules[name], each)
    import_seconds = time.perf_counter() - started
    libraries_gib = psutil.Process().memory_info().rss / GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quiet = OthersAtWork()
    rates = [measure(modules, threads) for threads in sorted({1, cores})]
    found = Calibration(
        device=f"{processor_name()}, {cores} cores",
        torch_version=importlib.metadata.version("torch"),  # as the reader asks, who does not import torch
        measured=True,
        libraries_gib=libraries_gib,
        import_seconds=import_seconds,
        others_busy_cores=quiet.cores(),
        time=time.time(),
        rates=tuple(rates),
    )
    return asdict(found)


def measure_card(index: int) -> dict[str, Any]:
    """Return the rates of the only card that this process sees, which is the driver's number `index`."""
    free_before = _free_gib(index)  # before torch makes its context on the card
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} finds no GPU that it can use")
    tflops = card_tflops(torch)
    moved = copied_bytes_per_second(torch)
    host = host_bytes_per_second(torch)
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    context = free_before - _free_gib(index) - torch.cuda.memory_reserved() / GIB
    return {
        "torch_version": importlib.metadata.version("torch"),
        "matrix_tflops": tflops,
        "copy_gb_per_second": moved / 1e9,
        "context_gib": max(0.01, context),
        "host_gb_per_second": host / 1e9,
        "time": time.time(),
    }


def card_tflops(torch: Any) -> float:
    """Return the TFLOP/s of a large matrix product in the type that training takes on this card."""
    dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    left, right = (torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, device="cuda", dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    return 2 * PRODUCT_SIDE**3 / card_seconds(torch, lambda: torch.mm(left, right, out=product)) / 1e12


def copied_bytes_per_second(torch: Any) -> float:
    """Return the bytes that a copy within the card's memory reads and writes in a second."""
    source = torch.zeros(COPIED_BYTES, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / card_seconds(torch, lambda: target.copy_(source))


def host_bytes_per_second(torch: Any) -> float:
    """Return the bytes that the card takes from the host's pinned memory in a second."""
    source = torch.zeros(HOST_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(HOST_BYTES, device="cuda", dtype=torch.uint8)
    return HOST_BYTES / card_seconds(torch, lambda: target.copy_(source, non_blocking=True))


def card_seconds(torch: Any, action: Callable[[], object]) -> float:
    """Return the median time that `action` takes on the card over about a second, once it is warm."""
    taken: list[float] = []
    end = time.perf_counter() + CARD_SECONDS_A_MEASUREMENT
    while len(taken) < 4 or time.perf_counter() < end:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(REPEATED):
            action()
        torch.cuda.synchronize()
        taken.append((time.perf_counter() - started) / REPEATED)
    return statistics.median(taken[1:])


def _free_gib(index: int) -> float:
    """Return what NVML says is free on card `index`; asking torch would make a context first."""
    return next((gpu.memory_free_gib for gpu in sample_gpus() if gpu.index == index), 0.0)


class OthersAtWork:
    """How many cores other programs keep busy since this was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._busy_before = self._busy_seconds()

    def cores(self) -> float:
        """Return the mean number of cores."""
        busy = self._busy_seconds() - self._busy_before
        return max(0.0, busy / (time.perf_counter() - self._started))

    @staticmethod
    def _busy_seconds() -> float:
        times = psutil.cpu_times()
        everybody = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return everybody - time.process_time()


def measure(modules: dict[str, Any], threads: int) -> ThreadRates:
    """Return what the processor does with `threads` threads."""
    torch = modules["torch"]
    torch.set_num_threads(threads)
    shallow, deep, adapted = (tiny_pass_seconds(modules, *shape) for shape in ((2, False), (6, False), (6, True)))
    return ThreadRates(
        threads=threads,
        small_gflops=matrix_gflops(torch, 1024, 256, 688),
        large_gflops=matrix_gflops(torch, 1024, 1024, 3072),
        layer_seconds=max(1e-6, (deep - shallow) / 4),
        adapter_seconds=max(1e-7, (adapted - deep) / (6 * 7)),
        score_seconds=score_seconds(torch),
        logit_seconds=logit_seconds(torch),
        dequantised_per_second=dequantised_per_second(torch, modules["bitsandbytes"]),
    )


def tiny_pass_seconds(modules: dict[str, Any], layers: int, adapted: bool) -> float:
    """Return the seconds of a forward and backward pass of a model so small that only overhead is left."""
    torch, transformers, peft = modules["torch"], modules["transformers"], modules["peft"]
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 32}
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=layers, **shape))
    if adapted:
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    tokens = torch.ones((1, 4), dtype=torch.long)

    def both_passes() -> None:
        model(input_ids=tokens, attention_mask=tokens, labels=tokens, use_cache=False).loss.backward()

    return best_seconds(both_passes)


def matrix_gflops(torch: Any, tokens: int, hidden: int, ffn: int) -> float:
    """Return the GFLOP/s of the three products that a linear layer's forward and backward passes make."""
    inputs, weight = torch.randn(tokens, hidden), torch.randn(ffn, hidden)
    gradient = torch.randn(tokens, ffn)

    def products() -> None:
        torch.mm(inputs, weight.t())
        torch.mm(gradient, weight)
        torch.mm(gradient.t(), inputs)

    return 3 * 2 * tokens * hidden * ffn / best_seconds(products) / 1e9


def score_seconds(torch: Any) -> float:
    """Return what attention takes for each score, its matrix products aside: masked, softened, and back again."""
    heads, length, width = 32, 128, 8
    query, key, value = (torch.randn(1, heads, length, width, requires_grad=True) for _ in range(3))
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    attend = torch.nn.functional.scaled_dot_product_attention

    def both_passes() -> None:
        attend(query, key, value, attn_mask=mask).sum().backward()

    return best_seconds(both_passes) / (heads * length * length)


def logit_seconds(torch: Any) -> float:
    """Return what the loss takes for each logit, forward and backward."""
    tokens, words = 1024, 8192  # beyond the caches, and fetched from the system anew, as in training
    logits, labels = torch.randn(tokens, words, requires_grad=True), torch.zeros(tokens, dtype=torch.long)
    loss = torch.nn.functional.cross_entropy
    return best_seconds(lambda: loss(logits, labels).backward()) / (tokens * words)


def dequantised_per_second(torch: Any, bitsandbytes: Any) -> float:
    """Return how many 4-bit weights a linear layer of bitsandbytes gets through in a second, forward and backward."""
    layer = bitsandbytes.nn.Linear4bit(512, 1024, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(1024, 512), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")
    layer.support_avx512bf16_for_cpu = False  # as the trainer has it
    token = torch.randn(1, 512, requires_grad=True)
    return 2 * 512 * 1024 / best_seconds(lambda: layer(token).sum().backward())


def best_seconds(action: Callable[[], object]) -> float:
    """Return the shortest time that `action` took.

    A single thread is timed by its own processor time, which other work on the machine hardly touches.
    """
    clock = time.perf_counter if _threads() > 1 else time.process_time
    action()
    best = float("inf")
    end = time.perf_counter() + SECONDS_A_MEASUREMENT
    while time.perf_counter() < end:
        started = clock()
        action()
        best = min(best, clock() - started)
    return best


def _threads() -> int:
    return sys.modules["torch"].get_num_threads()


def processor_name() -> str:
    """Return the processor's own name for itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
