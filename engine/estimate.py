"""Estimates: the memory and speed of one configuration on one device, from formulas alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..foundation.errors import TunewrightError, nearest
from ..foundation.home import runs_folder
from ..foundation.text import one_line
from . import cost, machine, memory, speed
from .anatomy import Anatomy, Targets
from .calibration import ThreadRates, default_calibration, read_calibration
from .cards import Card, card_by_name, find_card
from .flop import Load
from .plan import Backend, Parallelism, Precision
from .setting import Setting, Tuning

OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor")
_OTHER_SPELLINGS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_32bit": "paged_adamw",
}
"""What Hugging Face's trainer calls them."""

_HOPPER_AND_NEWER = ("H100", "H200", "B200", "RTX 50", "RTX PRO", "MI300")
"""How the names of cards begin for which torch takes cuBLAS's larger workspace."""


@dataclass(frozen=True, slots=True)
class Device:
    """What an estimate is for: a card, or a processor with rates for several numbers of threads."""

    name: str
    memory_gib: float
    free_gib: float
    """What others have left of it; all of it for a card that is only asked about."""
    rates: tuple[Card | ThreadRates, ...]
    precision: Precision
    libraries_gib: float
    watts: float
    """What the machine draws while one such device trains."""
    note: str
    workspace_mib: int = 32
    """cuBLAS's workspace, as in `Setting.cuda_workspace_mib`."""

    @property
    def card(self) -> Card | None:
        """The card, None for a processor."""
        return next((each for each in self.rates if isinstance(each, Card)), None)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends that can train on it, the faster one first."""
        if self.card is None or self.card.vendor != "nvidia":
            return ("transformers",)
        return ("unsloth", "transformers")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The figures of one configuration."""

    total_parameters: int
    trainable_parameters: int
    terms: dict[str, float]
    """GiB by term; they add up to `peak_allocated_gib`."""
    peak_allocated_gib: float
    peak_reserved_gib: float
    needed_gib: float
    """What must be free."""
    device_memory_gib: float
    fits: bool
    """Whether that much is free."""
    step_seconds: float
    tokens_per_second: float
    note: str
    """What the figures stand on, and what is unusual about the configuration."""


def estimate(anatomy: Anatomy, tuning: Tuning, setting: Setting, device: Device) -> Estimate:
    """Return the figures of an optimizer step, memory for one GPU; on a processor with the fastest number of threads."""
    terms = memory.predict_memory(anatomy, tuning, setting)
    peak = memory.peak_gib(terms)
    needed = memory.needed_gib(terms, setting)
    load = Load(setting.tokens, setting.tokens_per_row)
    seconds = min(
        speed.step_seconds(anatomy, tuning, setting, load, setting.accumulation, rates) for rates in device.rates
    )
    notes = [device.note]
    if setting.tokens_per_row > anatomy.context:
        notes.append(f"Rows of {setting.tokens_per_row:,} tokens are longer than the model's {anatomy.context:,}.")
    return Estimate(
        total_parameters=anatomy.total_parameters,
        trainable_parameters=tuning.trainable_parameters(anatomy),
        terms=terms,
        peak_allocated_gib=peak,
        peak_reserved_gib=memory.reserved_gib(terms, setting.backend) if setting.on_gpu else peak,
        needed_gib=needed,
        device_memory_gib=device.memory_gib,
        fits=needed <= device.free_gib,
        step_seconds=seconds,
        tokens_per_second=setting.gpus * setting.accumulation * setting.tokens / seconds,
        note=" ".join(note for note in notes if note),
    )


def make_setting(
    device: Device,
    backend: Backend,
    rows: int,
    tokens: int,
    recomputing: bool,
    optimizer: str = "adamw",
    liger: bool = False,
    accumulation: int = 1,
    gpus: int = 1,
    parallelism: Parallelism = "one",
) -> Setting:
    """Return the setting for `rows` rows of `tokens` on `device`, trained as the libraries do it by themselves.

    Rows of one length are padded by nobody and strung together by nobody; adapters have the type that PEFT and TRL
    give them. Raises TunewrightError for Unsloth without an NVIDIA GPU.
    """
    if backend not in device.backends:
        raise TunewrightError(
            "Unsloth needs an NVIDIA GPU", f"{device.name} is none.", "Name one with --gpu, or take transformers."
        )
    return Setting(
        device="cpu" if device.card is None else "cuda",
        backend=backend,
        precision=device.precision,
        rows=rows,
        tokens_per_row=tokens,
        checkpointing="off" if not recomputing else "offloaded" if backend == "unsloth" else "on",
        optimizer=optimizer,
        liger=liger and backend == "transformers",
        padded=backend == "unsloth",
        adapters="library",
        libraries_gib=device.libraries_gib,
        accumulation=accumulation,
        gpus=gpus,
        parallelism=parallelism,
        cuda_workspace_mib=device.workspace_mib,
    )


