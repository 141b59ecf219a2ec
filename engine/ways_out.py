"""Ways out: where no method is possible, the changes that would do, the smallest first, each with its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from .anatomy import Anatomy
from .calibration import read_calibration
from .cards import CARDS, Card, find_card
from .machine import Machine
from .methods import METHODS, Demand, Method, MethodFigures, emptied, figure_method, scaled, with_card
from .prices import Price
from .questions import NAMES

SHORTEST_ROW = 128
"""Rows are not cut shorter than this: less is no chat any more."""
SMALLEST_MODEL = 1e8
"""Parameters below which no smaller model is named."""
AS_FAST = 1.05
"""A method that takes 5 % longer than the fastest is as good."""
SHRINKING = 0.8
HALVINGS = 4
"""The sizes of models that are tried: each a fifth smaller than the last, then to within 2 % between the last two."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take."""

    seconds: float = math.inf
    money: float | None = None

    def allow(self, figures: MethodFigures) -> bool:
        """Tell whether `figures` fit the machine, the time and the budget."""
        return figures.fits and not self.too_long(figures) and not self.too_dear(figures)

    def too_long(self, figures: MethodFigures) -> bool:
        return figures.seconds > self.seconds

    def too_dear(self, figures: MethodFigures) -> bool:
        return self.money is not None and figures.cost is not None and figures.cost > self.money


@dataclass(frozen=True, slots=True)
class WayOut:
    """One change after which a method is possible, with that method's figures."""

    kind: str
    """In a word: limits, memory, rows, optimizer, model or card."""
    change: str
    """What to do, without the full stop."""
    figures: MethodFigures

    @property
    def text(self) -> str:
        """The change with the figures that it leads to."""
        name, figures = NAMES[self.figures.method], self.figures
        price = "" if figures.cost is None else f" for {figures.cost:,.2f}"
        return (
            f"{self.change}. {name[0].upper()}{name[1:]} then needs {figures.needed_gib:.1f} GiB and takes "
            f"{hours_text(figures.seconds)}{price}."
        )


def ways_out(
    machine: Machine,
    anatomy: Anatomy,
    demand: Demand,
    limits: Limits,
    prices: Mapping[str, Price],
    order: tuple[Method, ...] = METHODS,
) -> Iterator[WayOut]:
    """Yield every change that would do by itself, the one that changes least first.

    A limit is raised where that alone is enough, for it leaves the result as it is. Then come the memory that others
    hold, shorter rows, 8-bit states, a smaller model and another card. Of the methods that a change makes possible, the
    first in `order` is told.
    """
    calibration = read_calibration()

    def first(here: Machine, model: Anatomy, asked: Demand) -> MethodFigures | None:
        found = (figure_method(each, here, model, asked, calibration) for each in order)
        return next((each for each in found if limits.allow(each)), None)

    fitting = [
        each for each in (figure_method(each, machine, anatomy, demand, calibration) for each in order) if each.fits
    ]
    if fitting:
        yield _raised(fitting, limits)
    freed = first(emptied(machine), anatomy, demand) if emptied(machine) != machine else None
    if freed:
        yield WayOut("memory", _freeing(machine), freed)
    longest = min(anatomy.context, max(demand.lengths))
    cuts = [2**power for power in range(20, 6, -1) if SHORTEST_ROW <= 2**power < longest]
    cut = next(((at, found) for at in cuts if (found := first(machine, anatomy, _cut(demand, at)))), None)
    if cut:
        yield WayOut("rows", f"Cut rows at {cut[0]} tokens (the longest has {longest:,})", cut[1])
    light = first(machine, anatomy, replace(demand, eight_bit=True))
    if light:
        yield WayOut("optimizer", "Take an optimizer with 8-bit states (adamw_8bit)", light)
    elif cuts and not cut and (found := first(machine, anatomy, replace(_cut(demand, cuts[-1]), eight_bit=True))):
        yield WayOut("rows", f"Cut rows at {cuts[-1]} tokens and take 8-bit optimizer states", found)
    if smaller := _smaller_model(lambda model: first(machine, model, demand), anatomy):
        parameters, found = smaller
        size, own = size_text(parameters, down=True), size_text(anatomy.total_parameters)
        yield WayOut("model", f"Take a smaller model: {size} parameters would do (this one has {own})", found)
    if not freed:
        for card in _other_cards(machine, needs_memory=not fitting):
            price = prices.get(card.name)
            rate = price.typical if price and demand.hourly_rate is not None else demand.hourly_rate
            asked = replace(demand, measured_watts=None, hourly_rate=rate)
            if found := first(with_card(machine, card), anatomy, asked):
                yield WayOut("card", f"Train on the card {card.name} ({card.sold_gb} GB{_price_text(price)})", found)
                return


