"""Seconds against steps that were measured on an H200, cards, money, batches and calibration."""

from __future__ import annotations

import json
import math
import os
import random
import time
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.engine import batches, cost, speed
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.calibration import (
    Calibration,
    Outcome,
    calibrate,
    correction,
    default_calibration,
    read_calibration,
    record,
)
from tunewright.engine.cards import CARDS, UNKNOWN, find_card
from tunewright.engine.flop import Load, forward_flop_per_token
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.setting import Setting, Tuning
from tunewright.foundation.home import calibration_path

BASE: dict[str, Any] = {
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}
MODELS: dict[str, Anatomy] = {
    "llama-3.2-1b": parse_anatomy(
        BASE | {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "tie_word_embeddings": True},
        "1b",
    ),
    "llama-3.1-8b": parse_anatomy(
        BASE | {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}, "8b"
    ),
}
MEASURED = [
    json.loads(line) for line in (Path(__file__).parent / "measured" / "h200_fixed_length.jsonl").open(encoding="utf-8")
]

ROWS = Path(__file__).parents[2] / "benchmarks" / "rows" / "side_by_side.jsonl"
RUNS = [
    row
    for row in map(json.loads, ROWS.open(encoding="utf-8"))
    if row["who"] == "ours" and row["rows"] == "fixed" and row["compiled"]
]


def setting_of(row: dict[str, Any]) -> Setting:
    recomputing = "offloaded" if row["backend"] == "unsloth" else "on"
    checkpointing = recomputing if row["checkpointing"] else "off"
    return Setting(
        "cuda", row["backend"], "bf16", row["micro_batch"], row["sequence"], checkpointing, row["optimizer"],
        liger=row["liger"], padded=row["backend"] == "unsloth", adapters="library",
    )  # fmt: skip


def step_of(row: dict[str, Any]) -> float:
    setting, tuning = setting_of(row), Tuning(row["method"], row["rank"] or 0)
    load = Load(setting.tokens, setting.tokens_per_row)
    return speed.step_seconds(MODELS[row["model"]], tuning, setting, load, 1, find_card(row["gpu"]))


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row['model']}-{row['backend']}-{row['method']}")
def test_predicts_the_measured_steps(row: dict[str, Any]) -> None:
    assert step_of(row) == pytest.approx(row["step_seconds"], rel=0.10)


@pytest.mark.parametrize("row", RUNS, ids=lambda row: row["case"])
def test_predicts_the_steps_of_whole_runs(row: dict[str, Any]) -> None:
    setting = Setting(
        "cuda", "transformers", "bf16", row["micro_batch"], 2048, "off", "adamw_8bit", compiled=True, padded=False,
        accumulation=row["accumulation"],
    )  # fmt: skip
    tuning = Tuning(row["method"], 0 if row["method"] == "full" else 16)
    load = Load(setting.tokens, setting.tokens_per_row)
    taken = speed.step_seconds(MODELS["llama-3.1-8b"], tuning, setting, load, row["accumulation"], find_card("H200"))
    assert taken == pytest.approx(row["median_step_seconds"], rel=0.10)


def test_flop_reproduce_published_utilisation() -> None:
    """NeMo AutoModel on an H100: 12,473 tokens/s of Llama-3-8B LoRA at 4,096 tokens are stated as 402 TFLOP/s."""
    anatomy = MODELS["llama-3.1-8b"]
    # NeMo's figure counts the adapters' share as nothing.
    flop = forward_flop_per_token(anatomy, 4096) * 2
    assert 12_473 * flop / 1e12 == pytest.approx(402, rel=0.01)


