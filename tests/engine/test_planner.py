"""The planner: the batch is kept, reasons have numbers, more memory never hurts, and a refusal names the way out."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.batches import measure_lengths
from tunewright.engine.calibration import default_calibration, outcome_of, record
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.plan import Plan, read_plan, write_plan
from tunewright.engine.planner import make_plan
from tunewright.engine.search import NEARLY_AS_FAST, choose, longest_together, look_around, search
from tunewright.engine.work import Work
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Base, Data, FullMethod, LoraMethod, QloraMethod, Recipe, Training

LLAMA_8B = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "dtype": "bfloat16",
        "max_position_embeddings": 131072,
    },
    "8b",
)  # fmt: skip
SMALL = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "small",
)  # fmt: skip
TINY = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 512, "vocab_size": 2048, "dtype": "bfloat16",
        "tie_word_embeddings": True,
    },
    "tiny",
)  # fmt: skip
RNG = random.Random(7)
CHAT = [min(2048, max(16, int(RNG.lognormvariate(5.52, 0.9)))) for _ in range(2000)]
METHODS: dict[str, Any] = {
    "full": FullMethod(kind="full"),
    "lora": LoraMethod(kind="lora"),
    "qlora": QloraMethod(kind="qlora"),
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def recipe(method: str = "lora", batch: int = 16, **data: Any) -> Recipe:
    return Recipe(
        base=Base(model="some/model"),
        data=Data(source="rows.jsonl", **data),
        method=METHODS[method],
        training=Training(learning_rate=1e-4, epochs=2, global_batch=batch),
    )


def card(name: str = "NVIDIA H200", total: float = 139.8, free: float | None = None, **changes: Any) -> GpuDevice:
    gpu = GpuDevice(0, name, total, total if free is None else free, (9, 0), None, None, None, None)
    return replace(gpu, **changes)


def machine(*gpus: GpuDevice, memory: float = 20.0, cores: int = 2) -> Machine:
    return Machine("Linux", "EPYC", cores, memory + 2, memory, 500.0, gpus, "580" if gpus else None, "No GPU.")


def plan(
    wanted: Recipe, box: Machine, anatomy: Anatomy = LLAMA_8B, lengths: list[int] | None = None, **options: Any
) -> Plan:
    return make_plan(wanted, box, anatomy, lengths or CHAT, CHAT[:100], [50] * 10, None, **options)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 512), method=st.sampled_from(sorted(METHODS)), gpu=st.booleans())
def test_the_global_batch_is_kept(batch: int, method: str, gpu: bool) -> None:
    found = plan(recipe(method, batch), machine(card()) if gpu else machine(), TINY)
    assert found.micro_batch * found.accumulation == batch
    assert found.prediction is not None
    assert sum(found.prediction.memory_terms.values()) == pytest.approx(found.prediction.peak_gib)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(free=st.floats(8, 130), more=st.floats(0, 60), method=st.sampled_from(sorted(METHODS)), packing=st.booleans())
def test_more_memory_never_gives_a_slower_plan(free: float, more: float, method: str, packing: bool) -> None:
    work = Work(recipe(method, packing=packing), LLAMA_8B, tuple(CHAT), (), 50.0, 90, 0)
    candidates = list(search(work, look_around(work, machine(card(total=200, free=free)), None)))
    tight = [each for each in candidates if each.needed_gib <= free]
    roomy = [each for each in candidates if each.needed_gib <= free + more]
    if tight:
        slack = NEARLY_AS_FAST  # plans this close are not told apart
        assert choose(roomy).training_seconds <= slack * choose(tight).training_seconds


def test_every_choice_has_a_reason_with_numbers() -> None:
    found = plan(recipe(), machine(card()), hourly_rate=4.0)
    reasons = {reason.choice: reason for reason in found.reasons}
    assert {
        "device",
        "backend",
        "precision",
        "micro-batch",
        "gradient checkpointing",
        "batching",
        "cadence",
        "merge",
    } <= set(reasons)
    assert all(reason.because.endswith(".") for reason in found.reasons)
    assert "GiB" in reasons["gradient checkpointing"].because
    assert found.alternatives
    assert all(other.total_seconds > 0 and other.lost_because for other in found.alternatives)
    assert found.prediction is not None
    assert found.prediction.cost == pytest.approx(found.prediction.total_seconds / 3600 * 4)
    low, high = found.prediction.total_seconds_range
    assert low < found.prediction.total_seconds < high


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    found = plan(recipe(), machine(card()))
    write_plan(found, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == found


def test_precision_and_backend_follow_the_device() -> None:
    assert plan(recipe(), machine(), TINY).precision == "fp32"
    old = plan(recipe("qlora"), machine(card("Tesla T4", 14.6, compute_capability=(7, 5))))
    assert (old.precision, old.device) == ("fp16", "cuda")
    assert plan(recipe(), machine(card())).precision == "bf16"
    assert plan(recipe(), machine(), TINY).backend == "transformers"


def test_the_card_with_the_most_free_memory_is_taken() -> None:
    busy, idle = card(free=10), card(index=1)
    found = plan(recipe(), machine(busy, idle))
    assert found.gpu_indices == (1,)
    reason = next(each for each in found.reasons if each.choice == "parallelism")
    assert reason.value == "one GPU" and "in use" in reason.because


def test_checkpointing_comes_in_when_memory_is_short() -> None:
    assert plan(recipe(), machine(card())).gradient_checkpointing == "off"
    tight = plan(recipe(), machine(card("NVIDIA GeForce RTX 4090", 23.6)))
    assert tight.gradient_checkpointing != "off"
    reason = next(each for each in tight.reasons if each.choice == "gradient checkpointing")
    assert "GiB" in reason.because


@pytest.mark.parametrize(
    ("method", "gpu", "remedy"),
    [
        ("full", card("NVIDIA GeForce RTX 4090", 23.6), 'method.kind = "lora"'),
        ("lora", card("NVIDIA L4", 14.0), 'method.kind = "qlora"'),
        ("qlora", card("NVIDIA GeForce RTX 3080", 4.0), "smaller model"),
        ("lora", card("NVIDIA H200", 139.8, free=12.0), "free the card"),
    ],
)
def test_a_refusal_names_the_smallest_change(method: str, gpu: GpuDevice, remedy: str) -> None:
    with pytest.raises(TunewrightError, match="Does not fit") as caught:
        plan(recipe(method), machine(gpu))
    assert remedy in caught.value.remedy
    assert "GiB" in caught.value.message


def test_packing_only_where_the_recipe_asks_for_it() -> None:
    padded = plan(recipe(), machine(card()))
    packed = plan(recipe(packing=True), machine(card()))
    assert padded.batching == "padded"
    assert packed.batching == "packed"
    assert packed.total_steps < padded.total_steps
    assert packed.training_rows == padded.training_rows == len(CHAT)


def test_looks_up_from_training_about_eight_times() -> None:
    found = plan(recipe(), machine(card()))
    looks = found.total_steps / found.evaluate_every_steps
    assert 7 <= looks <= 8
    assert found.checkpoint_every_steps <= found.evaluate_every_steps
    assert found.total_steps // found.checkpoint_every_steps >= 2
    one_step = recipe().model_copy(update={"training": Training(learning_rate=1e-4, steps=1)})
    short = plan(one_step, machine(card()))
    assert (short.total_steps, short.evaluate_every_steps, short.checkpoint_every_steps) == (1, 1, 1)


def test_unmeasured_machines_say_so_and_measured_runs_correct_later_plans() -> None:
    first = plan(recipe(), machine(), TINY)
    assert any("not measured" in note for note in first.notes)
    assert first.prediction is not None
    measured = outcome_of(first, TINY, "lora", 2 * first.prediction.peak_gib, 1.5 * first.prediction.training_seconds)
    assert measured is not None
    record(measured)
    second = plan(recipe(), machine(), TINY)
    assert second.prediction is not None
    assert second.prediction.training_seconds == pytest.approx(1.5 * first.prediction.training_seconds)
    assert second.prediction.peak_gib == pytest.approx(2 * first.prediction.peak_gib)
    assert any("earlier run" in note for note in second.notes)
    again = outcome_of(second, TINY, "lora", second.prediction.peak_gib, second.prediction.training_seconds)
    assert again is not None
    assert again.seconds_ratio == pytest.approx(1.5)  # against the formulas, not against a corrected figure


def test_more_threads_are_taken_where_they_are_worth_it() -> None:
    calibration = default_calibration(2)
    one, two = calibration.rates
    quick = replace(
        two, small_gflops=2 * one.small_gflops, large_gflops=2 * one.large_gflops, layer_seconds=one.layer_seconds / 2,
        dequantised_per_second=1e6,
    )  # fmt: skip
    measured = replace(calibration, measured=True, rates=(one, quick))

    def threads(anatomy: Anatomy) -> dict[str, int]:
        return {each: make_plan(recipe(each), machine(), anatomy, CHAT, [], [50], measured).threads for each in METHODS}

    assert threads(SMALL) == {"full": 2, "lora": 2, "qlora": 1}
    assert threads(TINY) == {"full": 1, "lora": 1, "qlora": 1}
    slower = replace(measured, rates=(one, replace(two, small_gflops=1.2 * one.small_gflops)))
    assert make_plan(recipe(), machine(), SMALL, CHAT, [], [50], slower).threads == 1


def test_the_whole_search_is_quick() -> None:
    lengths = [RNG.randint(16, 2048) for _ in range(20_000)]
    plan(recipe(batch=64), machine(card()), lengths=lengths)
    started = time.process_time()
    plan(recipe(batch=64), machine(card()), lengths=lengths)
    assert time.process_time() - started < 0.1


def test_rows_longer_than_the_context_are_told() -> None:
    short = replace(LLAMA_8B, context=512)
    found = plan(recipe(), machine(card()), short)
    assert any("context of 512" in note for note in found.notes)


def test_a_backend_that_is_asked_for_is_taken_or_refused() -> None:
    assert plan(recipe(), machine(card()), backend="transformers").backend == "transformers"
    assert plan(recipe(), machine(card()), backend="unsloth").backend == "unsloth"
    with pytest.raises(TunewrightError, match="Unsloth needs a GPU"):
        plan(recipe(), machine(), TINY, backend="unsloth")


@pytest.fixture
def gpu_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU machine, where Unsloth and Liger are installed."""
    for module in ("search", "planner"):
        monkeypatch.setattr(f"tunewright.engine.{module}.is_installed", lambda package: True)


