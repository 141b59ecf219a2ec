"""Measuring: what trains on this machine, a card or the processor, is measured once and kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from .calibration import calibrate, measure_in_child, read_calibration
from .calibration_file import entries, positive, store
from .cards import Card
from .machine import GpuDevice, Machine

KEPT_CARDS = 20
COPY_SHARE = 0.9
"""The share of its datasheet's bandwidth that a copy within a card's memory reaches; assumed. The formulas count moved
bytes against the datasheet's, so a measured rate is divided by it."""
BUSY_PERCENT = 10.0
"""A card that others keep busier than this is not measured."""


@dataclass(frozen=True, slots=True)
class CardRates:
    """What one kind of card does on this machine, with this driver and torch."""

    card: str
    """As the driver calls it."""
    driver: str
    torch_version: str
    matrix_tflops: float
    """A large product in bf16, in fp16 before Ampere."""
    copy_gb_per_second: float
    """Bytes read and written in a second by a copy within the card's memory."""
    context_gib: float
    """What a process takes of the card beside torch's allocator: the driver's and the libraries' own memory."""
    host_gb_per_second: float
    """From the host's pinned memory to the card."""
    time: float
    """When it was measured, in seconds since the epoch."""

    def of(self, card: Card) -> Card:
        """Return `card` with the rates that were measured in place of its datasheet's."""
        return replace(
            card,
            matrix_tflops=self.matrix_tflops,
            bandwidth_gb_per_second=self.copy_gb_per_second / COPY_SHARE,
            source="measured",
        )


def read_card_rates(card: str, driver: str | None) -> CardRates | None:
    """Return what was measured on the card that the driver calls `card`, with this driver and the installed torch."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return None
    for values in reversed(entries("cards")):
        if (values.get("card"), values.get("driver"), values.get("torch_version")) != (card, driver or "", installed):
            continue
        try:
            rates = {name: positive(values[name]) for name in _CARD_FIGURES}
        except (TypeError, ValueError, KeyError):
            continue
        return CardRates(card, driver or "", installed, **rates)
    return None


_CARD_FIGURES = ("matrix_tflops", "copy_gb_per_second", "context_gib", "host_gb_per_second", "time")


def calibrate_card(gpu: GpuDevice, driver: str | None) -> CardRates:
    """Measure `gpu` in a child process, keep the result and return it; imports aside it takes about three seconds.

    Raises TunewrightError when the child fails, as it does when the card has no memory free.
    """
    seen = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu.index)}
    values = measure_in_child(["--card", str(gpu.index)], {**os.environ, **seen})
    values |= {"card": gpu.name, "driver": driver or ""}
    named = ("card", "driver", "torch_version")
    others = [each for each in entries("cards") if any(each.get(name) != values.get(name) for name in named)]
    store("cards", [*others, values][-KEPT_CARDS:])
    measured = read_card_rates(gpu.name, driver)
    assert measured is not None, "the child's figures are positive numbers"
    return measured


def unmeasured(machine: Machine) -> Literal["card", "processor"] | None:
    """Return what would train here and was not measured yet; None also for a card that others keep busy."""
    if not machine.gpus:
        return "processor" if read_calibration() is None else None
    gpu = machine.freest_gpu
    busy = (gpu.utilisation_percent or 0.0) > BUSY_PERCENT
    return None if busy or read_card_rates(gpu.name, machine.driver) else "card"


def measure(machine: Machine) -> None:
    """Measure what would train on `machine`, and keep it; raises TunewrightError."""
    if machine.gpus:
        calibrate_card(machine.freest_gpu, machine.driver)
    else:
        calibrate()
