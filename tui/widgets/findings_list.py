"""What the audit found, one line each; the highlighted finding is unfolded, and its examples lead to their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ...foundation.text import one_line
from ..figures import plural
from ..wrapping import hanging

if TYPE_CHECKING:
    from ...engine.data.findings import Finding, Severity, Shown

MARKS: dict[Severity, tuple[str, str]] = {
    "error": ("✗", "$error"),
    "warning": ("!", "$warning"),
    "hint": ("·", "$muted"),
}
PLACE_CELLS = 14


class FindingsList(OptionList):
    """A list of findings that may grow while it is read."""

    @dataclass
    class Jumped(Message):
        """An example was chosen; None where its row cannot be shown."""

        shown: Shown | None

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, classes="pane", markup=False)
        self.border_title = Content("Findings")
        self.findings: tuple[Finding, ...] = ()
        self._nothing = Content("")
        self._unfolded = ""
        """The code of the finding that is unfolded."""
        self._shown_state: object = None

    @property
    def chosen(self) -> Finding | None:
        """The finding that is unfolded."""
        return next((each for each in self.findings if each.code == self._unfolded), None)

    def show(self, findings: Sequence[Finding], said: Content) -> None:
        """Show `findings`, or `said` where there are none."""
        self.findings, self._nothing = tuple(findings), said
        if self.findings and self.chosen is None:
            self._unfolded = self.findings[0].code
        hint = " · enter shows the row" if self.findings else ""
        self.border_title = Content(f"Findings{summary(self.findings).plain}{hint}")
        self._paint()

    def on_resize(self) -> None:
        self._paint()

    def _paint(self) -> None:
        width = self.size.width - 4
        state = width, self.findings, self._unfolded, self._nothing.plain
        if width < 20 or state == self._shown_state:
            return
        before = self.get_option_at_index(self.highlighted).id if self.highlighted is not None else self._unfolded
        options = list(self._written(width))
        self._shown_state = state
        self.set_options(options)
        ids = [option.id for option in options]
        wanted = before if before in ids else self._unfolded
        self.highlighted = ids.index(wanted) if wanted in ids else None

    def _written(self, width: int) -> Iterator[Option]:
        if not self.findings:
            yield Option(self._nothing, disabled=True)
        for finding in self.findings:
            unfolded = finding.code == self._unfolded
            yield Option(finding_text(finding, width, unfolded), id=finding.code)
            if unfolded:
                for number, example in enumerate(finding.examples):
                    yield Option(_example(example, width), id=f"{finding.code}/{number}")

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        code = (event.option.id or "").partition("/")[0]
        if code and code != self._unfolded:
            self._unfolded = code
            self._paint()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        finding, number = self.chosen, (event.option.id or "").partition("/")[2]
        if finding is None:
            return
        if number:
            self.post_message(self.Jumped(finding.examples[int(number)]))
        else:
            self.post_message(self.Jumped(next((each for each in finding.examples if each.index is not None), None)))


def summary(findings: Sequence[Finding]) -> Content:
    """Return how many findings there are of each severity, each with its mark."""
    said = Content("")
    for severity, (mark, colour) in MARKS.items():
        number = sum(finding.severity == severity for finding in findings)
        if number:
            said += Content.styled(f" {mark}{number}", colour)
    return said


def finding_text(finding: Finding, width: int, unfolded: bool) -> Content:
    """Return a finding in one line with its first example, or with its detail and remedy below."""
    mark, colour = MARKS[finding.severity]
    head = Content.assemble(
        (f"{mark} ", colour), (finding.kind.title, "bold"), (f"  {plural(finding.count, 'row')}", "$muted")
    )
    if not unfolded:
        if finding.examples:
            first = finding.examples[0]
            head += Content.styled(f"  {one_line(f'{first.place}: {first.detail}', 200)}", "$muted")
        return head.truncate(width, ellipsis=True)
    if finding.detail:
        head += "\n" + hanging(Content("  "), Content(one_line(finding.detail, 400)), width)
    remedy = Content.styled(finding.kind.remedy, "$muted")
    if finding.kind.fix:
        remedy += Content.assemble(("  x", "$accent"), (f" {FIXES.get(finding.kind.fix, finding.kind.fix)}", "$muted"))
    return head + "\n" + hanging(Content.styled("  → ", "$accent"), remedy, width)


FIXES = {
    "drop rows": "writes a file without them",
    "drop duplicates": "writes a file without the repeats",
    "mend encoding": "writes a file with the text mended",
    "merge turns": "writes a file with neighbours merged",
    "redact": "writes a file with them redacted",
    "normalise": "writes a file without them in the text",
    "cut after last answer": "writes a file that ends with the answers",
}


def _example(example: Shown, width: int) -> Content:
    place = Content.styled(
        f"    {one_line(example.place, 40):<{PLACE_CELLS}}", "$accent" if example.index is not None else "$muted"
    )
    return (place + " " + Content(one_line(example.detail, 300))).truncate(width, ellipsis=True)
