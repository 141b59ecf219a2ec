"""The application: four modes, one table of keys, and one place where errors end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import App, SystemCommand
from textual.screen import Screen

from ..foundation.errors import TunewrightError
from .background import background, deliver, describe_unexpected
from .keys import MODES, ModeName, bindings, keys_of
from .messages import AlertsGiven, Failed, RecipeChosen, RunChanged, RunCloned, RunLaunched, Unsaved
from .theme import DARK, LIGHT, THEMES

if TYPE_CHECKING:
    from textual.types import CSSPathType

    from ..engine.runs.directory import RunDirectory
    from .screens.frame import FramedScreen

LOOKED_FOR_TERMINAL_SECONDS = 1.0

LISTEN_SECONDS = 2.0
"""How often runs are listened to for alerts."""


def _tune() -> FramedScreen:
    from .screens.tune import TuneScreen

    return TuneScreen()


def _runs() -> FramedScreen:
    from .screens.runs import RunsScreen

    return RunsScreen()


def _recipes() -> FramedScreen:
    from .screens.recipes import RecipesScreen

    return RecipesScreen()


def _workbench() -> FramedScreen:
    from .screens.workbench import WorkbenchScreen

    return WorkbenchScreen()


class TunewrightApp(App[None]):
    """Tunewright's interface: a reader of machines, recipes and run directories that owns no run."""

    TITLE = "tunewright"
    # All at once: a style sheet that a screen brought with it would have everything that is shown styled anew.
    CSS_PATH: ClassVar[CSSPathType | None] = ["app.tcss", *sorted(Path(__file__).parent.glob("screens/*.tcss"))]
    # Screens are imported when they are first shown, so that the first one is there at once.
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "tune": _tune,
        "runs": _runs,
        "recipes": _recipes,
        "workbench": _workbench,
    }
    DEFAULT_MODE = "tune"
    BINDINGS = bindings("Everywhere")  # pyright: ignore[reportAssignmentType]

    def __init__(self, run: RunDirectory | None = None, chat: bool = False, mode: ModeName = "tune") -> None:
        """Open on a mode, or on the monitor of `run`, with its chat when `chat` is true; no other screen is made."""
        self.DEFAULT_MODE = mode if run is None else "runs"  # pyright: ignore[reportConstantRedefinition, reportAttributeAccessIssue]
        super().__init__()
        self._run = run
        self._chat = chat
        self._leaving = threading.Event()
        self._unsaved: dict[object, str] = {}
        """Editors whose changes are not kept yet, with what they change."""
        self.animation_level = "none"
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = DARK.name
        self._styled_in = self.theme
        self.stylesheet.set_variables(self.get_css_variables())

    async def on_mount(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        if self._run is None:
            return
        from .screens.monitor import MonitorScreen

        self.push_screen(MonitorScreen(self._run))
        if self._chat:
            from .screens.chat import ChatScreen

            self.push_screen(ChatScreen(self._run))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the modes, the keys of the present screen and those of everywhere, for the command palette."""
        from .screens.frame import FramedScreen

        for mode in MODES:
            yield SystemCommand(f"{mode.title} ({mode.key})", mode.description, self._mode_switch(mode.name))
        parts = screen.parts if isinstance(screen, FramedScreen) else ()
        own = [key for where, _ in parts for key in keys_of(where)]
        for key in (*own, *keys_of("Everywhere")):
            if key.action.startswith("app.mode") or key.action == "app.command_palette" or key.key == "ctrl+q":
                continue
            yield SystemCommand(f"{key.label} ({key.name})", key.description, self._press(key.action, screen))

    def _mode_switch(self, name: str) -> Callable[[], None]:
        return lambda: self.action_mode(name)

    def _press(self, action: str, screen: Screen[object]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            from .screens.frame import FramedScreen

            if isinstance(screen, FramedScreen):
                await screen.perform(action)
            else:
                await self.run_action(action, default_namespace=screen)

        return run

    def action_mode(self, name: str) -> None:
        """Show a mode, as it was left; dialogs are closed first."""
        from textual.screen import ModalScreen

        while isinstance(self.screen, ModalScreen):
            self.pop_screen()
        self.switch_mode(name)

    def action_help(self) -> None:
        from .screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_toggle_theme(self) -> None:
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def refresh_css(self, animate: bool = True) -> None:
        """Style every screen anew when the theme has changed; Textual asks for it whenever a mode is shown first, too."""
        if self._styled_in == self.theme:
            return
        self._styled_in = self.theme
        super().refresh_css(animate)
        for mode in self.MODES.keys() - {self.current_mode}:
            with contextlib.suppress(KeyError):  # of a mode that has not been shown
                for screen in self.get_screen_stack(mode):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
                    self.stylesheet.update(screen)  # pyright: ignore[reportUnknownArgumentType]

    def on_unmount(self) -> None:
        self._leaving.set()

    def _listen(self) -> None:
        """Hear what runs alert about, whichever screen is shown; in a thread of its own."""
        if self._leaving.wait(LISTEN_SECONDS):  # until then, the first screen has the processor to itself
            return
        from .listening import Listener

        listener = Listener()
        while not self._leaving.wait(LISTEN_SECONDS):
            if words := listener.hear():
                self.post_message(AlertsGiven(words))

    @on(AlertsGiven)
    def _ring(self, message: AlertsGiven) -> None:
        if self._driver is not None:  # whose writes never come in between the parts of a frame
            self._driver.write(message.words)

    @background("alerts")
    def action_toggle_alerts(self) -> None:
        from ..engine.alerts import change_alerts, read_alerts
        from ..foundation.terminal import NAMED, detect

        if read_alerts().is_on:
            change_alerts({"terminal": "off"})
            deliver(self, RunChanged("Alerts of this terminal are off."))
            return
        change_alerts({"terminal": "auto"})
        terminal = detect()
        deliver(self, RunChanged(f"Alerts of this terminal are on: {NAMED[terminal.way]}. {terminal.advice}".strip()))

    @on(RunChanged)
    def _tell_change(self, message: RunChanged) -> None:
        self.notify(message.said, markup=False)

    @background("alerts")
    def action_alerts(self) -> None:
        from ..engine.alerts import read_alerts, redacted
        from ..foundation.terminal import detect
        from .widgets.alerts_dialog import AlertsDialog

        settings = read_alerts()
        dialog = AlertsDialog(settings, redacted(settings.webhook), detect())
        self.call_from_thread(self.push_screen, dialog, self._change_alerts)

    def _change_alerts(self, changes: dict[str, object] | None) -> None:
        if changes:
            self._keep_alerts(changes)

    @background("alerts")
    def _keep_alerts(self, changes: dict[str, object]) -> None:
        from ..engine.alerts import change_alerts

        change_alerts(changes)
        deliver(self, RunChanged("Kept. A run that is going on heeds it from its next alert on."))

    @on(Unsaved)
    def _remember_unsaved(self, message: Unsaved) -> None:
        self._unsaved.pop(message.editor, None)
        if message.name:
            self._unsaved[message.editor] = message.name

    async def action_quit(self) -> None:
        """Leave, and say which runs go on without this window; ask first where changes would be lost."""
        if not self._unsaved:
            await self._quit()
            return
        from .widgets.confirm_dialog import ConfirmDialog

        async def answered(agreed: bool | None) -> None:
            if agreed:
                await self._quit()

        text = f"The changes of {', '.join(self._unsaved.values())} are not saved."
        self.push_screen(ConfirmDialog("Leave all the same?", text, "Leave"), answered)

    async def _quit(self) -> None:
        going_on = await asyncio.to_thread(_live_run_names)
        said = None
        if going_on:
            what = "1 run goes on" if len(going_on) == 1 else f"{len(going_on)} runs go on"
            said = f"{what} without this window. Follow with: tunewright attach {going_on[0]}"
        self.exit(return_code=0, message=said)

    @on(Failed)
    def _tell(self, message: Failed) -> None:
        from .widgets.error_dialog import ErrorDialog

        self.push_screen(ErrorDialog(message.error))

    def _fatal_error(self) -> None:
        """End after an exception that nobody expected: the traceback goes to the log, three lines to the user."""
        error = describe_unexpected(self._exception or RuntimeError("no exception"))
        self.panic(Text(f"{error.title}\n  {error.message}\n  {error.remedy} Runs that are going on go on."))

    @on(RunLaunched)
    def _follow_launched(self, message: RunLaunched) -> None:
        from .screens.monitor import MonitorScreen

        self.switch_mode("runs")
        self.push_screen(MonitorScreen(message.run))

    @on(RunCloned)
    async def _tune_like(self, message: RunCloned) -> None:
        from .screens.tune import TuneScreen

        await self.switch_mode("tune")
        if isinstance(self.screen, TuneScreen):
            self.screen.start_like(message.run, message.recipe)

    @on(RecipeChosen)
    async def _tune_from(self, message: RecipeChosen) -> None:
        from .screens.tune import TuneScreen

        await self.switch_mode("tune")
        if isinstance(self.screen, TuneScreen):
            self.screen.start_from(message.entry)


def _live_run_names() -> list[str]:
    """Return the runs that a process of this machine is working on."""
    from ..engine.runs.directory import is_live, list_runs

    return [run.id for run in list_runs() if not run.result_file.exists() and is_live(run)]


def open_app(run: RunDirectory | None = None, chat: bool = False, mode: ModeName = "tune") -> int:
    """Open the interface, on `run` if one is given, and return its exit status; raises TunewrightError without a terminal."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise TunewrightError(
            "Not a terminal",
            "The interface needs a terminal for its input and output.",
            "Use the commands: tunewright --help",
        )
    threading.Thread(target=_end_with_terminal, args=(sys.stdin.fileno(),), daemon=True, name="terminal").start()
    app = TunewrightApp(run, chat, mode)
    app.run()
    return app.return_code or 0


def _end_with_terminal(descriptor: int) -> None:
    """End this process once its terminal is gone: whoever had SIGHUP ignored would read its end for ever, at full speed.

    It waits for nothing: what was to be painted last can be painted nowhere.
    """
    while os.isatty(descriptor):
        time.sleep(LOOKED_FOR_TERMINAL_SECONDS)
    os._exit(128 + signal.SIGHUP)
