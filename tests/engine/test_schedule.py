"""The learning rate as figures: to the bit what transformers computes, and what an extension says of itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tunewright.engine.schedule import choices, rate_parts, warmup_steps
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.model import Recipe, parse_recipe, validate_recipe


def recipe(schedule: str = "cosine", extensions: list[dict[str, Any]] | None = None) -> Recipe:
    made = parse_recipe(built_in()["starter-lora"], "starter-lora")
    values = made.model_dump(mode="json", exclude_none=True)
    values["training"] |= {"schedule": schedule, "learning_rate": 2e-3, "warmup": {"kind": "ratio", "value": 0.1}}
    if extensions:
        values["training"]["extensions"] = extensions
    return validate_recipe(values, "test")


def extension(**values: Any) -> dict[str, Any]:
    return {"after": 100, "planned": 100, "steps": 50, "schedule": "linear", "peak": 1e-3} | values


@pytest.mark.parametrize(
    ("schedule", "floor"), [("constant", None), ("linear", None), ("cosine", None), ("cosine", 0.2)]
)
def test_the_figures_are_those_of_transformers_to_the_bit(schedule: str, floor: float | None) -> None:
    import torch
    from transformers import get_scheduler

    name = {"constant": "constant_with_warmup"}.get(schedule, "cosine_with_min_lr" if floor else schedule)
    more: dict[str, Any] = {"scheduler_specific_kwargs": {"min_lr_rate": floor}} if floor else {}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs: Any = get_scheduler(name, optimizer, num_warmup_steps=7, num_training_steps=61, **more)
    made = recipe(schedule)
    warmup = made.training.warmup.model_copy(update={"kind": "steps", "value": 7})
    training = made.training.model_copy(update={"warmup": warmup, "floor": floor})
    ours = rate_parts(training, 61)
    assert [repr(ours(step)) for step in range(70)] == [repr(float(theirs.lr_lambdas[0](step))) for step in range(70)]


def test_an_extension_begins_where_the_schedule_before_it_had_come_to() -> None:
    part = rate_parts(recipe(extensions=[extension(warmup_steps=10)]).training, 150)
    plain = rate_parts(recipe().training, 100)
    assert [part(step) for step in range(100)] == [plain(step) for step in range(100)]
    assert part(100) == pytest.approx(0.05) and part(109) == pytest.approx(0.5)  # peak 1e-3 of 2e-3
    assert part(110) == pytest.approx(0.5) and part(130) == pytest.approx(0.25) and part(150) == 0


def test_the_first_steps_keep_their_schedule_where_a_run_ended_early() -> None:
    part = rate_parts(recipe(extensions=[extension(after=60)]).training, 110)
    plain = rate_parts(recipe().training, 100)
    assert part(59) == plain(59) and part(60) == 0.5
    twice = [extension(after=60), extension(after=110, planned=110, schedule="constant", peak=2e-4)]
    assert rate_parts(recipe(extensions=twice).training, 160)(130) == pytest.approx(0.1)


def test_every_way_is_stated_with_its_figures() -> None:
    ways = {way.name: way for way in choices(recipe(), 100, 100, 100)}
    assert ways["continue"].first == pytest.approx(2e-3 * 0.5 * (1 + math.cos(math.pi * 80 / 180)))
    assert ways["constant"].first == ways["constant"].last == pytest.approx(2e-4)
    assert ways["rewarm"].extension.warmup_steps == 10
    assert ways["rewarm"].first == pytest.approx(2e-4) and "up to 0.002 in 10 steps" in ways["rewarm"].said
    assert all(f"{way.last:.3g}" in way.said or way.name == "constant" for way in ways.values())
    flat = {way.name: way for way in choices(recipe("constant"), 100, 100, 50)}
    assert flat["constant"].first == flat["continue"].first == pytest.approx(2e-3)
    own = choices(recipe(), 100, 100, 50, peak=5e-4, warmup=5)
    assert all((way.extension.peak, way.extension.warmup_steps) == (5e-4, 5) for way in own)


def test_an_extension_is_part_of_the_recipe_and_a_recipe_without_one_is_as_before() -> None:
    plain, extended = recipe(), recipe(extensions=[extension()])
    assert plain.hash() != extended.hash()
    assert b"extensions" not in plain.canonical_json() and "extensions" not in plain.to_toml()
    again = parse_recipe(extended.to_toml(), "again")
    assert again == extended and again.hash() == extended.hash()
    assert extended.training.extended(100) == 150 and plain.training.extended(100) == 100
    assert warmup_steps(plain.training, 100) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        [extension(after=101)],
        [extension(warmup_steps=51)],
        [extension(peak=0)],
        [extension(), extension()],
        [extension(), extension(after=150, planned=151)],
    ],
)
def test_extensions_that_contradict_are_refused(wrong: list[dict[str, Any]]) -> None:
    with pytest.raises(TunewrightError, match="Recipe not valid"):
        recipe(extensions=wrong)