def find_device(gpu: str | None) -> Device:
    """Return the card called `gpu`, or what this machine has for None; raises TunewrightError for an unknown card."""
    if gpu is None:
        return device_of(machine.inspect_machine(runs_folder()))
    return card_device(card_by_name(gpu), gpu)


def device_of(here: machine.Machine) -> Device:
    """Return the GPU of `here` with the most free memory, or else its processor."""
    if not here.gpus:
        found = read_calibration() or default_calibration(here.cores)
        source = "was measured on this machine" if found.measured else "stands on default figures for a processor"
        return Device(
            one_line(here.short_name, 80),
            here.memory_total_gib,
            here.memory_free_gib,
            found.rates,
            "fp32",
            found.libraries_gib,
            cost.watts(here),
            f"The processor's speed {source}.",
        )
    gpu = max(here.gpus, key=lambda each: each.memory_free_gib)
    card = find_card(gpu.name)
    used = gpu.memory_total_gib - gpu.memory_free_gib
    shared = f" Others use {used:.1f} GiB of it." if used > 0.05 * gpu.memory_total_gib else ""
    return Device(
        one_line(gpu.name, 80),
        gpu.memory_total_gib,
        gpu.memory_free_gib,
        (card,),
        "bf16" if gpu.supports_bf16 else "fp16",
        0.0,
        cost.HOST_WATTS_A_GPU + (gpu.power_limit_watts or card.watts),
        _speed_note(card) + shared,
        32 if gpu.compute_capability >= (9, 0) else 8,
    )


def card_device(card: Card, name: str = "") -> Device:
    """Return an idle card, called `name`."""
    return Device(
        one_line(name, 80) or card.name,
        card.memory_gib,
        card.memory_gib,
        (card,),
        "bf16" if card.supports_bf16 else "fp16",
        0.0,
        cost.HOST_WATTS_A_GPU + card.watts,
        _speed_note(card),
        32 if card.name.startswith(_HOPPER_AND_NEWER) else 8,
    )


def _speed_note(card: Card) -> str:
    if card.source == "assumed":
        return "This card is not in the table of known ones; its speed is a guess."
    said = f"The card's speed is {'measured' if card.source == 'measured' else 'from its datasheet'}."
    return f"{said} {card.note}".rstrip()


def parse_optimizer(name: str) -> str:
    """Return the optimizer's own name for a recipe's or Hugging Face's spelling; raises TunewrightError otherwise."""
    word = name.strip().casefold()
    found = _OTHER_SPELLINGS.get(word, word)
    if found not in OPTIMIZERS:
        suggestion = nearest(word, [*OPTIMIZERS, *_OTHER_SPELLINGS])
        raise TunewrightError(
            "Unknown optimizer",
            f"{one_line(name, 60)!r} is none of {', '.join(OPTIMIZERS)}.",
            f"Did you mean {suggestion}?" if suggestion else "Choose one of these.",
        )
    return found


def parse_targets(text: str) -> Targets:
    """Return the target modules that `text` names, with commas between; raises TunewrightError when it names none."""
    word = text.strip()
    if word in ("all-linear", "attention", "qv"):
        return word
    names = tuple(name.strip() for name in word.split(",") if name.strip())
    if not names:
        raise TunewrightError(
            "No target module",
            "--targets names no projection.",
            "Use all-linear, attention or qv, or names with commas between: q_proj,v_proj.",
        )
    return names


def make_tuning(method: str, rank: int, targets: Targets, dora: bool = False) -> Tuning:
    """Return the tuning called `method`; full tuning has neither rank nor targets."""
    match method:
        case "full":
            return Tuning("full")
        case "qlora":
            return Tuning("qlora", rank, targets, dora)
        case _:
            return Tuning("lora", rank, targets, dora)


def require_between(what: str, values: Sequence[float], least: float, most: float) -> None:
    """Raise TunewrightError unless every value of the option `what` is a number from `least` to `most`."""
    for value in values:
        if not least <= value <= most:
            raise TunewrightError(
                "Number out of range",
                f"{what} is {value:,}; it must be from {least:,} to {most:,}.",
                f"Give {what} a number in this range.",
            )
