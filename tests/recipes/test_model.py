"""The recipe: documented, closed, cleaned, and identified by what changes the result and by nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import LARGEST_RECIPE_BYTES, LoraMethod, QloraMethod, Recipe, Section, parse_recipe

SHORT = """
[base]
model = "owner/model"
[data]
source = "rows.jsonl"
[method]
kind = "lora"
[training]
learning_rate = 1e-4
epochs = 3
"""
RESOLVED: dict[str, Any] = {
    "base": {"model": "owner/model"},
    "data": {
        "source": "rows.jsonl",
        "split": "train",
        "format": "auto",
        "template": "model",
        "system": "keep",
        "thinking": "keep",
        "loss_on": "assistant",
        "validation": {"kind": "fraction", "value": 0.05},
        "max_length": 2048,
        "overlong": "cut",
        "faulty": "refuse",
        "share": 1.0,
        "packing": False,
    },
    "method": {
        "kind": "lora",
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
        "targets": "all-linear",
        "dora": False,
        "rslora": False,
    },
    "training": {
        "objective": "sft",
        "learning_rate": 0.0001,
        "schedule": "cosine",
        "warmup": {"kind": "ratio", "value": 0.03},
        "epochs": 3,
        "global_batch": 16,
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": 42,
    },
}
# Another valid value for every field that changes the result; a field with one possible value is absent.
OTHERWISE: dict[str, dict[str, Any]] = {
    "base.model": {"base.model": "owner/other"},
    "base.revision": {"base.revision": "0123456789abcdef0123456789abcdef01234567"},
    "base.adapter": {"base.adapter": "owner/adapter"},
    "data.source": {"data.source": "others.jsonl"},
    "data.split": {"data.split": "test"},
    "data.format": {"data.format": "alpaca"},
    "data.columns": {"data.columns": {"prompt": "question"}},
    "data.template": {"data.template": "chatml"},
    "data.system": {"data.system": "user"},
    "data.system_prompt": {"data.system_prompt": "Be brief."},
    "data.thinking": {"data.thinking": "drop"},
    "data.loss_on": {"data.loss_on": "all"},
    "data.overlong": {"data.overlong": "drop"},
    "data.faulty": {"data.faulty": "drop"},
    "data.share": {"data.share": 0.5},
    "data.validation.source": {"data.validation": {"kind": "file", "value": 0, "source": "b.jsonl"}},
    "data.validation.key": {"data.validation.key": "user"},
    "data.validation.stratify": {"data.validation.stratify": "topic"},
    "data.validation.kind": {"data.validation": {"kind": "rows", "value": 0}},
    "data.validation.value": {"data.validation.value": 0.1},
    "data.max_length": {"data.max_length": 2047},
    "data.packing": {"data.packing": True},
    "method.kind": {"method.kind": "qlora"},
    "method.rank": {"method.rank": 8},
    "method.alpha": {"method.alpha": 32},
    "method.dropout": {"method.dropout": 0.1},
    "method.targets": {"method.targets": ["q_proj", "v_proj"]},
    "method.dora": {"method.dora": True},
    "method.rslora": {"method.rslora": True},
    "method.lora_plus_ratio": {"method.lora_plus_ratio": 16},
    "method.modules_to_save": {"method.modules_to_save": ["lm_head"]},
    "method.double_quantisation": {"method.kind": "qlora", "method.double_quantisation": False},
    "training.objective": {"training.objective": "cpt"},
    "training.preference": {"training.objective": "dpo"},
    "training.preference.beta": {"training.objective": "dpo", "training.preference": {"beta": 0.2}},
    "training.preference.loss": {"training.objective": "dpo", "training.preference": {"loss": "ipo"}},
    "training.preference.label_smoothing": {
        "training.objective": "dpo",
        "training.preference": {"loss": "robust", "label_smoothing": 0.1},
    },
    "training.preference.desirable_weight": {
        "training.objective": "kto",
        "training.preference": {"desirable_weight": 2.0},
    },
    "training.preference.undesirable_weight": {
        "training.objective": "kto",
        "training.preference": {"undesirable_weight": 2.0},
    },
    "training.learning_rate": {"training.learning_rate": 2e-4},
    "training.schedule": {"training.schedule": "linear"},
    "training.floor": {"training.floor": 0.1},
    "training.beta2": {"training.beta2": 0.95},
    "training.warmup.kind": {"training.warmup": {"kind": "steps", "value": 0}},
    "training.warmup.value": {"training.warmup.value": 0.1},
    "training.epochs": {"training.epochs": 2},
    "training.steps": {"training.epochs": None, "training.steps": 3},
    "training.global_batch": {"training.global_batch": 32},
    "training.optimizer": {"training.optimizer": "adamw_8bit"},
    "training.weight_decay": {"training.weight_decay": 0.01},
    "training.max_grad_norm": {"training.max_grad_norm": 0.5},
    "training.seed": {"training.seed": 43},
    "training.early_stopping": {"training.early_stopping": {"patience": 3}},
    "training.early_stopping.patience": {"training.early_stopping": {"patience": 4}},
    "training.early_stopping.min_delta": {"training.early_stopping": {"patience": 3, "min_delta": 0.1}},
    "training.finish_with": {"training.finish_with": "best"},
    "training.guard.not_a_number": {"training.guard": {"not_a_number": "warn"}},
    "training.guard.explosion": {"training.guard": {"explosion": "off"}},
    "training.guard.explosion_factor": {"training.guard": {"explosion_factor": 10.0}},
    "training.guard.unchanged": {"training.guard": {"unchanged": "warn"}},
    "training.extensions": {
        "training.extensions": [{"after": 9, "planned": 9, "steps": 3, "schedule": "constant", "peak": 1e-4}]
    },
}
ONE_VALUE = {"method.quantisation"}


def sections() -> Iterator[type[BaseModel]]:
    """Every table that a recipe can have."""
    waiting: list[type[BaseModel]] = [Section]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        yield from children


def semantic_fields(section: Any = Recipe, path: str = "") -> Iterator[str]:
    """Every field that changes the result, as a dotted path."""
    for name, field in section.model_fields.items():
        where = f"{path}{name}"
        if where in {"card", "evaluation"}:
            continue
        inner = QloraMethod if where == "method" else field.annotation
        if not hasattr(inner, "model_fields"):
            tables = [a for a in getattr(inner, "__args__", ()) if hasattr(a, "model_fields")]
            yield where
            inner = tables[0] if tables else None
        if inner is not None:
            yield from semantic_fields(inner, f"{where}.")


def recipe_from(tables: dict[str, Any]) -> Recipe:
    return parse_recipe(tomlkit.dumps(tables), "a test")


def altered(changes: dict[str, Any]) -> Recipe:
    """RESOLVED with `changes`, each under a dotted path; None takes a key away."""
    tables = copy.deepcopy(RESOLVED)
    for path, value in changes.items():
        *parents, name = path.split(".")
        table = tables
        for parent in parents:
            table = table[parent]
        if value is None:
            del table[name]
        else:
            table[name] = value
    return recipe_from(tables)


def problems(text: str) -> str:
    with pytest.raises(TunewrightError) as caught:
        parse_recipe(text, "f.toml")
    return caught.value.message


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_field_is_described(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name} has no docstring"
        assert field.description.endswith("."), f"{section.__name__}.{name}: {field.description}"


def test_hash_is_the_same_on_every_machine() -> None:
    assert parse_recipe(SHORT, "f").hash() == "56e27092e698cb5df0aa43b7b6dbe71d32bfc2b717f5719e5c0ee75366a72f64"


def test_hash_ignores_how_the_recipe_is_written() -> None:
    short = parse_recipe(SHORT, "f")
    backwards = {section: dict(reversed(table.items())) for section, table in reversed(RESOLVED.items())}
    assert short.hash() == recipe_from(RESOLVED).hash() == recipe_from(backwards).hash()
    assert short.hash() == parse_recipe(f"# a comment\n{SHORT.replace('1e-4', '0.00010')}", "f").hash()


def test_hash_ignores_the_order_of_targets() -> None:
    names = ["q_proj", "k_proj", "v_proj"]
    orders = [names, names[::-1], [*names, "q_proj"]]
    assert len({altered({"method.targets": order}).hash() for order in orders}) == 1


def test_hash_ignores_a_value_that_has_no_effect() -> None:
    none = [altered({"data.validation": {"kind": "none", "value": value}}).hash() for value in (0, 0.5)]
    assert none[0] == none[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"card": {"title": "Another", "summary": "s", "tags": ["t"], "licence": "MIT", "sources": ["x"]}},
        {"evaluation": {"source": "held-out.jsonl", "rows": 7, "max_new_tokens": 9, "prompts": ["Hello?"]}},
    ],
    ids=["card", "evaluation"],
)
def test_hash_ignores_what_does_not_change_the_result(changes: dict[str, Any]) -> None:
    assert altered(changes).hash() == recipe_from(RESOLVED).hash()


def test_prompts_are_few_and_free_of_escapes() -> None:
    watched = altered({"evaluation": {"prompts": ["One\x1b[2Jtwo\nthree"] * 8}}).evaluation.prompts
    assert len(watched) == 8 and "\x1b" not in watched[0] and "\n" in watched[0]
    for prompts in (["?"] * 9, [""]):
        with pytest.raises(TunewrightError, match=r"evaluation\.prompts"):
            altered({"evaluation": {"prompts": prompts}})


def test_every_semantic_field_is_tried() -> None:
    assert set(OTHERWISE) | ONE_VALUE == set(semantic_fields())


@pytest.mark.parametrize("field", OTHERWISE)
def test_hash_changes_with(field: str) -> None:
    base = recipe_from(RESOLVED)
    if field == "method.double_quantisation":
        base = altered({"method.kind": "qlora"})
    elif field.startswith("training.early_stopping."):
        base = altered({"training.early_stopping": {"patience": 3}})
    elif field == "training.preference.label_smoothing":
        base = altered({"training.objective": "dpo", "training.preference": {"loss": "robust"}})
    elif field.startswith("training.preference."):
        base = altered({"training.objective": OTHERWISE[field]["training.objective"]})
    assert altered(OTHERWISE[field]).hash() != base.hash()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.preference": {}}, "preference belongs to dpo, orpo, kto, not to sft"),
        ({"training.objective": "dpo", "training.preference": {"loss": "exo_pair"}}, "needs label_smoothing above 0"),
        (
            {"training.objective": "dpo", "training.preference": {"label_smoothing": 0.1}},
            "the loss sigmoid knows no label_smoothing; robust and exo_pair do",
        ),
        ({"training.objective": "kto", "training.preference": {"loss": "ipo"}}, "loss belongs to dpo, not to kto"),
        ({"training.objective": "dpo", "data.packing": True}, "data.packing puts several together"),
        ({"training.objective": "orpo", "data.loss_on": "all"}, "data.loss_on is not all"),
        ({"training.objective": "dpo", "method.dropout": 0.1}, "without chance: method.dropout is 0"),
    ],
    ids=["sft", "exo_pair", "smoothing", "kto", "packing", "all", "dropout"],
)
def test_what_does_not_go_with_an_objective_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TunewrightError, match=said):
        altered(changes)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, exclude_min=True) | st.sampled_from([high, high / 2])


words = st.text(max_size=12)
names = st.text("abcdefghij/-_", min_size=1, max_size=8)
lora: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.sampled_from([8, 16]),
    "alpha": numbers(0, 64),
    "dropout": st.sampled_from([0, 0.05]),
    "targets": st.sampled_from(["all-linear", "attention"])
    | st.lists(st.sampled_from(["q_proj", "k_proj", "v_proj"]), min_size=1, max_size=3),
    "dora": st.booleans(),
}
methods = st.one_of(
    st.just({"kind": "full"}),
    st.fixed_dictionaries({"kind": st.just("lora")}, optional=lora),
    st.fixed_dictionaries({"kind": st.just("qlora")}, optional={**lora, "double_quantisation": st.booleans()}),
)
trainings = st.tuples(
    st.fixed_dictionaries(
        {"learning_rate": numbers(0, 1)},
        optional={
            "schedule": st.sampled_from(["constant", "linear", "cosine"]),
            "global_batch": st.integers(1, 64),
            "max_grad_norm": numbers(0, 10),
            "seed": st.integers(0, 2**32 - 1),
            "warmup": st.sampled_from([{"kind": "steps", "value": 10}, {"value": 0.1}]),
        },
    ),
    st.fixed_dictionaries({"epochs": numbers(0, 5)}) | st.fixed_dictionaries({"steps": st.integers(1, 100)}),
).map(lambda both: both[0] | both[1])
cards = st.fixed_dictionaries(
    {}, optional={"title": words, "summary": words, "tags": st.lists(words, max_size=3), "licence": words}
)
tables = st.fixed_dictionaries(
    {
        "base": st.fixed_dictionaries({"model": names}, optional={"revision": names}),
        "data": st.fixed_dictionaries(
            {"source": names},
            optional={"packing": st.booleans(), "max_length": st.sampled_from([8, 2048])},
        ),
        "method": methods,
        "training": trainings,
    },
    optional={"card": cards},
)


def meaning(recipe: Recipe) -> dict[str, Any]:
    """What the recipe does, compared the slow way: as Python values."""
    fields = recipe.model_dump(exclude={"card", "evaluation"})
    if isinstance(recipe.method, LoraMethod) and not isinstance(recipe.method.targets, str):
        fields["method"]["targets"] = frozenset(recipe.method.targets)
    return fields


@given(tables)
def test_toml_keeps_everything(tables: dict[str, Any]) -> None:
    recipe = recipe_from(tables)
    again = parse_recipe(recipe.to_toml(), "written again")
    assert again == recipe
    assert again.hash() == recipe.hash()


@given(tables, tables, st.sets(st.sampled_from(["base", "data", "method", "training", "card"])))
def test_hashes_are_equal_exactly_when_the_meanings_are(
    one: dict[str, Any], other: dict[str, Any], shared: set[str]
) -> None:
    other = other | {name: one[name] for name in shared if name in one}
    left, right = recipe_from(one), recipe_from(other)
    assert (left.hash() == right.hash()) == (meaning(left) == meaning(right))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "learning_rate",
            "learning_rat",
            "line 9: training.learning_rat is not a known key; did you mean learning_rate?",
        ),
        ("epochs = 3", "epochs = 3\nepoch = 3", "line 11: training.epoch is not a known key; did you mean epochs?"),
        ("[training]", "[trainings]", "line 8: trainings is not a known key; did you mean training?"),
        ("[training]", "[lora]\nx = 1\n[training]", "line 8: lora is not a known key"),
        ('"lora"', '"lorra"', "line 6: method has an unknown kind; it is full, lora or qlora (did you mean lora?)"),
        ('kind = "lora"', "", "line 6: method has no kind"),
        ('"lora"', '"full"\nrank = 3', 'line 8: method.rank is not a key of the method "full"'),
        (
            '"lora"',
            '"lora"\ntargets = []',
            'line 8: method.targets should be "all-linear", "attention", "qv", or a list',
        ),
        ('"lora"', '"lora"\ntargets = ["x y"]', "line 8: method.targets should be"),
        ('"lora"', '"lora"\nrank = 0', "line 8: method.rank should be greater than or equal to 1"),
        ("1e-4", '"1e-4"', "line 9: training.learning_rate should be a valid number"),
        ("epochs = 3", "epochs = true", "line 10: training.epochs should be a valid number"),
        ("epochs = 3", "epochs = inf", "line 10: training.epochs should be a finite number"),
        ("epochs = 3", "epochs = nan", "line 10: training.epochs should be a finite number"),
        ("epochs = 3", "epochs = 3\nsteps = 3", "training is not valid: give either epochs or steps"),
        ("epochs = 3", "", "training is not valid: give either epochs or steps"),
        ('model = "owner/model"', "", "base.model is missing"),
        ('model = "owner/model"', 'model = "\\u200b"', "line 3: base.model should have at least 1 character"),
        ('[base]\nmodel = "owner/model"', "base = 3", "line 2: base should be a table"),
        ("epochs = 3", "epochs = 3\nwarmup = { kind = 'steps', value = 1.5 }", "a number of warm-up steps is a whole"),
        ("epochs = 3", "epochs = 3\n[data.validation]\nkind = 'rows'\nvalue = inf", "data.validation.value should be"),
        ("epochs = 3", "epochs = 3\n[training.early_stopping]\npatients = 3", "did you mean patience?"),
    ],
)
def test_problems_name_the_line_and_the_nearest_key(old: str, new: str, told: str) -> None:
    assert old in SHORT
    assert told in problems(SHORT.replace(old, new))


def test_all_problems_are_told_at_once() -> None:
    text = SHORT.replace('"lora"', '"lora"\nrank = 0\nalpha = "3"\ndora = 1').replace("epochs", "epoch")
    assert problems(text).count("\n") >= 4


@pytest.mark.parametrize(
    "text",
    ["x = ", "[base]\n[base]", "x = 2024-13-45", f"x = {'9' * 5000}", f"x = {'[' * 5000}", "\x00", "x = '\ud800'"],
    ids=["cut short", "twice", "no date", "long number", "deep", "NUL", "surrogate"],
)
def test_text_that_is_no_toml_is_told(text: str) -> None:
    with pytest.raises(TunewrightError, match=r"not TOML|not valid"):
        parse_recipe(text, "f.toml")


def test_a_huge_recipe_is_refused_unread() -> None:
    with pytest.raises(TunewrightError, match="256 KiB"):
        parse_recipe("#" * (LARGEST_RECIPE_BYTES + 1), "f.toml")


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(TunewrightError):
        parse_recipe(text, "f.toml")


def test_escapes_are_cleaned_on_the_way_in() -> None:
    evil = "\\u001b]52;c;ZXZpbA==\\u0007\\u001b[31m\\u202eA\\u200bB\\u009b2J"
    text = SHORT.replace("owner/model", f"owner/{evil}m") + f'[card]\ntitle = "{evil}\\nx"\nsummary = "{evil}\\nx"\n'
    recipe = parse_recipe(text, "f")
    assert (recipe.base.model, recipe.card.title, recipe.card.summary) == ("owner/ABm", "AB x", "AB\nx")


def test_escapes_are_cleaned_in_errors() -> None:
    told = problems(SHORT + '"\\u001b]0;evil\\u0007key" = 1\n[card]\n"\\u009b31mx" = 1\n')
    assert "\x1b" not in told
    assert "\x9b" not in told
