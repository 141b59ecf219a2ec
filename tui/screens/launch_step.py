"""The last step: the plan with its predictions and reasons, and the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...foundation.units import gib
from ..background import background, deliver, superseded
from ..draft import Draft
from ..figures import count, duration, share
from ..messages import RunLaunched
from ..widgets.bar import bar, row_bar
from ..widgets.pane import Pane, ScrollPane
from ..wrapping import hanging
from .step import Step, StepChanged

if TYPE_CHECKING:
    from ...engine.hub.needs import Need
    from ...engine.machine import Machine
    from ...engine.plan import Plan
    from ...engine.runs.terms import Terms
    from ...recipes.model import Recipe


LABEL = 15
SHOWN_HOLDERS = 2
SMALL_SHARE = 0.015
LOST_FIGURES, LOST_WORDS = 19, 24
"""Cells that a losing plan's figures take beside its name, and the least that its reason must have."""


@dataclass
class PlanMade(Message):
    """The fastest plan that fits, or why there is none."""

    recipe: Recipe
    plan: Plan | None
    problem: TunewrightError | None


@dataclass
class Beside(Message):
    """Who else is on what the plan takes."""

    said: tuple[str, ...]


@dataclass
class Needed(Message):
    """What is on the Hub and not whole here; the run is to `start` once it is."""

    needs: tuple[Need, ...]
    start: bool


@dataclass
class Probing(Message):
    """What a probe does next, in words; nothing when it has ended."""

    words: str


