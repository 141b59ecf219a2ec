"""Changing, comparing and reading recipes: comments stay, differences are told with what they do, every field is read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tomlkit
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.comparing import differences, possible_effects
from tunewright.recipes.editing import as_typed, change_text, edit_text, read_change, read_typed
from tunewright.recipes.model import Recipe, parse_recipe
from tunewright.recipes.reading import fields
from tunewright.recipes.schema import slot_at, slots

from .test_model import ONE_VALUE, OTHERWISE, RESOLVED

TEXT = built_in()["starter-lora"]


def changed(*changes: str, text: str = TEXT) -> str:
    return change_text(text, map(read_change, changes), "a test")


def comment_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


@pytest.mark.parametrize(
    "changes",
    [
        ["method.rank=8"],
        ["training.steps=20"],
        ["training.early_stopping.patience=3"],
        ["training.warmup.value=0.1", "card.title=Mine"],
        ['method.targets=["q_proj", "v_proj"]'],
        ["evaluation.source=null"],
    ],
    ids=lambda changes: changes[0].partition("=")[0],
)
def test_comments_stay_where_they_are(changes: list[str]) -> None:
    text = changed(*changes)
    assert comment_lines(text) == comment_lines(TEXT)
    before, after = TEXT.splitlines(), text.splitlines()
    assert len([line for line in after if line not in before]) <= 2 + len(changes)


def test_a_comment_at_the_end_of_a_line_stays() -> None:
    text = TEXT.replace("rank = 16", "rank = 16  # as the paper has it")
    assert "rank = 8  # as the paper has it" in changed("method.rank=8", text=text)


def test_steps_take_the_place_of_epochs_and_back() -> None:
    by_steps = changed("training.steps=20")
    assert parse_recipe(by_steps, "t").training.epochs is None
    again = parse_recipe(changed("training.epochs=2", text=by_steps), "t").training
    assert (again.epochs, again.steps) == (2, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("method.rnk=8", "did you mean rank"),
        ("method.rank=many", "method.rank"),
        ("nothing", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("rank=3", "KEY=VALUE"),
        ("method.rank.deep=3", "holds no other keys"),
        ("training.steps=\x1b[31m", "training.steps"),
    ],
)
def test_what_cannot_be_set_is_told(change: str, said: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        changed(change)
    assert said in f"{caught.value.message}" and "\x1b" not in str(caught.value)


def altered(changes: dict[str, Any]) -> Recipe:
    tables = copy.deepcopy(RESOLVED)
    for path, value in changes.items():
        *parents, name = path.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value
    return parse_recipe(tomlkit.dumps(tables), "a test")


@pytest.mark.parametrize("field", [each for each in OTHERWISE if each not in ONE_VALUE])
def test_every_difference_is_told_with_what_it_does(field: str) -> None:
    base = altered({})
    other = altered(OTHERWISE[field])
    found = differences(base, other)
    assert found and all(each.changes_result for each in found)
    assert any(each.path == field or each.path.startswith(f"{field}.") for each in found)
    for one, two in ((base, other), (other, base)):
        for each in differences(one, two):
            assert each.effect.endswith("."), each
            assert each.meaning.endswith("."), each
            assert each.before != each.after, each


def test_the_scale_of_adapters_is_told() -> None:
    before = parse_recipe(TEXT, "t")
    (rank,) = differences(before, parse_recipe(changed("method.rank=8"), "t"))
    assert rank.effect == (
        "The adapters have half the parameters, in memory and in the file. "
        "Its output is multiplied by 4 instead of 2, as if the learning rate were another."
    )
    both = differences(before, parse_recipe(changed("method.rank=8", "method.alpha=16"), "t"))
    assert all("still multiplied by 2" in each.effect for each in both)


def test_words_come_last_and_change_nothing() -> None:
    before = parse_recipe(TEXT, "t")
    found = differences(before, parse_recipe(changed("card.title=Mine", "evaluation.rows=5", "training.seed=1"), "t"))
    assert [(each.path, each.changes_result) for each in found] == [
        ("training.seed", True),
        ("evaluation.rows", False),
        ("card.title", False),
    ]
    assert differences(before, before) == ()


def test_the_order_of_target_modules_is_no_difference() -> None:
    one = parse_recipe(changed('method.targets=["q_proj", "v_proj"]'), "t")
    other = parse_recipe(changed('method.targets=["v_proj", "q_proj"]'), "t")
    assert differences(one, other) == ()


def test_reading_tells_value_default_source_and_reason() -> None:
    found = {each.path: each for each in fields(parse_recipe(TEXT, "t"), TEXT)}
    rank, alpha, model = found["method.rank"], found["method.alpha"], found["base.model"]
    assert (rank.value, rank.default, rank.differs, rank.source) == ("16", "16", False, "written")
    assert rank.reason == "The task is narrow: 16 directions for each projection are plenty."
    assert (alpha.value, alpha.default, alpha.differs) == ("32", "16", True)
    assert (model.default, model.differs, model.source) == (None, True, "required")
    assert found["base.revision"].source == "default"
    assert found["training.warmup.value"].reason.startswith("One step in twenty")
    assert all(each.meaning.endswith(".") for each in found.values())


def value_at(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


@pytest.mark.parametrize("name", ["starter-lora", "starter-dpo", "starter-full"])
def test_what_is_typed_as_it_is_changes_nothing(name: str) -> None:
    recipe = parse_recipe(built_in()[name], name)
    values = {slot.path: as_typed(value_at(recipe, slot.path)) for slot in slots(recipe.method.kind)}
    edited = edit_text(built_in()[name], {path: text for path, text in values.items() if text})
    assert edited.problems == ()
    assert edited.recipe == recipe


def test_every_field_can_be_typed() -> None:
    typed = {
        "base.revision": "main", "data.columns": '{ prompt = "question", completion = "answer" }', "data.format": "alpaca",
        "data.system_prompt": '"Be brief.\\nBe kind."', "data.loss_on": '["user", "assistant"]', "data.packing": "yes",
        "data.validation.value": "0.1", "data.validation.kind": "fraction", "method.targets": '["q_proj"]',
        "training.learning_rate": "2e-4", "training.early_stopping.patience": "3", "training.steps": "100",
        "training.floor": "0.1", "card.tags": '["one", "two"]', "evaluation.prompts": '["Hello?"]',
    }  # fmt: skip
    edited = edit_text(TEXT, typed)
    assert edited.problems == () and edited.recipe is not None
    assert comment_lines(edited.text) == comment_lines(TEXT)
    assert parse_recipe(edited.text, "t") == edited.recipe
    for path, text in typed.items():
        slot = slot_at(path)
        assert slot is not None
        found, wanted = value_at(edited.recipe, path), read_typed(slot, text)
        assert found == (tuple(wanted) if isinstance(found, tuple) else wanted), path
    back = edit_text(edited.text, {"training.early_stopping.patience": "", "data.columns": "", "base.revision": ""})
    assert back.recipe is not None
    assert (back.recipe.training.early_stopping, back.recipe.data.columns) == (None, None)


@pytest.mark.parametrize(
    ("typed", "path", "said"),
    [
        ({"method.rank": "many"}, "method.rank", "should be a valid integer"),
        ({"method.rank": "0"}, "method.rank", "greater than or equal to 1"),
        ({"method.rank": "1.5"}, "method.rank", "valid integer"),
        ({"data.packing": "perhaps"}, "data.packing", "valid boolean"),
        ({"data.overlong": "fold"}, "data.overlong", "'cut' or 'drop'"),
        ({"method.targets": '["q_proj"'}, "method.targets", "is not TOML"),
        ({"method.targets": "some"}, "method.targets", "is not TOML"),
        ({"method.kind": "qlra"}, "method", "did you mean qlora?"),
        ({"base.model": ""}, "base.model", "is missing"),
        ({"training.steps": ""}, "", ""),
        ({"training.epochs": ""}, "training", "give either epochs or steps"),
        ({"data.validation.value": "0.7", "data.validation.kind": "fraction"}, "data.validation", "at most 0.5"),
        ({"data.validation.kind": "none", "training.finish_with": "best"}, "", "need validation rows"),
        ({"training.learning_rate": "nan"}, "training.learning_rate", "finite number"),
        ({"training.seed": "9" * 5000}, "training.seed", "valid integer"),
        ({"method.targets": "[" * 5000}, "method.targets", "is not TOML"),
        ({"card.title": '"\x1b[31mred'}, "card.title", "is not TOML"),
    ],
    ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else None,
)
def test_what_is_wrong_is_told_at_its_field(typed: dict[str, str], path: str, said: str) -> None:
    edited = edit_text(TEXT, typed)
    if not said:
        assert edited.recipe is not None
        return
    assert edited.recipe is None
    assert any(said in each for each in edited.problems_at(path)), edited.problems
    assert "\x1b" not in str(edited.problems)


def test_another_method_drops_what_it_has_not_and_gives_it_back() -> None:
    full = edit_text(TEXT, {"method.rank": "8", "method.kind": "full"})
    assert full.recipe is not None and full.recipe.method.kind == "full"
    again = edit_text(TEXT, {"method.rank": "8", "method.kind": "qlora"})
    assert again.recipe is not None and value_at(again.recipe, "method.rank") == 8
    assert parse_recipe(changed("method.kind=full"), "t").method.kind == "full"
    preferring = built_in()["starter-dpo"]
    taken_back = edit_text(preferring, {"training.preference.beta": "0.2", "training.objective": "sft"})
    assert taken_back.recipe is not None and taken_back.recipe.training.preference is None


def test_what_a_change_would_do_is_told_before_it_is_made() -> None:
    recipe = parse_recipe(TEXT, "t")
    assert dict(possible_effects(recipe, "method.rank")).keys() == {"32", "8"}
    assert "Every weight" in dict(possible_effects(recipe, "method.kind"))["full"]
    assert possible_effects(recipe, "training.seed") == ()
    for slot in slots("lora"):
        assert all(said and effect for said, effect in possible_effects(recipe, slot.path))
