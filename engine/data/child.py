"""The process that reads and renders data: no file or template of a stranger is touched by the interface itself.

`python -m tunewright.engine.data.child`; JSON lines on stdin and stdout. `DataProcess` is the interface's end of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from pydantic import TypeAdapter

from ...foundation.errors import TunewrightError
from ...foundation.text import clean, one_line
from ...recipes.model import Data, Recipe
from .measuring import Measured, measure_here
from .preview import Inspection, Previewer, ShownRow, Want, inspect
from .statistics import AuditRequest, FixReport, Progress, Report

LONGEST_SILENCE_SECONDS = 120.0
"""A child that says nothing for so long is taken for hung, and ended."""
ADDRESS_SPACE_BYTES = 16 * 2**30
"""The most that the child may map, so that a hostile file or template cannot take the machine's memory."""
POLL_SECONDS = 0.05
Answer = TypeVar("Answer")


class DataProcess:
    """One child process, started when it is first asked; to be used by one thread at a time, and closed in the end."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> DataProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inspect(self, source: str, data: Data) -> Inspection:
        """Return what `source` is; raises TunewrightError."""
        return self._ask(Inspection, "inspect", source=source, data=_plain(data))

    def preview(self, source: str, data: Data, model: str | None, want: Want) -> ShownRow | None:
        """Return one row as the trainer gets it, None when there is no such row; raises TunewrightError."""
        asked = TypeAdapter(Want).dump_python(want, mode="json")
        shown: Any = ShownRow | None
        return cast(
            "ShownRow | None", self._ask(shown, "preview", source=source, data=_plain(data), model=model, want=asked)
        )

    def audit(
        self, request: AuditRequest, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]
    ) -> Report | None:
        """Return the report on a whole data set, None when `cancelled`, which ends the child; raises TunewrightError."""
        asked = TypeAdapter(AuditRequest).dump_python(request, mode="json")
        return self._ask(Report, "audit", on_progress, cancelled, request=asked)

    def measure(self, recipe: Recipe, cancelled: Callable[[], bool]) -> Measured | None:
        """Return the lengths of a recipe's rows, None when `cancelled`, which ends the child; raises TunewrightError."""
        values = recipe.model_dump(mode="json", exclude_none=True)
        return self._ask(Measured, "measure", None, cancelled, recipe=values)

    def fix(self, source: str, data: Data, codes: tuple[str, ...], target: Path, model: str | None) -> FixReport:
        """Write `source` to the new file `target` with these findings mended; raises TunewrightError."""
        return self._ask(
            FixReport, "fix", source=source, data=_plain(data), codes=codes, target=str(target), model=model
        )

    def close(self) -> None:
        """End the child and its workers."""
        child, self._child, self._buffer = self._child, None, b""  # first, for two threads may close it in the end
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that a dead child never took
                    stream.close()

    def _ask(
        self,
        answer: type[Answer],
        verb: str,
        on_progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        **values: Any,
    ) -> Answer:
        """Send a request and return what is answered; None when `cancelled`."""
        child = self._start()
        try:
            cast("IO[bytes]", child.stdin).write(json.dumps({"do": verb, **values}).encode() + b"\n")
            cast("IO[bytes]", child.stdin).flush()
        except BrokenPipeError:
            raise self._died() from None
        for line in self._lines(cancelled):
            value = json.loads(line)
            if "progress" in value:
                if on_progress is not None:
                    on_progress(_adapter(Progress).validate_python(value["progress"]))
            elif "error" in value:
                raise TunewrightError(*(str(value["error"][part]) for part in ("title", "message", "remedy")))
            else:
                return _adapter(answer).validate_python(value["result"])
        self.close()
        return cast("Answer", None)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            # Errors go into a file and not a pipe, which could fill and stop the child.
            self._errors = _temporary()
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tunewright.engine.data.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
                start_new_session=True,
            )
        return self._child

    def _lines(self, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """Yield lines of the child until `cancelled`; raises TunewrightError when it dies or hangs."""
        output = cast("IO[bytes]", cast("subprocess.Popen[bytes]", self._child).stdout).fileno()
        heard = time.monotonic()
        while not cancelled():
            if select.select([output], [], [], POLL_SECONDS)[0]:
                heard = time.monotonic()
                block = os.read(output, 1 << 20)
                if not block:
                    raise self._died()
                self._buffer += block
            elif time.monotonic() - heard > LONGEST_SILENCE_SECONDS:
                self.close()
                raise TunewrightError(
                    "Reading the data hangs",
                    f"Nothing came for {LONGEST_SILENCE_SECONDS:.0f} s; its process was ended.",
                    "A chat template that never ends, or a file system that does not answer; try another template.",
                )
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                yield line

    def _died(self) -> TunewrightError:
        """Return what is told of a child that ended by itself."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 1500))
        tail = clean(self._errors.read().decode("utf-8", "replace")).strip()
        self.close()
        return TunewrightError(
            "Reading the data ended",
            "Its process was ended, perhaps for memory." + (f"\n{tail}" if tail else ""),
            "Try a smaller part of the data, or a machine with more memory.",
        )


def _temporary() -> IO[bytes]:
    import tempfile

    return cast("IO[bytes]", tempfile.TemporaryFile())


@cache
def _adapter(answer: Any) -> TypeAdapter[Any]:
    return TypeAdapter(answer)


def _plain(data: Data) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude_none=True)


def main() -> int:
    """Answer requests until stdin ends."""
    import queue

    # Libraries may print to stdout; the protocol keeps its own copy of it.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        """Hand requests on; when the interface is gone, end this process and its workers in the middle of their work."""
        for line in sys.stdin.buffer:
            requests.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=listen, daemon=True).start()
    answering = _Answering(lambda name, value: _send(channel, name, value))
    while True:
        try:
            answer = answering.answer(json.loads(requests.get()))
        except TunewrightError as error:
            _send(channel, "error", error.to_json())
        except MemoryError:
            _send(channel, "error", {
                "title": "Out of memory", "message": "The data or its template took more memory than is allowed.",
                "remedy": "Split the file, or name another template (data.template).",
            })  # fmt: skip
        except Exception as error:  # noqa: BLE001  whatever a stranger's file does, the interface is told
            import traceback

            traceback.print_exc()
            _send(channel, "error", {
                "title": "Something unexpected happened", "message": one_line(f"{type(error).__name__}: {error}", 400),
                "remedy": "Please report it with the file, or a part of it that shows it.",
            })  # fmt: skip
        else:
            _send(channel, "result", answer)


def _send(channel: IO[bytes], name: str, value: Any) -> None:
    channel.write(
        b'{"' + name.encode() + b'":' + _adapter(cast("type[Any]", value.__class__)).dump_json(value) + b"}\n"
    )
    channel.flush()


def _limit_memory() -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = ADDRESS_SPACE_BYTES if most == resource.RLIM_INFINITY else min(most, ADDRESS_SPACE_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


class _Answering:
    """The child's side: what was opened last is kept, so that the next row of it comes at once."""

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        self._send = send
        self._opened: tuple[Any, Previewer] | None = None

    def answer(self, request: dict[str, Any]) -> Any:
        """Return the answer to one request."""
        match request["do"]:
            case "inspect":
                return inspect(request["source"], Data.model_validate(request["data"]))
            case "preview":
                want = TypeAdapter(Want).validate_python(request["want"])
                return self._previewer(request["source"], request["data"], request["model"]).show(want)
            case "audit":
                from .audit import audit

                return audit(_asked(request), self._progress, lambda: False)
            case "measure":
                return measure_here(Recipe.model_validate(request["recipe"]))
            case "fix":
                from .fixes import write_fixed

                data, target = Data.model_validate(request["data"]), Path(request["target"])
                return write_fixed(request["source"], data, request["codes"], target, request["model"], self._progress)
            case verb:
                raise AssertionError(verb)

    def _progress(self, progress: Progress) -> None:
        self._send("progress", progress)

    def _previewer(self, source: str, data: dict[str, Any], model: str | None) -> Previewer:
        from ..sources import find_model
        from .reading import open_source
        from .rendering import Renderer

        section = Data.model_validate(data)
        key = (source, open_source(source, section.split).stamp(), data, model)
        if self._opened is None or self._opened[0] != key:
            renderer = Renderer(find_model(model) if model else None, section)
            self._opened = (key, Previewer(source, section, renderer))
        return self._opened[1]


def _asked(request: dict[str, Any]) -> AuditRequest:
    return TypeAdapter(AuditRequest).validate_python(request["request"])


if __name__ == "__main__":
    sys.exit(main())
