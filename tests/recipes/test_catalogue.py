"""The catalogue: every recipe that is shipped loads, says why, round-trips, and can be found."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tunewright.engine import sources
from tunewright.recipes import catalogue
from tunewright.recipes.model import Recipe, parse_recipe, read_recipe
from tunewright.recipes.registry import open_registry

FOLDER = Path(catalogue.__file__).parent
FILES = sorted(FOLDER.rglob("*.toml"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_every_file_is_in_the_catalogue() -> None:
    assert list(catalogue.built_in()) == [path.stem for path in FILES]
    assert {"starter-lora", "starter-qlora", "starter-full"} <= catalogue.built_in().keys()


def test_the_fingerprint_follows_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    before, texts = catalogue.fingerprint(), catalogue.built_in()
    seen = {before}
    for changed in ({**texts, "more": ""}, {name: text + "#" for name, text in texts.items()}, {}):
        monkeypatch.setattr(catalogue, "built_in", lambda changed=changed: changed)
        seen.add(catalogue.fingerprint())
    assert len(seen) == 4


@each_file
def test_it_loads_and_round_trips(path: Path) -> None:
    recipe = read_recipe(path)
    assert parse_recipe(recipe.to_toml(), path.name) == recipe


@each_file
def test_it_leaves_no_semantic_field_to_a_default(path: Path) -> None:
    """A default that changes later would change what the recipe means."""
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    resolved = read_recipe(path).model_dump(mode="json", exclude_none=True)
    for section in ("base", "data", "method", "training"):
        assert resolved[section].keys() == written[section].keys(), section


@each_file
def test_every_choice_has_its_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+ *=", line):
            assert re.match(r"# .+\.$", lines[number - 1]), f"line {number + 1}: {line}"


@each_file
def test_its_card_is_filled_in(path: Path) -> None:
    card = read_recipe(path).card
    assert card.title
    assert card.summary.endswith(".")
    assert card.licence
    assert card.tags
    for source in card.sources:
        assert re.fullmatch(r"https://\S+|[\w.-]+/[\w.-]+@[0-9a-f]{40}:\S+", source)


@each_file
def test_it_uses_only_what_is_built_in(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.base.model in sources.BUILT_IN_MODELS
    assert {recipe.data.source, recipe.evaluation.source} <= sources.BUILT_IN_DATA.keys()


@each_file
def test_it_is_in_the_registry_under_its_name(path: Path, tmp_path: Path) -> None:
    with open_registry(tmp_path / "registry.db") as registry:
        entry = registry.get(path.stem)
        assert entry.hash == entry.recipe.hash() == read_recipe(path).hash()
        assert entry.origin == "built-in"
        assert entry in registry.list(search=entry.title)


def test_the_starters_differ_in_what_they_compare_alone() -> None:
    starters = [read_recipe(FOLDER / f"starter-{kind}.toml") for kind in ("lora", "qlora", "full")]
    shared = [recipe.model_dump(include={"base", "data", "evaluation"}) for recipe in starters]
    assert shared[0] == shared[1] == shared[2]
    assert adapters(starters[0]) == adapters(starters[1])


def adapters(recipe: Recipe) -> dict[str, object]:
    return recipe.method.model_dump(exclude={"kind", "quantisation", "double_quantisation"})
