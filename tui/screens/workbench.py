"""The workbench: parameters, target modules, memory by term and cost of any model, before anything is downloaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from ...foundation.errors import TunewrightError
from ...foundation.home import runs_folder
from ...foundation.text import clean, one_line
from ..background import background, deliver
from ..draft import STARTER_MODEL
from ..figures import count, duration, gib, share
from ..keys import bindings
from ..widgets.bar import row_bar
from ..widgets.field import Field
from ..widgets.pane import Pane
from ..widgets.path_field import PathSuggester
from .frame import FramedScreen

if TYPE_CHECKING:
    from ..worksheet import Case, Worksheet

TOKENS = (256, 512, 1024, 2048, 4096, 8192)
ROWS = (1, 2, 4, 8, 16, 32)
RANKS = (8, 16, 32, 64)
HEADINGS = {"lora": "LoRA", "qlora": "QLoRA", "full": "full"}


@dataclass
class Calculated(Message):
    """The figures of a case, or why there are none."""

    case: Case
    worksheet: Worksheet | None
    problem: TunewrightError | None


class WorkbenchScreen(FramedScreen):
    """Four panes that follow the case in the line above them."""

    CSS_PATH = "workbench.tcss"
    BINDINGS = bindings("Workbench")  # pyright: ignore[reportAssignmentType]
    where = "Workbench"
    mode = "workbench"
    title_path = ("Workbench",)

    def __init__(self) -> None:
        super().__init__()
        self.case: Case | None = None
        self.worksheet: Worksheet | None = None
        self.hourly_rate: float | None = None

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="inputs"):
            yield Static(Content.styled("model", "$muted"))
            yield Field(
                STARTER_MODEL, "a config.json, a folder, or owner/name", "model", PathSuggester((STARTER_MODEL,))
            )
            yield Static(Content.styled("price an hour", "$muted"))
            yield Field("", "none", "price")
        yield Static(id="case", markup=False)
        with VerticalScroll(id="panes"):
            yield Pane("Adapters by rank", id="ranks", said="Calculating…")
            yield Pane("Memory by term", id="memory", said="Calculating…")
            yield Pane("Target modules", id="targets", said="Calculating…")
            yield Pane("A run", id="cost", said="Calculating…")

    def on_mount(self) -> None:
        self.query_one("#panes").focus()
        self._calculate(self.case)

    @background("worksheet")
    def _calculate(self, case: Case | None) -> None:
        from ...engine.machine import inspect_machine
        from ..worksheet import Case, calculate

        case = case or Case(STARTER_MODEL)
        machine = self.worksheet.machine if self.worksheet else inspect_machine(runs_folder())
        try:
            deliver(self, Calculated(case, calculate(case, machine), None))
        except TunewrightError as error:
            deliver(self, Calculated(case, None, error))

    @on(Calculated)
    def _show(self, message: Calculated) -> None:
        self.case = message.case
        self.query_one("#model").set_class(message.problem is not None, "-invalid")
        if message.problem is not None:
            said = Content.assemble(("✗ ", "$error"), (one_line(message.problem.title, 60), "bold $error"), "  ",
                                    one_line(message.problem.message, 300))  # fmt: skip
            self.query_one("#case", Static).update(said)
            return
        self.worksheet = message.worksheet
        self._paint()

    def _paint(self) -> None:
        sheet = self.worksheet
        if sheet is None:
            return
        self.query_one("#case", Static).update(case_text(sheet))
        self.query_one("#ranks", Pane).show(ranks_text(sheet))
        self.query_one("#targets", Pane).show(targets_text(sheet))
        self.query_one("#memory", Pane).show(lambda width: memory_text(sheet, width))
        self.query_one("#cost", Pane).show(cost_text(sheet, self.hourly_rate))
        self.show_title(aside=Content.styled(sheet.machine.short_name, "$muted"))

    def _change(self, **values: object) -> None:
        if self.case is not None:
            self._calculate(replace(self.case, **values))

    def action_choose_model(self) -> None:
        self.query_one("#model").focus()

    def action_price(self) -> None:
        self.query_one("#price").focus()

    def action_leave_field(self) -> None:
        self.query_one("#panes").focus()

    @on(Input.Submitted, "#model")
    def _take_model(self, event: Input.Submitted) -> None:
        self.query_one("#panes").focus()
        self._change(model=clean(event.value, 1000).strip())

    @on(Input.Changed, "#price")
    def _take_price(self, event: Input.Changed) -> None:
        typed = event.value.strip().replace(",", ".")
        try:
            self.hourly_rate = max(0.0, float(typed)) if typed else None
        except ValueError:
            self.hourly_rate = None
        self.query_one("#price").set_class(bool(typed) and self.hourly_rate is None, "-invalid")
        self._paint()

    @on(Input.Submitted, "#price")
    def _leave_price(self) -> None:
        self.query_one("#panes").focus()

    def action_next_targets(self) -> None:
        from ..worksheet import TARGETS

        if self.case is not None:
            self._change(targets=TARGETS[(TARGETS.index(self.case.targets) + 1) % len(TARGETS)])

    def action_next_rank(self) -> None:
        if self.case is not None:
            self._change(rank=_after(RANKS, self.case.rank))

    def action_next_sequence(self) -> None:
        if self.case is not None:
            self._change(tokens=_after(TOKENS, self.case.tokens))

    def action_next_batch(self) -> None:
        if self.case is not None:
            self._change(rows=_after(ROWS, self.case.rows))

    def action_recompute(self) -> None:
        if self.case is not None:
            self._change(recomputing=not self.case.recomputing)


def _after(values: tuple[int, ...], value: int) -> int:
    return values[(values.index(value) + 1) % len(values)]


def case_text(sheet: Worksheet) -> Content:
    """Return the case in one line: the model's shape, and what the figures are for."""
    anatomy, case = sheet.anatomy, sheet.case
    return Content.assemble(
        (f"{one_line(anatomy.family, 30)} ", "bold"), (count(anatomy.total_parameters), "bold"),
        (f", {anatomy.layers} layers × {anatomy.hidden:,}", "$muted"),
        ("  │  ", "$rule"), (case.targets, "bold $accent"), (" rank ", "$muted"), (str(case.rank), "bold $accent"),
        ("  ", ""), (f"{case.rows} × {case.tokens:,}", "bold $accent"), (" tokens", "$muted"),
        (", recomputing" if case.recomputing else "", "bold $accent"),
    )  # fmt: skip


