"""Known NVIDIA cards: how fast they multiply matrices and move memory, by datasheet or measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEASURED_SHARE = 790 / 989
"""How much of its datasheet rate a bf16 matrix product reaches: measured on an H200, assumed for every other card."""


@dataclass(frozen=True, slots=True)
class Card:
    """One model of GPU; rates are dense bf16 (fp16 before Ampere) with fp32 accumulation."""

    name: str
    datasheet_tflops: float
    bandwidth_gb_per_second: float
    memory_gib: float
    watts: float
    """The board's power limit."""
    matrix_tflops: float
    """What a large matrix product reaches."""
    source: str
    """Where `matrix_tflops` comes from: "measured" or "datasheet"."""
    supports_bf16: bool = True


def _card(name: str, tflops: float, bandwidth: float, memory: float, watts: float, bf16: bool = True) -> Card:
    measured = name.startswith("H200") and tflops == 989
    return Card(
        name,
        tflops,
        bandwidth,
        memory,
        watts,
        790.0 if measured else tflops * MEASURED_SHARE,
        "measured" if measured else "datasheet",
        bf16,
    )


# The first entry whose every word is in the driver's name of the card is taken, so narrower names stand first.
CARDS: tuple[Card, ...] = (
    _card("B200", 2250, 8000, 178, 1000),
    _card("H200 NVL", 835, 4800, 140, 600),
    _card("H200", 989, 4800, 140, 700),
    _card("H100 NVL", 835, 3900, 93, 400),
    _card("H100 PCIe", 756, 2000, 80, 350),
    _card("H100", 989, 3350, 80, 700),
    _card("A100 80GB PCIe", 312, 1935, 80, 300),
    _card("A100 80GB", 312, 2039, 80, 400),
    _card("A100 PCIE 40GB", 312, 1555, 40, 250),
    _card("A100", 312, 1555, 40, 400),
    _card("L40S", 362, 864, 45, 350),
    _card("L40", 181, 864, 45, 300),
    _card("L4", 121, 300, 22.5, 72),
    _card("A40", 150, 696, 45, 300),
    _card("A10G", 70, 600, 22.5, 300),
    _card("A10", 125, 600, 22.5, 150),
    _card("RTX 6000 Ada", 364, 960, 48, 300),
    _card("RTX A6000", 155, 768, 48, 300),
    _card("V100 32GB", 125, 900, 32, 300, bf16=False),
    _card("V100", 125, 900, 16, 300, bf16=False),
    _card("T4", 65, 320, 14.6, 70, bf16=False),
    _card("RTX 5090", 209, 1792, 31.5, 575),
    _card("RTX 5080", 113, 960, 15.5, 360),
    _card("RTX 5070 Ti", 88, 896, 15.5, 300),
    _card("RTX 4090", 165, 1008, 23.6, 450),
    _card("RTX 4080", 97, 717, 15.6, 320),
    _card("RTX 4060 Ti", 44, 288, 15.6, 165),
    _card("RTX 4060", 30, 272, 7.6, 115),
    _card("RTX 3090", 71, 936, 23.6, 350),
    _card("RTX 3080", 60, 760, 9.6, 320),
    _card("RTX 3060", 25, 360, 11.6, 170),
)

UNKNOWN = Card("unknown card", 60, 600, 16, 250, 60 * MEASURED_SHARE, "assumed")
"""Stands in for a card that is not in the table; its figures are guesses."""


def find_card(name: str) -> Card:
    """Return the card that the driver calls `name`, or UNKNOWN."""
    words = set(re.findall(r"[a-z0-9]+", name.casefold()))
    return next((card for card in CARDS if set(re.findall(r"[a-z0-9]+", card.name.casefold())) <= words), UNKNOWN)