class LaunchStep(Step):
    """Shows what the run will take and why it is laid out so; enter starts it."""

    name_in_rail = "launch"

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._planned: Recipe | None = None
        self._starting = False
        self._probing = ""
        self._problem: TunewrightError | None = None
        self._beside: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        with Vertical(id="plan-top"):
            yield Pane("Prediction", id="prediction", said="Planning…")
            yield Pane("Memory", id="memory", said="")
        yield ScrollPane("Why this plan", id="reasons", said="Searching for the fastest plan that fits…")

    def enter(self) -> None:
        self._starting = False
        self._look_beside()
        self.query_one("#reasons").focus()
        recipe, machine = self.draft.recipe, self.draft.machine
        if recipe is None or machine is None or (recipe == self._planned and self.draft.plan is not None):
            return
        self._planned, self.draft.plan, self._problem = recipe, None, None
        # One that goes on is of another recipe.
        self.workers.cancel_group(self, "probe")  # pyright: ignore[reportUnknownMemberType]
        self._probing = ""
        self.query_one("#prediction", Pane).show(
            Content.styled("Planning: every row is rendered and counted…", "$muted")
        )
        self.query_one("#memory", Pane).show(Content(""))
        self.query_one("#reasons", ScrollPane).show(
            Content.styled("Searching for the fastest plan that fits…", "$muted")
        )
        self._plan(recipe, machine)

    @background("plan")
    def _plan(self, recipe: Recipe, machine: Machine) -> None:
        from ...engine.planner import plan_recipe
        from ...engine.runs.waiting import machine_in_turn

        if self.draft.terms.waits:
            machine = machine_in_turn(machine)
        try:
            deliver(self, PlanMade(recipe, plan_recipe(recipe, machine), None))
        except TunewrightError as error:
            deliver(self, PlanMade(recipe, None, error))

    @on(PlanMade)
    def _show(self, message: PlanMade) -> None:
        if message.recipe != self._planned:
            return
        self.draft.plan, self._problem = message.plan, message.problem
        self._look_beside()
        self._paint()
        self.post_message(StepChanged())

    def _paint(self) -> None:
        if self._problem is not None:
            text = Content.assemble(
                (f"✗ {one_line(self._problem.title, 100)}\n", "bold $error"), clean(self._problem.message, 3000), "\n",
                ("→ ", "$accent"), clean(self._problem.remedy, 1000),
            )  # fmt: skip
            self.query_one("#prediction", Pane).show(text)
            self.query_one("#reasons", ScrollPane).show(Content.styled("There is no plan.", "$muted"))
        elif self.draft.plan is not None and self.draft.machine is not None:
            plan, machine = self.draft.plan, self.draft.machine
            beside = self._beside
            self.query_one("#prediction", Pane).show(lambda width: prediction_text(plan, width, beside))
            self.query_one("#memory", Pane).show(lambda width: memory_text(plan, machine, width))
            self.query_one("#reasons", ScrollPane).show(lambda width: reasons_text(plan, width))

    def obstacle(self) -> str | None:
        if self._problem is not None:
            return f"{self._problem.title}: {self._problem.remedy}"
        if self.draft.plan is None:
            return "Still planning."
        if self._probing:
            return "A probe is going on; it would slow the run down."
        return "Starting…" if self._starting else None

    def invitation(self) -> str:
        if self._starting:
            return "Starting the run…"
        if self._probing:
            return f"Probing: {self._probing}…"
        if self.draft.plan is None:
            return ""
        return f"{enter_told(self.draft.terms)} The run goes on without this terminal. p measures first, w says when."

    def choose_terms(self) -> None:
        """Ask when the run is to begin, and how it is to give way; plan anew where waiting changes what is free."""
        from ..widgets.terms_dialog import TermsDialog

        def take(terms: Terms | None) -> None:
            if terms is None:
                return
            again = terms.waits != self.draft.terms.waits and self.draft.machine is not None
            self.draft.terms = terms
            if again:
                self._planned = None
                self.enter()
            self.post_message(StepChanged())

        self.app.push_screen(TermsDialog(self.draft.terms), take)

    @background("beside")
    def _look_beside(self) -> None:
        """See who else is on what the plan takes."""
        from ...engine.runs.queue import holders_of, holders_told

        plan, machine = self.draft.plan, self.draft.machine
        if plan is None or machine is None:
            return
        runs = holders_told(holders_of(plan), plan)
        cards = [gpu for gpu in machine.gpus if plan.device == "cuda" and gpu.index in plan.gpu_indices]
        held = [f"GPU {gpu.index}: {process.said}" for gpu in cards for process in gpu.processes[:SHOWN_HOLDERS]]
        deliver(self, Beside(tuple(filter(None, (runs, *held)))))

    @on(Beside)
    def _show_beside(self, message: Beside) -> None:
        if message.said != self._beside:
            self._beside = message.said
            self._paint()

    def forward(self) -> bool:
        if self.draft.recipe is not None and self.draft.plan is not None:
            self._starting = True
            self.post_message(StepChanged())
            name = self.draft.entry.name if self.draft.entry else self.draft.recipe.method.kind
            self._launch(self.draft.recipe, self.draft.plan, name, self.draft.terms)
        return False

    @background("launch")
    def _launch(self, recipe: Recipe, plan: Plan, name: str, terms: Terms) -> None:
        from ...engine.hub.needs import needs_of
        from ...engine.runs.launch import launch
        from ...engine.runs.lineage import clone_of

        try:
            if needs := needs_of(recipe):
                deliver(self, Needed(needs, start=True))
                return
            parent = self.draft.parent
            lineage = clone_of(parent, recipe) if parent is not None else None
            deliver(self, RunLaunched(launch(recipe, plan, name, terms=terms, lineage=lineage)))
        finally:
            self._starting = False
            deliver(self, StepChanged())

    def fetch(self) -> None:
        """Fetch from the Hub what the recipe names and what is not here."""
        if self.draft.recipe is not None and not self._starting:
            self._look(self.draft.recipe)

    @background("needs")
    def _look(self, recipe: Recipe) -> None:
        from ...engine.hub.needs import needs_of

        if needs := needs_of(recipe):
            deliver(self, Needed(needs, start=False))

    @on(Needed)
    def _offer(self, message: Needed) -> None:
        from ..widgets.fetch_dialog import FetchDialog

        def go_on(done: bool | None) -> None:
            if done and self.draft.plan is None:
                self.enter()
            elif done and message.start:
                self.forward()

        self.app.push_screen(FetchDialog(message.needs), go_on)

    def probe(self) -> None:
        """Measure a few real steps of the plan, and plan again by what they took."""
        recipe, machine = self.draft.recipe, self.draft.machine
        if recipe is None or machine is None or self.draft.plan is None or self._probing or self._starting:
            return
        self._show_probing(Probing("beginning"))
        self._probe(recipe, machine)

    @background("probe")
    def _probe(self, recipe: Recipe, machine: Machine) -> None:
        from ...engine.planner import plan_recipe
        from ...engine.probe import probe_recipe

        try:
            found = probe_recipe(recipe, machine, say=lambda words: deliver(self, Probing(words)), cancelled=superseded)
            if found.measured is None:
                remedy = "Take QLoRA or a shorter max_length; a run would go on with smaller micro-batches."
                raise TunewrightError("The plan does not fit", found.verdict, remedy)
            deliver(self, PlanMade(recipe, plan_recipe(recipe, machine), None))
        finally:
            deliver(self, Probing(""))

    @on(Probing)
    def _show_probing(self, message: Probing) -> None:
        self._probing = message.words
        self.post_message(StepChanged())


