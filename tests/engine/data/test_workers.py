"""Worker processes that examine batches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from tunewright.engine.data.reading.batches import Batch, parse_batch
from tunewright.engine.data.workers import Cancelled, Lost, Workers
from tunewright.foundation.errors import TunewrightError


def batches(count: int, rows: int = 4) -> Iterator[Batch]:
    for number in range(count):
        first = number * rows + 1
        yield Batch("", first, "line", lines=tuple(b'{"number": %d}' % each for each in range(first, first + rows)))


def numbers(batch: Batch) -> list[int]:
    return [record.value["number"] for record in parse_batch(batch)]  # type: ignore[union-attr]


def never() -> bool:
    return False


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_answers_come_in_the_order_of_the_batches(workers: int) -> None:
    with Workers(workers, numbers, never) as pool:
        answers = [answer for _, answered in pool.examine(batches(40)) for answer in answered]
    assert [number for answer in answers for number in answer] == list(range(1, 161))  # type: ignore[union-attr]


def test_the_work_is_done_in_other_processes() -> None:
    with Workers(2, lambda batch: os.getpid(), never) as pool:
        answers = [answer for _, (answer,) in pool.examine(batches(40))]
    assert len(set(answers)) == 2 and os.getpid() not in answers


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_a_row_that_ends_its_process_is_named_and_the_others_are_examined(end: signal.Signals | None) -> None:
    def deadly(batch: Batch) -> list[int]:
        found = numbers(batch)
        if 23 in found:
            os.kill(os.getpid(), end) if end else os._exit(1)
        return found

    with Workers(2, deadly, never) as pool:
        answers = [answer for _, answered in pool.examine(batches(10)) for answer in answered]
    lost = [answer for answer in answers if isinstance(answer, Lost)]
    assert [each.place.number for each in lost] == [23]
    assert ("SIGKILL" in lost[0].problem) == (end is not None)
    found = [number for answer in answers if not isinstance(answer, Lost) for number in answer]
    assert found == [number for number in range(1, 41) if number != 23]


def test_a_worker_that_wants_too_much_memory_ends_and_not_the_machine() -> None:
    def greedy(batch: Batch) -> list[int]:
        return [len(bytearray(64 * 2**30))] if 3 in numbers(batch) else []

    with Workers(1, greedy, never) as pool:
        ((_, answers),) = pool.examine(batches(1))
    assert [each.place.number for each in answers if isinstance(each, Lost)] == [3]


def test_workers_that_die_on_every_row_end_the_work() -> None:
    with pytest.raises(TunewrightError, match="keep dying"), Workers(1, lambda batch: os._exit(1), never) as pool:
        list(pool.examine(batches(40)))


def test_an_error_in_a_worker_is_raised_here() -> None:
    def failing(batch: Batch) -> None:
        raise TunewrightError("Title", "message", "remedy")

    with pytest.raises(TunewrightError, match="Title: message remedy"), Workers(1, failing, never) as pool:
        list(pool.examine(batches(1)))


def test_cancelling_ends_the_workers_at_once() -> None:
    started = time.monotonic()
    cancelled = False

    def endless(batch: Batch) -> int:
        while batch.first > 1:
            pass
        return os.getpid()

    seen: list[int] = []
    with pytest.raises(Cancelled), Workers(2, endless, lambda: cancelled) as pool:
        for _, answers in pool.examine(batches(40)):
            seen += [each for each in answers if isinstance(each, int)]
            cancelled = True
    assert time.monotonic() - started < 2
    assert seen and not any(map(is_running, seen))


def test_few_batches_are_read_ahead() -> None:
    read = 0

    def counted() -> Iterator[Batch]:
        nonlocal read
        for batch in batches(100):
            read += 1
            yield batch

    with Workers(2, numbers, never) as pool:
        for done, _ in enumerate(pool.examine(counted()), start=1):
            assert read - done <= 4 * 2 + 2
