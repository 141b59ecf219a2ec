"""The unit of the user's systemd that brings interrupted runs back at boot: shown, written, removed; only ever our own file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.files import read_text, write_atomically
from ...foundation.home import home
from ...foundation.text import one_line

UNIT = "tunewright-resume.service"
OWN_UNITS = "TUNEWRIGHT_OWN_UNITS"
"""Set for the unit's command: what it starts asks for units of its own."""
MARK = "# Written by `tunewright runs --install-unit`; `tunewright runs --remove-unit` takes it away."
PASSED_ON = ("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
             "TUNEWRIGHT_QUEUE")  # fmt: skip
"""What of this environment runs need that a user's manager does not have of itself."""
MANAGER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit as it stands, or as it would."""

    path: Path
    text: str
    installed: bool
    """Whether the file is there, and ours."""
    enabled: bool
    """Whether the user's manager starts it at boot."""
    notes: tuple[str, ...] = ()
    """What is still to be done by hand, or what was found."""


def unit_path() -> Path:
    """Return where the user's own units are kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").absolute() / "systemd" / "user" / UNIT


def unit_text() -> str:
    """Return the whole unit file, for this installation, data folder and environment.

    The command ends as soon as the runs go on by themselves. Each of them asks for a unit of its own, which systemd
    asks to save and stop before the next restart; those that cannot have one stay when the command ends.
    """
    settings = [
        (OWN_UNITS, "1"),
        ("TUNEWRIGHT_HOME", str(home())),
        *((name, os.environ[name]) for name in PASSED_ON if os.environ.get(name)),
    ]
    environment = "\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in settings)
    return f"""{MARK}
[Unit]
Description=Tunewright: go on with the runs that a restart has interrupted

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
{environment}
ExecStart={_quoted(sys.executable)} -m tunewright runs --resume-interrupted
SuccessExitStatus=2

[Install]
WantedBy=default.target
"""


def _quoted(text: str) -> str:
    """Return `text` as one word of a unit file; raises TunewrightError for line ends, which no word can hold."""
    if any(character < " " for character in text):
        raise TunewrightError(
            "Not for a unit file", f"{one_line(text, 120)!r} holds a control character.", "Change it."
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def inspect_unit() -> Unit:
    """Return the unit as it stands."""
    path = unit_path()
    installed = _is_ours(path)
    notes = [] if installed or not os.path.lexists(path) else [f"{path} is not Tunewright's; it is left alone."]
    enabled = installed and _manager("is-enabled", UNIT) == "enabled"
    return Unit(path, unit_text(), installed, enabled, (*notes, *_linger_notes()))


def install_unit() -> Unit:
    """Write the unit, have systemd verify it, and enable it; raises TunewrightError.

    A file of that name that is not ours stays as it is.
    """
    path, text = unit_path(), unit_text()
    _require_ours(path)
    if fault := _verify(text):
        raise TunewrightError("systemd refuses the unit", fault, "Nothing was written.")
    write_atomically(path, text)
    notes: list[str] = []
    if _manager("daemon-reload") is None or _manager("enable", UNIT) is None:
        notes.append(f"No manager of this user answers now: `systemctl --user enable {UNIT}` once it does.")
    enabled = _manager("is-enabled", UNIT) == "enabled"
    return Unit(path, text, True, enabled, (*notes, *_linger_notes()))


def remove_unit() -> Unit:
    """Disable the unit and remove its file; raises TunewrightError for one that is not ours."""
    path = unit_path()
    _require_ours(path)
    existed = path.exists()
    if existed:
        _manager("disable", UNIT)
        try:
            path.unlink(missing_ok=True)
            # Without a manager that disables it, the link that has it started at boot is ours to remove.
            with contextlib.suppress(FileNotFoundError):
                (path.parent / "default.target.wants" / UNIT).unlink()
        except OSError as error:
            raise explain_os_error(error, path, "Removing") from error
        _manager("daemon-reload")
    return Unit(path, unit_text(), False, False, () if existed else ("There was none.",))


def _is_ours(path: Path) -> bool:
    """Tell whether the file at `path` begins with our mark; a link is never ours."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        return read_text(path, limit_bytes=64 * 1024).startswith(MARK)
    except TunewrightError:
        return False


def _require_ours(path: Path) -> None:
    if os.path.lexists(path) and not _is_ours(path):
        raise TunewrightError(
            "Another's unit is there",
            f"{path} was not written by Tunewright, and stays as it is.",
            "Move it away, or bring runs back yourself: `tunewright runs --resume-interrupted`.",
        )


def _verify(text: str) -> str:
    """Return what systemd finds wrong with the unit; nothing where it finds nothing, or is not there."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        return ""
    with tempfile.TemporaryDirectory(prefix="tunewright-unit-") as folder:
        file = Path(folder) / UNIT
        file.write_text(text, encoding="utf-8")
        try:
            answer = subprocess.run(
                [tool, "--user", "verify", str(file)], env={**os.environ, "XDG_RUNTIME_DIR": folder},
                capture_output=True, text=True, timeout=MANAGER_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
    # It also tells about units of others that it reads on the way.
    ours = [one_line(line, 300) for line in (answer.stdout + answer.stderr).splitlines() if UNIT in line]
    return "; ".join(ours)


def _manager(*arguments: str) -> str | None:
    """Return what `systemctl --user` answers, None where it fails or there is no manager to ask."""
    tool = shutil.which("systemctl")
    if tool is None:
        return None
    try:
        answer = subprocess.run(
            [tool, "--user", "--no-ask-password", *arguments],
            capture_output=True, text=True, timeout=MANAGER_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _linger_notes() -> tuple[str, ...]:
    """Say what keeps the user's manager from starting at boot."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    if Path("/var/lib/systemd/linger", user).exists():
        return ()
    return ("`loginctl enable-linger` has your manager start at boot; without it, the unit waits for your next login.",)