def enter_told(terms: Terms) -> str:
    """Say what enter does."""
    if terms.queue:
        return "Press enter to queue it: it begins when its turn comes."
    if terms.waits:
        return "Press enter: it begins when its memory is free."
    return "Press enter to start."


def prediction_text(plan: Plan, width: int, beside: Sequence[str] = ()) -> Content:
    """Return what the run is expected to take, and who else is on what it takes."""
    prediction = plan.prediction
    if prediction is None:
        return Content.styled("This plan has no prediction.", "$muted")
    low, high = prediction.total_seconds_range
    rows = [
        ("time", duration(prediction.total_seconds), f"{duration(low)} to {duration(high)}"),
        ("start", duration(prediction.seconds_to_first_step), "to the first step"),
        ("steps", f"{plan.total_steps:,}", _batch(plan)),
        ("speed", f"{count(prediction.tokens_per_second)} tokens/s", f"{count(prediction.tokens)} in all"),
        ("trained", count(prediction.trainable_parameters), f"{_part(prediction.trainable_parameters, prediction.total_parameters)} of {count(prediction.total_parameters)}"),
        ("disk", gib(prediction.disk_gib), "at the end"),
    ]  # fmt: skip
    if prediction.cost is not None:
        rows.append(("cost", f"{prediction.cost:.2f}", "at your hourly rate"))
    lines = [
        Content.assemble((f"{name:<9}", "$muted"), (f"{value:<15}", "bold"), (aside, "$muted"))
        for name, value, aside in rows
    ]
    lines.append(hanging(Content.styled(f"{'layout':<9}", "$muted"), Content(" · ".join(layout(plan))), width))
    mark = Content.styled("! ", "$warning")
    lines += [hanging(mark, Content.styled(one_line(note, 300), "$muted"), width) for note in (*beside, *plan.notes)]
    return Content("\n").join(lines)


def layout(plan: Plan) -> list[str]:
    """Return how the plan lays the work out, in a few words each; the reasons are beside it."""
    words = [plan.backend, plan.precision, plan.batching, f"{plan.attention} attention"]
    words += ["compiled"] if plan.compiled else []
    words += ["Liger"] if plan.liger else []
    if plan.gradient_checkpointing != "off":
        words.append("recomputing" if plan.gradient_checkpointing == "on" else "recomputing, offloaded")
    if plan.optimizer_placement == "paged":
        words.append("paged optimizer")
    if plan.gpus > 1:
        words.append(f"GPUs {', '.join(map(str, plan.gpu_indices))} by {plan.parallelism.upper()}")
    return words


