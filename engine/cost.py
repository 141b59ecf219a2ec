"""Cost: the money and the energy of a number of seconds on this machine."""

from __future__ import annotations

from typing import Literal

from ..foundation.errors import TunewrightError
from .cards import UNKNOWN, find_card
from .machine import Machine
from .prices import Price, read_prices

PROCESSOR_WATTS_A_CORE = 8.0
"""A server core at work with its share of memory and board; assumed."""
HOST_WATTS_A_GPU = 150.0
"""What the host draws beside each GPU at work; assumed."""
HIGHEST_RATE = 1e6


def money(seconds: float, hourly_rate: float | None) -> float | None:
    """Return the price of `seconds` in the currency of `hourly_rate`; None without a rate."""
    return None if hourly_rate is None else seconds / 3600 * hourly_rate


def cloud_price(machine: Machine) -> Price | None:
    """Return the table's price of the machine's first card; None for a processor and for a card without a price.

    Raises TunewrightError when the user's own table is not valid.
    """
    if not machine.gpus:
        return None
    return read_prices().get(find_card(machine.gpus[0].name).name)


def hourly_rate(said: str | float | None, machine: Machine, gpus: int = 1) -> float | None:
    """Return what an hour of `machine` costs: the number that was said, or for "cloud" the table's typical price.

    Raises TunewrightError for what is neither, and for "cloud" where the table knows no price.
    """
    if said is None:
        return None
    if said == "cloud":
        price = cloud_price(machine)
        if price is None:
            raise TunewrightError(
                "No price known",
                f"The table of cloud prices has none for {machine.short_name}.",
                "Give the price of an hour, such as --rate 2.5, or add the card to prices.toml in the data folder.",
            )
        return price.typical * gpus
    try:
        rate = float(said)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < HIGHEST_RATE:
        raise TunewrightError("Rate out of range", f"{said!r} is no price of an hour.", "Such as --rate 2.5.")
    return rate


PowerSource = Literal["measured", "limit", "card", "assumed"]


def watts(machine: Machine, gpus: int = 1, measured_watts: float | None = None) -> float:
    """Return what the machine draws while training.

    `measured_watts` is one GPU's mean power in earlier runs here; without it the GPUs' limits stand in, or the cores.
    """
    used = machine.gpus[:gpus]
    if not used:
        return PROCESSOR_WATTS_A_CORE * machine.cores
    return sum(
        (measured_watts or gpu.power_limit_watts or find_card(gpu.name).watts) + HOST_WATTS_A_GPU for gpu in used
    )


def power_source(machine: Machine, measured_watts: float | None = None) -> PowerSource:
    """Return where `watts` comes from: earlier runs, the driver's limit, the card's datasheet, or an assumption."""
    if not machine.gpus:
        return "assumed"
    if measured_watts:
        return "measured"
    gpu = machine.gpus[0]
    if gpu.power_limit_watts:
        return "limit"
    return "assumed" if find_card(gpu.name) is UNKNOWN else "card"


POWER_WORDS: dict[PowerSource, str] = {
    "measured": "at the mean power that earlier runs here drew",
    "limit": "at the card's power limit, which runs rarely reach",
    "card": "at the datasheet's power, which runs rarely reach",
    "assumed": "at an assumed power",
}


def energy_kwh(seconds: float, machine: Machine, gpus: int = 1, measured_watts: float | None = None) -> float:
    """Return the energy of `seconds` of training in kWh, with the power that `power_source` names."""
    return watts(machine, gpus, measured_watts) * seconds / 3.6e6
