"""The wizard: machine, goal, data, method, recipe, launch. Enter goes on, escape goes back, every step keeps its state."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.dom import DOMNode
from textual.widgets import Input, OptionList, Static

from ..background import background
from ..draft import Draft
from ..keys import Where, bindings
from ..widgets.key_bar import KeyBar
from ..widgets.step_rail import StepRail
from .data_step import DataStep
from .frame import FramedScreen
from .goal_step import GoalStep
from .launch_step import LaunchStep
from .machine_step import MachineFound, MachineStep
from .method_step import MethodStep
from .recipe_step import RecipeStep
from .step import Step, StepChanged

if TYPE_CHECKING:
    from ...engine.runs.directory import RunDirectory
    from ...recipes.model import Recipe
    from ...recipes.registry import Entry

AHEAD = (
    ".monitor", ".runs", ".recipes", ".workbench", "..proposal", "..data_report", "..worksheet", "...engine.planner",
    "...engine.runs.launch", "...engine.data.child",
)  # fmt: skip
STEPS: tuple[type[Step], ...] = (MachineStep, GoalStep, DataStep, MethodStep, RecipeStep, LaunchStep)
RECIPE_STEP = STEPS.index(RecipeStep)


class TuneScreen(FramedScreen):
    """Shows one step at a time beside the rail of all."""

    BINDINGS = bindings("Tune")  # pyright: ignore[reportAssignmentType]
    where = "Tune"
    mode = "tune"
    title_path = ("Tune",)

    def __init__(self) -> None:
        super().__init__()
        self.draft = Draft()
        self.present = 0
        self.furthest = 0
        self.steps = self._new_steps()

    def _new_steps(self) -> list[Step]:
        return [step(self.draft) for step in STEPS]

    def compose_body(self) -> ComposeResult:
        with Container(id="wizard"):
            yield StepRail([step.name_in_rail for step in STEPS])
            with Vertical(id="body"):
                # The first paint has the first step only; the others are mounted once it is on the screen.
                yield self.steps[0]
                yield Static(id="obstacle", markup=False)

    def on_mount(self) -> None:
        self.call_after_refresh(self._mount_rest)

    async def _mount_rest(self) -> None:
        for step in self.steps[1:]:
            step.display = False
        await self.query_one("#body").mount_all(self.steps[1:], before="#obstacle")
        self.go_to(self.present)
        self._load_ahead()

    @property
    def parts(self) -> tuple[tuple[Where, DOMNode], ...]:
        step = self.steps[self.present]
        return ((self.where, self), (step.where, step)) if step.where else ((self.where, self),)

    @background("ahead")
    def _load_ahead(self) -> None:
        """Import what the other modes and later steps need while one reads, so that they open at once."""
        for name in AHEAD:
            importlib.import_module(name, __package__)

    @on(MachineFound)
    def _machine_known(self, message: MachineFound) -> None:
        self.show_title(aside=Content.styled(message.machine.short_name, "$muted"))
        self._show_rail()

    def go_to(self, index: int) -> None:
        """Show the step at `index`; the one before it in time puts its choices away."""
        self.steps[self.present].leave()
        self.present, self.furthest = index, max(index, self.furthest)
        for number, step in enumerate(self.steps):
            step.display = number == index
        self.steps[index].enter()
        self._say("")
        self.query_one(KeyBar).show_inner(self.steps[index].where)
        self.show_title("Tune", self.steps[index].name_in_rail)
        self._show_rail()

    def _show_rail(self) -> None:
        answers = [step.answer() if index <= self.furthest else "" for index, step in enumerate(self.steps)]
        self.query_one(StepRail).show(self.present, self.furthest, answers)

    def _say(self, obstacle: str) -> None:
        """Say why one cannot go on, or else what the step invites to."""
        invitation = self.steps[self.present].invitation()
        said = Content.assemble(("→ ", "$accent"), (invitation, "bold")) if invitation else Content("")
        if obstacle:
            said = Content.assemble(("! ", "$warning"), obstacle)
        self.query_one("#obstacle", Static).update(said)

    @on(StepChanged)
    def _step_changed(self) -> None:
        self._say("")
        self._show_rail()

    def action_forward(self) -> None:
        step = self.steps[self.present]
        if (obstacle := step.obstacle()) is not None:
            self._say(obstacle)
        elif step.forward() and self.present < len(self.steps) - 1:
            self.go_to(self.present + 1)

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _forward_from_widget(self) -> None:
        self.action_forward()

    def action_back(self) -> None:
        if self.steps[self.present].back():
            return
        if isinstance(self.focused, Input):
            # Leave the field first, so that the number keys work again.
            self.steps[self.present].enter()
        elif self.present > 0:
            self.go_to(self.present - 1)

    def action_go_to(self, index: int) -> None:
        if index <= self.furthest:
            self.go_to(index)

    def action_change(self) -> None:
        """Do nothing: only the goal has answers to change, and handles these keys itself."""

    def action_probe(self) -> None:
        """Probe the plan, where there is one to be seen."""
        step = self.steps[self.present]
        if isinstance(step, LaunchStep):
            step.probe()

    def action_choose_terms(self) -> None:
        """Say when the run begins, where it is about to."""
        step = self.steps[self.present]
        if isinstance(step, LaunchStep):
            step.choose_terms()

    def action_edit_recipe(self) -> None:
        """Change any value of the recipe, where it is shown."""
        step = self.steps[self.present]
        if isinstance(step, RecipeStep):
            step.edit()

    def action_fetch(self) -> None:
        """Fetch from the Hub what is not here, where a step knows what that is."""
        step = self.steps[self.present]
        if isinstance(step, (DataStep, LaunchStep)):
            step.fetch()

    async def action_restart(self) -> None:
        """Forget everything and begin at the first step."""
        await self.query("Step").remove()
        self.draft, self.present, self.furthest = Draft(), 0, 0
        self.steps = self._new_steps()
        await self.query_one("#body").mount(self.steps[0], before="#obstacle")
        await self._mount_rest()

    def start_from(self, entry: Entry) -> None:
        """Begin with a recipe of the registry, at the step where it can be read and changed."""
        self.draft.entry = entry
        self.draft.method = entry.recipe.method.kind
        self.draft.model, self.draft.source = entry.recipe.base.model, entry.recipe.data.source
        self.draft.recipe, self.draft.plan, self.draft.report = None, None, None
        self.draft.data_changes, self.draft.parent = {}, None
        self.go_to(RECIPE_STEP)

    def start_like(self, run: RunDirectory, recipe: Recipe) -> None:
        """Begin with the recipe of a run, at the step where it can be changed; what is changed is shown there."""
        from ..proposal import entry_of

        self.start_from(entry_of(run, recipe))
        self.draft.parent = run
