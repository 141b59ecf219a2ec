"""What a run waits for on cards: what is free, what others hold, and what other runs were promised."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from tunewright.engine.gpu_memory import CUDA_CONTEXT_GIB
from tunewright.engine.machine import GpuDevice, GpuProcess
from tunewright.engine.runs import waiting
from tunewright.engine.runs.queue import Ticket, TicketState, before
from tunewright.engine.runs.waiting import machine_in_turn, needed_gib, shortfalls
from tunewright.foundation.errors import TunewrightError

from ...tui.recorded import CPU_MACHINE, GPU_MACHINE, make_gpu_plan

PLAN = replace(make_gpu_plan(), gpu_indices=(0, 1))
NEEDED = 62.0 + CUDA_CONTEXT_GIB
"""The larger of what is allocated and reserved, and the context."""
HOLDER = GpuProcess(4711, "amara", "python", 60.0, "python serve.py")


def card(index: int, free: float, *processes: GpuProcess) -> GpuDevice:
    return GpuDevice(index, "NVIDIA H200", 139.8, free, (9, 0), 0, 30, 80, 700, processes)


def ticket(number: int, state: TicketState, *resources: str, needed: float = 1.0) -> Ticket:
    return Ticket(
        number,
        f"{number:08x}",
        os.getuid(),
        (1, number),
        f"run-{number}",
        state,
        frozenset(resources),
        needed,
        0.0,
        1,
        "",
    )


def see(monkeypatch: pytest.MonkeyPatch, *cards: GpuDevice) -> None:
    monkeypatch.setattr(waiting, "sample_gpus", lambda: cards)


def test_every_card_of_the_plan_has_to_be_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needed_gib(PLAN) == NEEDED
    see(monkeypatch, card(0, 139.0), card(1, 139.0), card(2, 0.0, HOLDER))
    assert shortfalls(PLAN) == ()
    see(monkeypatch, card(0, 139.0), card(1, NEEDED - 0.1, HOLDER))
    (short,) = shortfalls(PLAN)
    assert short.said == (
        f"GPU 1 has {NEEDED - 0.1:.1f} GiB free of the {NEEDED:.1f} needed; "
        "held: 60.0 GiB by python serve.py of amara, pid 4711"
    )
    see(monkeypatch, card(0, 139.0), card(1, 1.0))
    assert "hidden from this user" in shortfalls(PLAN)[0].said
    see(monkeypatch, card(0, 139.0))
    assert "GPU 1, which does not answer," in shortfalls(PLAN)[0].said


def test_what_a_run_was_promised_is_not_free_though_it_has_not_taken_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, card(0, 139.0), card(1, 139.0))
    begun = ticket(1, "running", "gpu1", needed=80.0)
    (short,) = shortfalls(PLAN, [begun, ticket(2, "waiting", "gpu0", needed=139.0)])
    assert (short.place, short.promised_gib) == ("GPU 1", 80.0)
    assert "80.0 promised to other runs" in short.said
    assert shortfalls(PLAN, [replace(begun, needed_gib=70.0)]) == ()


def test_the_hosts_memory_counts_beside_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, card(0, 139.0), card(1, 139.0))
    assert PLAN.prediction is not None
    (short,) = shortfalls(replace(PLAN, prediction=replace(PLAN.prediction, host_gib=1e6)))
    assert short.place == "the machine"
    assert len(short.holders) == 3


def test_a_turn_is_over_what_is_shared_alone() -> None:
    mine = ticket(5, "waiting", "gpu0", "gpu1")
    others = [
        ticket(1, "waiting", "gpu1"), ticket(2, "waiting", "gpu2"), ticket(3, "running", "cpu"),
        ticket(4, "sharing", "gpu0"), ticket(6, "waiting", "gpu0"), ticket(7, "running", "gpu0"), mine,
    ]  # fmt: skip
    assert [each.number for each in before(mine, others)] == [1, 7]
    assert before(replace(mine, state="sharing"), others) == ()


def test_a_run_that_waits_is_planned_for_what_others_give_back() -> None:
    first, second = machine_in_turn(GPU_MACHINE).gpus
    assert first.memory_free_gib > 78
    assert second.memory_free_gib > first.memory_free_gib, "the freest card is no longer the first choice"
    busy = replace(CPU_MACHINE, memory_free_gib=2.0)
    assert machine_in_turn(busy).memory_free_gib == pytest.approx(62.8 * 0.85)
    assert machine_in_turn(CPU_MACHINE).memory_free_gib == pytest.approx(62.8 * 0.85)


@pytest.mark.parametrize("values", [{"nice": 20}, {"nice": -1}, {"wait_at_most_hours": 0.0}, {"wait_at_most_hours": float("nan")}],
                         ids=["too-nice", "not-nice", "no-time", "no-number"])  # fmt: skip
def test_terms_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(TunewrightError):
        waiting.Terms(**values)  # type: ignore[arg-type]
