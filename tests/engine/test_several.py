"""Several GPUs in the plan: when they are taken and how, whose they are, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.anatomy import parse_anatomy
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.plan import Plan
from tunewright.engine.planner import make_plan
from tunewright.engine.runs.ladder import ladder
from tunewright.engine.several import Wish, read_wish
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Base, Data, FullMethod, LoraMethod, QloraMethod, Recipe, Training

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "dtype": "bfloat16",
    "max_position_embeddings": 131072,
}
EIGHT = parse_anatomy(
    LLAMA | {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336,
    },
    "8b",
)  # fmt: skip
SEVENTY = parse_anatomy(
    LLAMA | {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672,
    },
    "70b",
)  # fmt: skip
TINY = parse_anatomy(
    LLAMA | {
        "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2,
        "intermediate_size": 512, "vocab_size": 2048, "tie_word_embeddings": True,
    },
    "tiny",
)  # fmt: skip
METHODS: dict[str, Any] = {
    "full": FullMethod(kind="full"),
    "lora": LoraMethod(kind="lora"),
    "qlora": QloraMethod(kind="qlora"),
    "dora": LoraMethod(kind="lora", dora=True),
}
LENGTHS = [2048] * 2000


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def recipe(method: str = "lora", batch: int = 16) -> Recipe:
    return Recipe(
        base=Base(model="some/model"),
        data=Data(source="rows.jsonl"),
        method=METHODS[method],
        training=Training(learning_rate=1e-4, epochs=2, global_batch=batch),
    )


def card(index: int = 0, total: float = 139.8, free: float | None = None, name: str = "NVIDIA H200") -> GpuDevice:
    return GpuDevice(index, name, total, total if free is None else free, (9, 0), None, None, None, None)


def machine(*gpus: GpuDevice) -> Machine:
    return Machine("Linux", "EPYC", 32, 500, 480, 900.0, gpus, "580" if gpus else None, "No GPU.")


def plan(wanted: Recipe, box: Machine, anatomy: Any = EIGHT, wish: Wish = None, **options: Any) -> Plan:
    return make_plan(wanted, box, anatomy, LENGTHS, LENGTHS[:50], [50] * 10, None, wish=wish, **options)


def reason(found: Plan, choice: str) -> str:
    return next(each.because for each in found.reasons if each.choice == choice)


@pytest.mark.parametrize("gpus", [2, 4])
def test_a_model_that_fits_is_copied_to_every_gpu(gpus: int) -> None:
    box = machine(*(card(index) for index in range(gpus)))
    alone, shared = plan(recipe(), box, wish=1), plan(recipe(), box)
    assert (shared.parallelism, shared.gpu_indices) == ("ddp", tuple(range(gpus)))
    assert shared.global_batch == alone.global_batch == 16
    assert shared.backend == "transformers"
    assert alone.prediction and shared.prediction
    assert shared.prediction.step_seconds < 1.3 * alone.prediction.step_seconds / gpus
    assert "One GPU: " in reason(shared, "parallelism") and " s and " in reason(shared, "parallelism")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_that_do_not_fit_one_gpu_are_split(method: str) -> None:
    box = machine(*(card(index, total=46) for index in range(8)))
    found = plan(recipe(method, 32), box, SEVENTY if method == "lora" else EIGHT)
    assert found.parallelism == "fsdp2"
    assert found.prediction and found.prediction.reserved_gib < 46
    assert "does not fit" in reason(found, "parallelism")


def test_quantised_weights_of_seventy_billion_are_copied_while_they_fit() -> None:
    assert plan(recipe("qlora"), machine(card(), card(1)), SEVENTY).parallelism == "ddp"
    small = machine(*(card(index, total=46) for index in range(4)))
    assert plan(recipe("qlora"), small, SEVENTY).parallelism == "fsdp2"


def test_a_small_model_is_left_on_one_gpu() -> None:
    found = plan(recipe(batch=4), machine(card(), card(1)), TINY)
    assert (found.parallelism, found.gpus) == ("one", 1)
    assert "would not be worth it" in reason(found, "parallelism")


def test_gpus_that_others_use_or_of_another_kind_are_left_alone() -> None:
    box = machine(card(), card(1, free=100), card(2), card(3, name="NVIDIA H100 80GB HBM3", total=79.6))
    assert plan(recipe(), box).gpu_indices == (0, 2)
    assert plan(recipe(), box, wish=(0, 1)).gpu_indices == (0, 1)
    assert plan(recipe(), box, wish=(1,)).gpu_indices == (1,)
    with pytest.raises(TunewrightError, match="slowest would hold up"):
        plan(recipe(), box, wish=(0, 3))


def test_a_batch_that_cannot_be_shared_out_names_the_numbers_that_can() -> None:
    box = machine(*(card(index) for index in range(4)))
    assert plan(recipe(batch=6), box).gpus == 3
    with pytest.raises(TunewrightError, match="cannot share evenly") as refused:
        plan(recipe(batch=6), box, wish=4)
    assert "(2, 3)" in refused.value.remedy


def test_dora_is_never_split() -> None:
    box = machine(*(card(index, total=46) for index in range(8)))
    with pytest.raises(TunewrightError, match="Does not fit"):
        plan(recipe("dora", 32), box, SEVENTY)


def test_unsloth_on_several_gpus_is_refused_and_taken_on_one() -> None:
    box = machine(card(), card(1))
    assert plan(recipe(), box, backend="unsloth").gpus == 1
    with pytest.raises(TunewrightError, match="one GPU"):
        plan(recipe(), box, backend="unsloth", wish=2)


def test_little_shared_memory_is_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/")
    full = os.statvfs_result((*real[:4], 0, *real[5:10]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    box = machine(card(), card(1))
    found = plan(recipe(), box)
    assert found.gpus == 1 and "--shm-size" in reason(found, "parallelism")
    with pytest.raises(TunewrightError, match="exchange data"):
        plan(recipe(), box, wish=2)


def test_the_ladder_keeps_the_batch_of_several_gpus() -> None:
    found = plan(recipe(), machine(card(), card(1)))
    for rung in ladder(replace(found, micro_batch=8, accumulation=1)):
        assert rung.plan.global_batch == 16


@pytest.mark.parametrize(
    ("text", "wish"), [(None, None), ("2", 2), ("all", 3), ("0,2", (0, 2)), ("1,", (1,)), ("2,2,0", (2, 0))]
)
def test_a_choice_of_gpus_is_read(text: str | None, wish: Wish) -> None:
    assert read_wish(text, machine(card(), card(1), card(2))) == wish


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "neither"), ("two", "neither"), ("0", "asked for"), ("4", "has 3"), ("0,7", "GPU 7"), ("-1", "neither")],
)
def test_a_choice_of_gpus_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(TunewrightError, match=said):
        read_wish(text, machine(card(), card(1), card(2)))
