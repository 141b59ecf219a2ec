"""Comparisons: the estimates of one model side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewright.engine import search
from tunewright.engine.comparison import (
    CARD_NAMES,
    METHODS,
    TIGHT_SHARE,
    CardFigures,
    Data,
    compare_batches,
    compare_cards,
    compare_cost,
    compare_ranks,
    compare_targets,
    default_optimizer,
    judge,
    smallest_card,
    target_choices,
)
from tunewright.engine.defaults import default_recipe
from tunewright.engine.estimate import estimate, find_device, make_setting, make_tuning
from tunewright.engine.shapes import published

LLAMA = published("Llama-3.1-8B").anatomy
SMALL = published("Qwen3-0.6B").anatomy
FUSED = published("Phi-4").anatomy


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def test_the_rule_of_a_tight_fit_is_the_planners() -> None:
    assert search.GPU_MARGIN == TIGHT_SHARE
    assert [judge(needed, 10.0) for needed in (9.69, 9.71, 10.0, 10.01)] == ["fits", "tight", "tight", "no"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ["Qwen3-0.6B", "Llama-3.1-8B"])
def test_the_optimizer_is_that_of_the_default_recipe(method: str, shape: str) -> None:
    anatomy = published(shape).anatomy
    recipe, _ = default_recipe(method, "model", "data", 1000, anatomy)  # pyright: ignore[reportArgumentType]
    assert default_optimizer(anatomy, method) == recipe.training.optimizer


def test_ranks_grow_in_proportion() -> None:
    setting = make_setting(find_device("H200"), "transformers", 1, 1, recomputing=True)
    eight, sixteen = compare_ranks(LLAMA, (8, 16), "all-linear", setting)
    assert (eight.trainable_parameters, sixteen.trainable_parameters) == (20_971_520, 41_943_040)
    assert sixteen.share == pytest.approx(41_943_040 / 8_030_261_248)
    assert sixteen.file_gib == pytest.approx(4 * 41_943_040 / 2**30)
    assert sixteen.memory_gib == pytest.approx(16 * 41_943_040 / 2**30)  # adapter, gradient and two states of 4 bytes
    (with_dora,) = compare_ranks(LLAMA, (16,), "all-linear", setting, dora=True)
    assert with_dora.trainable_parameters > sixteen.trainable_parameters


def test_targets_are_every_sensible_set_once() -> None:
    names = [name for name, _ in target_choices(LLAMA)]
    assert names[:4] == ["qv", "attention", "mlp", "all-linear"]
    assert names[4:] == [each.name for each in LLAMA.projections]
    fused = dict(target_choices(FUSED))
    assert fused["qv"] == ("qkv_proj",)
    assert "qkv_proj" not in fused  # it is qv already
    assert len({frozenset(targets) for targets in fused.values()}) == len(fused)


def test_targets_add_up() -> None:
    device = find_device("H200")
    setting = make_setting(device, "unsloth", 1, 2048, recomputing=True)
    figures = {each.name: each for each in compare_targets(LLAMA, make_tuning("qlora", 8, "qv"), setting, device)}
    trained = {name: each.estimate.trainable_parameters for name, each in figures.items()}
    assert trained["attention"] + trained["mlp"] == trained["all-linear"]
    assert trained["q_proj"] + trained["v_proj"] == trained["qv"]
    assert figures["qv"].estimate.needed_gib < figures["all-linear"].estimate.needed_gib
    assert figures["qv"].estimate.tokens_per_second > figures["all-linear"].estimate.tokens_per_second
    assert figures["all-linear"].share == pytest.approx(0.00261, rel=0.01)


def test_cards_are_judged_by_the_smaller_way_and_timed_by_the_faster() -> None:
    figures = compare_cards(LLAMA, ("3060", "H200"))
    by_name = {(each.method, each.card): each for each in figures}
    assert len(figures) == 6
    h200 = by_name["lora", "H200"]
    device = find_device("H200")
    keeping, recomputing = (
        estimate(LLAMA, make_tuning("lora", 16, "all-linear"), make_setting(device, "unsloth", 1, 2048, on), device)
        for on in (False, True)
    )
    assert h200.needed_gib == recomputing.needed_gib < keeping.needed_gib
    assert h200.tokens_per_second == keeping.tokens_per_second > recomputing.tokens_per_second
    assert h200.hourly_price is not None
    small = by_name["lora", "3060"]
    assert (small.verdict, small.tokens_per_second) == ("no", None)
    assert by_name["qlora", "3060"].verdict == "fits"


def test_the_smallest_card_is_the_least_that_does_it_well() -> None:
    def figures(card: str, sold: int, verdict: str, speed: float) -> CardFigures:
        return CardFigures("lora", card, sold - 0.5, sold, None, 10.0, verdict, speed)  # pyright: ignore[reportArgumentType]

    tight, slow, fast = figures("a", 10, "tight", 1), figures("b", 24, "fits", 5), figures("c", 24, "fits", 9)
    assert smallest_card((fast, slow, tight), "lora") is slow
    assert smallest_card((tight,), "lora") is None
    assert smallest_card((fast,), "full") is None


def test_larger_models_need_larger_cards() -> None:
    found = [
        smallest_card(compare_cards(published(name).anatomy, CARD_NAMES), "qlora") for name in ("Qwen3-8B", "Qwen3-32B")
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].sold_gb < found[1].sold_gb
    assert smallest_card(compare_cards(published("Llama-3.1-70B").anatomy, CARD_NAMES), "full") is None


def test_batches_are_the_memory_of_each_size() -> None:
    device = find_device("RTX 4090")
    tuning = make_tuning("qlora", 16, "all-linear")
    setting = make_setting(device, "unsloth", 1, 512, recomputing=False)
    figures = compare_batches(LLAMA, tuning, setting, device, (512, 4096), (1, 8))
    assert [(each.tokens, each.rows) for each in figures] == [(512, 1), (512, 8), (4096, 1), (4096, 8)]
    assert figures[0].needed_gib == estimate(LLAMA, tuning, setting, device).needed_gib
    assert (figures[0].verdict, figures[3].verdict) == ("fits", "no")


def test_cost_grows_with_the_data_and_the_price() -> None:
    device = find_device("H100")
    once = compare_cost(SMALL, device, Data(10_000, 512), hourly_rate=3.0)
    thrice = compare_cost(SMALL, device, Data(10_000, 512, 3), hourly_rate=6.0)
    assert [each.method for each in once] == ["qlora", "lora", "full"]
    for one, three in zip(once, thrice, strict=True):
        started = one.seconds - 10_000 * 512 / one.tokens_per_second
        assert three.seconds == pytest.approx(started + 3 * 10_000 * 512 / one.tokens_per_second)
        assert one.money == pytest.approx(one.seconds / 3600 * 3)
        assert three.money == pytest.approx(three.seconds / 3600 * 6)
        assert one.kwh == pytest.approx(device.watts * one.seconds / 3.6e6)
        assert one.verdict == "fits"
    assert all(each.money is None for each in compare_cost(SMALL, device, Data(10, 512)))


def test_cost_takes_the_fastest_batch_that_fits_or_else_the_smallest() -> None:
    large = {each.method: each for each in compare_cost(LLAMA, find_device("H200"), Data(1000, 512))}
    small = {each.method: each for each in compare_cost(LLAMA, find_device("RTX 4090"), Data(1000, 512))}
    assert large["qlora"].rows > small["qlora"].rows
    assert small["full"].verdict == "no"
    keeping = make_setting(find_device("RTX 4090"), "unsloth", 16, 512, recomputing=False)
    whole = estimate(LLAMA, make_tuning("full", 0, "all-linear"), keeping, find_device("RTX 4090"))
    assert small["full"].needed_gib < whole.needed_gib


def test_cost_of_several_gpus_is_theirs_together() -> None:
    device, data = find_device("A100-80"), Data(100_000, 512)
    figures = compare_cost(published("Llama-3.1-70B").anatomy, device, data, hourly_rate=2.0, gpus=8)
    assert [(each.method, each.gpus) for each in figures] == [
        ("qlora", 1), ("lora", 1), ("full", 1), ("lora", 8), ("full", 8),
    ]  # fmt: skip
    assert (figures[1].verdict, figures[3].verdict) == ("no", "fits")
    assert figures[3].parallelism == "fsdp2"  # a whole copy does not fit
    for each in figures:
        assert each.money == pytest.approx(each.gpus * each.seconds / 3600 * 2)
        assert each.kwh == pytest.approx(each.gpus * device.watts * each.seconds / 3.6e6)
    processor = find_device(None)
    if processor.card is None:
        assert {each.gpus for each in compare_cost(SMALL, processor, Data(10, 64), gpus=8)} == {1}
