"""The whole road, from the command to the tuned model: nothing is mocked."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def tunewright(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments],
        env={**os.environ, "TUNEWRIGHT_HOME": str(home)}, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(home: Path) -> dict[str, Any]:
    """What `tunewright demo --json` prints last, after a real run."""
    ended = tunewright(home, "demo", "--json")
    assert ended.returncode == 0, ended.stderr
    assert "step 238/238" in ended.stderr  # the lines that people read while they wait
    return json.loads(ended.stdout.splitlines()[-1])


def test_the_task_is_learned_and_every_figure_told(demo: dict[str, Any]) -> None:
    figures = demo["lora"]
    assert set(figures) == {
        "trainable_parameters", "peak_predicted_gib", "peak_measured_gib", "seconds_predicted", "seconds_measured",
        "exact_match_before", "exact_match_after",
    }  # fmt: skip
    assert figures["exact_match_before"] < 0.05
    assert figures["exact_match_after"] > 0.80
    assert figures["trainable_parameters"] == 262_144
    assert figures["peak_predicted_gib"] == pytest.approx(figures["peak_measured_gib"], rel=0.10)
    assert figures["seconds_measured"] < 180


def test_the_run_leaves_an_adapter_a_merged_model_and_its_result(demo: dict[str, Any], home: Path) -> None:
    (run,) = (home / "runs").iterdir()
    settings = json.loads((run / "exports" / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (16, 32, "LORA")
    assert (run / "exports" / "adapter" / "adapter_model.safetensors").stat().st_size > 500_000
    assert (run / "exports" / "model" / "model.safetensors").exists()
    result = json.loads((run / "result.json").read_text())
    assert (result["state"], result["step"], result["error"]) == ("finished", 238, None)
    assert result["measured"]["tokens_per_second"] > 0
    assert not [path.name for path in run.rglob("*.tmp")] and not list(run.glob("checkpoints/.*"))


def test_the_merged_model_says_what_base_and_adapter_say(demo: dict[str, Any], home: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from tunewright import starter

    (run,) = (home / "runs").iterdir()
    tokens = torch.arange(10, 200).reshape(2, -1)
    base = AutoModelForCausalLM.from_pretrained(starter.MODEL, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(run / "exports" / "model", dtype=torch.float32).eval()
    with torch.inference_mode():
        plain = base.eval()(tokens).logits
        tuned = PeftModel.from_pretrained(base, str(run / "exports" / "adapter")).eval()(tokens).logits
        assert (merged(tokens).logits - tuned).abs().max() < 1e-3
        assert (tuned - plain).abs().max() > 1


def test_chat_puts_base_and_tuned_side_by_side(demo: dict[str, Any], home: Path) -> None:
    ended = tunewright(home, "chat", "last", "--prompt", "Two small red mugs for Mira in Oslo, please.", "--json")
    answers = json.loads(ended.stdout)
    assert json.loads(answers["tuned"])["items"] == [{"item": "mug", "colour": "red", "size": "small", "quantity": 2}]
    assert answers["base"] and not answers["base"].startswith("{")


def test_every_login_finds_the_run(demo: dict[str, Any], home: Path) -> None:
    (listed,) = json.loads(tunewright(home, "runs", "--json").stdout)["runs"]
    assert (listed["standing"], listed["step"], listed["method"]) == ("finished", 238, "lora")
    lines = tunewright(home, "attach", "last").stdout
    assert "judging before" in lines and "exact match" in lines and "finished" in lines
    events = [json.loads(line)["event"] for line in tunewright(home, "attach", "last", "--json").stdout.splitlines()]
    assert {"status", "phase", "step", "eval", "sample", "checkpoint", "cpu", "measured"} <= set(events)
    for refused in ("resume", "stop"):
        ended = tunewright(home, refused, "last")
        assert ended.returncode == 2
        assert "finished" in ended.stderr


def test_the_merge_can_be_repeated(demo: dict[str, Any], home: Path) -> None:
    (run,) = (home / "runs").iterdir()
    before = (run / "exports" / "model" / "model.safetensors").read_bytes()
    written = json.loads(tunewright(home, "export", "last", "--json").stdout)
    assert (Path(written["model"]) / "model.safetensors").read_bytes() == before


def test_the_run_is_evidence_for_its_recipe(demo: dict[str, Any], home: Path) -> None:
    deadline = time.monotonic() + 60
    shown: dict[str, Any] = {}
    while not shown.get("evidence"):  # the supervisor's last deed, after the result
        assert time.monotonic() < deadline
        shown = json.loads(tunewright(home, "recipes", "show", "starter-lora", "--json").stdout)
    (whole,) = (each for each in shown["evidence"] if each["metric"] is None)
    (match,) = (each for each in shown["evidence"] if each["metric"] == "exact_match")
    assert (whole["kind"], whole["status"], whole["seed"], whole["steps"]) == ("local", "finished", 42, 238)
    assert match["value"] == demo["lora"]["exact_match_after"]
    assert whole["measured_peak_gib"] == pytest.approx(whole["predicted_peak_gib"], rel=0.10)
    assert whole["first_loss"] > 2 * whole["last_loss"] > 0
    assert whole["measured_tokens_per_second"] > 0 and whole["predicted_tokens_per_second"] > 0
    assert {"torch", "trl", "peft"} <= whole["versions"].keys()
    (proven,) = json.loads(tunewright(home, "recipes", "search", "--proven-here", "--json").stdout)["recipes"]
    assert (proven["name"], proven["evidence"], proven["runs"]["finished"]) == ("starter-lora", "ran", 1)
