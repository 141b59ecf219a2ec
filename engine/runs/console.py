"""The console: what a run's processes print, in whole lines, with secrets left out and of a bounded size.

`python -m tunewright.engine.runs.console CONSOLE_LOG` takes down there what comes in through its standard input.

It is a process of its own between those who print and the file, so that nothing they print reaches the disk first. It goes
on when the supervisor is killed, is deaf to the signals that end the others, and ends when nobody is left who could print.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

from ..redaction import redact

LARGEST_BYTES = 16 * 2**20
"""A file that grows beyond this is cut down to its head and its tail."""
HEAD_BYTES, TAIL_BYTES = 1 * 2**20, 4 * 2**20
READ_BYTES = 64 * 1024
HELD_BYTES = 64 * 1024
"""So much of a line that has no end is waited for, or of a key of several lines, and for so long."""
HELD_SECONDS = 1.0
DRAIN_SECONDS = 5.0
"""How long the last lines may take to reach the file; a process that the trainer left behind may print on."""
LEFT_OUT = "… {:,} bytes were left out here …"
_LEFT_OUT = re.compile(rb"\A[^\n]{0,9}? ([\d,]{1,25}) bytes were left out here[^\n]{0,9}\n")
_KEY_BEGINS, _KEY_ENDS = re.compile(rb"-----BEGIN [A-Z ]{0,40}PRIVATE KEY"), b"-----END"


class Console:
    """The supervisor's end: a pipe to print into, and the process that reads from it, which is replaced when it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading, self.printing = os.pipe()
        """The file descriptor that those who print are given."""
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tunewright.engine.runs.console", str(self._path)]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=self._reading, stdout=nowhere, stderr=nowhere, start_new_session=True)

    def given(self) -> None:
        """The pipe is in the hands of those who print: it ends with them."""
        os.close(self.printing)

    def look_after(self) -> None:
        """Start the process anew where it was killed; what is printed meanwhile waits in the pipe."""
        if self._process.poll():
            self._process = self._start()

    def drain(self) -> None:
        """Wait until all that was printed is in the file."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DRAIN_SECONDS)
        os.close(self._reading)


def print_without_fail() -> None:
    """Have what this process prints be lost, rather than end it, where nobody takes it down any more."""
    sys.stdout, sys.stderr = _Forgiving.on(1), _Forgiving.on(2)


class _Forgiving(io.FileIO):
    """A file that takes whatever is written, and loses what it cannot write."""

    @classmethod
    def on(cls, descriptor: int) -> io.TextIOWrapper:
        raw = cls(descriptor, "wb", closefd=False)
        return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)  # pyright: ignore[reportArgumentType]

    def write(self, data: object, /) -> int:
        left = memoryview(data)  # pyright: ignore[reportArgumentType]
        size = left.nbytes
        with contextlib.suppress(OSError):
            while left.nbytes:
                left = left[super().write(left) or 0 :]
        return size


class Log:
    """The file: lines are appended, and its middle is left out where it grows too long."""

    def __init__(self, path: Path) -> None:
        flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags | os.O_RDWR | os.O_APPEND, 0o644)
        self._cutting = os.open(path, flags | os.O_RDWR)
        self._lost = 0
        """Bytes that a full disk did not take."""

    def append(self, text: bytes) -> None:
        """Write `text`, redacted; what the disk does not take is lost, and that is said once it takes something again."""
        found = redact(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        if self._lost:
            found = f"… {self._lost:,} bytes could not be written …\n".encode() + found
        try:
            while found:
                found = found[os.write(self._descriptor, found) :]
            self._lost = 0
            if os.fstat(self._descriptor).st_size > LARGEST_BYTES:
                self._cut()
        except OSError:
            self._lost += len(found)

    def _cut(self) -> None:
        """Keep the head and the tail. The tail is written before the file is shortened: a kill can only leave it twice."""
        size = os.fstat(self._cutting).st_size
        head = os.pread(self._cutting, HEAD_BYTES, 0)
        begin = head.rfind(b"\n") + 1 or HEAD_BYTES
        tail = os.pread(self._cutting, TAIL_BYTES, size - TAIL_BYTES)
        tail = tail[tail.find(b"\n") + 1 :]
        before = _LEFT_OUT.match(os.pread(self._cutting, 80, begin))
        left_out = size - begin - len(tail)
        if before:
            left_out += int(before[1].replace(b",", b"")) - before.end()
        content = LEFT_OUT.format(left_out).encode() + b"\n" + tail
        os.pwrite(self._cutting, content, begin)
        os.ftruncate(self._cutting, begin + len(content))


def ready(text: bytes) -> int:
    """Return how much of `text` can be judged: whole lines, and no key that goes on."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    keys = list(_KEY_BEGINS.finditer(text))
    if keys and _KEY_ENDS not in text[keys[-1].end() :]:
        end = min(end, keys[-1].start())
    return end


def take_down(source: int, path: Path) -> None:
    """Append what comes in through the file descriptor `source` to the file at `path`, until there is nobody to print."""
    try:
        log = Log(path)
    except OSError:  # those who print are not to wait for somebody who listens
        log = Log(Path(os.devnull))
    held = b""
    while True:
        if held and not select.select([source], [], [], HELD_SECONDS)[0]:
            log.append(held)  # somebody waits in the middle of a line
            held = b""
        block = os.read(source, READ_BYTES)
        held += block
        end = len(held) if not block or len(held) > HELD_BYTES + READ_BYTES else ready(held)
        if end:
            log.append(held[:end])
            held = held[end:]
        if not block:
            return


def main(arguments: list[str]) -> int:
    """Take down standard input in the file that is the first argument."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    take_down(0, Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
