"""Cost: the money and the energy of a number of seconds on this machine."""

from __future__ import annotations

from .cards import find_card
from .machine import Machine

PROCESSOR_WATTS_A_CORE = 8.0
"""A server core at work with its share of memory and board; assumed."""
HOST_WATTS_A_GPU = 150.0
"""What the host draws beside each GPU at work; assumed."""


def money(seconds: float, hourly_rate: float | None) -> float | None:
    """Return the price of `seconds` in the currency of `hourly_rate`; None without a rate."""
    return None if hourly_rate is None else seconds / 3600 * hourly_rate


def watts(machine: Machine, gpus: int = 1) -> float:
    """Return what the machine draws while training: the GPUs' power limits, or the cores at work."""
    used = machine.gpus[:gpus]
    if not used:
        return PROCESSOR_WATTS_A_CORE * machine.cores
    return sum((gpu.power_limit_watts or find_card(gpu.name).watts) + HOST_WATTS_A_GPU for gpu in used)


def energy_kwh(seconds: float, machine: Machine, gpus: int = 1) -> float:
    """Return the energy of `seconds` of training in kWh."""
    return watts(machine, gpus) * seconds / 3.6e6
