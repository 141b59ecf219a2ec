"""Alerts as their user wants them: which way the terminal tells, about what, and an own command or webhook.

They are kept in `settings.toml` in the user's data folder and nowhere else: no recipe can name a command.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

import tomlkit
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from tomlkit.exceptions import TOMLKitError

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text, write_atomically
from ..foundation.home import settings_path
from ..foundation.terminal import Terminal, Way, detect, notification
from ..foundation.text import clean, one_line
from .runs.events import ABOUT, About, Alert

TerminalWay = Literal["auto", "off", Way]
TABLE = "alerts"


def _as_tuple(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


class AlertSettings(BaseModel):
    """The table `[alerts]` of the settings."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    terminal: TerminalWay = "auto"
    """How a terminal that follows a run tells: `auto` takes what it knows, `off` is silent."""
    about: Annotated[tuple[About, ...], BeforeValidator(_as_tuple)] = ABOUT
    """What is told."""
    command: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(max_length=64)] = ()
    """A program with its arguments, run without a shell; `{title}`, `{message}`, `{run}` and `{about}` stand for the facts."""
    webhook: str = Field(default="", max_length=4000)
    """An address that gets a small JSON by HTTPS; plain HTTP on this machine alone."""

    @field_validator("command")
    @classmethod
    def _can_be_run(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in each for each in value) or (value and not value[0].strip()):
            raise ValueError("a command is a program and its arguments")
        return value

    @field_validator("webhook")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        if value:
            require_safe_address(value)
        return value

    @property
    def is_on(self) -> bool:
        """Whether the terminal tells anything."""
        return self.terminal != "off"


def require_safe_address(address: str) -> None:
    """Refuse a webhook that others could read on its way, or that is none; raises ValueError."""
    if clean(address) != address or " " in address:
        raise ValueError("an address has no spaces and no control characters")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("that is no address") from None
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("an address begins with https://")
    if parts.username or parts.password:
        raise ValueError("name and password cannot stand in the address; a token in its path or query can")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise ValueError("plain http is only for this machine; others need https")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def redacted(address: str) -> str:
    """Return what may be shown of a webhook: whose it is, and nothing of its path or query, which hold its secret."""
    if not address:
        return ""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{port}/…"


def read_alerts(path: Path | None = None) -> AlertSettings:
    """Return the user's settings, the defaults where there are none; raises TunewrightError for those that cannot be used.

    A command or webhook counts only in a file that nobody else can write.
    """
    path = path or settings_path()
    if not path.exists():
        return AlertSettings()
    try:
        table: Any = tomllib.loads(read_text(path)).get(TABLE, {})
        settings = AlertSettings.model_validate(table)
    except ValidationError as error:
        told = "; ".join(
            _told(each["loc"], each["msg"]) for each in error.errors(include_url=False, include_input=False)
        )
        raise _not_valid(path, told) from None
    except ValueError as error:
        raise _not_valid(path, one_line(str(error), 200)) from None
    if settings.command or settings.webhook:
        _require_own(path)
    return settings


def change_alerts(changes: Mapping[str, object], path: Path | None = None) -> AlertSettings:
    """Return the settings with `changes` made, written for this user's eyes alone; raises TunewrightError.

    The rest of the file stays as it is, comments and all.
    """
    path = path or settings_path()
    before = read_alerts(path)
    try:
        after = AlertSettings.model_validate(before.model_dump() | dict(changes))
    except ValidationError as error:
        told = "; ".join(
            _told(each["loc"], each["msg"]) for each in error.errors(include_url=False, include_input=False)
        )
        raise TunewrightError(
            "Not a valid setting", f"{told}.", "`tunewright alerts --help` shows what there is."
        ) from None
    try:
        document = tomlkit.parse(read_text(path) if path.exists() else "")
        table: Any = document.setdefault(TABLE, tomlkit.table())
        for name in changes:
            value: Any = getattr(after, name)
            table[name] = list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
        text = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise _not_valid(path, one_line(str(error), 200)) from None
    write_atomically(path, text, mode=0o600)
    return after


def terminal_words(settings: AlertSettings, alert: Alert, terminal: Terminal | None = None) -> str:
    """Return what to write to the terminal that follows a run for `alert`; nothing where its user wants none."""
    if not settings.is_on or alert.about not in settings.about:
        return ""
    terminal = terminal or detect()
    way = terminal.way if settings.terminal == "auto" else cast("Way", settings.terminal)
    return notification(way, f"Tunewright: {alert.title}", alert.message, alert.key, terminal.multiplexer)


def _told(location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(one_line(str(part), 40) for part in location)
    return f"{TABLE}.{name}: {one_line(message, 200).removeprefix('Value error, ')}"


def _not_valid(path: Path, told: str) -> TunewrightError:
    return TunewrightError("Settings not valid", f"{path}: {told}", "Mend that line, or remove the file.")


def _require_own(path: Path) -> None:
    """Refuse to take a command from a file that another user could have written; raises TunewrightError."""
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0) or stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise TunewrightError(
            "Settings not safe",
            f"{path} names a command or a webhook, and others than its owner can write it.",
            f"`chmod 600 {path}`, after a look at what it says.",
        )
