"""The file that keeps what was measured on this machine: one JSON object, of which damaged parts count as missing."""

from __future__ import annotations

import json
import math
import os
from typing import Any, cast

from ..foundation.errors import TunewrightError
from ..foundation.files import read_text, write_atomically
from ..foundation.home import calibration_path

FORM = 1
"""The version of the file's form; another one is measured anew."""


def stored() -> dict[str, Any]:
    """Return the file's object; an unreadable one counts as empty, for it can be measured again."""
    path = calibration_path()
    if not os.path.exists(path):
        return {}
    try:
        value = json.loads(read_text(path))
    except (TunewrightError, ValueError, RecursionError):
        return {}
    found = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return found if found.get("form") == FORM else {}


def store(name: str, value: object) -> None:
    """Put `value` into the file under `name`; what else it holds stays. Raises TunewrightError."""
    write_atomically(calibration_path(), json.dumps(stored() | {"form": FORM, name: value}, indent=1) + "\n")


def entries(name: str) -> list[dict[str, Any]]:
    """Return the objects of one of the file's lists; what is no object is left out."""
    listed = stored().get(name)
    found = cast("list[Any]", listed) if isinstance(listed, list) else []
    return [cast("dict[str, Any]", each) for each in found if isinstance(each, dict)]


def positive(value: Any) -> float:
    """Return `value`, a positive number; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError("not a positive number")
    return value


def word(value: Any) -> str:
    """Return `value`, a text; raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value
