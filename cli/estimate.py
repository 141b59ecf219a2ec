"""`tunewright estimate`: the memory and speed of one configuration, from a config.json alone."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine import memory, speed
from ..engine.anatomy import Anatomy, Targets, read_anatomy
from ..engine.calibration import ThreadRates, default_calibration, read_calibration
from ..engine.cards import Card, find_card
from ..engine.flop import Load
from ..engine.machine import inspect_machine
from ..engine.memory import Setting, Tuning
from ..foundation.errors import TunewrightError
from ..foundation.home import runs_folder
from ..foundation.text import one_line
from .parser import add_json, print_json
from .table import gib_text, render_table, seconds_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="PATH|MODEL",
        help="a config.json, a folder with one, or a model that is here; no weights are needed",
    )
    parser.add_argument("--method", choices=("full", "lora", "qlora"), default="lora", help="how to tune (lora)")
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="the adapters' rank (16)")
    parser.add_argument(
        "--targets",
        default="all-linear",
        metavar="NAMES",
        help="all-linear, attention, qv, or projections with commas between (all-linear)",
    )
    parser.add_argument("--optimizer", choices=("adamw", "adamw_8bit"), default="adamw", help="(adamw)")
    parser.add_argument("--sequence", type=int, default=2048, metavar="N", help="tokens of every row (2048)")
    parser.add_argument("--micro-batch", type=int, default=1, metavar="N", help="rows in one pass (1)")
    parser.add_argument("--checkpointing", choices=("on", "off"), default="on", help="recompute activations (on)")
    parser.add_argument("--backend", choices=("unsloth", "transformers"), default="transformers")
    parser.add_argument("--liger", choices=("on", "off"), default="off", help="Liger's fused operations (off)")
    parser.add_argument("--gpu", metavar="NAME", help="a card such as 'NVIDIA H200', instead of this machine's own")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimate that `arguments` ask for and return the exit status."""
    figures = estimate(arguments)
    if arguments.json:
        print_json(figures)
    else:
        print(_text(figures))
    return 0


def estimate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures that `--json` prints; raises TunewrightError."""
    for name in ("rank", "sequence", "micro_batch"):
        if not 1 <= getattr(arguments, name) <= 2**24:
            raise TunewrightError("Number out of range", f"--{name.replace('_', '-')} must be 1 or more.", "Try 16.")
    anatomy = _anatomy(arguments.config)
    tuning = Tuning(arguments.method, arguments.rank, _targets(arguments.targets))
    device = _find_device(arguments.gpu)
    setting = _setting(arguments, device)
    load = Load(setting.tokens, setting.tokens_per_row)

    def step_seconds(rates: Card | ThreadRates) -> float:
        return speed.step_seconds(anatomy, tuning, setting, load, 1, rates)

    seconds = min(map(step_seconds, device.rates))
    terms = memory.predict_memory(anatomy, tuning, setting)
    peak = memory.peak_gib(terms)
    return {
        "model": f"{anatomy.family}, {anatomy.layers} layers of {anatomy.hidden}",
        "device": device.name,
        "device_memory_gib": device.memory_gib,
        "total_parameters": anatomy.total_parameters,
        "trainable_parameters": tuning.trainable_parameters(anatomy),
        "peak_allocated_gib": peak,
        "peak_reserved_gib": memory.reserved_gib(terms, setting.backend) if setting.on_gpu else peak,
        "needed_gib": memory.needed_gib(terms, setting),
        "tokens_per_second": setting.tokens / seconds,
        "step_seconds": seconds,
        "terms": terms,
        "note": device.note,
    }


def _anatomy(config: str) -> Anatomy:
    path = Path(config).expanduser()
    if path.exists() or config.endswith(".json"):
        return read_anatomy(path)
    from ..engine.sources import find_model

    return read_anatomy(find_model(config))


def _targets(text: str) -> Targets:
    match text:
        case "all-linear" | "attention" | "qv":
            return text
        case _:
            return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class Device:
    """What the estimate is for; a processor has rates for several numbers of threads."""

    name: str
    memory_gib: float
    rates: tuple[Card | ThreadRates, ...]
    libraries_gib: float
    note: str


def _find_device(gpu: str | None) -> Device:
    """Return the card of that name, or this machine's first one, or else its processor."""
    memory_gib = None
    if gpu is None:
        machine = inspect_machine(runs_folder())
        if not machine.gpus:
            found = read_calibration() or default_calibration(machine.cores)
            source = "measured on this machine" if found.measured else "default figures for a processor"
            note = f"Speed stands on {source}."
            return Device(machine.short_name, machine.memory_total_gib, found.rates, found.libraries_gib, note)
        gpu, memory_gib = machine.gpus[0].name, machine.gpus[0].memory_total_gib
    card = find_card(gpu)
    if card.source == "assumed":
        note = "This card is not in the table of known ones; its speed is a guess."
    else:
        note = f"The card's speed is {'measured' if card.source == 'measured' else 'from its datasheet'}."
    return Device(one_line(gpu, 80), memory_gib or card.memory_gib, (card,), 0.0, note)


def _setting(arguments: argparse.Namespace, device: Device) -> Setting:
    card = device.rates[0]
    on_gpu = isinstance(card, Card)
    if arguments.backend == "unsloth" and not on_gpu:
        raise TunewrightError(
            "Unsloth needs a GPU", "There is none here.", "Name one with --gpu, or leave --backend out."
        )
    recomputing = "offloaded" if arguments.backend == "unsloth" else "on"
    precision = "fp32" if not isinstance(card, Card) else "bf16" if card.supports_bf16 else "fp16"
    return Setting(
        device="cuda" if on_gpu else "cpu",
        backend=arguments.backend,
        precision=precision,
        rows=arguments.micro_batch,
        tokens_per_row=arguments.sequence,
        checkpointing=recomputing if arguments.checkpointing == "on" else "off",
        optimizer=arguments.optimizer,
        liger=arguments.liger == "on" and arguments.backend == "transformers",
        libraries_gib=device.libraries_gib,
    )


def memory_text(gib: float) -> str:
    """Return an amount of memory in GiB, a small one in MiB."""
    return f"{1024 * gib:.1f} MiB" if gib < 0.1 else gib_text(gib)


def _text(figures: dict[str, Any]) -> str:
    """Return the estimate as two tables."""
    peak = figures["peak_allocated_gib"]
    terms = sorted(figures["terms"].items(), key=lambda term: -term[1])
    rows = [(name, memory_text(gib), f"{100 * gib / peak:.0f} %") for name, gib in terms]
    table = render_table(("TERM", "MEMORY", "SHARE"), [*rows, ("peak", gib_text(peak), "100 %")], right=(1, 2))
    share = figures["trainable_parameters"] / figures["total_parameters"]
    return "\n".join(
        (
            f"{figures['model']}, on {figures['device']}",
            f"{figures['total_parameters']:,} parameters, {figures['trainable_parameters']:,} trained "
            f"({100 * share:.2f} %)",
            "",
            table,
            "",
            f"{gib_text(figures['peak_reserved_gib'])} reserved by the allocator, {gib_text(figures['needed_gib'])} "
            f"must be free of {gib_text(figures['device_memory_gib'])}.",
            f"{figures['tokens_per_second']:,.0f} tokens/s, {seconds_text(figures['step_seconds'])} a step. "
            f"{figures['note']}",
        )
    )
