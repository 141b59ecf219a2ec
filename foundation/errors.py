"""The one error that users see."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

EXIT_CODE = 2
"""What every command returns after a TunewrightError."""


class TunewrightError(Exception):
    """An expected failure, told in three parts: what it is, what happened, what to do."""

    def __init__(self, title: str, message: str, remedy: str) -> None:
        super().__init__(title, message, remedy)
        self.title = title
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.title}: {self.message} {self.remedy}"

    def to_json(self) -> dict[str, str]:
        """Return the three parts as a JSON object."""
        return {"title": self.title, "message": self.message, "remedy": self.remedy}


def explain_os_error(error: OSError, path: Path, doing: str) -> TunewrightError:
    """Turn an operating-system error met while `doing` something to `path` into one that says what to do."""
    match error.errno:
        case errno.ENOENT:
            return TunewrightError("File not found", f"{path} does not exist.", "Check the path for a typing error.")
        case errno.EISDIR:
            return TunewrightError("A folder, not a file", f"{path} is a folder.", "Give the path of a file in it.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return TunewrightError(
                "No permission",
                f"{doing} {path} is not allowed for this user.",
                f"Change its permissions (`ls -ld {path}` shows them) or choose another place.",
            )
        case errno.ENOSPC | errno.EDQUOT:
            return TunewrightError(
                "The disk is full",
                f"{doing} {path} needs more space than is left on its disk. What was there before is unharmed.",
                "Free some space (`tunewright runs` lists what each run takes), or set TUNEWRIGHT_HOME to another disk.",
            )
        case _:
            reason = error.strerror or str(error)
            return TunewrightError("The file system refused", f"{doing} {path}: {reason}.", "Check the disk and retry.")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`, or None when nothing is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def by_likeness(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words, those first that are most like `word`."""
    return sorted(known, key=lambda each: -difflib.SequenceMatcher(None, word, each).ratio())
