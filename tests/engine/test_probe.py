"""The probe: real steps in a child process, what is kept of them, and what is left when they fail."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.batches import pack
from tunewright.engine.calibration import (
    Correction,
    Outcome,
    correction,
    default_calibration,
    measured_watts,
    outcomes,
    record,
)
from tunewright.engine.calibration_file import store
from tunewright.engine.data.measuring import measure_rows
from tunewright.engine.data.preparing import Prepared, Rows
from tunewright.engine.machine import GpuDevice, Machine, inspect_machine
from tunewright.engine.measuring import COPY_SHARE, measure, read_card_rates, unmeasured
from tunewright.engine.plan import Plan
from tunewright.engine.planner import plan_recipe
from tunewright.engine.probe import STEPS, Figures, Finding, lay_out, longest_rows, probe_recipe
from tunewright.engine.runs.directory import RunDirectory
from tunewright.engine.runs.events import EventLog, Gpu
from tunewright.engine.search import look_around
from tunewright.engine.work import Work
from tunewright.foundation.errors import TunewrightError
from tunewright.foundation.home import calibration_path
from tunewright.recipes.model import Recipe
from tunewright.recipes.registry import open_registry
from tunewright.starter import TRAINING_DATA

from .test_planner import SMALL, recipe


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def starter(*changes: str, method: str = "lora") -> Recipe:
    with open_registry() as registry:
        found = registry.get(f"starter-{method}").recipe
    return change_recipe(found, ['data.validation={"kind": "rows", "value": 20}', *changes])


def calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests the measurement of the processor, which is tested elsewhere."""
    monkeypatch.setattr("tunewright.engine.probe.unmeasured", lambda machine: None)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Probe in this process: the child's own code, without the seconds that its imports take."""

    def wait(directory: RunDirectory, *others: Any) -> int:
        from tunewright.engine.training.probe import probe
        from tunewright.engine.training.trainer import guard

        log = EventLog(directory.events_file)
        try:
            return guard(directory, log, lambda: probe(directory, log))
        finally:
            log.close()

    taken = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    monkeypatch.setattr("tunewright.engine.probe._wait", wait)
    yield
    for number, handler in taken.items():
        signal.signal(number, handler)


def left(home: Path) -> list[str]:
    """What there is in the data folder beside the registry."""
    return sorted(path.name for path in home.iterdir() if not path.name.startswith(("registry", "cache")))


@pytest.mark.slow
def test_a_probe_corrects_the_next_plan_and_leaves_nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(monkeypatch)
    machine, said = inspect_machine(home), []
    plan = plan_recipe(starter(), machine)
    assert plan.prediction is not None
    found = probe_recipe(starter(), machine, say=said.append)
    assert said == ["planning", f"training {STEPS} steps on the longest rows"]
    assert left(home) == ["calibration.json"]
    measured = found.measured
    assert measured is not None
    assert found.verdict.startswith("Fits")
    assert found.rows == plan.micro_batch * plan.accumulation
    assert 0.1 < measured.peak_gib < 4
    assert 0 < measured.step_seconds < 30
    assert measured.evaluation_seconds is not None and measured.evaluation_seconds > 0
    assert measured.checkpoint_bytes == pytest.approx(found.predicted.checkpoint_bytes, rel=0.3)
    assert measured.watts is None
    assert (found.earlier.probed, found.later.probed) == (False, True)
    assert found.later.peak == pytest.approx(measured.peak_gib / found.predicted.peak_gib)
    again = plan_recipe(starter(), machine)
    assert again.prediction is not None
    assert again.prediction.peak_gib == pytest.approx(found.later.peak * plan.prediction.peak_gib)
    assert again.prediction.training_seconds == pytest.approx(found.later.seconds * plan.prediction.training_seconds)
    assert any(note.startswith("Corrected by a probe of this model shape and method") for note in again.notes)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("method", "packing"), [("lora", "true"), ("qlora", "false")])
