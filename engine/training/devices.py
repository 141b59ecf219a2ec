"""The devices of a run while it trains: its GPUs as NVML samples them, or the process without one, twice a second."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import psutil

from ...foundation.units import GIB
from ..plan import Plan
from ..runs.events import Cpu, EventLog, Gpu

DEVICE_SAMPLES_SECONDS = 0.5
THROTTLES = {
    0x04: "power",
    0x08: "hardware",
    0x20: "heat",
    0x40: "heat",
    0x80: "power supply",
}
"""NVML's clock event reasons that slow a card at work, in words (nvml.h); being idle and clocks that were set are none."""


class PowerMean:
    """The mean power of the run's GPUs together over the samples since the last reset."""

    def __init__(self) -> None:
        self._drawn: list[float] = []

    def add(self, watts: float) -> None:
        self._drawn.append(watts)

    def reset(self) -> None:
        """Begin anew."""
        self._drawn = []

    @property
    def watts(self) -> float | None:
        """The mean, None while nothing was sampled."""
        drawn = self._drawn
        return sum(drawn) / len(drawn) if drawn else None


@contextlib.contextmanager
def device_samples(log: EventLog, plan: Plan) -> Generator[PowerMean]:
    """Write a sample of each of the plan's GPUs, or of this process without one, twice a second while the block runs.

    Yields the power that was sampled. NVML stays open meanwhile: starting it costs more than asking.
    """
    ended = threading.Event()
    power = PowerMean()

    def watch() -> None:
        with _processor() if plan.device == "cpu" else _gpus(plan.gpu_indices) as sample:
            while not ended.wait(DEVICE_SAMPLES_SECONDS):
                events = sample()
                drawn = [event.power_watts for event in events if isinstance(event, Gpu) and event.power_watts]
                if drawn:
                    power.add(sum(drawn))
                with contextlib.suppress(OSError):  # a full disk is told by the trainer itself
                    for event in events:
                        log.append(event)

    thread = threading.Thread(target=watch, name="device-samples", daemon=True)
    thread.start()
    try:
        yield power
    finally:
        ended.set()
        thread.join()


Sampler = Callable[[], Sequence[Gpu | Cpu]]


@contextlib.contextmanager
def _processor() -> Generator[Sampler]:
    process = psutil.Process()
    process.cpu_percent()

    def sample() -> list[Cpu]:
        return [Cpu(utilisation_percent=process.cpu_percent(), memory_gib=process.memory_info().rss / GIB)]

    yield sample


@contextlib.contextmanager
def _gpus(indices: Sequence[int]) -> Generator[Sampler]:
    """Yield what samples the GPUs at the driver's `indices`; nothing is sampled where NVML does not answer."""
    import pynvml

    handles: dict[int, Any] = {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield list
        return
    for index in indices:
        with contextlib.suppress(pynvml.NVMLError):
            handles[index] = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        yield lambda: [found for index in handles if (found := sample_gpu(pynvml, index, handles[index])) is not None]
    finally:
        pynvml.nvmlShutdown()


def sample_gpu(nvml: Any, index: int, handle: Any) -> Gpu | None:
    """Return GPU `index` as NVML tells it now, None when it does not answer; what it does not tell is None."""

    def ask(function: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, function)(handle, *arguments)
        except (nvml.NVMLError, AttributeError):  # this card, driver or binding does not tell
            return None

    memory = ask("nvmlDeviceGetMemoryInfo")
    if memory is None:
        return None
    load, power = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetPowerUsage")
    reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    return Gpu(
        index=index,
        utilisation_percent=None if load is None else float(load.gpu),
        memory_used_gib=memory.used / GIB,
        memory_total_gib=memory.total / GIB,
        temperature_celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_watts=None if power is None else power / 1000,
        clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        throttled_by=", ".join(dict.fromkeys(words for bit, words in THROTTLES.items() if reasons & bit)),
    )
