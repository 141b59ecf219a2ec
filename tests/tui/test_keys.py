"""The one table of keys."""

from __future__ import annotations

from collections import Counter

from tunewright.tui.app import TunewrightApp
from tunewright.tui.keys import KEYS, MODES, bindings, key_table
from tunewright.tui.screens.chat import ChatScreen
from tunewright.tui.screens.data_step import DataStep
from tunewright.tui.screens.editor import EditorScreen
from tunewright.tui.screens.frame import FramedScreen
from tunewright.tui.screens.monitor import MonitorScreen
from tunewright.tui.screens.recipes import RecipesScreen
from tunewright.tui.screens.runs import RunsScreen
from tunewright.tui.screens.tune import TuneScreen
from tunewright.tui.screens.workbench import WorkbenchScreen
from tunewright.tui.widgets.dialog import Dialog

SCREENS: tuple[type[FramedScreen], ...] = (
    TuneScreen, RunsScreen, MonitorScreen, ChatScreen, RecipesScreen, EditorScreen, WorkbenchScreen,
)  # fmt: skip


def test_no_key_means_two_things_in_one_place() -> None:
    for where in {key.where for key in KEYS}:
        pressed = Counter(part for key in KEYS if key.where in (where, "Everywhere") for part in key.key.split(","))
        assert [key for key, times in pressed.items() if times > 1] == []


def test_every_key_has_its_action() -> None:
    owners: dict[str, type] = {screen.where: screen for screen in SCREENS} | {"Data": DataStep}
    for key in KEYS:
        name = key.action.partition("(")[0]
        if name.startswith("app."):
            owner: type = TunewrightApp
        elif key.where == "Dialogs":
            owner = Dialog
        else:
            owner = owners[key.where]
        assert hasattr(owner, f"action_{name.removeprefix('app.')}"), key


def test_bindings_and_docs_come_from_the_table() -> None:
    assert len(key_table()) == len(KEYS)
    assert all(all(column for column in row) for row in key_table())
    assert [binding.action for binding in bindings("Everywhere")][:4] == [f"app.mode('{mode.name}')" for mode in MODES]
