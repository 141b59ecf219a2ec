"""Chatting with a run: a child process answers as the base model and as the tuned one; this side stays free of torch."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Literal, cast

from ...foundation.errors import TunewrightError
from ...foundation.text import clean
from ..runs.directory import RunDirectory
from ..runs.supervise import trainer_environment

Side = Literal["base", "tuned", "end"]


class ChatProcess:
    """A conversation with both models of one run; `close` it in the end."""

    def __init__(self, run: RunDirectory) -> None:
        """Start the child; it loads while the caller goes on. Raises TunewrightError when there is nothing to load."""
        if not (run.adapter.exists() or run.model.exists()):
            raise TunewrightError(
                "Nothing to chat with yet", f"{run.id} has no tuned model.", "Let the run finish, or resume it."
            )
        self._errors = (run.path / "chat.log").open("wb")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tunewright.engine.results.responder", str(run.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=trainer_environment(run.plan()),
            start_new_session=True,
        )
        self._run = run
        self._loaded = False

    def ready(self, timeout_seconds: float = 0.0) -> bool:
        """Tell whether the models are loaded, waiting up to `timeout_seconds`; raises TunewrightError when the child died."""
        if not self._loaded and select.select([self._output], [], [], timeout_seconds)[0]:
            self._receive()
            self._loaded = True
        return self._loaded

    def ask(self, prompt: str) -> Iterator[tuple[Side, str]]:
        """Send the next turn, and yield pieces of both answers as they come, then ("end", "").

        Blocks while the models load or think. Raises TunewrightError when the child died.
        """
        while not self.ready(timeout_seconds=3600):
            pass
        input_ = cast("IO[bytes]", self._child.stdin)
        try:
            input_.write(json.dumps({"prompt": prompt}).encode() + b"\n")
            input_.flush()
        except BrokenPipeError:
            raise self._died() from None
        while True:
            side, text = self._receive()
            yield side, clean(text)
            if side == "end":
                return

    def close(self) -> None:
        """End the child."""
        self._child.terminate()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            if stream is not None:
                stream.close()

    @property
    def _output(self) -> IO[bytes]:
        return cast("IO[bytes]", self._child.stdout)

    def _receive(self) -> tuple[Side, str]:
        line = self._output.readline()
        if not line:
            raise self._died()
        value = json.loads(line)
        return value["side"], value["text"]

    def _died(self) -> TunewrightError:
        log = self._run.path / "chat.log"
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 2000))
            tail = clean(file.read().decode("utf-8", "replace"))
        return TunewrightError("The chat ended", f"Its process died:\n{tail}", f"{log} holds all it printed.")
