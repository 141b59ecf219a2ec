"""The advice: data that hangs together, decisions with reasons, figures for every method, ways out that are real."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewright.cli.advise import count_rows
from tunewright.cli.parser import run
from tunewright.engine.advice import Advice, Case, advise, complete, decide, within_of
from tunewright.engine.anatomy import Anatomy, parse_anatomy
from tunewright.engine.cards import CARDS, card_by_name
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.methods import (
    METHODS,
    Demand,
    MethodFigures,
    compare,
    compare_methods,
    demand_of,
    figure_method,
    scaled,
    with_card,
)
from tunewright.engine.projection import Experts
from tunewright.engine.questions import (
    NAMES,
    OUTCOMES,
    QUESTIONS,
    RULES,
    TIME_LIMITS,
    TYPICAL_ROW_TOKENS,
    TYPICAL_ROWS,
    TYPICAL_TOKENS,
    Outcome,
)
from tunewright.engine.ways_out import Limits
from tunewright.foundation.errors import TunewrightError

LLAMA_8B = parse_anatomy(
    {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "dtype": "bfloat16",
        "max_position_embeddings": 131072,
    },
    "8b",
)  # fmt: skip
OPTIONS = {question.key: [option.key for option in question.options] for question in QUESTIONS}
ANSWERS = st.fixed_dictionaries({}, optional={key: st.sampled_from(options) for key, options in OPTIONS.items()})
FAST = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def machine(name: str | None = "NVIDIA H200", gib: float = 139.8, free: float | None = None) -> Machine:
    gpu = GpuDevice(0, name or "", gib, free or gib, (9, 0), None, None, None, None)
    return Machine("Linux", "EPYC", 8, 64.0, 60.0, 500.0, (gpu,) if name else (), None, "No GPU.")


def made_up(fitting: tuple[str, ...]) -> tuple[MethodFigures, ...]:
    """Figures of which those in `fitting` fit."""
    return tuple(
        MethodFigures(each, 1_000_000, 10.0, 600.0, each in fitting, "1 × 16 rows", needed_gib=11.0, usable_gib=12.0)
        for each in METHODS
    )


def outcome_of(answers: dict[str, str], here: Machine, rows: int | None = None, tokens: int | None = None) -> Outcome:
    """What `advise` would say, without the ways out and the changes that it would work out beside."""
    case = Case(answers, here, LLAMA_8B, rows, tokens)
    return decide(case.given, compare(case.usable, LLAMA_8B, case.demand, None), case.limits)[0]


def every_answer(skipped: tuple[str, ...]) -> Iterator[dict[str, str]]:
    keys = [key for key in OPTIONS if key not in skipped]
    for options in itertools.product(*(OPTIONS[key] for key in keys)):
        yield dict(zip(keys, options, strict=True))


def test_questions_and_rules_hang_together() -> None:
    assert len(QUESTIONS) <= 12
    for question in QUESTIONS:
        assert len(set(OPTIONS[question.key])) == len(question.options) >= 2
        assert all(option.changes.endswith(".") for option in question.options)
    assert set(OUTCOMES) == set(NAMES)
    for rule in RULES:
        assert rule.because.endswith(".")
        assert rule.outcome in OUTCOMES
        for key, wanted in rule.when.items():
            assert set(wanted) <= set(OPTIONS[key])


def test_all_answers_get_an_outcome_with_reasons_and_every_outcome_is_reached() -> None:
    """Time and hardware act through the figures alone, so here the sets of methods that fit stand in for them."""
    subsets = [tuple(each) for size in range(4) for each in itertools.combinations(METHODS, size)]
    figured = {subset: made_up(subset) for subset in subsets}
    reached: set[str] = set()
    limits = Limits()
    for place, answers in enumerate(every_answer(skipped=("time", "hardware"))):
        fitting = subsets[place % len(subsets)]
        full_answers = complete({**answers, "time": "any"})
        for allowed in {fitting, METHODS}:
            figures = figured[allowed]
            outcome, reasons = decide(full_answers, figures, limits)
            within = within_of(outcome, full_answers, figures, limits)
            reached.add(outcome)
            assert reasons
            assert {outcome, within} & set(METHODS) <= set(allowed)
            assert (within is not None) == (outcome in ("continued pre-training", "preference tuning"))
            if outcome == "not here":
                assert not allowed
    assert reached == set(OUTCOMES)


@pytest.mark.parametrize(
    ("answers", "rows", "outcome", "within"),
    [
        ({}, None, "lora", None),
        ({"goal": "style"}, 150, "lora", None),
        ({"goal": "behaviour"}, 10, "few-shot", None),
        ({"goal": "behaviour", "prompted": "no"}, 10, "prompting", None),
        ({"goal": "behaviour", "prompted": "no"}, 150, "few-shot", None),
        ({"goal": "knowledge", "facts": "changing"}, 10_000, "prompting", None),
        ({"goal": "language", "money": "result"}, 200_000, "full", None),
        ({"goal": "language", "serving": "many"}, 200_000, "lora", None),
        ({"goal": "knowledge", "data_kind": "text", "tokens": "millions"}, None, "continued pre-training", "full"),
        (
            {"goal": "knowledge", "data_kind": "text", "tokens": "millions", "serving": "many"},
            None,
            "continued pre-training",
            "lora",
        ),
        ({"goal": "knowledge", "data_kind": "text", "tokens": "few"}, None, "prompting", None),
        ({"goal": "style", "data_kind": "text"}, None, "lora", None),
        ({"goal": "preferences"}, 1000, "preference tuning", "lora"),
        ({"data_kind": "pairs"}, 5000, "preference tuning", "lora"),
        ({"data_kind": "labels"}, 5000, "preference tuning", "lora"),
        ({"data_kind": "pairs"}, 50, "few-shot", None),
    ],
)
def test_decides_as_the_evidence_says(answers: dict[str, str], rows: int | None, outcome: str, within: str) -> None:
    advice = advise({"time": "any", **answers}, machine(), LLAMA_8B, rows)
    assert (advice.outcome, advice.within) == (outcome, within)
    assert advice.reasons
    assert advice.method == (within or (outcome if outcome in METHODS else None))


@FAST
@given(answers=ANSWERS, gib=st.sampled_from([4.0, 9.0, 14.6, 23.6, 79.0, 139.8]), rate=st.sampled_from([None, 2.0]))
def test_never_recommends_what_is_ruled_out(answers: dict[str, str], gib: float, rate: float | None) -> None:
    advice = advise(answers, machine("NVIDIA H200", gib), LLAMA_8B, hourly_rate=rate, budget=rate and 1.0)
    assert [each.method for each in advice.figures] == list(METHODS)
    limit = TIME_LIMITS[advice.answers["time"]]
    possible = {
        each.method
        for each in advice.figures
        if each.fits and each.seconds <= limit and (each.cost is None or each.cost <= 1.0)
    }
    assert advice.method is None or advice.method in possible
    assert advice.outcome != "not here" or not possible
    assert advice.reasons
    ruled_out = {reason.outcome for reason in advice.reasons if reason.weight == -10}
    assert ruled_out == set(METHODS) - possible


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=ANSWERS,
    free=st.lists(st.floats(1.0, 139.8), min_size=2, max_size=4),
    rows=st.sampled_from([None, 30, 3000, 100_000]),
)
def test_more_free_memory_never_makes_anything_impossible(
    answers: dict[str, str], free: list[float], rows: int | None
) -> None:
    outcomes = [outcome_of(answers, machine(free=gib), rows) for gib in sorted(free)]
    possible = [outcome != "not here" for outcome in outcomes]
    assert possible == sorted(possible), list(zip(sorted(free), outcomes, strict=True))


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=ANSWERS,
    free=st.sampled_from([4.0, 14.0, 40.0, 139.0]),
    counted=st.sampled_from([(None, None), (30, None), (500, 200_000), (4000, 90_000_000)]),
)
def test_what_would_change_the_answer_does(
    answers: dict[str, str], free: float, counted: tuple[int | None, int | None]
) -> None:
    rows, tokens = counted
    here = machine(free=free)
    advice = advise(answers, here, LLAMA_8B, rows, tokens)
    assert advice.outcome == outcome_of(answers, here, rows, tokens)
    assert len(advice.changes) == len(advice.would_change)
    named = {(change.question, change.option): change.outcome for change in advice.changes}
    for question, options in OPTIONS.items():
        for option in options:
            if option == advice.answers[question] or (question, option) == ("tokens", "usual"):
                assert (question, option) not in named
                continue
            said, new_rows, new_tokens = {**answers, question: option}, rows, tokens
            if question == "rows" and rows is not None:
                new_rows = TYPICAL_ROWS[option]
                new_tokens = tokens and max(1, round(tokens / rows * new_rows))
            if question == "tokens" and tokens is not None:
                new_tokens = TYPICAL_TOKENS[option]
            there = outcome_of(said, here, new_rows, new_tokens)
            assert named.get((question, option), advice.outcome) == there, (question, option)


def test_qlora_stands_in_where_lora_does_not_fit() -> None:
    advice = advise({"time": "any"}, machine("Tesla T4", 14.6), LLAMA_8B, 1000)
    assert advice.outcome == "qlora"
    assert any("LoRA needs" in reason.because and reason.weight < 0 for reason in advice.reasons)


def kinds(advice: Advice) -> list[str]:
    assert advice.outcome == "not here"
    assert advice.ways_out[0].change in advice.headline
    return [way.kind for way in advice.ways_out]


def test_a_busy_card_is_to_be_freed_and_freeing_it_does() -> None:
    busy = advise({}, machine("NVIDIA H200", 139.8, free=4.0), LLAMA_8B, 1000)
    assert kinds(busy)[0] == "memory"
    assert "on GPU 0, which hold 135.8 of its 139.8 GiB" in busy.headline
    freed = advise({"hardware": "whole"}, machine("NVIDIA H200", 139.8, free=4.0), LLAMA_8B, 1000)
    assert freed.outcome == busy.ways_out[0].figures.method == "lora"


def test_rows_are_cut_no_more_than_needed() -> None:
    tight = advise({}, machine("NVIDIA GeForce RTX 3080", 11.6), LLAMA_8B, 1000, 4_000_000)
    assert "rows" in kinds(tight)
    way = next(way for way in tight.ways_out if way.kind == "rows")
    at = int(way.change.split()[3])
    demand = Demand(1000, 4000)
    here = machine("NVIDIA GeForce RTX 3080", 11.6)
    assert any(figure_method(each, here, LLAMA_8B, replace(demand, longest=at), None).fits for each in METHODS)
    assert not any(figure_method(each, here, LLAMA_8B, replace(demand, longest=2 * at), None).fits for each in METHODS)


def test_a_smaller_model_and_another_card_are_named_that_do_and_whose_neighbours_do_not() -> None:
    small = advise({"time": "any"}, machine("NVIDIA GeForce RTX 3060", 4.0), LLAMA_8B, 1000)
    assert kinds(small) == ["model", "card"]
    model, card = small.ways_out
    said, unit = model.change.removeprefix("Take a smaller model: ").split()[:2]
    parameters = float(said) * {"million": 1e6, "billion": 1e9}[unit]
    here = machine("NVIDIA GeForce RTX 3060", 4.0)

    def fits(anatomy: Anatomy) -> bool:
        demand = Demand(1000, TYPICAL_ROW_TOKENS)
        return any(figure_method(each, here, anatomy, demand, None).fits for each in METHODS)

    sizes = [scaled(LLAMA_8B, 0.97**step) for step in range(140)]
    assert any(fits(each) for each in sizes if 0.95 * parameters < each.total_parameters < 1.05 * parameters)
    assert not any(fits(each) for each in sizes if each.total_parameters > 1.1 * parameters)
    named = card_by_name(card.change.removeprefix("Train on the card ").split(" (")[0])
    smaller = [each for each in CARDS if 4.0 < each.memory_gib < named.memory_gib]
    assert smaller
    for each in smaller:
        assert outcome_of({"time": "any"}, with_card(here, each), 1000) == "not here"
    there = advise({"time": "any"}, with_card(here, named), LLAMA_8B, 1000)
    assert there.outcome == card.figures.method
    assert "0.14 USD an hour by the table of 2026-09-20" in card.change


def test_too_little_time_is_told_with_the_time_that_would_do() -> None:
    hurried = advise({"time": "hour"}, machine(), LLAMA_8B, 200_000)
    assert kinds(hurried)[0] == "limits"
    assert hurried.ways_out[0].change.startswith("Allow ")
    assert hurried.ways_out[0].figures.seconds > 3600
    assert all(way.figures.seconds <= 3600 for way in hurried.ways_out[1:])
    assert all("longer than the 60 minutes" in reason.because for reason in hurried.reasons if reason.weight == -10)


def test_a_budget_rules_out_with_its_figure() -> None:
    free = advise({"goal": "quality", "money": "result"}, machine(), LLAMA_8B, 10_000, hourly_rate=4.0)
    assert free.outcome == "full"
    costs = {each.method: each.cost for each in free.figures}
    lora, full = costs["lora"], costs["full"]
    assert lora is not None
    assert full is not None
    assert lora == pytest.approx(4.0 * next(each.seconds for each in free.figures if each.method == "lora") / 3600)
    least = min(each for each in costs.values() if each is not None)
    broke = advise({}, machine(), LLAMA_8B, 10_000, hourly_rate=4.0, budget=0.9 * least)
    assert kinds(broke)[0] == "limits"
    assert "a budget of" in broke.headline
    assert any(f"would cost {full:,.2f}" in reason.because for reason in broke.reasons)


def test_figures_are_whole_for_every_method() -> None:
    figures = compare_methods(machine(), LLAMA_8B, 1000, 400, hourly_rate=3.0)
    for each in figures:
        low, high = each.seconds_range
        assert 0 < low < each.seconds < high
        assert each.cost == pytest.approx(3.0 * each.seconds / 3600)
        assert each.energy_kwh == pytest.approx((700 + 150) * each.seconds / 3.6e6)
        assert each.needed_gib >= each.peak_gib > 0
        assert each.usable_gib < 139.8
        assert each.plan
    full, lora, qlora = figures
    assert full.trainable_parameters == LLAMA_8B.total_parameters
    assert lora.trainable_parameters == qlora.trainable_parameters == 41_943_040
    assert full.peak_gib > lora.peak_gib


def test_plain_text_is_counted_in_tokens_not_in_rows() -> None:
    few_long, many_short = demand_of(10, 1_000_000, "text", 8192), demand_of(10_000, 1000, "text", 8192)
    assert few_long == many_short == Demand(math.ceil(10_000_000 / 2048), 2048, "text")
    assert set(few_long.lengths) == {2048}
    chats = demand_of(10_000, 1000, "examples", 8192)
    assert (chats.rows, chats.mean_tokens) == (10_000, 1000)
    assert sum(chats.lengths) / len(chats.lengths) == pytest.approx(1000, rel=0.01)
    text = advise({"goal": "language", "data_kind": "text"}, machine(), LLAMA_8B, rows=10, tokens=10_000_000)
    assert (text.outcome, text.answers["tokens"]) == ("continued pre-training", "millions")
    high_rank = next(each for each in text.figures if each.method == "lora")
    assert high_rank.trainable_parameters == 16 * 41_943_040


def test_names_the_objective_that_is_advised() -> None:
    for data_kind, objective in (("pairs", "dpo"), ("labels", "kto")):
        judged = advise({"data_kind": data_kind}, machine(), LLAMA_8B, 5000)
        assert any(f'training.objective = "{objective}"' in note for note in judged.notes)
    text = advise({"goal": "knowledge", "data_kind": "text", "tokens": "billions", "time": "any"}, machine(), LLAMA_8B)
    assert any('training.objective = "cpt"' in note for note in text.notes)
    assert not any("objective" in note for note in advise({}, machine(), LLAMA_8B).notes)


def test_counts_override_what_was_said() -> None:
    assert advise({"rows": "many"}, machine(), LLAMA_8B, rows=30).answers["rows"] == "tens"
    assert advise({"tokens": "few"}, machine(), LLAMA_8B, 5000, 5_000_000).answers["tokens"] == "millions"
    said = advise({}, machine(), LLAMA_8B, rows=30).would_change
    assert any("(counted: 30)" in change for change in said)


@pytest.mark.parametrize("answers", [{"gaol": "style"}, {"goal": "stile"}])
def test_unknown_answers_name_the_nearest(answers: dict[str, str]) -> None:
    with pytest.raises(TunewrightError, match="Did you mean"):
        advise(answers, machine(), LLAMA_8B)


@pytest.mark.parametrize("factor", [0.7, 0.3, 0.05])
def test_a_scaled_model_has_about_that_share_of_the_layers_parameters(factor: float) -> None:
    small = scaled(LLAMA_8B, factor)
    assert small.linear_parameters == pytest.approx(factor * LLAMA_8B.linear_parameters, rel=0.12)
    assert small.vocabulary == LLAMA_8B.vocabulary
    assert small.total_parameters < LLAMA_8B.total_parameters


def test_a_scaled_mixture_keeps_its_number_of_experts() -> None:
    mixture = replace(LLAMA_8B, experts=Experts(8, 2, 1024, 0, 32, 3 * 4096 * 1024), router_parameters=32 * 8 * 4096)
    small = scaled(mixture, 0.3)
    assert small.experts is not None
    assert (small.experts.count, small.experts.per_token) == (8, 2)
    assert small.expert_parameters == pytest.approx(0.3 * mixture.expert_parameters, rel=0.12)


ROWS = {
    "text": {"text": "Aller Anfang ist schwer."},
    "pairs": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "labels": {"prompt": "a", "completion": "b", "label": True},
}


@pytest.mark.parametrize("kind", ROWS)
def test_the_kind_of_data_is_read_off_its_rows(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    line = json.dumps(ROWS[kind])
    file.write_text(f"{line}\n\n{line}\n")
    counted = count_rows(str(file))
    assert (counted.rows, counted.kind) == (2, kind)
    assert 0 < counted.tokens <= 2 * (len(line) + 1)


def test_the_command_says_all_of_it_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(ROWS["pairs"]) + "\n") * 300)
    program = (
        "import sys\nfrom tunewright.cli.parser import run\n"
        f"run(['advise', '--json', '--data', {str(file)!r}, '--rate', '2', '--budget', '0.01'])\n"
        "assert not {'torch', 'transformers', 'textual', 'tokenizers', 'pyarrow'} & set(sys.modules), sorted(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    found = json.loads(ended.stdout)
    assert found["answers"]["data_kind"] == "pairs"
    assert found["rows"] == 300
    assert found["budget"] == 0.01
    assert {"outcome", "method", "reasons", "figures", "would_change", "ways_out", "notes", "questions"} <= set(found)
    assert any("estimate" in note for note in found["notes"])


def test_the_command_tells_people_what_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tunewright.cli.advise.inspect_machine", lambda runs: machine("NVIDIA RTX A6000", 47.9, free=1.0)
    )
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "dtype": "bfloat16",
            }
        )
    )  # fmt: skip
    assert run(["advise", "--model", str(tmp_path), "--rate", "cloud"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Not on this machine" in text
    assert "What would do, the smallest change first: 1. Stop the other programs on GPU 0" in text
    assert "What would change the answer" in text
    assert "costs 0.82 to 1.09 USD an hour by the built-in table (2026-09-20, specialist)" in text
    assert "COST" in text


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["--rate", "free"], "Rate out of range"),
        (["--rate", "-1"], "Rate out of range"),
        (["--rate", "nan"], "Rate out of range"),
        (["--budget", "5"], "No rate"),
        (["--rate", "2", "--budget", "0"], "Budget out of range"),
        (["--data", "/nowhere.jsonl"], "Data not found"),
    ],
)
def test_the_command_refuses_with_three_parts(words: list[str], title: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", *words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["title"] == title
    assert error["remedy"]