def _raised(fitting: list[MethodFigures], limits: Limits) -> WayOut:
    """Return the limits that the fastest method that fits would keep; the first of those that are as good as it."""
    fastest = min(each.seconds for each in fitting)
    found = next(each for each in fitting if each.seconds <= AS_FAST * fastest)
    raised: list[str] = []
    if limits.too_long(found):
        raised.append(f"{hours_text(found.seconds)} of time")
    if found.cost is not None and limits.too_dear(found):
        raised.append(f"a budget of {found.cost:,.2f}")
    return WayOut("limits", f"Allow {' and '.join(raised)}", found)


def _other_cards(machine: Machine, needs_memory: bool) -> list[Card]:
    """Return the cards that hold more than those of `machine`, or that are faster, the smallest first."""
    here = max((gpu.memory_total_gib for gpu in machine.gpus), default=0.0)
    rate = max((find_card(gpu.name).matrix_tflops for gpu in machine.gpus), default=0.0)
    better = [
        each
        for each in CARDS
        if each.vendor == "nvidia" and (each.memory_gib > 1.02 * here if needs_memory else each.matrix_tflops > rate)
    ]
    return sorted(better, key=lambda each: (each.memory_gib, each.watts))


def _cut(demand: Demand, tokens: int) -> Demand:
    """Return `demand` with rows of at most `tokens`; of text nothing is lost, it makes more rows."""
    if demand.purpose == "text":
        rows = -(-demand.rows * demand.mean_tokens // tokens)
        return replace(demand, rows=rows, mean_tokens=tokens)
    return replace(demand, longest=tokens)


def _freeing(machine: Machine) -> str:
    """Say what others hold of the largest GPU, or of the machine's memory."""
    place, free, total = "this machine", machine.memory_free_gib, machine.memory_total_gib
    if machine.gpus:
        gpu = max(machine.gpus, key=lambda each: each.memory_total_gib)
        place, free, total = f"GPU {gpu.index}", gpu.memory_free_gib, gpu.memory_total_gib
    return f"Stop the other programs on {place}, which hold {total - free:.1f} of its {total:.1f} GiB"


def _price_text(price: Price | None) -> str:
    if price is None:
        return ""
    return f", {price.typical:.2f} {price.currency} an hour by the table of {price.date:%Y-%m-%d}"


def _smaller_model(
    possible: Callable[[Anatomy], MethodFigures | None], anatomy: Anatomy
) -> tuple[int, MethodFigures] | None:
    """Return the most parameters of a model of this family that is `possible`, and the figures of its method.

    Sizes are tried downwards: what merging takes makes some small models need more than slightly larger ones.
    """

    def attempt(factor: float) -> tuple[int, MethodFigures] | None:
        model = scaled(anatomy, factor)
        if not SMALLEST_MODEL <= model.total_parameters < anatomy.total_parameters:
            return None
        found = possible(model)
        return (model.total_parameters, found) if found else None

    high = 1.0
    best = attempt(high * SHRINKING)
    while best is None and high * anatomy.total_parameters > SMALLEST_MODEL:
        high *= SHRINKING
        best = attempt(high * SHRINKING)
    low = high * SHRINKING
    for _ in range(HALVINGS if best else 0):
        middle = (low + high) / 2
        if found := attempt(middle):
            best, low = found, middle
        else:
            high = middle
    return best


def size_text(parameters: float, down: bool = False) -> str:
    """Return a number of parameters in millions or billions with two digits, rounded or rounded `down`."""
    scale, unit = (1e9, "billion") if parameters >= 1e9 else (1e6, "million")
    value = parameters / scale
    digits = 1 if value < 10 else 0
    shown = math.floor(value * 10**digits) / 10**digits if down else round(value, digits)
    return f"{shown:.{digits}f} {unit}"


def hours_text(seconds: float) -> str:
    """Return a duration in the unit that people would say it in."""
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    value, unit = (seconds / 3600, "hours") if seconds < 172_800 else (seconds / 86_400, "days")
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"