def _batch(plan: Plan) -> str:
    rows = f"{plan.micro_batch} × {plan.accumulation} rows each"
    return f"{rows}, on each of {plan.gpus} GPUs" if plan.gpus > 1 else rows


def _part(part: float, whole: float) -> str:
    return share(part / whole, 2 if part < whole else 0) if whole else "—"


def free_gib(plan: Plan, machine: Machine) -> float:
    """Return the memory that the run may take: of the freest GPU, or of the machine."""
    if plan.device == "cuda" and machine.gpus:
        return max(gpu.memory_free_gib for gpu in machine.gpus)
    return machine.memory_free_gib


def memory_text(plan: Plan, machine: Machine, width: int) -> Content:
    """Return the predicted peak against what is free, and its terms, the largest first."""
    prediction = plan.prediction
    if prediction is None:
        return Content("")
    free = free_gib(plan, machine)
    fits = prediction.peak_gib <= free
    verdict = ("✓ fits", "$success") if fits else ("✗ does not fit", "$error")
    said = Content.assemble((f"  {gib(prediction.peak_gib)}", "bold"), (f" of {gib(free)} free  ", "$muted"), verdict)
    beside = width - LABEL - said.cell_length
    peak = bar(prediction.peak_gib / free if free else 1, beside if beside > 20 else max(6, width - LABEL))
    lines = [Content.styled(f"{'peak':<{LABEL}}", "$muted") + peak]
    if beside > 20:
        lines[0] += said
    else:
        lines.append(said.pad_left(max(0, width - said.cell_length)))
    terms = sorted(prediction.memory_terms.items(), key=lambda term: -term[1])
    # What is too small to be seen beside the peak stands in one line.
    small = [(name, value) for name, value in terms if value < prediction.peak_gib * SMALL_SHARE]
    shown = [term for term in terms if term not in small]
    if small:
        shown.append((f"{len(small)} smaller", sum(value for _, value in small)))
    most = max((value for _, value in shown), default=1.0) or 1.0
    for name, value in shown:
        lines.append(
            Content.styled(f"{one_line(name, LABEL - 1):<{LABEL}}", "$muted")
            + row_bar(value / most, max(6, width - LABEL - 11))
            + f"{gib(value):>11}"
        )
    others = [
        (name, value)
        for name, value in (
            ("reserved", prediction.reserved_gib if plan.device == "cuda" else 0.0),
            ("evaluating", prediction.evaluation_gib),
            ("saving", prediction.saving_gib),
            ("host", prediction.host_gib),
        )
        if value
    ]
    if others:
        words = Content.styled(" · ".join(f"{name} {gib(value)}" for name, value in others), "$muted")
        lines.append(hanging(Content(""), words, width))
    return Content("\n").join(lines)


def reasons_text(plan: Plan, width: int) -> Content:
    """Return every choice with its reason, and the plans that lost."""
    text = Content("")
    label = min(25, max((len(reason.choice) for reason in plan.reasons), default=0) + 2)
    for reason in plan.reasons:
        head = Content.assemble((f"{one_line(reason.choice, label - 2):<{label}}", "$muted"))
        said = Content.assemble((one_line(reason.value, 60), "bold"), (f"  {one_line(reason.because, 400)}", "$muted"))
        text += hanging(head, said, width) + "\n"
    if plan.alternatives:
        text += Content.styled("\nPlans that lost\n", "bold $accent")
        widest = max(len(one_line(lost.summary, 90)) for lost in plan.alternatives)
        beside = widest + LOST_FIGURES + LOST_WORDS <= width
        for lost in plan.alternatives:
            summary = one_line(lost.summary, 90)
            figures = f"{gib(lost.peak_gib):>9} {duration(lost.total_seconds):>7}  "
            if not beside:
                text += summary + "\n"
            head = Content(f"{summary:<{widest}} {figures}" if beside else figures)
            text += hanging(head, Content.styled(one_line(lost.lost_because, 200), "$muted"), width) + "\n"
    return text
