"""Telemetry on an NVIDIA GPU: utilisation against the measured matrix rate, samples from NVML, and the first step's parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from .test_on_gpu import tunewright

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def test_a_run_tells_its_utilisation_and_its_card(tmp_path: Path) -> None:
    tunewright(
        tmp_path, "train", "starter-lora", "--set", "training.steps=40", "--set", "evaluation.rows=10", "--follow"
    )
    (run,) = (tmp_path / "runs").iterdir()
    events: list[dict[str, Any]] = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert all(0 < step["mfu"] < 1 for step in steps)
    assert all(step["reserved_gib"] >= step["peak_gib"] > 0 for step in steps)
    gpus = [event for event in events if event["event"] == "gpu"]
    plan = json.loads((run / "plan.json").read_text())
    assert {gpu["index"] for gpu in gpus} == set(plan["gpu_indices"])
    assert gpus[-1]["power_watts"] > 0 and gpus[-1]["clock_mhz"] > 0
    measured: dict[str, float] = {}
    for event in events:
        if event["event"] == "measured":
            measured |= event["values"]
    assert measured["seconds_compiling"] > 0
    print(json.dumps({"mfu": steps[-1]["mfu"], **measured}))


def test_a_card_is_measured_once_and_its_rate_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.engine.calibration_file import entries
    from tunewright.engine.machine import inspect_machine
    from tunewright.engine.planner import plan_recipe
    from tunewright.engine.training.utilisation import matrix_tflops
    from tunewright.recipes.registry import open_registry

    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    with open_registry() as registry:
        plan = plan_recipe(registry.get("starter-lora").recipe, inspect_machine(tmp_path))
    measured = matrix_tflops(plan)
    assert measured is not None and measured > 10
    assert [entry["matrix_tflops"] for entry in entries("matrix_rates")] == [measured]
    assert matrix_tflops(plan) == measured
    print(measured)
