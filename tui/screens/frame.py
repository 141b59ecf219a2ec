"""The frame that all screens share: a title line, the body, the key bar, and one line for terminals too small."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import App, ComposeResult, RenderResult, ScreenStackError
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from ..keys import Where
from ..widgets.key_bar import KeyBar

LEAST_COLUMNS, LEAST_ROWS = 72, 20
COLUMNS = [(0, "-thin"), (LEAST_COLUMNS, "-narrow"), (110, "-wide"), (170, "-vast")]
ROWS = [(0, "-flat"), (LEAST_ROWS, "-short"), (34, "-tall"), (54, "-lofty")]


class TooSmall(Widget):
    """Says which size is needed; shown instead of everything else while the terminal is too small."""

    if TYPE_CHECKING:

        @property
        def app(self) -> App[None]: ...

    def render(self) -> RenderResult:
        width, height = self.app.size
        said = f"This terminal is {width}×{height}; Tunewright needs {LEAST_COLUMNS}×{LEAST_ROWS}."
        return Content(said if len(said) <= width else f"needs {LEAST_COLUMNS}×{LEAST_ROWS}")


class TitleBar(Widget):
    """Where one is, at the left; what matters right now, at the right."""

    def __init__(self, *path: str) -> None:
        super().__init__()
        self.path = path
        self.aside = Content("")

    def show(self, *path: str, aside: Content | None = None) -> None:
        """Show another path or another aside; repaints only when something changed."""
        aside = self.aside if aside is None else aside
        if (path or self.path) != self.path or not aside.is_same(self.aside):
            self.path, self.aside = path or self.path, aside
            self.refresh()

    def render(self) -> RenderResult:
        width = self.size.width
        title = Content.styled(" tunewright", "bold $accent")
        for name in self.path:
            title += Content.assemble((" › ", "$muted"), name)
        room = width - self.aside.cell_length - 1
        if room < 24:
            return title.truncate(width, ellipsis=True)
        title = title.truncate(room - 2, ellipsis=True)
        return title.pad_right(room - title.cell_length) + self.aside


class FramedScreen(Screen[None]):
    """A screen with the title line above and the key bar below."""

    where: ClassVar[Where]
    mode: ClassVar[str]
    title_path: ClassVar[tuple[str, ...]]
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = COLUMNS
    VERTICAL_BREAKPOINTS = ROWS

    if TYPE_CHECKING:

        @property
        def app(self) -> App[None]: ...

    def compose(self) -> ComposeResult:
        yield TitleBar(*self.title_path)
        yield from self.compose_body()
        yield KeyBar(self.where, self.mode)
        yield TooSmall()

    @property
    def is_seen(self) -> bool:
        """Whether something of this screen is on the terminal: dialogs above it let it through, another screen does not.

        Textual's `is_current` also holds for what another screen covers wholly, and painting that paints the terminal anew.
        """
        try:
            stack = self.app.screen_stack
        except ScreenStackError:
            return False
        return self in stack and all(isinstance(above, ModalScreen) for above in stack[stack.index(self) + 1 :])

    def compose_body(self) -> ComposeResult:
        """Yield what stands between the title line and the key bar."""
        yield Static()

    @property
    def parts(self) -> tuple[tuple[Where, DOMNode], ...]:
        """Where keys work here, the screen itself first, and the nodes whose actions they are."""
        return ((self.where, self),)

    @on(KeyBar.Pressed)
    async def _press(self, message: KeyBar.Pressed) -> None:
        await self.perform(message.action)

    async def perform(self, action: str) -> None:
        """Do what a key does, whichever part of the screen it belongs to."""
        name = action.partition("(")[0]
        owner = next((node for _, node in reversed(self.parts) if hasattr(node, f"action_{name}")), self)
        await self.app.run_action(action, owner)

    def show_title(self, *path: str, aside: Content | None = None) -> None:
        """Show where one is and, at the right, what matters now."""
        self.query_one(TitleBar).show(*path, aside=aside)
