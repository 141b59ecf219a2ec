"""Comparisons: the estimates of one model side by side, by rank, target modules, card, batch and cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..foundation.units import GIB
from . import memory, speed, states
from .anatomy import Anatomy, Targets
from .cards import card_by_name
from .cost import money
from .estimate import Device, Estimate, card_device, estimate, make_setting, make_tuning
from .plan import Parallelism
from .prices import Price, read_prices
from .setting import Setting, Tuning

Method = Literal["qlora", "lora", "full"]
METHODS: tuple[Method, ...] = ("qlora", "lora", "full")
"""The least memory first."""
Verdict = Literal["fits", "tight", "no"]
TIGHT_SHARE = 0.03
"""The share of a device's free memory that plans leave alone; what needs a part of it is a tight fit."""
ADAPTER_FILE_BYTES = 4
"""Bytes of a saved adapter's parameter: it is kept and written in fp32."""
LARGE_PARAMETERS = 1e9
"""Beyond it full tuning starts with 8-bit states (`engine.defaults`)."""
GLOBAL_BATCH = 16
"""Rows of an optimizer step (`engine.defaults`)."""
CARD_NAMES = (
    "T4", "RTX 3060", "RTX 3070", "RTX 3080", "RTX 3090", "RTX 4060", "RTX 4070", "RTX 4080", "RTX 4090", "RTX 5090",
    "L4", "A10", "L40S", "A100-40", "A100-80", "H100", "H200", "B200", "MI300X",
)  # fmt: skip
"""The cards that are compared when none is named."""


@dataclass(frozen=True, slots=True)
class RankFigures:
    """What adapters of one rank are and take."""

    rank: int
    trainable_parameters: int
    share: float
    """Of the whole model's parameters."""
    file_gib: float
    memory_gib: float
    """Adapters, their gradients and the optimizer's states, on the device."""


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """One choice of target modules."""

    name: str
    targets: tuple[str, ...]
    share: float
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class CardFigures:
    """One method on one card."""

    method: Method
    card: str
    card_gib: float
    sold_gb: int
    """The memory that people call it by."""
    hourly_price: float | None
    """What an hour typically costs in the cloud, None where the table of prices has none."""
    needed_gib: float
    """The least of recomputing and not."""
    verdict: Verdict
    tokens_per_second: float | None
    """Of the faster way that fits; None where neither does."""


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """One size of a micro-batch."""

    tokens: int
    rows: int
    needed_gib: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CostFigures:
    """One method's run over some data with the fastest micro-batch that fits."""

    method: Method
    gpus: int
    parallelism: Parallelism
    rows: int
    """Of the micro-batch."""
    recomputing: bool
    needed_gib: float
    verdict: Verdict
    tokens_per_second: float
    seconds: float
    money: float | None
    """At the hourly rate of all GPUs, None without one."""
    kwh: float


@dataclass(frozen=True, slots=True)
class Data:
    """The data of a run, as far as its cost is concerned; rows are taken as equally long."""

    rows: int
    tokens_a_row: int
    epochs: float = 1.0

    @property
    def tokens(self) -> float:
        """Tokens over the whole run."""
        return self.rows * self.tokens_a_row * self.epochs


def default_optimizer(anatomy: Anatomy, method: str) -> str:
    """Return the optimizer that a recipe starts with."""
    return "adamw_8bit" if method == "full" and anatomy.total_parameters > LARGE_PARAMETERS else "adamw"


def judge(needed_gib: float, free_gib: float) -> Verdict:
    """Return whether a run fits into what is free."""
    if needed_gib <= free_gib * (1 - TIGHT_SHARE):
        return "fits"
    return "tight" if needed_gib <= free_gib else "no"


