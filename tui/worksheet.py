"""The workbench's arithmetic: everything that it shows of one case, by the estimates that the commands print."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, cast

from ..engine.anatomy import Targets
from ..engine.cards import card_by_name
from ..engine.comparison import (
    CARD_NAMES,
    METHODS,
    BatchFigures,
    CardFigures,
    CostFigures,
    Data,
    Method,
    RankFigures,
    TargetFigures,
    compare_batches,
    compare_cards,
    compare_cost,
    compare_ranks,
    compare_targets,
    default_optimizer,
    hourly_price,
    target_choices,
)
from ..engine.estimate import (
    Device,
    Estimate,
    card_device,
    device_of,
    estimate,
    make_setting,
    make_tuning,
)
from ..engine.machine import Machine
from ..engine.plan import Backend
from ..engine.prices import Price
from ..engine.setting import Setting, Tuning
from ..engine.shapes import Model, read_model

Software = Literal["unsloth", "transformers", "liger"]
"""A backend; `liger` is transformers with Liger's fused operations."""
TARGETS = ("all-linear", "attention", "qv", "mlp")
RANKS = (8, 16, 32, 64)
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Case:
    """What is calculated for."""

    model: str = "tunewright/starter"
    card: str = ""
    """Empty for this machine."""
    method: Method = "lora"
    targets: str = "all-linear"
    """One of TARGETS."""
    rank: int = 16
    tokens: int = 512
    rows: int = 4
    recomputing: bool = False
    optimizer: str | None = None
    """None for the one that a recipe of the method starts with."""
    software: Software | None = None
    """None for the fastest that the device can have."""
    data_rows: int = 1000
    epochs: int = 1


@dataclass(frozen=True, slots=True)
class Worksheet:
    """The figures of one case."""

    case: Case
    machine: Machine
    model: Model
    device: Device
    setting: Setting
    """That of the case's own method."""
    tuning: Tuning
    target_names: tuple[str, ...]
    methods: dict[Method, Estimate]
    """Each method in the case's setting."""
    ranks: tuple[RankFigures, ...]
    targets: tuple[TargetFigures, ...]
    batches: tuple[BatchFigures, ...]
    """For each of LENGTHS, each of BATCHES."""
    cards: tuple[CardFigures, ...]
    """For each of METHODS, each of CARD_NAMES."""
    costs: tuple[CostFigures, ...]
    """Without money, for the price can change while the figures stay."""
    price: Price | None
    """What an hour of the card typically costs in the cloud."""

    @property
    def chosen(self) -> Estimate:
        """The figures of the case's own method."""
        return self.methods[self.case.method]

    @property
    def software(self) -> Software:
        return "liger" if self.setting.liger else self.setting.backend


def calculate(case: Case, machine: Machine, model: Model | None = None) -> Worksheet:
    """Return the figures of `case`, on `machine` when it names no card; `model` is the case's, if it was read before.

    Raises TunewrightError when the model is not understood or the card is not known.
    """
    model = model or read_model(case.model)
    anatomy = model.anatomy
    card = card_by_name(case.card) if case.card else None
    known = case.card if case.card in CARD_NAMES else ""
    device = device_of(machine) if card is None else card_device(card, known)
    software = case.software if case.software in available(device) else default_software(device, bool(case.card))
    backend: Backend = "unsloth" if software == "unsloth" else "transformers"

    def setting_of(method: Method) -> Setting:
        optimizer = case.optimizer or default_optimizer(anatomy, method)
        return make_setting(
            device, backend, case.rows, case.tokens, case.recomputing, optimizer, liger=software == "liger"
        )

    setting = setting_of(case.method)
    of_adapters = setting if case.method != "full" else setting_of("lora")
    names = dict(target_choices(anatomy)).get(case.targets) or anatomy.target_names("all-linear")
    targets = cast("Targets", case.targets) if case.targets in ("all-linear", "attention", "qv") else names
    adapters = make_tuning("lora" if case.method == "full" else case.method, case.rank, targets)
    tunings: dict[Method, Tuning] = {method: make_tuning(method, case.rank, targets) for method in METHODS}
    estimates: dict[Method, Estimate] = {
        method: estimate(anatomy, tuning, setting_of(method), device) for method, tuning in tunings.items()
    }
    data = Data(case.data_rows, case.tokens, case.epochs)
    return Worksheet(
        case=case,
        machine=machine,
        model=model,
        device=device,
        setting=setting,
        tuning=tunings[case.method],
        target_names=names,
        methods=estimates,
        ranks=compare_ranks(anatomy, RANKS, targets, of_adapters),
        targets=compare_targets(anatomy, adapters, of_adapters, device),
        batches=compare_batches(anatomy, tunings[case.method], setting, device, LENGTHS, BATCHES),
        cards=compare_cards(anatomy, CARD_NAMES, case.rank, targets, case.rows, case.tokens, case.optimizer),
        costs=compare_cost(anatomy, device, data, case.rank, targets, optimizer=case.optimizer),
        price=hourly_price(device) if case.card else None,
    )


def available(device: Device) -> tuple[Software, ...]:
    """Return the backends that `device` can have, the fastest first."""
    if device.card is None:
        return ("transformers",)
    return (*device.backends, "liger")


def default_software(device: Device, asked_about: bool) -> Software:
    """Return the fastest backend: of a card that is only asked about the fastest there is, here what is installed."""
    if device.backends[0] == "unsloth" and (asked_about or importlib.util.find_spec("unsloth")):
        return "unsloth"
    return "transformers"