def test_other_plans_are_probed_as_they_would_run(method: str, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(monkeypatch)
    found = probe_recipe(starter(f"data.packing={packing}", method=method), inspect_machine(Path("/tmp")))
    assert found.measured is not None
    assert found.measured.checkpoint_bytes == pytest.approx(found.predicted.checkpoint_bytes, rel=0.3)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_few_rows_make_a_short_step_of_full_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(monkeypatch)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(TRAINING_DATA.open(encoding="utf-8").readlines()[:3]))
    wanted = starter(f"data.source={json.dumps(str(data))}", 'data.validation={"kind": "none"}', method="full")
    wanted = wanted.model_copy(update={"evaluation": wanted.evaluation.model_copy(update={"source": None})})
    found = probe_recipe(wanted, inspect_machine(tmp_path))
    assert found.rows == 3
    assert found.measured is not None
    assert found.measured.checkpoint_bytes == pytest.approx(found.predicted.checkpoint_bytes, rel=0.3)
    assert found.measured.evaluation_gib is found.predicted.evaluation_gib is None
    assert found.measured.saving_seconds < found.measured.step_seconds + 5


@pytest.mark.slow
def test_a_probe_without_time_is_ended_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(monkeypatch)
    with pytest.raises(TunewrightError, match="took too long"):
        probe_recipe(starter(), inspect_machine(home), limit_seconds=0.5)
    assert left(home) == []
    with pytest.raises(TunewrightError, match="was stopped"):
        probe_recipe(starter(), inspect_machine(home), cancelled=lambda: True)
    assert left(home) == []


CHILD = """#!{python}
import sys
sys.argv = sys.argv[2:]  # -m and the module
{before}
from tunewright.engine.training import probe
sys.exit(probe.main(sys.argv[1:]))
"""
WITHOUT_MEMORY = """
import resource
from transformers import Trainer
train = Trainer.train
def train_closed(*arguments, **options):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, used + 2**23))
    return train(*arguments, **options)
Trainer.train = train_closed
"""


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """Have the probe's child process do something `before`; the rows were measured before that."""
    measure_rows(starter())
    script = tmp_path / "python"
    script.write_text(CHILD.format(python=sys.executable, before=before))
    script.chmod(0o755)
    monkeypatch.setattr("tunewright.engine.probe.sys.executable", str(script))