def ranks_text(sheet: Worksheet) -> Content:
    """Return the adapters' size for each rank."""
    total = sheet.anatomy.total_parameters
    lines = [Content.styled(f"{'rank':>6} {'trained':>10} {'of all':>9} {'file':>10}", "$muted")]
    for rank, trained in sheet.by_rank:
        here = rank == sheet.case.rank
        line = f"{rank:>6} {count(trained):>10} {share(trained / total, 2):>9} {gib(trained * 4 / 2**30):>10}"
        lines.append(Content.styled(line + ("  ←" if here else ""), "bold" if here else ""))
    return Content("\n").join(lines)


def targets_text(sheet: Worksheet) -> Content:
    """Return the projections, their shapes, and which get an adapter."""
    lines = [Content.styled(f"  {'module':<13} {'out × in':>15} {'weights':>9} {'adapter':>9}", "$muted")]
    for line in sheet.projections:
        projection = line.projection
        weights = projection.outputs * projection.inputs * projection.count
        shape = f"{projection.outputs:,} × {projection.inputs:,}"
        mark = ("✓ ", "$success") if line.targeted else ("· ", "$muted")
        words = f"{one_line(projection.name, 13):<13} {shape:>15} {count(weights):>9} "
        lines.append(
            Content.assemble(
                mark,
                (words, "" if line.targeted else "$muted"),
                count(line.adapter_parameters).rjust(9) if line.targeted else "        –",
            )
        )
    return Content("\n").join(lines)


def memory_text(sheet: Worksheet, width: int) -> Content:
    """Return the terms of the peak for each method, the largest first, and their sums against what is free."""
    names = sorted(
        {name for terms in sheet.memory.values() for name in terms},
        key=lambda name: -max(terms.get(name, 0.0) for terms in sheet.memory.values()),
    )
    methods = list(sheet.memory)
    most = max(max(terms.values()) for terms in sheet.memory.values())
    room = width - 16 - 11 * len(methods)
    lines = [Content.styled(f"{'':<15}" + "".join(f"{HEADINGS[method]:>11}" for method in methods), "$muted")]
    for name in names:
        cells = "".join(
            f"{gib(sheet.memory[method].get(name)) if name in sheet.memory[method] else '–':>11}" for method in methods
        )
        largest = max(sheet.memory[method].get(name, 0.0) for method in methods)
        bars = Content("  ") + row_bar(largest / most, room - 2, "$soft") if room >= 8 else Content("")
        lines.append(Content.assemble((f"{one_line(name, 15):<15}", "$muted"), cells) + bars)
    peaks = {method: sum(terms.values()) for method, terms in sheet.memory.items()}
    lines.append(Content.styled(f"{'peak':<15}" + "".join(f"{gib(peaks[method]):>11}" for method in methods), "bold"))
    free = max((gpu.memory_free_gib for gpu in sheet.machine.gpus), default=sheet.machine.memory_free_gib)
    verdicts = Content(f"{'':<15}")
    for method in methods:
        verdict = ("✓ fits", "$success") if peaks[method] < free else ("✗ too large", "$error")
        verdicts += Content.styled(f"{verdict[0]:>11}", verdict[1])
    lines += [verdicts, Content.styled(f"{gib(free)} are free here", "$muted")]
    return Content("\n").join(lines)


def cost_text(sheet: Worksheet, hourly_rate: float | None) -> Content:
    """Return time, money and whether it fits, for the fastest plan of each method."""
    from ...engine.cost import energy_kwh, money
    from ..worksheet import ROWS_OF_A_RUN

    tokens = min(sheet.case.tokens, sheet.anatomy.context)
    lines = [
        Content.styled(
            f"{ROWS_OF_A_RUN:,} rows of {tokens:,} tokens, with each method's defaults and fastest plan", "$muted"
        ),
        Content.styled(f"{'':<7}{'time':>9} {'peak':>10} {'kWh':>8} {'price':>9}", "$muted"),
    ]
    for each in sorted(sheet.figures, key=lambda each: each.peak_gib):
        price = money(each.seconds, hourly_rate)
        energy = energy_kwh(each.seconds, sheet.machine)
        lines.append(
            Content.assemble(
                (f"{HEADINGS[each.method]:<7}", "bold"), f"{duration(each.seconds):>9} {gib(each.peak_gib):>10} {energy:>8.3f} ",
                f"{'–' if price is None else f'{price:.2f}':>9}  ",
                ("✓ fits", "$success") if each.fits else ("✗ too large", "$error"),
            )
        )  # fmt: skip
    if hourly_rate is None:
        lines.append(Content.styled("Press p and give the machine's price for an hour.", "$muted"))
    return Content("\n").join(lines)
