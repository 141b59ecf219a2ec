"""Known cards: how fast they multiply matrices, move memory and reach a neighbour, by datasheet or measured."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line

MEASURED_SHARE = 790 / 989
"""How much of its datasheet rate a bf16 matrix product reaches: measured on an H200, assumed for every other card."""


@dataclass(frozen=True, slots=True)
class Card:
    """One model of GPU; rates are dense bf16 (fp16 before Ampere) with fp32 accumulation, by the maker's datasheet."""

    name: str
    datasheet_tflops: float
    bandwidth_gb_per_second: float
    memory_gib: float
    """What the driver reports, or a little less where it keeps some back."""
    watts: float
    """The board's power limit."""
    matrix_tflops: float
    """What a large matrix product reaches."""
    source: str
    """Where `matrix_tflops` comes from: "measured", "datasheet" or "assumed"."""
    supports_bf16: bool = True
    link_gb_per_second: float = 31.5
    """Bytes to one neighbour in one direction, half of what datasheets sum up: NVLink on SXM boards (B200 900, Hopper
    450, A100 300, V100 150 GB/s), Infinity Fabric on the MI300X (64 a peer), else PCIe (5.0 63, 4.0 31.5, 3.0 15.75
    for 16 lanes; half that for the 8 of RTX 4060). NVLink bridges, which some PCIe cards take, are not counted."""
    sold_gb: int = 0
    """The memory that the card is sold with, which is what people call it by."""
    vendor: Literal["nvidia", "amd"] = "nvidia"
    note: str = ""
    """What people should know before they count on it."""


_NO_BF16 = "Older than Ampere: float16 with loss scaling instead of bfloat16."
_ROCM = (
    "An AMD card, on ROCm: Tunewright trains on NVIDIA cards and on processors. PyTorch, transformers and PEFT run "
    "there; bitsandbytes and Unsloth need their own builds for ROCm, so QLoRA and the faster backend cannot be counted "
    "on. Its figures are the datasheet's with the share that was measured on an H200, and are likely too high."
)
_LINKS = {"nvlink5": 900.0, "nvlink4": 450.0, "nvlink3": 300.0, "nvlink2": 150.0, "fabric": 64.0,
                  "pcie5": 63.0, "pcie4": 31.5, "pcie4x8": 15.75, "pcie3": 15.75}  # fmt: skip


def _card(
    name: str, tflops: float, bandwidth: float, memory: float, watts: float, link: str, sold_gb: int, note: str = ""
) -> Card:
    measured = name == "H200"
    return Card(
        name,
        tflops,
        bandwidth,
        memory,
        watts,
        790.0 if measured else tflops * MEASURED_SHARE,
        "measured" if measured else "datasheet",
        supports_bf16=note != _NO_BF16,
        link_gb_per_second=_LINKS[link],
        sold_gb=sold_gb,
        vendor="amd" if note == _ROCM else "nvidia",
        note=note,
    )


# The first entry whose every word is in the driver's name of the card is taken, so narrower names stand first.
CARDS: tuple[Card, ...] = (
    _card("B200", 2250, 7672, 178, 1000, "nvlink5", 180),
    _card("H200 NVL", 835, 4800, 140, 600, "pcie5", 141),
    _card("H200", 989, 4800, 140, 700, "nvlink4", 141),
    _card("H100 NVL", 835, 3900, 93.5, 400, "pcie5", 94),
    _card("H100 PCIe", 756, 2000, 79.6, 350, "pcie5", 80),
    _card("H100", 989, 3350, 79.6, 700, "nvlink4", 80),
    _card("A100 80GB PCIe", 312, 1935, 80, 300, "pcie4", 80),
    _card("A100 80GB", 312, 2039, 80, 400, "nvlink3", 80),
    _card("A100 PCIE 40GB", 312, 1555, 40, 250, "pcie4", 40),
    _card("A100", 312, 1555, 40, 400, "nvlink3", 40),
    _card("L40S", 362, 864, 45, 350, "pcie4", 48),
    _card("L40", 181, 864, 45, 300, "pcie4", 48),
    _card("L4", 121, 300, 22.5, 72, "pcie4", 24),
    _card("A40", 150, 696, 45, 300, "pcie4", 48),
    _card("A10G", 70, 600, 22.5, 300, "pcie4", 24),
    _card("A10", 125, 600, 22.5, 150, "pcie4", 24),
    _card("RTX PRO 6000", 504, 1792, 95.5, 600, "pcie5", 96),
    _card("RTX 6000 Ada", 364, 960, 48, 300, "pcie4", 48),
    _card("RTX A6000", 155, 768, 48, 300, "pcie4", 48),
    _card("V100 32GB", 125, 900, 31.7, 300, "nvlink2", 32, _NO_BF16),
    _card("V100", 125, 900, 15.8, 300, "nvlink2", 16, _NO_BF16),
    _card("T4", 65, 320, 14.6, 70, "pcie3", 16, _NO_BF16),
    _card("RTX 5090", 209, 1792, 31.5, 575, "pcie5", 32),
    _card("RTX 5080", 113, 960, 15.5, 360, "pcie5", 16),
    _card("RTX 5070 Ti", 88, 896, 15.5, 300, "pcie5", 16),
    _card("RTX 4090", 165, 1008, 23.6, 450, "pcie4", 24),
    _card("RTX 4080", 97, 717, 15.6, 320, "pcie4", 16),
    _card("RTX 4070", 58, 504, 11.6, 200, "pcie4", 12),
    _card("RTX 4060 Ti", 44, 288, 15.6, 165, "pcie4x8", 16),
    _card("RTX 4060", 30, 272, 7.6, 115, "pcie4x8", 8),
    _card("RTX 3090", 71, 936, 23.6, 350, "pcie4", 24),
    _card("RTX 3080", 60, 760, 9.6, 320, "pcie4", 10),
    _card("RTX 3070", 41, 448, 7.6, 220, "pcie4", 8),
    _card("RTX 3060", 25, 360, 11.6, 170, "pcie4", 12),
    _card("MI300X", 1307, 5300, 191, 750, "fabric", 192, _ROCM),
)

