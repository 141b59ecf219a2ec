"""The first step: what this machine is, who else is on it, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message

from ...foundation.home import runs_folder
from ...foundation.text import one_line
from ..background import background, deliver
from ..widgets.bar import bar
from ..widgets.pane import Pane, ScrollPane
from ..wrapping import hanging
from .step import Step

if TYPE_CHECKING:
    from ...engine.installation import Finding, Installation
    from ...engine.machine import GpuDevice, Machine
    from ...engine.runs.queue import Ticket

MARKS = {"ok": ("✓", "success"), "hint": ("i", "accent"), "warning": ("!", "warning"), "problem": ("✗", "error")}
SHOWN_RUNS = 4
SHOWN = ("torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth")


@dataclass
class MachineFound(Message):
    """The machine is known."""

    machine: Machine
    runs: tuple[Ticket, ...] = ()
    """What runs of all users hold or wait for."""


@dataclass
class InstallationFound(Message):
    """What is installed is known, and what it means."""

    installation: Installation
    findings: tuple[Finding, ...]


class MachineStep(Step):
    """Shows the machine and the findings about it; there is nothing to choose."""

    name_in_rail = "machine"

    def compose(self) -> ComposeResult:
        yield Pane("This machine", id="machine", said="Looking at the GPUs, the processor, the memory and the disk…")
        yield ScrollPane("Installed", id="findings", said="Looking at what is installed…")

    def on_mount(self) -> None:
        self._inspect()

    def enter(self) -> None:
        self.query_one("#findings").focus()

    @background("machine")
    def _inspect(self) -> None:
        from ...engine.machine import inspect_machine
        from ...engine.runs.queue import living_tickets

        machine = inspect_machine(runs_folder())
        deliver(self, MachineFound(machine, living_tickets()))
        from ...engine.installation import examine, inspect_installation

        installation = inspect_installation()
        deliver(self, InstallationFound(installation, examine(machine, installation)))

    @on(MachineFound)
    def _show_machine(self, message: MachineFound) -> None:
        self.draft.machine = message.machine
        self.query_one("#machine", Pane).show(lambda width: machine_text(message.machine, width, message.runs))

    @on(InstallationFound)
    def _show_installation(self, message: InstallationFound) -> None:
        self.query_one("#findings", ScrollPane).show(
            lambda width: findings_text(message.installation, message.findings, width)
        )

    def answer(self) -> str:
        return self.draft.machine.short_name if self.draft.machine else ""

    def obstacle(self) -> str | None:
        return None if self.draft.machine else "Still looking at the machine."


def machine_text(machine: Machine, width: int, runs: Sequence[Ticket] = ()) -> Content:
    """Return the machine in lines that fit `width`; every bar has its figures beside it."""
    from ...engine.runs.queue import names_told

    length = max(10, min(32, width - 56))
    lines: list[Content] = []
    for gpu in machine.gpus:
        lines += _gpu(gpu, length)
    used = machine.memory_total_gib - machine.memory_free_gib
    lines.append(_labelled("CPU", Content(f"{one_line(machine.cpu, 60)}, {machine.cores} cores")))
    memory = bar(used / machine.memory_total_gib, length)
    free = f"  {machine.memory_free_gib:,.1f} of {machine.memory_total_gib:,.1f} GiB free"
    lines.append(_labelled("memory", memory + free))
    lines.append(_labelled("disk", Content(f"{machine.disk_free_gib:,.0f} GiB free where the runs are kept")))
    for ticket in runs[:SHOWN_RUNS]:
        does = "holds" if ticket.state == "running" else "waits for"
        said = f"{ticket.user}'s run {ticket.run} {does} {names_told(ticket.resources)}"
        lines.append(_labelled("run", Content.styled(one_line(said, 100), "$warning")))
    note = Content.styled(one_line(machine.accelerator_note, 200), "$muted")
    lines.append(hanging(_labelled("", Content("")), note, width))
    return Content("\n").join(lines)


def _gpu(gpu: GpuDevice, length: int) -> list[Content]:
    used = gpu.memory_total_gib - gpu.memory_free_gib
    state = [f"{gpu.utilisation_percent:.0f} % busy" if gpu.utilisation_percent is not None else ""]
    state.append(f"{gpu.temperature_celsius:.0f} °C" if gpu.temperature_celsius is not None else "")
    if gpu.power_watts is not None and gpu.power_limit_watts is not None:
        state.append(f"{gpu.power_watts:.0f} of {gpu.power_limit_watts:.0f} W")
    name = f"{one_line(gpu.name, 40)}"
    lines = [
        _labelled(f"GPU {gpu.index}", Content.assemble((name, "bold"), ("  " + "  ".join(filter(None, state)), "$muted"))),
        _labelled("", bar(used / gpu.memory_total_gib, length) + f"  {gpu.memory_free_gib:.1f} of {gpu.memory_total_gib:.1f} GiB free"),
    ]  # fmt: skip
    for process in gpu.processes[:4]:
        lines.append(_labelled("", Content.styled(one_line(f"! held: {process.said}", 100), "$warning")))
    return lines


def _labelled(label: str, content: Content) -> Content:
    return Content.assemble((f"{label:<8}", "$muted")) + content


def findings_text(installation: Installation, findings: tuple[Finding, ...], width: int) -> Content:
    """Return what is worth knowing, the worst first, each with the command that mends it, and the versions."""
    lines: list[Content] = []
    for finding in findings:
        glyph, colour = MARKS[finding.severity]
        lines.append(Content.assemble((f"{glyph} ", f"bold ${colour}"), (one_line(finding.title, 200), "bold")))
        lines.append(hanging(Content("  "), Content.styled(one_line(finding.detail, 500), "$muted"), width))
        if finding.fix:
            lines.append(Content.assemble(("  $ ", "$accent"), one_line(finding.fix, 300)))
    versions = [f"{name} {installation.packages.get(name) or 'not installed'}" for name in SHOWN]
    lines += [Content(""), Content.styled(f"python {installation.python} · " + " · ".join(versions), "$muted")]
    return Content("\n").join(lines)