@pytest.mark.parametrize(
    ("driver_name", "card"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", "A10"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ],
)
def test_finds_cards_by_the_drivers_name(driver_name: str, card: str) -> None:
    assert find_card(driver_name).name == card


def test_every_card_is_found_by_its_own_name() -> None:
    assert all(find_card(card.name) is card for card in CARDS)
    assert find_card("Imaginary 9000") is UNKNOWN
    assert [card.name for card in CARDS if card.source == "measured"] == ["H200"]


@given(
    tokens=st.integers(16, 100_000),
    kind=st.sampled_from(["full", "lora", "qlora"]),
    device=st.sampled_from([*CARDS, *default_calibration(4).rates]),
)
def test_recomputing_and_more_tokens_take_longer(tokens: int, kind: Any, device: Any) -> None:
    anatomy, tuning = MODELS["llama-3.2-1b"], Tuning(kind, 16)
    keeping = Setting("cuda", "transformers", "bf16", 1, tokens, "off")
    recomputing = Setting("cuda", "transformers", "bf16", 1, tokens, "on")
    load = Load(tokens, 512)

    def seconds(setting: Setting, load: Load) -> float:
        return speed.micro_batch_seconds(anatomy, tuning, setting, load, device)

    assert 0 < seconds(keeping, load) <= seconds(recomputing, load)
    assert seconds(keeping, load) <= seconds(keeping, Load(2 * tokens, 512))


def test_padding_is_that_of_all_possible_draws() -> None:
    lengths = [3, 3, 8, 10, 21, 40, 41]
    measured = batches.measure_lengths(lengths)
    for rows in range(1, 8):
        draws = [max(draw) for draw in combinations(lengths, rows)]
        assert measured.padded_length(rows) == pytest.approx(sum(draws) / len(draws))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_packing_keeps_every_token_and_overfills_nothing(lengths: list[int]) -> None:
    packed = batches.pack(lengths, 64)
    assert sum(packed) == sum(lengths)
    assert max(packed) <= 64
    assert math.ceil(sum(lengths) / 64) <= len(packed) <= len(lengths)


@given(rows=st.integers(1, 5000), batch=st.integers(1, 64), epochs=st.integers(1, 9))
def test_whole_epochs_see_every_row(rows: int, batch: int, epochs: int) -> None:
    steps = batches.steps_of(rows, batch, float(epochs), None)
    assert batches.rows_seen(rows, batch, steps) == epochs * rows


@given(st.integers(1, 65_536))
def test_divisors(number: int) -> None:
    found = batches.divisors(number)
    assert found == sorted(set(found))
    assert found[0] == 1
    assert found[-1] == number
    assert all(number % each == 0 for each in found)


def machine(*gpus: GpuDevice) -> Machine:
    return Machine("Linux", "EPYC", 2, 24.0, 20.0, 50.0, gpus, None, "")


def test_money_and_energy() -> None:
    h200 = GpuDevice(0, "NVIDIA H200", 140, 139, (9, 0), None, None, None, 600.0)
    assert cost.money(1800, None) is None
    assert cost.money(1800, 4.0) == 2.0
    assert cost.energy_kwh(3600, machine()) == pytest.approx(0.016)
    assert cost.energy_kwh(3600, machine(h200)) == pytest.approx(0.75)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    return tmp_path


def outcome(seconds: float, **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "machine": "box", "model": "shape", "method": "lora", "predicted_peak_gib": 1.0, "measured_peak_gib": 1.1,
        "predicted_seconds": 100.0, "measured_seconds": seconds, "time": 1.0,
    }  # fmt: skip
    return Outcome(**{**values, **changes})


def test_later_predictions_use_the_median_of_the_last_runs(own_home: Path) -> None:
    assert correction("box", "shape", "lora").runs == 0
    for seconds in (900.0, 110.0, 150.0, 120.0):
        record(outcome(seconds))
    record(outcome(1.0, method="full"))
    record(outcome(math.nan))
    found = correction("box", "shape", "lora")
    assert (found.seconds, found.peak, found.runs) == (pytest.approx(1.2), pytest.approx(1.1), 3)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"form": 1, "runs": 3, "calibration": []}', '{"form": 99}'])
def test_a_damaged_file_counts_as_unmeasured(own_home: Path, text: str) -> None:
    calibration_path().write_text(text)
    assert read_calibration() is None
    assert correction("box", "shape", "lora").runs == 0
    record(outcome(150.0))
    assert correction("box", "shape", "lora").seconds == 1.5


@pytest.mark.slow
def test_measures_this_machine_and_keeps_it(own_home: Path) -> None:
    record(outcome(150.0))
    measured = calibrate()
    assert read_calibration() == measured
    assert isinstance(measured, Calibration)
    assert measured.measured
    assert 0.1 < measured.libraries_gib < 4
    assert all(each.small_gflops > 0.5 for each in measured.rates)
    assert correction("box", "shape", "lora").runs == 1


@pytest.mark.parametrize(
    ("changes", "current"),
    [
        ({}, True),
        ({"torch_version": "0.0.1"}, False),
        ({"others_busy_cores": 0.9}, True),
        ({"others_busy_cores": 0.9, "time": time.time() - 7200}, False),
        ({"time": time.time() - 7200}, True),
    ],
)
def test_a_calibration_is_taken_while_it_is_current(own_home: Path, changes: dict[str, Any], current: bool) -> None:
    cores = len(os.sched_getaffinity(0))
    rates = {
        "threads": cores, "small_gflops": 80, "large_gflops": 80, "layer_seconds": 1e-3, "adapter_seconds": 3e-5,
        "score_seconds": 6e-9, "logit_seconds": 1e-8, "dequantised_per_second": 1e9,
    }  # fmt: skip
    values = {
        "device": "EPYC", "torch_version": version("torch"), "libraries_gib": 0.5, "import_seconds": 9.0,
        "others_busy_cores": 0.0, "time": time.time(), "rates": [rates],
    }  # fmt: skip
    calibration_path().write_text(json.dumps({"form": 1, "calibration": values | changes}))
    assert (read_calibration() is not None) is current


def test_expected_padding_of_many_rows_is_quick() -> None:
    rng = random.Random(0)
    lengths = batches.measure_lengths([rng.randint(1, 2048) for _ in range(20_000)])
    assert lengths.mean < lengths.padded_length(2) < lengths.padded_length(64) <= 2048
