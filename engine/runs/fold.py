"""The kept fold: what the events of a run add up to, kept beside them, so that a run of a million steps opens at once.

The events stay the truth. The file says which bytes of them it covers; where it does not fit them, is torn, or is of
another version, it is made anew. The supervisor keeps it while a run goes on, and so does whoever reads a run of his own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.files import open_regular, write_atomically
from .directory import RunDirectory
from .events import MIB, parse, read_lines
from .history import History

VERSION = 1
BLOCK_BYTES = 1 * MIB
LEAST_KEPT_BYTES, KEPT_SHARE = 1 * MIB, 0.01
"""A fold is kept anew once it covers this much more than the one that is kept, or this share of it."""
LARGEST_BYTES = 32 * MIB
NEWEST_BYTES = 256 * 1024
"""What is read of a run's events where there is no time to read them all."""
TAIL_BYTES = 4096
LEFT_OVER_SECONDS = 60.0


class Fold:
    """A run's history up to a byte of its events; `advance` goes on from there."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.history = History()
        self.offset = 0
        """How many bytes of the events are folded in."""
        self._sum = 0
        """CRC-32 of these."""
        self._kept = 0
        """How many of them the kept fold covers."""
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
        ):
            self._open_kept()

    @property
    def behind(self) -> int:
        """How many bytes of events are not folded in yet; a torn line at the end counts."""
        try:
            return max(0, os.stat(self.run.events_file).st_size - self.offset)
        except OSError:
            return 0

    def advance(self, limit_bytes: int = BLOCK_BYTES) -> bool:
        """Fold in the next lines, and tell whether there were any."""
        block, onward = read_lines(self.run.events_file, self.offset, limit_bytes)
        if onward == self.offset:
            return False
        if onward - self.offset == len(block):
            self._sum = zlib.crc32(block, self._sum)
        else:  # a line that is too long was passed over
            self._kept = -1
        self.offset = onward
        self.history.add(parse(block, all_samples=False))
        return True

    def skip_to_newest(self) -> None:
        """Pass over what there is no time for, up to the newest events; such a fold is not kept."""
        if self.behind > NEWEST_BYTES:
            self.offset += self.behind - NEWEST_BYTES
            self._kept = -1

    def keep(self) -> None:
        """Write the fold beside the events, where it is worth it and the run is this user's; a failure changes nothing."""
        if self._kept < 0 or self.offset - self._kept < max(LEAST_KEPT_BYTES, KEPT_SHARE * self._kept):
            return
        with contextlib.suppress(OSError, TunewrightError):
            if os.stat(self.run.path).st_uid != os.geteuid():
                return
            with open_regular(self.run.events_file) as events:
                inode = os.fstat(events.fileno()).st_ino
                tail = _tail_sum(events, self.offset)
            body = json.dumps(self.history.to_json(), ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "replace"
            )
            covers = {"version": VERSION, "offset": self.offset, "inode": inode, "sum": self._sum, "tail": tail}
            head = json.dumps(covers | {"sha256": hashlib.sha256(body).hexdigest()}).encode()
            for left_over in self.run.path.glob(f".{self.run.fold_file.name}.*.tmp"):  # of a writer that was killed
                if time.time() - left_over.stat().st_mtime > LEFT_OVER_SECONDS:
                    left_over.unlink()
            write_atomically(self.run.fold_file, head + b"\n" + body)
            self._kept = self.offset

    def _open_kept(self) -> None:
        """Begin with the kept fold, if there is one that fits the events."""
        with open_regular(self.run.fold_file) as file:
            head, _, body = file.read(LARGEST_BYTES).partition(b"\n")
        covers: dict[str, Any] = json.loads(head)
        if covers["version"] != VERSION or hashlib.sha256(body).hexdigest() != covers["sha256"]:
            return
        if not _covers(self.run.events_file, covers):
            return
        self.history = History.from_json(json.loads(body))
        self.offset = self._kept = int(covers["offset"])
        self._sum = int(covers["sum"])


def _covers(path: Path, covers: dict[str, Any]) -> bool:
    """Tell whether the events at `path` still begin with what was folded: a copy is read through, the same file is not."""
    offset = int(covers["offset"])
    with open_regular(path) as events:
        status = os.fstat(events.fileno())
        if not 0 < offset <= status.st_size or _tail_sum(events, offset) != covers["tail"]:
            return False
        if status.st_ino == covers["inode"]:
            return True
        events.seek(0)
        found, left = 0, offset
        while left and (block := events.read(min(left, BLOCK_BYTES))):
            found, left = zlib.crc32(block, found), left - len(block)
        return found == covers["sum"]


def _tail_sum(events: Any, offset: int) -> int:
    """Return the CRC-32 of the last bytes before `offset`."""
    begin = max(0, offset - TAIL_BYTES)
    events.seek(begin)
    return zlib.crc32(events.read(offset - begin))


def read_history(run: RunDirectory) -> History:
    """Return the fold of all events that `run` has written so far."""
    fold = Fold(run)
    while fold.advance():
        pass
    fold.keep()
    return fold.history


def glance(run: RunDirectory) -> History:
    """Return the history of `run` as far as it is known at once: all of it, or the kept fold and the newest events.

    Of a long run that was never folded, the newest events alone.
    """
    fold = Fold(run)
    fold.skip_to_newest()
    while fold.advance():
        pass
    return fold.history