def test_unsloth_strings_chats_together_and_keeps_the_rest_of_the_recipe(gpu_packages: None) -> None:
    found = plan(recipe(), machine(card()), backend="unsloth")
    assert (found.backend, found.batching) == ("unsloth", "padding-free")
    assert found.micro_batch * found.accumulation == 16
    (said,) = [reason.because for reason in found.reasons if reason.choice == "batching"]
    assert "times as many tokens" in said


def test_a_family_whose_rows_unsloth_pads_is_planned_padded(gpu_packages: None) -> None:
    found = plan(recipe(), machine(card()), replace(LLAMA_8B, family="gemma2"), backend="unsloth")
    assert found.batching == "padded"


def test_both_backends_compete_and_the_reason_names_the_loser(gpu_packages: None) -> None:
    found = plan(recipe(), machine(card()))
    other = {"unsloth": "transformers", "transformers": "unsloth"}[found.backend]
    (said,) = [reason.because for reason in found.reasons if reason.choice == "backend"]
    assert other in said


def test_layers_are_compiled_where_the_run_is_long_enough_to_pay_for_it(gpu_packages: None) -> None:
    long, short = (plan(recipe(), machine(card()), lengths=CHAT[:1] * rows) for rows in (100_000, 16))
    assert (long.backend, long.compiled, long.attention, long.batching) == (
        "transformers", True, "varlen", "padding-free",
    )  # fmt: skip
    assert not short.compiled


