"""`tunewright probe` as people and programs call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def tunewright(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments],
        env={**os.environ, "TUNEWRIGHT_HOME": str(home)}, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home: Path) -> subprocess.CompletedProcess[str]:
    """The first probe on this machine, before which the processor is measured."""
    return tunewright(home, "probe", "starter-lora", "--json")


@pytest.mark.slow
def test_predicted_stands_beside_measured(first: subprocess.CompletedProcess[str], home: Path) -> None:
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert set(found) == {
        "recipe", "machine", "backend", "gradient_checkpointing", "micro_batch", "accumulation", "rows",
        "longest_tokens", "fits", "predicted", "measured", "failure", "correction", "notes",
    }  # fmt: skip
    assert (found["recipe"], found["fits"], found["failure"]) == ("starter-lora", True, None)
    assert set(found["predicted"]) == set(found["measured"]) == {
        "peak_gib", "reserved_gib", "step_seconds", "first_step_seconds", "saving_seconds", "checkpoint_bytes",
        "evaluation_gib", "evaluation_seconds", "watts",
    }  # fmt: skip
    assert (found["correction"]["before"]["probed"], found["correction"]["after"]["probed"]) == (False, True)
    assert "measuring this processor once" in first.stderr
    assert not (home / "runs").exists()
    plan = json.loads(tunewright(home, "plan", "starter-lora", "--json").stdout)
    assert plan["prediction"]["peak_correction"] == pytest.approx(found["correction"]["after"]["peak"])
    again = tunewright(home, "probe", "starter-lora")
    assert again.returncode == 0, again.stderr
    assert "measuring" not in again.stdout
    lines = again.stdout.splitlines()
    header = next(line for line in lines if line.split() == ["PREDICTED", "MEASURED"])
    assert lines[lines.index(header) + 1].startswith("peak memory")
    assert "Later plans are corrected by a probe of this model shape and method here" in again.stdout.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_too_little_time_is_an_error(home: Path) -> None:
    ended = tunewright(home, "probe", "starter-lora", "--limit", "1", "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["title"] == "The probe took too long"
    assert [path.name for path in home.iterdir() if path.name.startswith(".probe")] == []


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        (["starter-lora", "--limit", "0"], "Limit out of range"),
        (["starter-lora", "--limit", "nan"], "Limit out of range"),
        (["no-such-recipe"], "Unknown recipe"),
        (["starter-lora", "--data", "/nowhere.jsonl"], "Data not found"),
    ],
)
def test_what_cannot_be_probed_is_said(tmp_path: Path, arguments: list[str], title: str) -> None:
    (tmp_path / "calibration.json").write_text("{}")
    ended = tunewright(tmp_path, "probe", *arguments)
    assert ended.returncode == 2
    assert title in ended.stderr
