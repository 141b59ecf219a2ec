"""A command in a terminal of its own, as somebody at a keyboard has it, with the time that passes until a text is drawn."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import threading
import time

import psutil

SIZE = (40, 120)
"""Lines and columns."""
LONGEST_SECONDS = 120.0
REST_SECONDS = 0.3
REST_SHARE = 0.1
"""Of a core: who takes less for so long has done all that was to be done."""


class Terminal:
    """Runs Python with `arguments` in a pseudo-terminal, and reads what is drawn."""

    def __init__(self, *arguments: str) -> None:
        self._seen = b""
        self._drawn = threading.Condition()
        self._ended = False
        self._began = time.perf_counter()
        pid, self._descriptor = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, *arguments])
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        self.process = psutil.Process(pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._ended:
            if not select.select([self._descriptor], [], [], 0.1)[0]:
                continue
            try:
                drawn = os.read(self._descriptor, 65536)
            except OSError:  # the process is gone
                drawn = b""
            with self._drawn:
                self._ended = self._ended or not drawn
                self._seen = self._seen[-400_000:] + drawn
                self._drawn.notify_all()

    def press(self, keys: bytes) -> None:
        """Press keys; what was drawn before is forgotten, and the clock begins anew."""
        with self._drawn:
            self._seen = b""
        self._began = time.perf_counter()
        os.write(self._descriptor, keys)

    def wait(self, text: str) -> float:
        """Return how many seconds passed until `text` was drawn, since the start or else the last key."""
        wanted = text.encode()
        with self._drawn:
            self._drawn.wait_for(lambda: wanted in self._seen or self._ended, LONGEST_SECONDS)
            if wanted not in self._seen:
                raise SystemExit(f"{text!r} was not drawn: {self._seen[-2000:]!r}")
        return time.perf_counter() - self._began

    def rest(self) -> None:
        """Wait until the process has done what it does in the background after its start."""
        spent = -1.0
        while self.cpu_seconds() - spent > REST_SHARE * REST_SECONDS:
            spent = self.cpu_seconds()
            time.sleep(REST_SECONDS)

    def cpu_seconds(self) -> float:
        """Return how long a core has worked for the process."""
        times = self.process.cpu_times()
        return times.user + times.system

    def close(self) -> None:
        """Kill the process, and close the terminal."""
        self._ended = True
        self._reader.join()
        self.process.kill()
        os.waitpid(self.process.pid, 0)
        os.close(self._descriptor)