@pytest.mark.slow
def test_memory_that_runs_out_is_a_finding(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(monkeypatch)
    machine = inspect_machine(home)
    child(tmp_path, monkeypatch, WITHOUT_MEMORY)
    found = probe_recipe(starter(), machine)
    assert found.measured is None
    assert found.verdict.startswith("Does not fit: micro-batches of 4 rows of up to")
    assert "Predicted were" in found.verdict
    assert found.later.probed is False
    assert left(home) == []


@pytest.mark.parametrize(
    ("before", "title", "said"),
    [
        ("raise SystemExit('it broke')", "The probe failed", "it broke"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "The probe failed", "SIGSEGV"),
    ],
)
def test_a_child_that_fails_is_an_error_with_its_last_lines(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, before: str, title: str, said: str
) -> None:
    calibrated(monkeypatch)
    child(tmp_path, monkeypatch, before)
    with pytest.raises(TunewrightError, match=title) as caught:
        probe_recipe(starter(), inspect_machine(home))
    assert said in caught.value.message
    assert left(home) == []


def test_what_does_not_fit_says_what_was_predicted() -> None:
    plan = Plan(
        "box", "transformers", "cpu", "fp32", 1, 16, "on", "padded", "sdpa", 1, 9, 9, 0, 9, 9, 9, False
    )  # fmt: skip
    nothing = Correction(1.0, 1.0, 0)
    found = Finding(plan, 16, 4096, Figures(10, 11, 1, 0, 1, 1), None, "no more", 12.0, nothing, nothing)
    assert found.verdict == (
        "Does not fit: micro-batches of 1 row of up to 4,096 tokens ran out of memory (no more). Predicted were 10.00 "
        "GiB, 11.00 with what the allocator reserves; 12.00 GiB were free."
    )


def rows(*lengths: int) -> Prepared:
    tokens = np.ones(sum(lengths), np.int32)
    made = Rows(tokens, tokens == 1, np.cumsum(lengths), np.array(lengths, np.int32))
    return Prepared(made, made.take(range(min(5, len(lengths)))), (), 0, 0, 0)


def test_the_longest_rows_of_one_step_are_taken() -> None:
    draw = random.Random(3)
    lengths = [draw.randint(5, 300) for _ in range(200)]
    wanted = change_recipe(recipe(), ["training.global_batch=16", "data.max_length=512"])
    found = longest_rows(rows(*lengths), wanted, 4)
    assert [row.length for row in found.training] == sorted(lengths, reverse=True)[:16]
    assert [row.length for row in found.validation] == sorted(lengths[:5], reverse=True)[:4]
    packing = change_recipe(wanted, ["data.packing=true"])
    taken = [row.length for row in longest_rows(rows(*lengths), packing, 4).training]
    assert taken == sorted(lengths, reverse=True)[: len(taken)]
    assert len(pack(taken, 512)) == 16
    assert len(pack(sorted(lengths, reverse=True)[: len(taken) + 1], 512)) > 16
    assert len(longest_rows(rows(7, 9), wanted, 4).training) == 2


GPU = GpuDevice(0, "NVIDIA L4", 22.5, 22.0, (8, 9), 0.0, None, None, 72.0)


def machine(*gpus: GpuDevice) -> Machine:
    return Machine("Linux", "EPYC", 4, 64.0, 60.0, 500.0, gpus, "570.1" if gpus else None, "No GPU.")


@pytest.mark.parametrize(
    ("backend", "batching", "rows_", "tokens", "documents", "mean"),
    [
        ("transformers", "padded", 2, 100, 0, (200 + 120) / 2),
        ("unsloth", "padding-free", 1, 190, 2, (190 + 70) / 2),
        ("transformers", "packed", 1, 200, 3, (200 + 60) / 2),
    ],
)
def test_the_setting_is_that_of_the_largest_micro_batch(
    backend: Any, batching: Any, rows_: int, tokens: int, documents: int, mean: float
) -> None:
    plan = Plan(
        "box", backend, "cuda", "bf16", 2, 2, "off", batching, "sdpa", 8, 9, 9, 0, 9, 9, 9, False
    )  # fmt: skip
    wanted = change_recipe(recipe(), ["data.max_length=100"])
    lengths = (100, 90, 60, 10)
    around = look_around(Work(wanted, SMALL, lengths, (), 1, 1, 0), machine(GPU), default_calibration(2), backend)
    setting, load, batches = lay_out(wanted, plan, around, lengths)
    assert (setting.rows, setting.tokens_per_row, setting.documents) == (rows_, tokens, documents)
    assert load.tokens == pytest.approx(mean)
    assert batches == 2


def outcome(seconds: float, **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "machine": "box", "model": "shape", "method": "lora", "predicted_peak_gib": 1.0, "measured_peak_gib": 1.1,
        "predicted_seconds": 100.0, "measured_seconds": seconds, "time": 1.0,
    }  # fmt: skip
    return Outcome(**{**values, **changes})


def test_a_probe_counts_until_a_run_has_ended_and_the_same_plan_comes_first() -> None:
    assert correction("box", "shape", "lora").because == ""
    record(outcome(150.0, kind="probe", backend="unsloth", checkpointing="off"))
    record(outcome(130.0, kind="probe", backend="unsloth", checkpointing="off"))
    probed = correction("box", "shape", "lora", "unsloth", "off")
    assert (probed.seconds, probed.runs, probed.probed) == (1.3, 0, True)
    assert probed.because.startswith("Corrected by a probe")
    assert correction("box", "shape", "lora", "transformers", "on") == correction("box", "shape", "lora") == probed
    record(outcome(200.0, backend="transformers", checkpointing="on"))
    assert correction("box", "shape", "lora").seconds == 2.0
    assert correction("box", "shape", "lora", "unsloth", "off") == probed
    record(outcome(120.0, backend="unsloth", checkpointing="off"))
    found = correction("box", "shape", "lora", "unsloth", "off")
    assert (found.seconds, found.runs, found.probed) == (1.2, 1, False)
    assert found.because.startswith("Corrected by 1 earlier run of")
    assert correction("box", "shape", "lora", "unsloth", "on").runs == 2


def test_power_is_that_of_the_last_runs_on_this_machine() -> None:
    assert measured_watts("box") is None
    record(outcome(1.0, kind="probe", watts=310.0))
    assert measured_watts("box") == 310.0
    for watts in (900.0, 400.0, 380.0, 420.0, None):
        record(outcome(1.0, watts=watts))
    assert measured_watts("box") == 400.0
    assert measured_watts("another") is None


def test_damaged_entries_are_ignored_and_those_of_earlier_versions_read(home: Path) -> None:
    home.mkdir()
    good: dict[str, Any] = {
        "machine": "box", "model": "shape", "method": "lora", "predicted_peak_gib": 1.0, "measured_peak_gib": 1.1,
        "predicted_seconds": 100.0, "measured_seconds": 130.0, "time": 1.0,
    }  # fmt: skip
    damaged = [3, None, [], {}, good | {"time": "yesterday"}, good | {"backend": 3}, good | {"watts": -5}]
    damaged += [{**good, "measured_seconds": float("nan")}, {key: good[key] for key in good if key != "method"}]
    calibration_path().write_text(json.dumps({"form": 1, "runs": [good, *damaged], "probes": damaged, "new": 1}))
    assert len(outcomes("box", "shape", "lora")) == 1
    assert correction("box", "shape", "lora", "unsloth", "off").seconds == 1.3
    assert measured_watts("box") is None
    record(outcome(150.0, kind="probe"))
    kept = json.loads(calibration_path().read_text())
    assert kept["new"] == 1
    assert correction("box", "shape", "lora").runs == 1


def card_entry(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "card": GPU.name, "driver": "570.1", "torch_version": version("torch"), "matrix_tflops": 55.0,
        "copy_gb_per_second": 250.0, "context_gib": 0.75, "host_gb_per_second": 20.0, "time": 1.0,
    }  # fmt: skip
    return values | changes


def around_of(here: Machine) -> Any:
    return look_around(Work(recipe(), SMALL, (100,) * 64, (), 1, 1, 0), here, default_calibration(2))


def test_a_measured_card_takes_the_place_of_its_datasheet(home: Path) -> None:
    assert unmeasured(machine(GPU)) == "card"
    assert unmeasured(machine(replace(GPU, utilisation_percent=90.0))) is None
    before = around_of(machine(GPU))
    assert (before.device.source, before.card_rates) == ("datasheet", None)
    store("cards", [card_entry(), card_entry(matrix_tflops=-1), 7, card_entry(driver="1.0", matrix_tflops=1.0)])
    assert unmeasured(machine(GPU)) is None
    after = around_of(machine(GPU))
    assert after.device.source == "measured"
    assert (after.device.name, after.device.matrix_tflops) == ("L4", 55.0)
    assert after.device.bandwidth_gb_per_second == pytest.approx(250.0 / COPY_SHARE)
    assert after.budget_gib == pytest.approx(before.budget_gib - 0.2)
    store("cards", [card_entry(torch_version="0.1")])
    assert read_card_rates(GPU.name, "570.1") is None


def test_a_card_without_a_driver_that_torch_can_use_is_said(home: Path) -> None:
    with pytest.raises(TunewrightError, match="finds no GPU that it can use"):
        measure(machine(GPU))
    assert not (home / "calibration.json").exists() and not os.path.exists(home / "runs")


def plan_for(device: str) -> Any:
    return SimpleNamespace(device=device, gpu_indices=(0, 2))


@pytest.mark.slow
def test_power_is_the_mean_of_the_samples_since_training_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.engine.training import devices

    drawn, sampled = [900.0], Event()

    @contextmanager
    def gpus(indices: tuple[int, ...]) -> Iterator[Callable[[], list[Gpu]]]:
        assert indices == (0, 2)

        def sample() -> list[Gpu]:
            sampled.set()
            return [Gpu(index=index, utilisation_percent=None, memory_used_gib=1, memory_total_gib=2,
                        temperature_celsius=None, power_watts=drawn[0] / 2) for index in indices]  # fmt: skip

        yield sample

    monkeypatch.setattr(devices, "_gpus", gpus)
    monkeypatch.setattr(devices, "DEVICE_SAMPLES_SECONDS", 0.01)
    log = EventLog(tmp_path / "events.jsonl")
    with devices.device_samples(log, plan_for("cuda")) as power:
        while power.watts is None:
            assert sampled.wait(20)
        assert power.watts == 900.0
        drawn[0] = 300.0
        sampled.clear()
        assert sampled.wait(20)  # the one that was under way
        sampled.clear()
        assert sampled.wait(20)
        power.reset()
        while power.watts is None:
            assert sampled.wait(20)
        assert power.watts == 300.0
    with devices.device_samples(log, plan_for("cpu")) as power:
        assert power.watts is None
