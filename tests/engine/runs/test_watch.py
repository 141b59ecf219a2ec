"""What one is called for: each thing once, whoever looks after the run, and nothing that is no news."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import pytest
from tunewright.engine.runs.events import Alert, Checkpoint, Eval, Event, Gpu, Notice, Status, Step
from tunewright.engine.runs.watch import Watch

TOTAL = 1000


def steps(losses: Iterable[float], first: int = 1, total: int = TOTAL) -> Iterator[Step]:
    for number, loss in enumerate(losses, first):
        yield Step(step=number, total_steps=total, epoch=0.0, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens=1,
                   seconds=0.1, peak_gib=1.0)  # fmt: skip


def gpu(time: float, degrees: float | None, by: str = "") -> Gpu:
    return Gpu(time=time, index=1, utilisation_percent=99.0, memory_used_gib=1.0, memory_total_gib=2.0,
               temperature_celsius=degrees, power_watts=None, throttled_by=by)  # fmt: skip


def alerts(events: Iterable[Event], watch: Watch | None = None) -> list[Alert]:
    watch = watch or Watch(TOTAL)
    watch.add(events)
    return [alert for alert, _ in watch.take()]


def keys(events: Iterable[Event]) -> list[str]:
    return [alert.key for alert in alerts(events)]


def test_a_validation_loss_that_no_longer_falls_is_told_once() -> None:
    falling = [Eval(step=step, loss=2.0 - step / 500) for step in range(50, 451, 50)]
    watch = Watch(TOTAL)
    assert alerts(falling, watch) == []
    flat = [Eval(step=step, loss=1.1 - 0.0005) for step in range(500, 901, 50)]
    (found,) = alerts(flat, watch)
    assert found.about == "plateau"
    assert "1.1000 at step 450 was the lowest" in found.message
    assert alerts([Eval(step=950, loss=3.0)], watch) == []


def test_a_plateau_at_the_end_or_of_a_resumed_runs_repeated_evaluation_is_none() -> None:
    late = [Eval(step=step, loss=1.0) for step in (810, 850, 905, 950, 1000)]
    assert keys(late[1:]) == []
    again = [Eval(step=500, loss=1.0), *[Eval(step=501, loss=1.0)] * 9]
    assert keys(again) == []
    assert keys([Eval(step=100, loss=math.nan), *(Eval(step=s, loss=1 / s) for s in range(200, 900, 50))]) == []


def test_without_validation_a_flat_training_loss_is_told() -> None:
    falling = [2.0 - step / 1000 for step in range(600)]
    assert keys(steps(falling)) == []
    assert keys(steps([*falling, *[1.4] * 300])) == ["plateau"]
    assert (
        keys([*steps([1.7]), Eval(step=1, loss=2.0), *steps([1.7] * 889, first=2)]) == []
    )  # where there is validation, it counts


def test_noise_around_a_falling_loss_is_no_plateau() -> None:
    assert keys(steps(2.0 * 0.998**step + 0.3 * math.sin(step * 12.9898) for step in range(890))) == []


@pytest.mark.parametrize(("degrees", "by"), [(88.0, "heat"), (93.0, ""), (None, "power, heat")])
def test_a_card_at_its_thermal_limit_is_told_once_it_stays_there(degrees: float | None, by: str) -> None:
    hot = [gpu(second, degrees, by) for second in range(29)]
    watch = Watch(TOTAL)
    assert alerts(hot, watch) == []
    assert alerts([gpu(29, 60.0), *(gpu(second, degrees, by) for second in range(30, 59))], watch) == []
    (found,) = alerts([gpu(61, degrees, by)], watch)
    assert (found.about, found.key) == ("heat", "heat-1")
    assert alerts([gpu(second, degrees, by) for second in range(62, 200)], watch) == []


def test_power_is_not_heat() -> None:
    assert keys(gpu(second, 92.0, "power") for second in range(100)) == []


def test_a_disk_on_which_two_saves_do_not_fit_is_told_once() -> None:
    watch = Watch(TOTAL)
    watch.add([Checkpoint(step=1, name="step-1", size_bytes=4 * 2**30, seconds=1.0)])
    watch.add_free_space(9 * 2**30)
    assert watch.take() == []
    watch.add_free_space(7 * 2**30)
    watch.add_free_space(6 * 2**30)
    ((found, remedy),) = watch.take()
    assert found.about == "disk" and "7.00 GiB" in found.message and remedy
    watch.add_free_space(0)
    assert watch.take() == []


def test_endings_are_told_apart() -> None:
    assert keys([Status(state="running"), Status(state="finished", reason="all steps were taken")]) == ["finished"]
    assert keys([Status(state="stopping", reason="SIGTERM"), Status(state="stopped", reason="by SIGTERM")]) == [
        "interrupted-1"
    ]
    for wish, end in (("SIGINT", "stopped"), ("SIGTSTP", "paused")):  # people know what they asked for
        assert keys([Status(state="stopping", reason=wish), Status(state=end)]) == []
    nan = Notice(level="error", title="Not a number", message="At step 3", remedy="")
    (found,) = alerts([nan, Status(state="failed", reason="Not a number")])
    assert (found.about, found.key) == ("diverged", "failed-1")
    warned = Notice(level="warning", title="The gradient explodes", message="At step 3", remedy="")
    assert keys([warned, warned]) == ["diverged-The gradient explodes"]


def test_what_an_earlier_supervisor_gave_is_not_given_again() -> None:
    flat = [Eval(step=step, loss=1.0) for step in range(100, 801, 50)]
    failed = Status(state="failed", reason="The trainer was killed")
    first = Watch(TOTAL)
    given = alerts([*flat, failed], first)
    assert [each.key for each in given] == ["plateau", "failed-1"]
    second = Watch(TOTAL)
    second.add([*flat, failed, *given])
    second.forget_endings()
    assert alerts([Status(state="running"), Status(state="failed", reason="x")], second)[0].key == "failed-2"
    third = Watch(TOTAL)  # whoever came before was killed before it could write them
    third.add([*flat, failed])
    third.forget_endings()
    assert alerts([], third)[0].key == "plateau"
    assert alerts([], third) == []