def compare_ranks(
    anatomy: Anatomy, ranks: Iterable[int], targets: Targets, setting: Setting, dora: bool = False
) -> tuple[RankFigures, ...]:
    """Return what adapters of each rank are and take beside each other."""

    def figures(rank: int) -> RankFigures:
        tuning = Tuning("lora", rank, targets, dora)
        trained = tuning.trainable_parameters(anatomy)
        held = (
            states.adapters_gib(anatomy, tuning, setting)
            + states.gradients_gib(anatomy, tuning, setting)
            + states.optimizer_gib(anatomy, tuning, setting)
        )
        share = trained / anatomy.total_parameters
        return RankFigures(rank, trained, share, ADAPTER_FILE_BYTES * trained / GIB, held)

    return tuple(map(figures, ranks))


def compare_targets(anatomy: Anatomy, tuning: Tuning, setting: Setting, device: Device) -> tuple[TargetFigures, ...]:
    """Return each sensible choice of target modules for adapters like those of `tuning`."""
    return tuple(
        TargetFigures(name, targets, each.trainable_parameters / each.total_parameters, each)
        for name, targets in target_choices(anatomy)
        for each in (estimate(anatomy, make_tuning(tuning.kind, tuning.rank, targets, tuning.dora), setting, device),)
    )


