"""Fetching from the Hub: what it takes, how far it is, and what stands in the way, in one dialog."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual import on
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Button, Static

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...foundation.units import size
from ..background import background, deliver, superseded
from ..figures import duration, plural
from ..wrapping import hanging
from .bar import bar
from .dialog import Dialog

if TYPE_CHECKING:
    from ...engine.hub.fetching import FetchPlan, FetchProgress
    from ...engine.hub.needs import Need

State = Literal["asking", "planned", "fetching", "failed"]
WIDTH = 68
"""Cells of the text where the dialog has its full width."""


@dataclass
class Planned(Message):
    """What fetching takes."""

    plans: tuple[FetchPlan, ...]


@dataclass
class Progressed(Message):
    """How far the transfer of one of the plans is."""

    plan: FetchPlan
    progress: FetchProgress

    def can_replace(self, message: Message) -> bool:
        """The newest progress is enough, where several wait."""
        return isinstance(message, Progressed)


@dataclass
class Ended(Message):
    """Everything is here, or why not."""

    problem: TunewrightError | None


class FetchDialog(Dialog[bool | None]):
    """Asks the Hub what fetching takes, fetches when that is agreed to, and can be stopped; True when all is here."""

    def __init__(self, needs: Sequence[Need]) -> None:
        super().__init__("Fetch from the Hub", Content.styled("Asking the Hub…", "$muted"))
        self.needs = tuple(needs)
        self.plans: tuple[FetchPlan, ...] = ()
        self.state: State = "asking"
        self._stopped = threading.Event()

    def compose_buttons(self) -> Iterator[Widget]:
        yield Button("Fetch (y)", id="accept")
        yield Button("Without weights", id="description")
        yield Button("Cancel (esc)", id="close")

    def on_mount(self) -> None:
        self._show("asking", self.text)
        self._ask()

    def on_unmount(self) -> None:
        self._stopped.set()

    def _show(self, state: State, text: Content) -> None:
        """Show `text`, and the buttons of `state`."""
        changed = state != self.state or state == "asking"
        self.state, self.text = state, text
        self.query_one(".dialog-text Static", Static).update(text)
        if not changed:
            return
        accept, description = self.query_one("#accept", Button), self.query_one("#description", Button)
        accept.display = state in ("planned", "failed")
        accept.label = "Try again (y)" if state == "failed" else "Fetch (y)"
        description.display = state == "planned" and any(map(_can_do_without, self.plans))
        close = self.query_one("#close", Button)
        close.label = {"fetching": "Stop (esc)", "failed": "Close (esc)"}.get(state, "Cancel (esc)")
        self.query_one(".dialog").set_class(state == "failed", "-error")
        (accept if accept.display else close).focus()

    # What it takes.

    @background("fetching")
    def _ask(self) -> None:
        from ...engine.hub.fetching import plan_fetch

        try:
            plans = [plan_fetch(each.name, each.kind, each.revision, each.split, superseded) for each in self.needs]
            deliver(self, Planned(tuple(plans)))
        except TunewrightError as error:
            deliver(self, Ended(error))

    @on(Planned)
    def _know(self, message: Planned) -> None:
        self.plans = message.plans
        self._show("planned", plans_text(message.plans))

    # The transfer.

    def action_accept(self) -> None:
        if self.state == "planned":
            self._begin(self.plans)
        elif self.state == "failed":
            self._show("asking", Content.styled("Asking the Hub…", "$muted"))
            self._ask()

    @on(Button.Pressed, "#accept")
    def _accept(self) -> None:
        self.action_accept()

    @on(Button.Pressed, "#description")
    def _accept_description(self) -> None:
        if self.state == "planned":
            whole = [plan.kind == "dataset" or plan.is_adapter for plan in self.plans]
            self._begin(
                tuple(plan if is_whole else plan.description for plan, is_whole in zip(self.plans, whole, strict=True))
            )

    def _begin(self, plans: tuple[FetchPlan, ...]) -> None:
        self._show("fetching", Content.styled("Beginning…", "$muted"))
        self._fetch(plans)

    @background("fetching")
    def _fetch(self, plans: tuple[FetchPlan, ...]) -> None:
        from ...engine.hub.fetching import fetch

        try:
            for plan in plans:
                folder = fetch(
                    plan,
                    lambda progress, plan=plan: deliver(self, Progressed(plan, progress)),
                    lambda: self._stopped.is_set() or superseded(),
                )
                if folder is None:
                    return
            deliver(self, Ended(None))
        except TunewrightError as error:
            deliver(self, Ended(error))

    @on(Progressed)
    def _goes_on(self, message: Progressed) -> None:
        if self.state == "fetching":
            self._show("fetching", progress_text(message.plan, message.progress))

    @on(Ended)
    def _ended(self, message: Ended) -> None:
        if message.problem is None:
            self.dismiss(True)
        else:
            self._show("failed", problem_text(message.problem))

    def action_close(self) -> None:
        """Stop what goes on; what has arrived stays for the next time."""
        if self.state == "fetching":
            self.app.notify("Stopped. What has arrived stays; fetching it again goes on.")
        self._stopped.set()
        self.dismiss(None)


def plans_text(plans: Sequence[FetchPlan]) -> Content:
    """Return what fetching takes."""
    blocks: list[Content] = []
    for plan in plans:
        here = f" · {size(plan.here_bytes)} is here already" if plan.here_bytes else ""
        blocks.append(
            Content.assemble(
                (one_line(str(plan.name), WIDTH), "bold"),
                (f"\n{plan.host} · commit {plan.commit[:12]}", "$muted"),
                f"\n{plural(len(plan.files), 'file')} · {size(plan.total_bytes)}{here}",
            )
        )
    free, missing = plans[0].free_bytes, sum(plan.missing_bytes for plan in plans)
    fits = ("✓ ", "$success") if missing <= free else ("✗ ", "$error")
    folder = one_line(str(plans[0].repository.folder.parent), 200)
    room = Content.assemble(f"{size(missing)} to fetch, {size(free)} free", (f"\nin {folder}", "$muted"))
    blocks.append(hanging(Content.assemble(fits), room, WIDTH))
    if any(map(_can_do_without, plans)):
        said = "Without its weights a model can be planned for; they are asked for before the run."
        blocks.append(Content.styled(said, "$muted"))
    return Content("\n\n").join(blocks)


def _can_do_without(plan: FetchPlan) -> bool:
    """Tell whether it is of use to fetch a model without its weights."""
    return plan.kind == "model" and plan.missing_bytes > 0 and not plan.is_adapter and not plan.description.is_whole


def progress_text(plan: FetchPlan, progress: FetchProgress) -> Content:
    """Return how far a transfer is: a bar, the figures, and what is waited for."""
    share = progress.done_bytes / progress.total_bytes if progress.total_bytes else 1.0
    left = f"{duration(progress.seconds_left)} left" if progress.seconds_left is not None else "waiting"
    figures = (
        f"{size(progress.done_bytes)} of {size(progress.total_bytes)} · {size(progress.bytes_per_second)}/s · {left}"
    )
    return Content.assemble(
        (one_line(str(plan.name), WIDTH), "bold"), "\n",
        bar(share, WIDTH - 6), f"{100 * share:4.0f} %\n", figures, "\n",
        (f"{progress.done_files:,} of {plural(progress.files, 'file')}", "$muted"), "\n",
        (one_line(progress.note, WIDTH), "$warning"),
    )  # fmt: skip


def problem_text(problem: TunewrightError) -> Content:
    """Return what stands in the way, and what to do about it."""
    return Content.assemble(
        (one_line(problem.title, WIDTH), "bold $error"), "\n", clean(problem.message, 2000), "\n\n",
        ("What to do  ", "bold"), clean(problem.remedy, 2000).strip(),
    )  # fmt: skip
