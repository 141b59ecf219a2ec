"""What a probe measures on a card, and what is kept of the card itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def tunewright(home: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments],
        env={**os.environ, "TUNEWRIGHT_HOME": str(home)}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.parametrize("backend", ["unsloth", "transformers"])
def test_a_probe_measures_the_card_and_the_plan(tmp_path: Path, backend: str) -> None:
    found: dict[str, Any] = json.loads(tunewright(tmp_path, "probe", "starter-lora", "--backend", backend, "--json"))
    kept = json.loads((tmp_path / "calibration.json").read_text())
    (card,) = kept["cards"]
    print(json.dumps(found), json.dumps(card))
    assert found["notes"] == []
    assert card["matrix_tflops"] > 10
    assert card["copy_gb_per_second"] > card["host_gb_per_second"] > 1
    assert 0.05 < card["context_gib"] < 2
    measured = found["measured"]
    assert 0 < measured["peak_gib"] <= measured["reserved_gib"]
    assert measured["evaluation_gib"] <= measured["reserved_gib"]
    assert measured["step_seconds"] > 0
    assert [each["kind"] for each in kept["probes"]] == ["probe"]
    plan = json.loads(tunewright(tmp_path, "plan", "starter-lora", "--json"))
    assert any("rates measured on this card" in note for note in plan["notes"])


def test_a_run_keeps_the_power_that_its_card_drew(tmp_path: Path) -> None:
    tunewright(tmp_path, "demo", "--json")
    (run,) = json.loads((tmp_path / "calibration.json").read_text())["runs"]
    print(json.dumps(run))
    assert run["watts"] > 20
    assert run["backend"] in ("unsloth", "transformers")