@pytest.mark.parametrize("method", ["dora", "dropout", "family", "window"])
def test_what_cannot_be_compiled_is_left_to_others(gpu_packages: None, method: str) -> None:
    asked, anatomy = recipe(), LLAMA_8B
    match method:
        case "dora":
            asked = asked.model_copy(update={"method": asked.method.model_copy(update={"dora": True})})
        case "dropout":
            asked = asked.model_copy(update={"method": asked.method.model_copy(update={"dropout": 0.1})})
        case "family":
            anatomy = replace(LLAMA_8B, family="some_other")
        case _:
            anatomy = replace(LLAMA_8B, sliding_window=1024)
    assert not plan(asked, machine(card()), anatomy).compiled


def test_liger_is_planned_where_it_is_installed(gpu_packages: None) -> None:
    capped = replace(LLAMA_8B, family="gemma")
    assert plan(recipe(), machine(card()), capped, backend="transformers").liger
    unknown = replace(LLAMA_8B, family="some_other")
    assert not plan(recipe(), machine(card()), unknown, backend="transformers").liger


def test_recomputing_some_layers_is_taken_between_all_and_none() -> None:
    frees = range(20, 140, 3)
    every = [plan(recipe(), machine(card(free=float(free))), backend="transformers") for free in frees]
    found = {(each.gradient_checkpointing, each.recompute_every) for each in every}
    assert ("off", 1) in found
    assert ("on", 1) in found
    assert any(how == "on" and layers > 1 for how, layers in found)


