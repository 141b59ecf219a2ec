"""`tunewright estimate`, `plan` and `advise` as people and programs call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.parser import run
from tunewright.recipes.registry import open_registry

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
    "max_position_embeddings": 131072,
}  # fmt: skip
MEASURED = json.loads(
    (Path(__file__).parent.parent / "engine" / "measured" / "h200_fixed_length.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()[6]
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return str(tmp_path)


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = run([*words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_estimates_a_measured_row_without_weights(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(
        capsys, "estimate", "--config", config, "--method", "lora", "--rank", "16", "--targets", "all-linear",
        "--optimizer", "adamw_8bit", "--sequence", "2048", "--micro-batch", "4", "--checkpointing", "on",
        "--backend", "unsloth", "--liger", "off", "--gpu", "NVIDIA H200",
    )  # fmt: skip
    assert status == 0
    assert found["total_parameters"] == 8_030_261_248
    assert found["trainable_parameters"] == MEASURED["trainable"]
    assert found["peak_allocated_gib"] == pytest.approx(MEASURED["peak_allocated_gib"], rel=0.05)
    assert found["peak_reserved_gib"] == pytest.approx(MEASURED["peak_reserved_gib"], rel=0.05)
    assert found["step_seconds"] == pytest.approx(MEASURED["step_seconds"], rel=0.1)
    assert found["tokens_per_second"] == pytest.approx(MEASURED["tokens_per_second"], rel=0.1)
    assert sum(found["terms"].values()) == pytest.approx(found["peak_allocated_gib"])


def test_estimates_for_a_processor_and_a_list_of_targets(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(
        capsys, "estimate", "--config", f"{config}/config.json", "--targets", "q_proj, v_proj", "--rank", "8"
    )
    assert status == 0
    assert found["trainable_parameters"] == 8 * 32 * (4096 + 4096 + 4096 + 1024)
    assert run(["estimate", "--config", config, "--gpu", "Tesla T4", "--method", "qlora"]) == 0
    text = capsys.readouterr().out
    assert "peak" in text
    assert "datasheet" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--targets", "w_pack"], "Unknown target"),
        (["--targets", ","], "No target module"),
        (["--rank", "0"], "out of range"),
        (["--rank", "-4"], "out of range"),
        (["--rank", "2000"], "out of range"),
        (["--rank", "1e3"], "not understood"),
        (["--sequence", "0"], "out of range"),
        (["--micro-batch", "0"], "out of range"),
        (["--optimizer", "sgd"], "Unknown optimizer"),
        (["--backend", "mlx"], "not understood"),
        (["--backend", "unsloth", "--gpu", "MI300X"], "Unsloth needs"),
        (["--method", "dora"], "not understood"),
        (["--gpu", "NVIDIA Z9000"], "Unknown card"),
        (["--gpu", ""], "Unknown card"),
        (["--config", ""], "No model"),
    ],
)
def test_refuses_with_three_parts(config: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "estimate", "--config", config, *words)
    assert status == 2
    assert said in found["error"]["title"]
    assert found["error"]["remedy"]


def test_an_unknown_optimizer_names_the_known_ones(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = ask(capsys, "estimate", "--config", config, "--optimizer", "adamw_bnb_8bits")
    assert "adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, adafactor" in found["error"]["message"]
    assert "adamw_bnb_8bit" in found["error"]["remedy"]


@pytest.mark.parametrize(("said", "meant"), [("adamw_bnb_8bit", "adamw_8bit"), ("adamw_torch_fused", "adamw")])
def test_hugging_faces_optimizer_names_mean_the_same(
    config: str, said: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, one = ask(capsys, "estimate", "--config", config, "--gpu", "NVIDIA H200", "--optimizer", said)
    _, other = ask(capsys, "estimate", "--config", config, "--gpu", "NVIDIA H200", "--optimizer", meant)
    assert one == other
    assert one["optimizer"] == meant


def test_an_optimizer_of_smaller_states_takes_less(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("estimate", "--config", config, "--gpu", "NVIDIA H200", "--method", "full", "--optimizer")
    plain, small = (ask(capsys, *words, name)[1]["terms"]["optimizer"] for name in ("adamw", "adamw_8bit"))
    assert small < 0.7 * plain  # the embedding's states stay in 32 bits


def test_rows_beyond_the_context_are_estimated_with_a_note(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "estimate", "--config", config, "--gpu", "NVIDIA H200", "--sequence", "200000")
    assert status == 0
    assert "200,000 tokens are longer than the model's 131,072" in found["note"]


def test_a_size_stands_for_a_published_shape(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "estimate", "--config", "8b", "--gpu", "NVIDIA A100-SXM4-80GB")
    assert (status, found["total_parameters"], found["fits"]) == (0, 8_030_261_248, True)
    assert found["device"] == "NVIDIA A100-SXM4-80GB"
    assert "published" in found["note"]


def test_refuses_a_folder_without_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "estimate", "--config", str(tmp_path))
    assert (status, found["error"]["title"]) == (2, "File not found")


def test_estimating_takes_no_torch_and_little_time(config: str) -> None:
    program = (
        "import sys\nfrom tunewright.cli.parser import run\n"
        f"run(['estimate', '--config', {config!r}, '--gpu', 'NVIDIA H200', '--json'])\n"
        "assert not {'torch', 'transformers', 'numpy', 'pydantic', 'textual'} & set(sys.modules), sorted(sys.modules)\n"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    assert time.perf_counter() - started < 3  # 0.15 s on an idle machine


def test_advises_with_the_questions_in_the_answer(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "advise", "--model", config, "--goal", "style")
    assert status == 0
    assert found["answers"]["goal"] == "style"
    assert [each["method"] for each in found["figures"]] == ["full", "lora", "qlora"]
    assert {question["key"] for question in found["questions"]} == set(found["answers"])
    assert run(["advise", "--model", config]) == 0
    assert "METHOD" in capsys.readouterr().out


@pytest.mark.slow
def test_plans_a_recipe_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "plan", "starter-lora", "--rate", "2")
    assert status == 0
    with open_registry() as registry:
        batch = registry.get("starter-lora").recipe.training.global_batch
    assert found["micro_batch"] * found["accumulation"] == batch
    assert found["prediction"]["cost"] > 0
    assert run(["plan", "starter-lora"]) == 0
    text = capsys.readouterr().out
    assert "BECAUSE" in text
    assert "LOST" in text
