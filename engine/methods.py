"""Methods side by side: what full tuning, LoRA and QLoRA would take on one machine, and on changed ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from . import cost, memory
from .anatomy import Anatomy
from .calibration import Calibration, correction, measured_watts, read_calibration, shape_name
from .cards import Card
from .defaults import Purpose, default_recipe
from .machine import GpuDevice, Machine
from .planner import time_error
from .search import choose, look_around, search
from .timing import Cadence, time_run
from .work import Work

Method = Literal["full", "lora", "qlora"]
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
SAMPLED_ROWS = 500
"""No more rows than these stand in for all of them; the epochs make up for the rest."""
TEXT_ROW_TOKENS = 2048
"""Plain text is cut into sequences of this many tokens, as in pre-training."""

TYPICAL_ROWS_AHEAD = 1000
"""Rows whose lengths are drawn up rather than measured are not worth more."""


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """What one method would take on this machine."""

    method: Method
    trainable_parameters: int
    peak_gib: float
    seconds: float
    fits: bool
    plan: str
    """Micro-batch and recomputing in a few words."""
    seconds_range: tuple[float, float] = (0.0, 0.0)
    """The least and the most that it may take, by where the device's figures come from."""
    cost: float | None = None
    """Money at the hourly rate, None without one."""
    energy_kwh: float = 0.0
    needed_gib: float = 0.0
    """What must be free: the peak with the allocator's slack and what merging takes."""
    usable_gib: float = 0.0
    """What may be used of this machine."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be trained on, and what its figures are for."""

    rows: int
    mean_tokens: int
    """Tokens of a row on average."""
    purpose: Purpose = "examples"
    hourly_rate: float | None = None
    measured_watts: float | None = None
    """A GPU's mean power in earlier runs."""
    longest: int | None = None
    """Rows are cut to this many tokens."""
    eight_bit: bool = False
    """Whether the optimizer's states are of 8 bits, whatever the default."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of the rows that stand in for all: equal ones of text; of chats, a quarter to 2.6 times the mean."""
        rows = min(self.rows, SAMPLED_ROWS)
        most = self.longest or 2**31
        if self.purpose == "text":
            return (min(self.mean_tokens, most),) * rows
        shape = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.6)
        return tuple(max(1, min(most, round(self.mean_tokens * shape[index % len(shape)]))) for index in range(rows))