def test_states_are_paged_only_when_nothing_fits_without() -> None:
    roomy, tight = (plan(recipe("full"), machine(card(free=free)), backend="transformers") for free in (130.0, 60.0))
    assert roomy.optimizer_placement == "device"
    assert tight.optimizer_placement == "paged"
    assert any("paged" in note for note in tight.notes)


def test_a_model_that_cannot_be_quantised_again_is_refused_for_qlora() -> None:
    packed = replace(LLAMA_8B, dequantised_from="mxfp4")
    with pytest.raises(TunewrightError, match="MXFP4"):
        plan(recipe("qlora"), machine(card()), packed)


@given(lengths=st.lists(st.integers(1, 2048), min_size=1, max_size=300), rows=st.integers(1, 64))
def test_room_for_rows_strung_together_is_between_the_likely_and_the_worst(lengths: list[int], rows: int) -> None:
    measured = measure_lengths(lengths)
    room = longest_together(measured, rows)
    worst = sum(sorted(lengths, reverse=True)[:rows])
    assert room <= worst
    assert room >= min(worst, int(rows * measured.mean))
    assert room >= min(worst, max(lengths))


def test_predictions_name_what_evaluation_saving_and_the_host_take() -> None:
    prediction = plan(recipe(), machine(card())).prediction
    assert prediction is not None
    assert prediction.peak_gib < prediction.reserved_gib
    assert 0 < prediction.saving_gib < prediction.evaluation_gib < prediction.peak_gib
    assert prediction.host_gib > 4
    assert prediction.step_seconds > 0


def test_runs_that_took_more_than_predicted_leave_less_room() -> None:
    box = machine(card(free=26.0))
    before = plan(recipe(), box, backend="transformers")
    assert before.prediction is not None
    taken = outcome_of(before, LLAMA_8B, "lora", 1.15 * before.prediction.peak_gib, before.prediction.training_seconds)
    assert taken is not None
    record(taken)
    after = plan(recipe(), box, backend="transformers")
    assert after.prediction is not None
    assert (after.micro_batch, after.gradient_checkpointing) != (before.micro_batch, before.gradient_checkpointing)
    assert after.prediction.peak_gib <= 26.0
