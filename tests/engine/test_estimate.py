"""Estimates: one configuration's figures on a device, and how devices, optimizers and targets are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tunewright.engine import memory
from tunewright.engine.cards import card_by_name
from tunewright.engine.estimate import (
    OPTIMIZERS,
    Device,
    Estimate,
    card_device,
    device_of,
    estimate,
    find_device,
    make_setting,
    make_tuning,
    parse_optimizer,
    parse_targets,
    require_between,
)
from tunewright.engine.machine import GpuDevice, GpuProcess, Machine
from tunewright.engine.setting import Parallelism
from tunewright.engine.shapes import published
from tunewright.foundation.errors import TunewrightError

LLAMA = published("Llama-3.1-8B").anatomy
LORA = make_tuning("lora", 16, "all-linear")
PROCESSOR = Machine("Linux", "A processor", 8, 64.0, 40.0, 100.0, (), None, "No GPU was found.")
SHARED = replace(
    PROCESSOR,
    gpus=(
        GpuDevice(0, "NVIDIA A100-SXM4-80GB", 79.3, 20.0, (8, 0), 0.0, 30.0, 60.0, 300.0, (GpuProcess(1, "x", "y", 59.0),)),
        GpuDevice(1, "NVIDIA A100-SXM4-80GB", 79.3, 60.0, (8, 0), 0.0, 30.0, 60.0, 300.0),
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def h200() -> Device:
    return find_device("NVIDIA H200")


def test_the_figures_are_those_of_the_memory_model() -> None:
    setting = make_setting(h200(), "unsloth", 4, 2048, recomputing=True)
    found = estimate(LLAMA, LORA, setting, h200())
    assert found.terms == memory.predict_memory(LLAMA, LORA, setting)
    assert found.peak_allocated_gib == pytest.approx(sum(found.terms.values()))
    assert found.peak_allocated_gib < found.peak_reserved_gib < found.needed_gib < found.device_memory_gib
    assert found.trainable_parameters == 41_943_040
    assert found.tokens_per_second == pytest.approx(4 * 2048 / found.step_seconds)
    assert found.fits


def test_accumulation_makes_longer_steps_and_not_slower_tokens() -> None:
    full = make_tuning("full", 0, "all-linear")
    once, often = (
        estimate(LLAMA, full, make_setting(h200(), "unsloth", 1, 2048, recomputing=True, accumulation=times), h200())
        for times in (1, 16)
    )
    assert often.step_seconds > 10 * once.step_seconds
    assert often.tokens_per_second > once.tokens_per_second
    assert often.needed_gib >= once.needed_gib


def test_several_gpus_share_a_model_or_each_hold_it() -> None:
    full = make_tuning("full", 0, "all-linear")

    def figures(gpus: int, parallelism: Parallelism) -> Estimate:
        setting = make_setting(h200(), "transformers", 1, 2048, recomputing=True, gpus=gpus, parallelism=parallelism)
        return estimate(LLAMA, full, setting, h200())

    one, copied, shared = figures(1, "one"), figures(4, "ddp"), figures(4, "fsdp2")
    assert copied.needed_gib >= one.needed_gib
    assert shared.needed_gib < 0.5 * one.needed_gib
    assert one.tokens_per_second < copied.tokens_per_second < 4 * one.tokens_per_second
    assert one.tokens_per_second < shared.tokens_per_second


def test_rows_beyond_the_context_are_allowed_and_told() -> None:
    device = h200()
    long = estimate(LLAMA, LORA, make_setting(device, "unsloth", 1, 200_000, recomputing=True), device)
    assert "Rows of 200,000 tokens are longer than the model's 131,072." in long.note
    short = estimate(LLAMA, LORA, make_setting(device, "unsloth", 1, 2048, recomputing=True), device)
    assert "longer" not in short.note


def test_a_shared_gpu_is_judged_by_what_is_free() -> None:
    device = device_of(SHARED)
    assert (device.memory_gib, device.free_gib) == (79.3, 60.0)
    assert "Others use 19.3 GiB" in device.note
    setting = make_setting(device, "transformers", 8, 2048, recomputing=True)
    found = estimate(LLAMA, LORA, setting, device)
    assert found.fits
    less = replace(device, free_gib=found.needed_gib - 0.1)
    assert found.needed_gib < less.memory_gib
    assert not estimate(LLAMA, LORA, setting, less).fits


def test_a_processor_is_judged_by_its_free_memory() -> None:
    device = device_of(PROCESSOR)
    assert device.card is None
    assert (device.precision, device.free_gib, device.backends) == ("fp32", 40.0, ("transformers",))
    setting = make_setting(device, "transformers", 1, 128, recomputing=False)
    assert setting.libraries_gib == device.libraries_gib > 0
    assert not estimate(published("Qwen3-14B").anatomy, LORA, setting, device).fits
    with pytest.raises(TunewrightError, match="Unsloth needs"):
        make_setting(device, "unsloth", 1, 128, recomputing=False)


def test_older_cards_train_in_fp16_and_other_makers_without_unsloth() -> None:
    assert card_device(card_by_name("T4")).precision == "fp16"
    assert card_device(card_by_name("RTX 3060")).precision == "bf16"
    assert card_device(card_by_name("MI300X")).backends == ("transformers",)


def test_recomputing_is_what_the_backend_does() -> None:
    device = h200()
    assert make_setting(device, "unsloth", 1, 8, recomputing=True).checkpointing == "offloaded"
    assert make_setting(device, "transformers", 1, 8, recomputing=True).checkpointing == "on"
    assert make_setting(device, "unsloth", 1, 8, recomputing=False, liger=True).liger is False


@pytest.mark.parametrize(
    ("said", "meant"),
    [("adamw", "adamw"), ("adamw_torch", "adamw"), ("ADAMW_TORCH_FUSED", "adamw"), ("adamw_bnb_8bit", "adamw_8bit"),
     ("paged_adamw_32bit", "paged_adamw"), ("paged_adamw_8bit", "paged_adamw_8bit"), ("adafactor", "adafactor")],
)  # fmt: skip
def test_optimizers_have_two_spellings(said: str, meant: str) -> None:
    assert parse_optimizer(said) == meant
    assert meant in OPTIMIZERS


@pytest.mark.parametrize("said", ["sgd", "", "adam", "\x1b[2Jlion"])
def test_an_unknown_optimizer_names_the_known(said: str) -> None:
    with pytest.raises(TunewrightError, match="Unknown optimizer") as caught:
        parse_optimizer(said)
    assert all(name in caught.value.message for name in OPTIMIZERS)
    assert "\x1b" not in str(caught.value)


def test_targets_are_a_group_or_a_list() -> None:
    assert parse_targets(" qv ") == "qv"
    assert parse_targets("q_proj, up_proj,") == ("q_proj", "up_proj")
    for nothing in ("", " ", ",,"):
        with pytest.raises(TunewrightError, match="No target module"):
            parse_targets(nothing)


@pytest.mark.parametrize("value", [0, -1, 1025, float("nan"), float("inf")])
def test_numbers_out_of_range_are_told(value: float) -> None:
    require_between("--rank", (1, 1024), 1, 1024)
    with pytest.raises(TunewrightError, match="--rank is"):
        require_between("--rank", (8, value), 1, 1024)


@pytest.mark.parametrize(
    "name", ["NVIDIA H200", "NVIDIA A100-SXM4-80GB", "Tesla T4", "4090", "NVIDIA GeForce RTX 3060"]
)
def test_cards_are_known_by_the_driver_and_by_people(name: str) -> None:
    assert find_device(name).name == name


def test_an_unknown_card_names_near_ones() -> None:
    with pytest.raises(TunewrightError, match="H200"):
        find_device("NVIDIA H20O")