def demand_of(rows: int, mean_tokens: int, purpose: Purpose, context: int) -> Demand:
    """Return the demand of a data set for a model of `context` tokens; text is cut into sequences of equal length."""
    if purpose == "examples":
        return Demand(max(1, rows), min(mean_tokens, context))
    length = min(TEXT_ROW_TOKENS, context)
    return Demand(max(1, -(-rows * mean_tokens // length)), length, "text")


def compare_methods(
    machine: Machine, anatomy: Anatomy, rows: int, mean_tokens: int, hourly_rate: float | None = None
) -> tuple[MethodFigures, ...]:
    """Return what full tuning, LoRA and QLoRA would take here, each with its defaults and its fastest plan that fits."""
    drawn = measured_watts(machine.short_name)
    demand = Demand(rows, min(mean_tokens, anatomy.context), hourly_rate=hourly_rate, measured_watts=drawn)
    return compare(machine, anatomy, demand, read_calibration())


def compare(
    machine: Machine, anatomy: Anatomy, demand: Demand, calibration: Calibration | None
) -> tuple[MethodFigures, ...]:
    """Return the figures of every method for `demand`."""
    return tuple(figure_method(method, machine, anatomy, demand, calibration) for method in METHODS)


def figure_method(
    method: Method, machine: Machine, anatomy: Anatomy, demand: Demand, calibration: Calibration | None
) -> MethodFigures:
    """Return what `method` takes with its defaults: its fastest plan that fits, or else the smallest."""
    lengths = tuple(min(length, anatomy.context) for length in demand.lengths)
    recipe, _ = default_recipe(method, "model", "data", demand.rows, anatomy, lengths, demand.purpose)
    epochs = (recipe.training.epochs or 1) * demand.rows / len(lengths)
    changes: dict[str, object] = {"epochs": epochs}
    if demand.eight_bit:
        changes["optimizer"] = "adamw_8bit"
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})
    supervised = demand.mean_tokens if demand.purpose == "text" else demand.mean_tokens / 3
    work = Work(recipe, anatomy, lengths, (), supervised, demand.mean_tokens, 0, TYPICAL_ROWS_AHEAD)
    around = look_around(work, machine, calibration)
    candidates = list(search(work, around))
    fitting = [each for each in candidates if each.needed_gib <= around.budget_gib]
    chosen = choose(fitting) if fitting else min(candidates, key=lambda each: each.needed_gib)
    timing = time_run(work, around, chosen, Cadence(work.steps, work.steps, work.steps))
    earlier = correction(machine.short_name, shape_name(anatomy), method)
    total = timing.total + timing.training * (earlier.seconds - 1)
    error = time_error(around, earlier.runs)
    return MethodFigures(
        method=method,
        trainable_parameters=work.tuning.trainable_parameters(anatomy),
        peak_gib=memory.peak_gib(chosen.terms) * earlier.peak,
        seconds=total,
        fits=bool(fitting),
        plan=chosen.summary,
        seconds_range=(total * (1 - error), total * (1 + error)),
        cost=cost.money(total, demand.hourly_rate),
        energy_kwh=cost.energy_kwh(total, machine, measured_watts=demand.measured_watts),
        needed_gib=chosen.needed_gib,
        usable_gib=around.budget_gib,
    )


def emptied(machine: Machine) -> Machine:
    """Return `machine` with all of its memory free, as after every other program was stopped.

    Where there are GPUs, the host's memory stays as it is: other programs there do not stand in the way.
    """
    if machine.gpus:
        return replace(machine, gpus=tuple(replace(gpu, memory_free_gib=gpu.memory_total_gib) for gpu in machine.gpus))
    return replace(machine, memory_free_gib=machine.memory_total_gib)


def with_card(machine: Machine, card: Card) -> Machine:
    """Return `machine` with one idle `card` in place of its accelerators."""
    capability = (8, 0) if card.supports_bf16 else (7, 0)
    gpu = GpuDevice(0, f"NVIDIA {card.name}", card.memory_gib, card.memory_gib, capability, None, None, None, None)
    return replace(machine, gpus=(gpu,))


def scaled(anatomy: Anatomy, factor: float) -> Anatomy:
    """Return a model of about `factor` of the parameters, of the same family and vocabulary.

    Depth and width shrink alike, by the cube root, for parameters grow with depth times width squared.
    """
    side = factor ** (1 / 3)
    hidden = max(64, round(anatomy.hidden * side / 64) * 64)
    layers = max(1, round(anatomy.layers * side))
    width, depth = hidden / anatomy.hidden, layers / anatomy.layers
    heads = max(1, round(anatomy.heads * width))
    experts = anatomy.experts and replace(
        anatomy.experts,
        ffn=max(1, round(anatomy.experts.ffn * width)),
        shared_ffn=round(anatomy.experts.shared_ffn * width),
        layers=max(1, round(anatomy.experts.layers * depth)),
        parameters=max(1, round(anatomy.experts.parameters * width**2)),
    )
    return replace(
        anatomy,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=max(1, min(heads, round(anatomy.kv_heads * width))),
        ffn=max(64, round(anatomy.ffn * width)),
        projections=tuple(
            replace(
                each,
                outputs=max(1, round(each.outputs * width)),
                inputs=max(1, round(each.inputs * width)),
                count=max(1, round(each.count * depth)),
            )
            for each in anatomy.projections
        ),
        norm_parameters=max(1, round(anatomy.norm_parameters * width * depth)),
        experts=experts,
        router_parameters=round(anatomy.router_parameters * width * depth),
        router_linear_parameters=round(anatomy.router_linear_parameters * width * depth),
        other_parameters=round(anatomy.other_parameters * width),
    )
