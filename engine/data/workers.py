"""Worker processes that examine batches: answers come in the order of the batches, and one that dies costs one row."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Generic, TypeVar

from ...foundation.errors import TunewrightError
from .examples import Place
from .reading.batches import Batch

ADDRESS_SPACE_BYTES = 4 * 2**30
"""The most that a worker may map beside what it inherits."""
MOST_WORKERS = 16
BYTES_A_WORKER = 2**18
"""Less than this is not worth a process more."""
POLL_SECONDS = 0.05
"""How often it is asked whether the work is cancelled."""
ROWS_AT_ONCE = 128
"""So many rows are examined at once: few enough that there is news all the time, and that cancelling waits for nothing."""
MOST_DEATHS = 60
"""So many workers may die before the work is given up."""

Answer = TypeVar("Answer")
Examine = Callable[[Batch], Answer]


@dataclass(frozen=True, slots=True)
class Lost:
    """A row on which a worker died."""

    place: Place
    problem: str


def count_workers(total_bytes: int) -> int:
    """Return how many processes are worth starting for data of this size: at least one, at most one a processor."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS, total_bytes // BYTES_A_WORKER + 1)


class Cancelled(Exception):
    """The work was cancelled; its workers are gone."""


@dataclass(slots=True)
class _Worker:
    """One process and the batch that it is at."""

    process_id: int
    pipe: Connection[Any, Any]
    order: int | None = None
    batch: Batch | None = None


class Workers(Generic[Answer]):
    """A pool of forked processes, each with one batch at a time; a context manager that leaves no process behind.

    It is forked from this process with all that `examine` refers to, so a tokenizer is read once and shared.
    """

    def __init__(self, number: int, examine: Examine[Answer], cancelled: Callable[[], bool]) -> None:
        """Start `number` processes; 0 examines in this one."""
        self._number, self._examine, self._cancelled = number, examine, cancelled
        self._workers: list[_Worker] = []
        self._deaths = 0

    def __enter__(self) -> Workers[Answer]:
        for _ in range(self._number):
            self._workers.append(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers.clear()

    def examine(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Answer | Lost]]]:
        """Yield each batch in parts, without their rows, with what was found in them, in order.

        There are several answers, or rows that were lost, where a worker died and its part was examined in halves.
        Raises Cancelled, and TunewrightError when workers die again and again.
        """
        if not self._number:
            for batch in batches:
                for part in _parts(batch):
                    self._ask()
                    yield _emptied(part), [self._examine(part)]
            return
        numbered = enumerate(part for batch in batches for part in _parts(batch))
        done: dict[int, tuple[Batch, list[Answer | Lost]]] = {}
        ahead = next(numbered, None)
        due = 0
        while True:
            self._ask()
            for worker in self._workers:
                # One slow batch may not let the others pile up answers without end.
                if worker.batch is None and ahead is not None and ahead[0] - due < 4 * self._number:
                    self._hand(worker, *ahead)
                    ahead = next(numbered, None)
            busy = [worker.pipe for worker in self._workers if worker.batch is not None]
            if not busy:
                return
            ready = wait(busy, POLL_SECONDS)
            for worker in [each for each in self._workers if each.pipe in ready]:
                batch, order = worker.batch, worker.order
                assert batch is not None and order is not None
                answers = self._answers(worker)
                done[order] = _emptied(batch), answers
            while due in done:
                yield done.pop(due)
                due += 1

    def _ask(self) -> None:
        if self._cancelled():
            raise Cancelled

    def _hand(self, worker: _Worker, order: int, batch: Batch) -> None:
        """Send a batch to an idle worker."""
        worker.order, worker.batch = order, batch
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; its answer tells
            worker.pipe.send(batch)

    def _answers(self, worker: _Worker) -> list[Answer | Lost]:
        """Return what a worker says of its batch; where it died, start another and look for the row that killed it."""
        batch = worker.batch
        assert batch is not None
        try:
            answer, error = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._isolate(worker, batch)
        worker.batch = worker.order = None
        if error is not None:
            raise error
        return [answer]

    def _isolate(self, worker: _Worker, batch: Batch) -> list[Answer | Lost]:
        """Examine the halves of a batch in a new process, and theirs, until the row that ends the process is alone."""
        reason = _reason(worker)
        self._workers.remove(worker)
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            where = f"{batch.file} {batch.unit} {batch.first}".lstrip()
            raise TunewrightError(
                "The audit's processes keep dying",
                f"{self._deaths} ended, the last {reason} at {where} or just after it.",
                "Free memory on this machine, use fewer workers, or look at these rows.",
            )
        worker = self._start()
        self._workers.append(worker)
        halves = _halves(batch)
        if halves is None:
            return [Lost(Place(batch.first, batch.unit, batch.file), f"the process that read it ended {reason}")]
        answers: list[Answer | Lost] = []
        for half in halves:
            worker = self._workers[-1]  # the one just started, also when the first half ended another
            self._hand(worker, 0, half)
            while not worker.pipe.poll(POLL_SECONDS):
                self._ask()
            answers += self._answers(worker)
        return answers

    def _start(self) -> _Worker:
        ours, theirs = Pipe()
        process_id = os.fork()
        if process_id == 0:
            # Whatever happens, the copy of the caller's program does not go on from here.
            try:
                ours.close()
                for worker in self._workers:
                    worker.pipe.close()
                _work(theirs, self._examine)
            finally:
                os._exit(0)
        theirs.close()
        return _Worker(process_id, ours)


def _end(worker: _Worker) -> None:
    """End a worker, whatever it is at."""
    os.kill(worker.process_id, signal.SIGKILL)
    os.waitpid(worker.process_id, 0)
    worker.pipe.close()


def _reason(worker: _Worker) -> str:
    """Return how a worker ended that closed its pipe."""
    _, status = os.waitpid(worker.process_id, 0)
    worker.pipe.close()
    if os.WIFSIGNALED(status):
        return f"by {signal.Signals(os.WTERMSIG(status)).name}"
    return "without a word, perhaps for memory"


def _work(pipe: Connection[Any, Any], examine: Callable[[Batch], Any]) -> None:
    """Examine what comes until the coordinator is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process a processor is parallel enough
    _limit_memory()
    while True:
        try:
            batch = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = examine(batch), None
        except TunewrightError as error:
            answer = None, error
        except MemoryError:
            os._exit(1)
        except Exception as error:  # noqa: BLE001  the coordinator raises it, with what it was
            answer = None, RuntimeError(f"{type(error).__name__}: {error}")
        pipe.send(answer)


def _limit_memory() -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", "rb") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    limit = mapped + ADDRESS_SPACE_BYTES
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _emptied(batch: Batch) -> Batch:
    return replace(batch, lines=(), values=())


def _parts(batch: Batch) -> Iterator[Batch]:
    """Yield a batch in parts that are examined in a moment; the faults that were met after its rows are the last one's."""
    rows = max(1, len(batch.lines), len(batch.values))
    for start in range(0, rows, ROWS_AT_ONCE):
        end = start + ROWS_AT_ONCE
        yield replace(
            batch,
            first=batch.first + start,
            lines=batch.lines[start:end],
            values=batch.values[start:end],
            faults=batch.faults if end >= rows else (),
        )


def _halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """Return a batch in two, None where it has but one row; what was met while reading stays with the second."""
    rows = max(len(batch.lines), len(batch.values))
    if rows < 2:
        return None
    half = rows // 2
    first = replace(batch, lines=batch.lines[:half], values=batch.values[:half], faults=())
    second = replace(batch, first=batch.first + half, lines=batch.lines[half:], values=batch.values[half:])
    return first, second
