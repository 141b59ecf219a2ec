"""`tunewright parameters`, `targets`, `cards` and `cost` as people and programs call them."""

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

COMMANDS = {
    "parameters": ["parameters", "8b"],
    "targets": ["targets", "8b", "--gpu", "RTX 4090"],
    "cards": ["cards", "8b", "1b"],
    "cost": ["cost", "8b", "--gpu", "H100"],
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = run([*words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def read(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_parameters_by_rank_and_kind(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "parameters", "8b", "--ranks", "32,8,8", "--targets", "q_proj,v_proj")
    assert status == 0
    assert found["targets"] == ["q_proj", "v_proj"]
    assert [each["rank"] for each in found["ranks"]] == [8, 32]
    assert found["ranks"][0]["trainable_parameters"] == 8 * 32 * (4096 + 4096 + 4096 + 1024)
    assert sum(found["parameters_by_kind"].values()) == found["total_parameters"] == 8_030_261_248
    _, dora = ask(capsys, "parameters", "8b", "--ranks", "8", "--targets", "q_proj,v_proj", "--dora")
    more = dora["ranks"][0]["trainable_parameters"] - found["ranks"][0]["trainable_parameters"]
    assert more == 32 * (4096 + 1024)


def test_parameters_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = read(capsys, "parameters", "8b")
    row = next(line for line in lines if line.split()[:1] == ["16"])
    assert row.split() == ["16", "41,943,040", "0.52", "%", "0.16", "GiB", "0.62", "GiB"]


@pytest.mark.parametrize("ranks", ["", "a", "8,,x", "0", "-8", "8,99999", "1.5"])
def test_parameters_refuses_other_ranks(ranks: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "parameters", "8b", f"--ranks={ranks}")
    assert status == 2
    assert found["error"]["remedy"]


def test_targets_agree_with_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = ask(
        capsys, "targets", "8b", "--gpu", "RTX 4090", "--method", "qlora", "--rank", "32", "--sequence", "1024"
    )
    choice = next(each for each in found["choices"] if each["name"] == "attention")
    _, single = ask(
        capsys, "estimate", "--config", "8b", "--gpu", "RTX 4090", "--method", "qlora", "--rank", "32",
        "--targets", "attention", "--sequence", "1024", "--backend", "unsloth",
    )  # fmt: skip
    for name in ("trainable_parameters", "peak_allocated_gib", "needed_gib", "tokens_per_second", "fits"):
        assert choice[name] == single[name]
    lines = read(capsys, *COMMANDS["targets"])
    assert [line.split()[0] for line in lines if line.endswith(("yes", "no"))][:4] == [
        "qv",
        "attention",
        "mlp",
        "all-linear",
    ]


def test_cards_tell_the_smallest_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, "cards", "8b", "1b", "--gpu", "RTX 3060", "NVIDIA H200", "--sequence", "2048")
    assert status == 0
    large, small = found["models"]
    assert large["smallest"] == {"qlora": "RTX 3060", "lora": "NVIDIA H200", "full": "NVIDIA H200"}
    assert small["smallest"]["lora"] == "RTX 3060"
    assert len(large["cards"]) == 6
    verdicts = {(each["method"], each["card"]): each["verdict"] for each in large["cards"]}
    assert verdicts["full", "RTX 3060"] == "no"
    _, longer = ask(capsys, "cards", "8b", "--gpu", "RTX 3060", "--sequence", "16384", "--micro-batch", "4")
    assert longer["models"][0]["smallest"]["qlora"] is None


def test_cards_as_text_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = read(capsys, "cards", "8b")
    assert all(len(line) <= 80 for line in lines)
    answer = next(line for line in lines if line.startswith("full"))
    row = next(line for line in lines if line.startswith("A100-80 "))
    assert "A100-80" in answer
    assert row.count("fits") == 3


def test_cost_counts_data_epochs_and_money(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "rows.txt"
    data.write_text(("x" * 400 + "\n") * 50 + "\n\n")
    _, found = ask(capsys, "cost", "1b", "--gpu", "H100", "--data", str(data), "--epochs", "2", "--rate", "7.5")
    assert (found["rows"], found["tokens_a_row"], found["tokens"]) == (50, 100, 50 * 100 * 2)
    for each in found["methods"]:
        assert each["money"] == pytest.approx(each["seconds"] / 3600 * 7.5)
    _, known = ask(capsys, "cost", "1b", "--gpu", "H100")
    assert known["hourly_rate"] > 0
    assert "typical" in known["note"]
    _, free = ask(capsys, "cost", "1b", "--gpu", "H100", "--rate", "0")
    assert [each["money"] for each in free["methods"]] == [0.0, 0.0, 0.0]


def test_cost_of_several_gpus_stands_below_that_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    lines = read(capsys, "cost", "8b", "--gpu", "H100", "--gpus", "4")
    rows = [line.split()[:2] for line in lines if line.startswith(("QLoRA", "LoRA", "full"))]
    assert rows == [["QLoRA", "1"], ["LoRA", "1"], ["full", "1"], ["LoRA", "4"], ["full", "4"]]


def test_cost_without_a_known_price_has_no_money(capsys: pytest.CaptureFixture[str]) -> None:
    lines = read(capsys, "cost", "tunewright/starter", "--rows", "100", "--tokens-a-row", "128")
    assert [line.split()[-1] for line in lines if line.startswith(("QLoRA", "LoRA", "full"))] == ["–", "–", "–"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cost", "8b", "--rate", "much"], "Rate not understood"),
        (["cost", "8b", "--rate", "-1"], "out of range"),
        (["cost", "8b", "--rate", "nan"], "out of range"),
        (["cost", "8b", "--rows", "0"], "out of range"),
        (["cost", "8b", "--epochs", "0"], "out of range"),
        (["cost", "8b", "--gpus", "0"], "out of range"),
        (["cost", "8b", "--tokens-a-row", "0"], "out of range"),
        (["cost", "8b", "--rows", "5", "--data", "x"], "not understood"),
        (["cost", "8b", "--data", "/nowhere.jsonl"], "Data not found"),
        (["cards", "9000b"], "Model not found"),
        (["cards", "8b", "--gpu", "Voodoo 2"], "Unknown card"),
        (["cards"], "not understood"),
        (["targets", "8b", "--rank", "0"], "out of range"),
        (["targets", "8b", "--method", "full"], "not understood"),
        (["parameters", "8b", "--targets", "w_pack"], "Unknown target"),
    ],
    ids=" ".join,
)
def test_odd_input_is_refused_with_three_parts(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, *words)
    assert status == 2
    assert said in found["error"]["title"]
    assert found["error"]["message"]
    assert found["error"]["remedy"]


def test_an_empty_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text("\n\n")
    status, found = ask(capsys, "cost", "8b", "--data", str(tmp_path / "rows.jsonl"))
    assert (status, found["error"]["title"]) == (2, "Empty data")


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_commands_take_no_torch_and_little_time(words: list[str]) -> None:
    program = (
        "import sys\nfrom tunewright.cli.parser import run\n"
        f"assert run({[*words, '--json']!r}) == 0\n"
        "assert not {'torch', 'transformers', 'numpy', 'pydantic', 'textual'} & set(sys.modules), sorted(sys.modules)\n"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    assert time.perf_counter() - started < 3  # 0.15 s on an idle machine
