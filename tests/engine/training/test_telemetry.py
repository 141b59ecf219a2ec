"""Telemetry: what is counted, timed and told while a model trains, and that telling it changes nothing."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging
from tunewright.__main__ import main
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.anatomy import read_anatomy
from tunewright.engine.flop import flop_per_token
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, is_live, standing
from tunewright.engine.runs.events import Event, Gpu, Measured, Phase, Sample, Status, Step, follow, read_events
from tunewright.engine.runs.launch import launch
from tunewright.engine.setting import Tuning
from tunewright.engine.sources import find_model
from tunewright.engine.training.devices import sample_gpu
from tunewright.engine.training.importing import Imports
from tunewright.engine.training.stages import TimedLog, loading_told
from tunewright.engine.training.telemetry import FixedPrompt, Telemetry, metrics_of
from tunewright.engine.training.utilisation import (
    Counted,
    Tally,
    measure_matrix_tflops,
    useful_flop,
    utilisation,
)
from tunewright.recipes.registry import open_registry

STEPS = 6
PROMPTS = ["Two small red mugs for Mira in Oslo, please.", "What do you sell?"]


# What is counted


def seen_in(lengths: list[int], window: int | None = None) -> int:
    return sum(min(place + 1, window or place + 1) for length in lengths for place in range(length))


@pytest.mark.parametrize("window", [None, 4])
def test_padding_is_not_counted(window: int | None) -> None:
    lengths = [7, 3, 5]
    mask = torch.tensor([[1] * length + [0] * (7 - length) for length in lengths])
    left_padded = mask.flip(-1)
    for each in (mask, left_padded):
        tally = Tally(window)
        tally.add(torch.ones(3, 7, dtype=torch.long), each)
        assert tally.take() == Counted(15, seen_in(lengths, window))


@pytest.mark.parametrize("window", [None, 4])
def test_documents_in_one_row_do_not_see_each_other(window: int | None) -> None:
    lengths = [7, 3, 5]
    positions = torch.tensor([[place for length in lengths for place in range(length)]])
    tally = Tally(window)
    for _ in range(2):  # two micro-batches
        tally.add(torch.ones(1, 15, dtype=torch.long), None, positions)
    assert tally.take() == Counted(30, 2 * seen_in(lengths, window))
    assert tally.take() == Counted(0, 0)


def test_only_what_is_trained_is_counted() -> None:
    model = torch.nn.Embedding(10, 4)
    tally = Tally()
    tally.watch(model)
    tokens = torch.ones(2, 8, dtype=torch.long)
    model(tokens)
    model.eval()
    model(tokens)
    model.train()
    with torch.no_grad():  # as a reference model does
        model(tokens)
    assert tally.take() == Counted(16, seen_in([8, 8]))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_useful_arithmetic_is_that_of_the_formula_for_rows_of_one_length(kind: Any) -> None:
    anatomy, tuning = read_anatomy(find_model("tunewright/starter")), Tuning(kind, rank=16 if kind == "lora" else 0)
    rows, length = 3, 200
    found = useful_flop(anatomy, tuning, Counted(rows * length, seen_in([length] * rows)))
    # Twice what a token sees on average is the row's length, and its own place more.
    expected = rows * length * flop_per_token(anatomy, tuning, length + 1, recomputing=False)
    assert found == pytest.approx(expected, rel=1e-12)
    assert useful_flop(anatomy, tuning, Counted(0, 0)) == 0


def test_utilisation_is_a_share_of_what_was_measured() -> None:
    assert utilisation(3e12, 2.0, 3.0) == pytest.approx(0.5)
    assert utilisation(3e12, 2.0, None) is None
    state = torch.get_rng_state()
    assert measure_matrix_tflops("cpu", side=256) > 1e-4
    assert torch.equal(state, torch.get_rng_state())


def test_an_objective_s_own_figures_are_kept() -> None:
    logs = {"loss": 1.0, "learning_rate": 1e-3, "grad_norm": 1.0, "rewards/margins": 0.2, "entropy": 1.0, "epoch": 1.0}
    assert metrics_of(logs) == {"rewards/margins": 0.2}
    held_out = {"eval_loss": 1.0, "eval_rewards/accuracies": 0.5, "eval_runtime": 3.0, "eval_samples_per_second": 9.0}
    assert metrics_of(held_out) == {"rewards/accuracies": 0.5}


# What is timed


def events_in(path: Path) -> list[Event]:
    return read_events(path)[0]


def test_the_time_to_the_first_step_is_told_by_phase(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    earlier = TimedLog(path)  # a trainer of this run that ended before
    earlier.append(Status(state="starting", time=time.time() - 900))
    earlier.append(Measured(values={"seconds_planning": 100.0}))
    earlier.append(Phase(name="training", time=time.time() - 800))
    earlier.append(Status(state="stopped", time=time.time() - 700))
    log = TimedLog(path)
    for name in ("tokenising", "importing", "loading", "compiling"):
        log.append(Phase(name=name))  # pyright: ignore[reportArgumentType]
    log.first_step()
    log.first_step()
    (told,) = [e for e in events_in(path) if isinstance(e, Measured) and "seconds_to_first_step" in e.values]
    parts = {name: value for name, value in told.values.items() if name != "seconds_to_first_step"}
    assert list(parts) == [
        f"seconds_{name}" for name in ("starting", "tokenising", "importing", "loading", "compiling")
    ]
    assert sum(parts.values()) == pytest.approx(told.values["seconds_to_first_step"])
    assert parts["seconds_starting"] > 0.1  # this process was there before


def test_progress_is_told_where_there_is_an_end_to_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = TimedLog(path)
    log.append(Phase(name="training"))
    log.progress(3)
    log.append(Phase(name="tokenising", detail="rows", total=10, time=0.0))
    log._told = 0.0  # pyright: ignore[reportPrivateUsage]
    log.progress(4)
    log.progress(5)  # at once after the other
    found = [(e.name, e.done, e.total) for e in events_in(path) if isinstance(e, Phase)]
    assert found == [("training", None, None), ("tokenising", None, 10), ("tokenising", 4, 10)]


def test_the_tensors_of_a_model_are_counted_as_they_load(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events.jsonl"
    log = TimedLog(path)
    log.append(Phase(name="loading", detail="a model"))
    with loading_told(log):
        for _ in logging.tqdm(range(4), desc="Loading weights", mininterval=0, miniters=1):
            log._told = 0.0  # pyright: ignore[reportPrivateUsage]
    told = [(e.done, e.total) for e in events_in(path) if isinstance(e, Phase) and e.done]
    assert told[-1][1] == 4 and 1 <= len(told) <= 4
    assert "Loading weights" not in capfd.readouterr().err  # a bar would fill the run's console


def test_what_an_import_raises_is_raised_where_it_is_waited_for() -> None:
    missing: Any = SimpleNamespace(backend="no_such_backend", device="cpu")
    with pytest.raises(ModuleNotFoundError, match="no_such_backend"):
        Imports(missing).wait()


def test_whoever_answers_leaves_the_random_states_as_they_were(tmp_path: Path) -> None:
    run, log = RunDirectory(tmp_path), TimedLog(tmp_path / "events.jsonl")

    def careless(prompts: list[str]) -> list[str]:
        torch.rand(3)
        random.random()
        np.random.random()
        return [prompt[::-1] for prompt in prompts]

    plan: Any = SimpleNamespace(device="cpu", sample_every_steps=1, gpus=1)
    telemetry = Telemetry(run, log, plan, [FixedPrompt("shown", "asked", "")], careless)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    telemetry._sample(5)  # pyright: ignore[reportPrivateUsage]
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    (sample,) = [event for event in events_in(tmp_path / "events.jsonl") if isinstance(event, Sample)]
    assert (sample.step, sample.prompt, sample.completion) == (5, "shown", "deksa")


# What the driver tells


class Card:
    """Answers as NVML does for a card that is slowed by heat and does not tell its power."""

    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = 0

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=2**30, total=2**31)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> Any:
        raise self.NVMLError

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 88

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x20 | 0x40 | 0x04 | 0x02


def test_a_gpu_is_sampled_with_what_its_driver_tells() -> None:
    found = sample_gpu(Card(), 3, 0)
    assert found == Gpu(
        time=found.time if found else 0, index=3, utilisation_percent=97.0, memory_used_gib=1.0, memory_total_gib=2.0,
        temperature_celsius=88, power_watts=None, clock_mhz=None, throttled_by="power, heat",
    )  # fmt: skip


# A real run


def start(home: Path, sampled: bool) -> RunDirectory:
    """Start a short run with dropout, whose random state a sample would disturb."""
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    changes = [f"training.steps={STEPS}", "method.dropout=0.1", "evaluation.max_new_tokens=8",
               'data.validation={"kind": "rows", "value": 20}']  # fmt: skip
    recipe = change_recipe(recipe, changes)
    asked = {"source": None, "prompts": tuple(PROMPTS)}
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update=asked)})
    plan = plan_recipe(recipe, inspect_machine(home))
    plan = dataclasses.replace(
        plan,
        evaluate_every_steps=3,
        checkpoint_every_steps=3,
        sample_every_steps=1 if sampled else STEPS + 1,
        threads=1,
        merge=False,
    )
    return launch(recipe, plan, "telemetry", planning_seconds=1.25)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same recipe with samples at every step and without, side by side."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("TUNEWRIGHT_HOME", str(home))
        runs = [start(home, True), start(home, False)]
        found: list[list[Event]] = []
        for run in runs:
            events = list(follow(run.events_file, ended=lambda run=run: not is_live(run), seconds=0.05))
            assert standing(run) == "finished", run.console_tail(20)
            found.append(events)
        yield runs, found


def steps_of(events: list[Event]) -> list[Step]:
    return [event for event in events if isinstance(event, Step)]


@pytest.mark.slow
def test_samples_do_not_change_what_is_learned(two_runs: Any) -> None:
    _, (sampled, quiet) = two_runs
    told = [[(s.step, repr(s.loss), repr(s.grad_norm)) for s in steps_of(each)] for each in (sampled, quiet)]
    assert told[0] == told[1]
    assert len(told[0]) == STEPS
    answers = [(s.step, s.prompt) for s in sampled if isinstance(s, Sample)]
    assert answers == [(step, prompt) for step in range(STEPS + 1) for prompt in PROMPTS]
    assert {event.step for event in quiet if isinstance(event, Sample)} == {0, STEPS}  # before and after


@pytest.mark.slow
def test_a_run_tells_its_phases_and_what_came_before_its_first_step(two_runs: Any) -> None:
    _, (events, _) = two_runs
    names = [event.name for event in events if isinstance(event, Phase) and event.done is None]
    at_first = [name for index, name in enumerate(names) if name not in names[:index]]
    named = ["tokenising", "importing", "loading", "training", "judging before", "saving", "done"]
    assert [name for name in at_first if name != "evaluating"] == named
    (told,) = [e for e in events if isinstance(e, Measured) and "seconds_to_first_step" in e.values]
    parts = dict(told.values)
    total = parts.pop("seconds_to_first_step")
    assert sum(parts.values()) == pytest.approx(total)
    assert parts["seconds_planning"] == 1.25
    for name in ("launching", "starting", "tokenising", "importing", "loading", "first_step"):
        assert parts[f"seconds_{name}"] > 0
    began = next(event.time for event in events if isinstance(event, Status))
    first = steps_of(events)[0]
    assert total == pytest.approx(1.25 + first.time - began, abs=0.6)


@pytest.mark.slow
def test_the_steps_time_and_tokens_add_up(two_runs: Any) -> None:
    _, both = two_runs
    for events in both:
        steps = steps_of(events)
        measured: dict[str, float] = {}
        for event in events:
            if isinstance(event, Measured):
                measured |= event.values
        inside = sum(step.seconds for step in steps)
        assert 0 < inside < measured["training_seconds"]
        assert all(step.tokens > 0 and step.mfu is None and step.reserved_gib > 0 for step in steps)
        # Samples, evaluations and checkpoints lie between the steps, not in them.
        apart = [later.time - earlier.time - later.seconds for earlier, later in pairwise(steps)]
        assert min(apart) > -0.02
    assert [step.tokens for step in steps_of(both[0])] == [step.tokens for step in steps_of(both[1])]


@pytest.mark.slow
def test_a_run_is_shown_with_what_it_measured(two_runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs, _ = two_runs
    assert main(["runs", "show", runs[0].id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["to_first_step"]["importing"] == shown["measured"]["seconds_importing"] > 0
    assert shown["predicted"]["seconds_to_first_step"] > 0
    assert main(["runs", "show", runs[0].id]) == 0
    text = capsys.readouterr().out
    assert "TO THE FIRST STEP" in text and "importing" in text
