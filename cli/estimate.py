"""`tunewright estimate`: the memory and speed of one configuration, from a config.json alone."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..engine.estimate import (
    estimate,
    find_device,
    make_setting,
    make_tuning,
    parse_optimizer,
    parse_targets,
    require_between,
)
from ..engine.shapes import read_model
from .parser import add_json, print_json
from .table import gib_text, paragraph, render_table, seconds_text

LARGEST_RANK = 1024
LARGEST_BATCH = 65_536
LARGEST_SEQUENCE = 2**24


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="PATH|MODEL",
        help="a config.json, a folder with one, a model that is here, or a size such as 8b; no weights are needed",
    )
    parser.add_argument("--method", choices=("full", "lora", "qlora"), default="lora", help="how to tune (lora)")
    add_rank(parser)
    add_targets(parser)
    parser.add_argument(
        "--optimizer",
        default="adamw",
        metavar="NAME",
        help="adamw, adamw_8bit, paged_adamw, paged_adamw_8bit or adafactor (adamw)",
    )
    add_batch(parser)
    parser.add_argument("--checkpointing", choices=("on", "off"), default="on", help="recompute activations (on)")
    parser.add_argument("--backend", choices=("unsloth", "transformers"), default="transformers")
    parser.add_argument("--liger", choices=("on", "off"), default="off", help="Liger's fused operations (off)")
    add_gpu(parser)
    add_json(parser)


def add_rank(parser: argparse.ArgumentParser) -> None:
    """Add `--rank`."""
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="the adapters' rank (16)")


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add `--targets`."""
    parser.add_argument(
        "--targets",
        default="all-linear",
        metavar="NAMES",
        help="all-linear, attention, qv, or projections with commas between (all-linear)",
    )


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add `--sequence` and `--micro-batch`."""
    parser.add_argument("--sequence", type=int, default=2048, metavar="N", help="tokens of every row (2048)")
    parser.add_argument("--micro-batch", type=int, default=1, metavar="N", help="rows in one pass (1)")


def add_gpu(parser: argparse.ArgumentParser) -> None:
    """Add `--gpu`."""
    parser.add_argument("--gpu", metavar="NAME", help="a card such as 'NVIDIA H200', instead of this machine's own")


def require_shape(arguments: argparse.Namespace) -> None:
    """Raise TunewrightError unless rank, sequence and micro-batch are numbers that a run could have."""
    for name, most in (("rank", LARGEST_RANK), ("sequence", LARGEST_SEQUENCE), ("micro_batch", LARGEST_BATCH)):
        if name in arguments:
            require_between(f"--{name.replace('_', '-')}", (getattr(arguments, name),), 1, most)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimate that `arguments` ask for and return the exit status."""
    figures = figure(arguments)
    if arguments.json:
        print_json(figures)
    else:
        print(_text(figures))
    return 0


def figure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures that `--json` prints; raises TunewrightError."""
    require_shape(arguments)
    optimizer, targets = parse_optimizer(arguments.optimizer), parse_targets(arguments.targets)
    model = read_model(arguments.config)
    tuning = make_tuning(arguments.method, arguments.rank, targets)
    device = find_device(arguments.gpu)
    setting = make_setting(
        device,
        arguments.backend,
        arguments.micro_batch,
        arguments.sequence,
        arguments.checkpointing == "on",
        optimizer,
        arguments.liger == "on",
    )
    found = estimate(model.anatomy, tuning, setting, device)
    anatomy = model.anatomy
    return {
        "model": f"{anatomy.family}, {anatomy.layers} layers of {anatomy.hidden}",
        "device": device.name,
        "method": tuning.kind,
        "optimizer": optimizer,
        **asdict(found),
        "note": " ".join(filter(None, (model.note, found.note))),
    }


def memory_text(gib: float) -> str:
    """Return an amount of memory in GiB, a small one in MiB."""
    return f"{1024 * gib:.1f} MiB" if gib < 0.1 else gib_text(gib)


def _text(figures: dict[str, Any]) -> str:
    """Return the estimate as a table between its sums."""
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
            paragraph(
                f"{gib_text(figures['peak_reserved_gib'])} reserved by the allocator; {gib_text(figures['needed_gib'])} "
                f"must be free of {gib_text(figures['device_memory_gib'])}: "
                f"{'it fits' if figures['fits'] else 'too large'}. "
                f"{figures['tokens_per_second']:,.0f} tokens/s, {seconds_text(figures['step_seconds'])} a step. "
                f"{figures['note']}"
            ),
        )
    )
