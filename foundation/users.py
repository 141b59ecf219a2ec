"""The names of a machine's users."""

from __future__ import annotations

import pwd

from .text import one_line


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is no name, as in many containers."""
    try:
        return one_line(pwd.getpwuid(uid).pw_name, 40)
    except KeyError:
        return str(uid)
