"""`tunewright targets`: what each choice of target modules trains, takes and costs in speed."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..engine.comparison import TargetFigures, compare_targets
from ..engine.estimate import Device, find_device, make_setting, make_tuning
from ..engine.setting import Setting
from ..engine.shapes import Model, read_model
from .estimate import add_batch, add_gpu, add_rank, memory_text, require_shape
from .parser import add_json, print_json
from .table import paragraph, render_table


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", help="a config.json, a folder, a model, or a size such as 8b")
    add_rank(parser)
    parser.add_argument("--method", choices=("lora", "qlora"), default="lora", help="how to tune (lora)")
    add_gpu(parser)
    add_batch(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison and return the exit status."""
    require_shape(arguments)
    model, device = read_model(arguments.model), find_device(arguments.gpu)
    setting = make_setting(device, device.backends[0], arguments.micro_batch, arguments.sequence, recomputing=True)
    tuning = make_tuning(arguments.method, arguments.rank, "all-linear")
    figures = compare_targets(model.anatomy, tuning, setting, device)
    if arguments.json:
        print_json(
            {
                "model": model.name,
                "device": device.name,
                "device_memory_gib": device.memory_gib,
                "method": arguments.method,
                "rank": arguments.rank,
                "backend": setting.backend,
                "choices": [_figures(each) for each in figures],
                "note": " ".join(filter(None, (model.note, figures[0].estimate.note))),
            }
        )
    else:
        print(_text(model, device, setting, arguments, figures))
    return 0


def _figures(each: TargetFigures) -> dict[str, Any]:
    found = asdict(each.estimate)
    kept = ("trainable_parameters", "peak_allocated_gib", "needed_gib", "fits", "step_seconds", "tokens_per_second")
    return {"name": each.name, "targets": each.targets, "share": each.share} | {name: found[name] for name in kept}


def _text(
    model: Model, device: Device, setting: Setting, arguments: argparse.Namespace, figures: tuple[TargetFigures, ...]
) -> str:
    """Return the choices as a table under what they are for."""
    method = "QLoRA" if arguments.method == "qlora" else "LoRA"
    rows = [
        (
            each.name,
            f"{each.estimate.trainable_parameters:,}",
            f"{100 * each.share:.3f} %",
            memory_text(each.estimate.peak_allocated_gib),
            f"{each.estimate.tokens_per_second:,.0f}",
            "yes" if each.estimate.fits else "no",
        )
        for each in figures
    ]
    parts = [
        paragraph(
            f"{model.name} on {device.name}: {method} of rank {arguments.rank}, {setting.rows:,} × "
            f"{setting.tokens_per_row:,} tokens, {setting.backend}, recomputing activations"
        ),
        render_table(("TARGETS", "TRAINED", "SHARE", "PEAK", "TOKENS/S", "FITS"), rows, right=(1, 2, 3, 4)),
        paragraph(f"{model.note} {figures[0].estimate.note}"),
    ]
    return "\n\n".join(parts)
