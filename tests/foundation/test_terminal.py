"""Notifications: what each terminal is sent, nothing in it that it could obey, and through a real tmux."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tunewright.foundation.terminal import Terminal, Way, detect, notification

HOSTILE = "\x1b]52;c;ZXZpbA==\x07a;b\x1b\\\x9c\n" + "x" * 900


@pytest.mark.parametrize(
    ("environ", "name", "way"),
    [
        ({"TERM": "xterm-kitty"}, "xterm-kitty", "osc99"),  # as it comes through SSH
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "3"}, "kitty", "osc99"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iTerm.app", "osc9"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iTerm2", "osc9"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "WezTerm", "osc9"),
        ({"TERM": "xterm-ghostty"}, "xterm-ghostty", "osc9"),
        ({"TERM": "foot"}, "foot", "osc777"),
        ({"TERM": "rxvt-unicode-256color"}, "rxvt-unicode-256color", "osc777"),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, "VTE", "osc777"),
        ({"TERM": "alacritty"}, "alacritty", "bell"),
        ({"TERM": "xterm-256color"}, "xterm-256color", "bell"),
        ({"TERM": "screen", "STY": "1.pts", "TERM_PROGRAM": "WezTerm"}, "WezTerm", "bell"),
        ({}, "unknown", "bell"),
    ],
)
def test_a_terminal_is_known_by_what_comes_through_ssh(environ: dict[str, str], name: str, way: str) -> None:
    found = detect(environ)
    assert (found.name, found.way) == (name, way)


def test_each_way_is_sent_as_its_terminals_define_it() -> None:
    said = {way: notification(way, "Done; really", "Step 3", "run/x;y") for way in ("bell", "osc9", "osc777", "osc99")}
    assert said == {
        "bell": "\a",
        "osc9": "\x1b]9;Done; really: Step 3\a",
        "osc777": "\x1b]777;notify;Done, really;Step 3\a",
        "osc99": "\x1b]99;i=run-x-y:d=0;Done; really\x1b\\\x1b]99;i=run-x-y:d=1:p=body;Step 3\x1b\\",
    }
    assert notification("osc9", "A", "B", "k", "tmux") == "\x1bPtmux;\x1b\x1b]9;A: B\a\x1b\\\a"


@pytest.mark.parametrize("way", ["osc9", "osc777", "osc99"])
def test_hostile_words_end_no_sequence_and_begin_none(way: Way) -> None:
    said = notification(way, HOSTILE, HOSTILE, HOSTILE)
    ours = notification(way, "t", "b", "k")
    for control in ("\x1b", "\a", "\x9c", "\n"):
        assert said.count(control) == ours.count(control)
    assert len(said) < 1000
    wrapped = notification(way, HOSTILE, HOSTILE, HOSTILE, "tmux")
    inner = wrapped.removeprefix("\x1bPtmux;").removesuffix("\x1b\\\a")
    assert "\x1b" not in inner.replace("\x1b\x1b", "")


SAY = """
import sys
from tunewright.foundation.terminal import detect, notification
found = detect()
sys.stdout.write(notification(found.way, "A run", "has finished", "k", found.multiplexer))
sys.stdout.flush()
print(found.name, found.way, found.multiplexer, found.passes, bool(found.advice), file=open(sys.argv[1], "w"))
"""


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
@pytest.mark.parametrize("allowed", ["on", "off"])
def test_a_real_tmux_hands_the_notification_to_the_terminal_around_it(tmp_path: Path, allowed: str) -> None:
    """tmux runs in a pty that stands for kitty behind SSH: what it writes there is what that terminal gets."""
    told = tmp_path / "told"
    (tmp_path / "say.py").write_text(SAY)
    (tmp_path / "tmux.conf").write_text(f"set -g allow-passthrough {allowed}\n")
    environ = {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE")}
    environ |= {
        "TERM": "xterm-kitty",
        "TERMINFO_DIRS": "/usr/share/terminfo:/lib/terminfo",
        "TMUX_TMPDIR": str(tmp_path),
    }
    if subprocess.run(["infocmp", "xterm-kitty"], env=environ, capture_output=True, check=False).returncode:
        make_terminfo(tmp_path, environ)
    tmux = ["tmux", "-L", "alerts", "-f", str(tmp_path / "tmux.conf")]
    master, slave = pty.openpty()
    inside = (
        f"until tmux list-clients | grep -q .; do sleep 0.02; done; {sys.executable} {tmp_path / 'say.py'} {told}; cat"
    )
    client = subprocess.Popen(
        [*tmux, "new-session", "-x", "80", "-y", "24", inside], stdin=slave, stdout=slave, stderr=slave, env=environ,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.set_blocking(master, False)
    try:
        got, deadline = b"", time.monotonic() + 30
        while time.monotonic() < deadline and not (told.exists() and told.read_text().endswith("\n") and b"\a" in got):
            try:
                got += os.read(master, 65536)
            except BlockingIOError:
                time.sleep(0.02)
        assert told.read_text().split()[0] == "xterm-kitty", got
        assert told.read_text().split()[1:] == ["osc99", "tmux", str(allowed == "on"), str(allowed == "off")]
        assert b"\a" in got  # the bell goes through either way
        assert (b"\x1b]99;i=k:d=0;A run\x1b\\" in got) == (allowed == "on")
    finally:
        subprocess.run([*tmux, "kill-server"], env=environ, capture_output=True, check=False)
        client.wait(timeout=20)
        os.close(master)


def make_terminfo(folder: Path, environ: dict[str, str]) -> None:
    """Let this machine know kitty's name, as a host does that one reaches from it."""
    source = subprocess.run(
        ["infocmp", "-1", "xterm-256color"], capture_output=True, text=True, check=True
    ).stdout.replace("xterm-256color|", "xterm-kitty|", 1)
    (folder / "kitty.ti").write_text(source)
    subprocess.run(["tic", "-x", "-o", str(folder / "terminfo"), str(folder / "kitty.ti")], check=True)
    environ["TERMINFO"] = str(folder / "terminfo")


def test_what_is_in_the_way_is_said() -> None:
    assert "allow-passthrough" in Terminal("kitty", "osc99", "tmux", passes=False).advice
    assert not Terminal("alacritty", "bell", "tmux", passes=False).advice