UNKNOWN = Card("unknown card", 60, 600, 16, 250, 60 * MEASURED_SHARE, "assumed")
"""Stands in for a card that is not in the table; its figures are guesses."""

_NEUTRAL = frozenset((
    "nvidia", "geforce", "tesla", "amd", "instinct", "gpu", "rtx", "gb", "sxm", "sxm2", "sxm4", "sxm5", "sxm6", "oam",
    "pcie", "hbm2", "hbm2e", "hbm3", "hbm3e", "generation", "blackwell", "workstation", "server", "edition",
))  # fmt: skip
"""Words that a name may have or lack without meaning another card of the table."""


def find_card(name: str) -> Card:
    """Return the card that the driver calls `name`, or UNKNOWN."""
    words = _words(name)
    return next((card for card in CARDS if _words(card.name) <= words), UNKNOWN)


def card_by_name(name: str) -> Card:
    """Return the card that a person calls `name`, such as "A100-80", "4090" or "NVIDIA H200".

    Raises TunewrightError with the nearest names when no card, or no size of it, is called that.
    """
    said = _spread(name)
    size = next((int(word.removesuffix("gb")) for word in said if re.fullmatch(r"\d{1,3}(gb)?", word)), None)
    wanted = {word for word in said if not re.fullmatch(r"\d{1,3}(gb)?", word)}
    fitting: list[tuple[int, Card]] = []
    for card in CARDS:
        own = {word for word in _spread(card.name) if not re.fullmatch(r"\d{1,3}gb", word)}
        if own - _NEUTRAL <= wanted and wanted - own <= _NEUTRAL and (size is None or size == card.sold_gb):
            # Of the variants of a card, the one with the fewest words that were not said; "A100" is listed last.
            fitting.append((len(_words(card.name) - wanted - {f"{size}gb"}), card))
    if wanted - _NEUTRAL and fitting:
        return min(fitting, key=lambda each: each[0])[1]
    shown = _nearest_names(name)
    raise TunewrightError(
        "Unknown card",
        f"{one_line(name, 60)!r} is not in the table of cards.",
        f"Nearest are {', '.join(shown)}." if shown else f"Known are {', '.join(card.name for card in CARDS)}.",
    )


def _nearest_names(name: str) -> list[str]:
    """Return up to three names of cards like `name`, judged without vendor and spaces."""
    plain = {_plain(card.name): card.name for card in reversed(CARDS)}
    return [plain[each] for each in difflib.get_close_matches(_plain(name), list(plain), n=3, cutoff=0.5)]


def _plain(name: str) -> str:
    return "".join(sorted(_spread(name) - _NEUTRAL, key=len, reverse=True))


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.casefold()))


def _spread(name: str) -> set[str]:
    """Return the words of `name`, with RTX, Ti and PRO parted from the number that people write beside them."""
    joined = re.sub(r"(\d)\s+gb\b", r"\1gb", name.casefold())
    return _words(re.sub(r"(rtx|gtx|geforce|pro)(?=\d)|(?<=\d{4})(?=ti\b)", r"\g<0> ", joined))
