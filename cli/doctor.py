"""`tunewright doctor`: the machine, what is installed, and what to mend, each with its command."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from ..engine.installation import SHOWN, Finding, Installation, examine, inspect_installation
from ..engine.machine import GpuDevice, Machine, inspect_machine
from ..engine.runs.queue import Ticket, living_tickets, names_told
from ..foundation.home import runs_folder
from .parser import add_json, print_json
from .queue import describe

WIDEST = 100
LABEL = 10
"""The width of the column of labels."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; return 1 when something makes training impossible."""
    machine, installation = inspect_machine(runs_folder()), inspect_installation()
    findings = examine(machine, installation)
    holders = living_tickets()
    if arguments.json:
        print_json(
            {
                "machine": asdict(machine),
                "runs": [describe(ticket) for ticket in holders],
                "installation": asdict(installation),
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        width = min(WIDEST, shutil.get_terminal_size((80, 24)).columns)
        print(
            "\n".join(
                (*_machine(machine, holders, width), "", *_installed(installation, width), "", *_found(findings, width))
            )
        )
    return 1 if any(finding.severity == "problem" for finding in findings) else 0


def _machine(machine: Machine, holders: Sequence[Ticket], width: int) -> Iterator[str]:
    yield "Machine"
    yield from _row("system", machine.system, width)
    yield from _row("processor", f"{machine.cpu}, {machine.cores} cores", width)
    yield from _row("memory", f"{machine.memory_total_gib:.1f} GiB, {machine.memory_free_gib:.1f} GiB free", width)
    yield from _row("disk", f"{machine.disk_free_gib:.1f} GiB free where the runs are kept", width)
    if not machine.gpus:
        yield from _row("GPU", machine.accelerator_note, width)
    for gpu in machine.gpus:
        yield from _row(f"GPU {gpu.index}", _describe(gpu, machine.driver), width)
        for process in gpu.processes:
            memory = "" if process.memory_gib is None else f", {process.memory_gib:.1f} GiB"
            what = process.command or process.name
            yield from _row("", f"pid {process.pid}: {what}, {process.user}{memory}", width)
    for ticket in holders:
        does = "holds" if ticket.state == "running" else "waits for"
        yield from _row("run", f"{ticket.run} of {ticket.user} {does} {names_told(ticket.resources)}", width)


def _describe(gpu: GpuDevice, driver: str | None) -> str:
    """Put one GPU into words; what its driver does not tell is left out."""
    major, minor = gpu.compute_capability
    parts = [
        gpu.name,
        f"{gpu.memory_total_gib:.1f} GiB ({gpu.memory_free_gib:.1f} GiB free)",
        f"compute capability {major}.{minor}",
        f"driver {driver}",
    ]
    if gpu.utilisation_percent is not None:
        parts.append(f"{gpu.utilisation_percent:.0f} % busy")
    if gpu.temperature_celsius is not None:
        parts.append(f"{gpu.temperature_celsius:.0f} °C")
    if gpu.power_watts is not None:
        limit = "" if gpu.power_limit_watts is None else f" of {gpu.power_limit_watts:.0f}"
        parts.append(f"{gpu.power_watts:.0f}{limit} W")
    return ", ".join(parts)


def _installed(installation: Installation, width: int) -> Iterator[str]:
    yield "Installed"
    names = {name: installation.packages[name] or "–" for name in SHOWN}
    if installation.torch is not None:
        names["torch"] += f" ({installation.torch.name})"
    cells = [f"python {installation.python}", f"SQLite {installation.sqlite}", *(f"{n} {v}" for n, v in names.items())]
    column = max(map(len, cells)) + 2
    across = max(1, (width - 2) // column)
    for start in range(0, len(cells), across):
        yield "  " + "".join(f"{cell:{column}}" for cell in cells[start : start + across]).rstrip()
    manager = "runs a manager for this user" if installation.systemd_user else "runs no manager for this user"
    yield from _row("systemd", f"{manager}, lingering {'on' if installation.linger else 'off'}", width)
    yield from _row("data", installation.home, width)


def _found(findings: tuple[Finding, ...], width: int) -> Iterator[str]:
    yield "Findings"
    for finding in findings:
        yield from _row(finding.severity, f"{finding.title}. {finding.detail}", width)
        if finding.fix:
            yield f"  {'':{LABEL}}{finding.fix}"


def _row(label: str, text: str, width: int) -> Iterator[str]:
    """Yield `text` beside its label, wrapped within its own column."""
    lines = textwrap.wrap(text, max(20, width - LABEL - 2), break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield f"  {label if number == 0 else '':{LABEL}}{line}"