def target_choices(anatomy: Anatomy) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the groups of projections and then each projection, every set once and only what adapters can be put on."""
    adaptable = [each for each in anatomy.projections if each.adaptable]
    groups: tuple[Literal["all-linear", "attention", "qv"], ...] = ("all-linear", "attention", "qv")
    named: dict[tuple[str, ...], str] = {}
    for group in groups:
        named.setdefault(anatomy.target_names(group), group)
    named.setdefault(tuple(each.name for each in adaptable if each.part == "mlp"), "mlp")
    for each in adaptable:
        named.setdefault((each.name,), each.name)
    order = ("qv", "attention", "mlp", "all-linear")
    for targets, name in sorted(
        named.items(), key=lambda each: order.index(each[1]) if each[1] in order else len(order)
    ):
        if targets:
            yield name, targets


def compare_cards(
    anatomy: Anatomy,
    cards: Sequence[str] = CARD_NAMES,
    rank: int = 16,
    targets: Targets = "all-linear",
    rows: int = 1,
    tokens: int = 2048,
    optimizer: str | None = None,
    methods: Sequence[Method] = METHODS,
) -> tuple[CardFigures, ...]:
    """Return each method on each card, with `optimizer` or the one that a recipe starts with.

    Raises TunewrightError for a card that is not known.
    """
    devices = [card_device(card_by_name(name), name) for name in cards]
    prices = read_prices()
    found: list[CardFigures] = []
    for method in methods:
        tuning, states = make_tuning(method, rank, targets), optimizer or default_optimizer(anatomy, method)
        found += [_on_card(anatomy, tuning, each, rows, tokens, states, prices) for each in devices]
    return tuple(found)


def _on_card(
    anatomy: Anatomy,
    tuning: Tuning,
    device: Device,
    rows: int,
    tokens: int,
    optimizer: str,
    prices: Mapping[str, Price],
) -> CardFigures:
    assert device.card is not None
    ways = [
        estimate(
            anatomy, tuning, make_setting(device, device.backends[0], rows, tokens, recomputing, optimizer), device
        )
        for recomputing in (True, False)
    ]
    needed = min(each.needed_gib for each in ways)
    price = prices.get(device.card.name)
    return CardFigures(
        method=tuning.kind,
        card=device.name,
        card_gib=device.memory_gib,
        sold_gb=device.card.sold_gb,
        hourly_price=None if price is None else price.typical,
        needed_gib=needed,
        verdict=judge(needed, device.free_gib),
        tokens_per_second=max((each.tokens_per_second for each in ways if each.fits), default=None),
    )


def smallest_card(figures: Iterable[CardFigures], method: Method) -> CardFigures | None:
    """Return the card with the least memory on which `method` fits, the slowest of several; None when none does."""
    fitting = [each for each in figures if each.method == method and each.verdict == "fits"]
    return min(fitting, key=lambda each: (each.sold_gb, each.tokens_per_second or 0.0), default=None)


def compare_batches(
    anatomy: Anatomy,
    tuning: Tuning,
    setting: Setting,
    device: Device,
    lengths: Sequence[int],
    batches: Sequence[int],
) -> tuple[BatchFigures, ...]:
    """Return the needed memory for each length of a row and each number of rows, otherwise like `setting`."""
    found: list[BatchFigures] = []
    for tokens in lengths:
        for rows in batches:
            tried = make_setting(
                device, setting.backend, rows, tokens, setting.checkpointing != "off", setting.optimizer, setting.liger
            )
            needed = memory.needed_gib(memory.predict_memory(anatomy, tuning, tried), tried)
            found.append(BatchFigures(tokens, rows, needed, judge(needed, device.free_gib)))
    return tuple(found)


def hourly_price(device: Device) -> Price | None:
    """Return what an hour of the card costs in the cloud; None for a processor and where the table has no price.

    Raises TunewrightError when the user's own table is not valid.
    """
    return None if device.card is None else read_prices().get(device.card.name)


def compare_cost(
    anatomy: Anatomy,
    device: Device,
    data: Data,
    rank: int = 16,
    targets: Targets = "all-linear",
    hourly_rate: float | None = None,
    optimizer: str | None = None,
    gpus: int = 1,
) -> tuple[CostFigures, ...]:
    """Return what a run over `data` costs with each method on one GPU, and with LoRA and full tuning on `gpus` of them.

    The optimizer is `optimizer` or the one that a recipe starts with; `hourly_rate` is for one GPU.
    """
    several: tuple[Method, ...] = ("lora", "full") if gpus > 1 and device.card is not None else ()
    kinds: tuple[tuple[Method, int], ...] = (
        *((method, 1) for method in METHODS),
        *((method, gpus) for method in several),
    )
    return tuple(
        _cost(anatomy, method, make_tuning(method, rank, targets), device, data, hourly_rate,
              optimizer or default_optimizer(anatomy, method), number)
        for method, number in kinds
    )  # fmt: skip


def _cost(
    anatomy: Anatomy, method: Method, tuning: Tuning, device: Device, data: Data, hourly_rate: float | None,
    optimizer: str, gpus: int,
) -> CostFigures:  # fmt: skip
    tried = [
        (setting, estimate(anatomy, tuning, setting, device))
        for setting in _run_settings(device, data.tokens_a_row, optimizer, gpus)
    ]
    fitting = [each for each in tried if judge(each[1].needed_gib, device.free_gib) == "fits"]
    setting, found = (
        max(fitting, key=lambda each: each[1].tokens_per_second)
        if fitting
        else min(tried, key=lambda each: each[1].needed_gib)
    )
    if device.card is None:
        seconds = speed.loading_seconds(anatomy, setting.backend)
    else:
        seconds = speed.starting_seconds(anatomy, tuning, setting)
    seconds += data.tokens / found.tokens_per_second
    price = money(seconds, hourly_rate)
    return CostFigures(
        method=method,
        gpus=gpus,
        parallelism=setting.parallelism,
        rows=setting.rows,
        recomputing=setting.checkpointing != "off",
        needed_gib=found.needed_gib,
        verdict=judge(found.needed_gib, device.free_gib),
        tokens_per_second=found.tokens_per_second,
        seconds=seconds,
        money=None if price is None else gpus * price,
        kwh=gpus * device.watts * seconds / 3.6e6,
    )


def _run_settings(device: Device, tokens: int, optimizer: str, gpus: int) -> Iterator[Setting]:
    """Yield the ways to make steps of GLOBAL_BATCH rows; several GPUs share a model or each hold it whole."""
    one: tuple[Parallelism, ...] = ("one",)
    ways: tuple[Parallelism, ...] = one if gpus == 1 else ("ddp", "fsdp2")
    backend = device.backends[0] if gpus == 1 else "transformers"
    for parallelism in ways:
        for rows in (1, 2, 4, 8, 16):
            accumulation = GLOBAL_BATCH // (rows * gpus)
            if rows > 1 and accumulation == 0:
                continue
            for recomputing in (False, True):
                yield make_setting(
                    device,
                    backend,
                    rows,
                    tokens,
                    recomputing,
                    optimizer,
                    accumulation=max(1, accumulation),
                    gpus=gpus,
                    parallelism=parallelism,
                )
