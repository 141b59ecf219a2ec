"""Notifications of a terminal: which escape sequence it knows, and how that gets through tmux.

Everything here only reads the environment and returns text; who writes it to which terminal is decided elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .text import one_line

Way = Literal["bell", "osc9", "osc777", "osc99"]
"""The bell, or a notification as iTerm2 (OSC 9), rxvt (OSC 777) or kitty (OSC 99) defined it."""
WAYS: tuple[Way, ...] = ("bell", "osc9", "osc777", "osc99")
NAMED: dict[Way, str] = {"bell": "the bell", "osc9": "OSC 9", "osc777": "OSC 777", "osc99": "OSC 99"}
KNOWN: tuple[tuple[str, Way], ...] = (
    ("kitty", "osc99"),
    ("ghostty", "osc9"),
    ("iterm", "osc9"),
    ("wezterm", "osc9"),
    ("foot", "osc777"),
    ("rxvt", "osc777"),
    ("contour", "osc777"),
    ("vte", "osc777"),
)
"""What terminals call themselves, and the notification that they show. All others get the bell."""
TMUX_SECONDS = 2.0
LONGEST_TITLE, LONGEST_BODY = 120, 400
ESC, BEL, ST = "\x1b", "\x07", "\x1b\\"


@dataclass(frozen=True, slots=True)
class Terminal:
    """What is known of the terminal that this process was started from."""

    name: str
    """What it calls itself."""
    way: Way
    multiplexer: str = ""
    """`tmux` or `screen` where one stands between, or else nothing."""
    passes: bool = True
    """Whether the multiplexer lets notifications through."""

    @property
    def advice(self) -> str:
        """What to change so that notifications get through; nothing where that is not needed."""
        if self.passes or self.way == "bell":
            return ""
        return "tmux holds notifications back: `tmux set -g allow-passthrough on` lets them through."


def detect(environ: Mapping[str, str] | None = None) -> Terminal:
    """Return the terminal that the environment tells of; inside tmux, tmux is asked for the one around it."""
    environ = os.environ if environ is None else environ
    if environ.get("TMUX"):
        name = " ".join(_ask_tmux(environ, "display-message", "-p", "#{client_termname} #{client_termtype}").split())
        passes = _ask_tmux(environ, "show-options", "-Apv", "allow-passthrough").strip() in ("on", "all")
        return Terminal(one_line(name, 60) or "unknown", _way_of(name), "tmux", passes)
    name = _name(environ)
    if environ.get("STY"):  # its way through is cut off after a few hundred bytes
        return Terminal(name, "bell", "screen")
    return Terminal(name, _way_of(name))


def _name(environ: Mapping[str, str]) -> str:
    """Return what the terminal is called; of these names only TERM and LC_TERMINAL come through SSH."""
    if environ.get("KITTY_WINDOW_ID"):
        return "kitty"
    for variable in ("TERM_PROGRAM", "LC_TERMINAL"):
        if environ.get(variable):
            return one_line(environ[variable], 60)
    term = one_line(environ.get("TERM", ""), 60)
    if environ.get("VTE_VERSION") and not _is_known(term):
        return "VTE"
    return term or "unknown"


def _is_known(name: str) -> bool:
    return any(part in name.lower() for part, _ in KNOWN)


def _way_of(name: str) -> Way:
    for part, way in KNOWN:
        if part in name.lower():
            return way
    return "bell"


def _ask_tmux(environ: Mapping[str, str], *question: str) -> str:
    tmux = shutil.which("tmux", path=environ.get("PATH"))
    if tmux is None:
        return ""
    pane = ["-t", environ["TMUX_PANE"]] if environ.get("TMUX_PANE") else []
    command = [tmux, question[0], *pane, *question[1:]]
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TMUX_SECONDS,
            env=dict(environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def notification(way: Way, title: str, body: str, name: str, multiplexer: str = "") -> str:
    """Return what a terminal has to be sent so that it shows `title` and `body`, cleaned of all that it could obey.

    `name` tells notifications apart where a terminal can replace one. In tmux the sequence is handed through, and the
    bell beside it marks the window.
    """
    title, body = one_line(title, LONGEST_TITLE), one_line(body, LONGEST_BODY)
    if way == "bell":
        return BEL
    if way == "osc9":
        said = f"{ESC}]9;{title}: {body}{BEL}" if body else f"{ESC}]9;{title}{BEL}"
    elif way == "osc777":
        said = f"{ESC}]777;notify;{title.replace(';', ',')};{body}{BEL}"
    else:
        known = "".join(each if each.isascii() and (each.isalnum() or each in "-_.") else "-" for each in name)[:100]
        said = f"{ESC}]99;i={known}:d=0;{title}{ST}{ESC}]99;i={known}:d=1:p=body;{body}{ST}"
    if multiplexer == "tmux":
        return f"{ESC}Ptmux;{said.replace(ESC, ESC + ESC)}{ST}{BEL}"
    return said
