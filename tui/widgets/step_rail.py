"""Where one is in the wizard: a line on small terminals, a column with the answers so far on wide ones."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import RenderResult
from textual.content import Content
from textual.events import Click
from textual.widget import Widget


class StepRail(Widget):
    """Shows the steps; those behind have a check mark, the present one is highlighted."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.present = 0
        self.furthest = 0
        self.answers: tuple[str, ...] = ("",) * len(self.names)
        self._lines: list[int] = []
        """The step that stands in each line of the column."""

    def show(self, present: int, furthest: int, answers: Sequence[str]) -> None:
        """Show `present` as the step one is at, and what was chosen in each."""
        self.present, self.furthest, self.answers = present, furthest, tuple(answers)
        self.refresh()

    def render(self) -> RenderResult:
        marks = [self._mark(index) for index in range(len(self.names))]
        if self.size.height <= 2:
            between = Content.styled(" ─ ", "$rule")
            return Content(" ") + between.join(marks)
        lines: list[Content] = []
        self._lines = []
        for index, (mark, answer) in enumerate(zip(marks, self.answers, strict=True)):
            lines.append(mark)
            words = Content.styled(answer, "$muted").wrap(max(8, self.size.width - 6))[:3] if answer else []
            lines += [Content("  ") + line.rstrip() for line in words]
            lines.append(Content(""))
            self._lines += [index] * (len(lines) - len(self._lines))
        return Content("\n").join(lines)

    def _mark(self, index: int) -> Content:
        name = self.names[index]
        if index == self.present:
            mark = Content.styled(f"● {name}", "bold $accent")
        elif index <= self.furthest:
            mark = Content.assemble(("✓ ", "$success"), name)
        else:
            return Content.styled(f"○ {name}", "$muted")
        return mark

    async def on_click(self, event: Click) -> None:
        """Go to the step that was clicked, when it was reached before."""
        if self.size.height <= 2:
            ends = [sum(len(name) + 5 for name in self.names[: index + 1]) for index in range(len(self.names))]
            clicked = next((index for index, end in enumerate(ends) if event.x < end), None)
        else:
            clicked = self._lines[event.y] if event.y < len(self._lines) else None
        if clicked is not None and clicked <= self.furthest:
            await self.screen.run_action(f"go_to({clicked})")
