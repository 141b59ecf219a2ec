"""The catalogue: every recipe that is shipped loads, says why, round-trips, and can be found."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine import sources
from tunewright.engine.anatomy import Anatomy
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.planner import make_plan
from tunewright.engine.shapes import SHAPES, find_shape, published
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes import catalogue
from tunewright.recipes.migrations import size_billions
from tunewright.recipes.model import TIERS, Recipe, parse_recipe, read_recipe
from tunewright.recipes.registry import open_registry

FOLDER = Path(catalogue.__file__).parent
FILES = sorted(FOLDER.rglob("*.toml"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
STARTERS = [path for path in FILES if path.stem.startswith("starter-")]
CITED = [path for path in FILES if path not in STARTERS]
each_cited = pytest.mark.parametrize("path", CITED, ids=lambda path: path.stem)
LEFT_OUT = tomllib.loads((Path(__file__).parents[2] / "docs" / "left_out.toml").read_text(encoding="utf-8"))


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


@pytest.mark.parametrize("path", STARTERS, ids=lambda path: path.stem)
def test_a_starter_uses_only_what_is_built_in(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.base.model in sources.BUILT_IN_MODELS
    assert {recipe.data.source, recipe.evaluation.source} <= sources.BUILT_IN_DATA.keys()


def test_each_is_in_the_registry_under_its_name(tmp_path: Path) -> None:
    with open_registry(tmp_path / "registry.db") as registry:
        for path in FILES:
            entry = registry.get(path.stem)
            assert entry.hash == entry.recipe.hash() == read_recipe(path).hash()
            assert entry.origin == "built-in"
            assert entry.name in [found.name for found in registry.list(search=entry.title)]


def test_no_two_are_the_same() -> None:
    hashes = [read_recipe(path).hash() for path in FILES]
    assert len(set(hashes)) == len(hashes)


@each_cited
def test_a_cited_recipe_says_what_is_known_of_it(path: Path) -> None:
    """Its source at a commit, how far that was tested, and in whose words it may be called proven."""
    recipe = read_recipe(path)
    card = recipe.card
    assert card.tier is not None
    word = TIERS[card.tier]
    assert word.replace(" ", "-") in card.tags
    assert ("Proven" in card.summary) == (card.tier in "AB")
    assert ("template" in card.summary) == (card.tier == "D")
    assert path.read_text(encoding="utf-8").startswith(f"# {card.title}: {word}.\n# ")
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}:\S+", source) for source in card.sources)
    assert card.sources
    assert card.evidence
    assert card.hardware
    assert card.model_licence
    assert card.data_licence
    resolved = flat(recipe.model_dump(mode="json", exclude_none=True))
    assert set(card.unknown) <= resolved.keys()


@each_cited
def test_what_its_source_leaves_open_is_said_at_the_value(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    unknown = read_recipe(path).card.unknown
    section, told = "", set[str]()
    for before, line in pairwise(lines):
        section = line.strip("[]") if line.startswith("[") else section
        key = re.match(r"(\w+) =", line)
        if key and re.match(r"# Not said there", before):
            told.add(f"{section}.{key[1]}")
    assert told == set(unknown)


def flat(value: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{at}{key}.") if isinstance(inner, dict) else {f"{at}{key}": inner}
    return found


def test_what_is_left_out_has_its_reason() -> None:
    assert len(CITED) >= 90
    assert not LEFT_OUT.keys() & catalogue.built_in().keys()
    assert len(CITED) + len(LEFT_OUT) == 117
    for entry in LEFT_OUT.values():
        assert entry["because"].endswith(".")
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}:\S+", entry["source"])


STAND_INS = {
    "tiny-aya-global": "3b",
    "zephyr-sft-bnb-4bit": "7b",
    "tinyllama-bnb-4bit": "1b",
    "Phi-4": "14b",
    "SmolLM3-3B-checkpoints": "3b",
}
"""Sizes of models whose shape is not known here and whose name does not tell it; unsloth/Phi-4 is laid out as Llama."""


def shape_of(model: str) -> Anatomy:
    """The model's published shape, or that of the known model nearest in size: what a plan without any file can know."""
    name = model.rpartition("/")[2]
    shape = find_shape(model) if name not in STAND_INS else None
    if shape is None:
        size = size_billions(model) or size_billions(STAND_INS[name])
        assert size, model
        shape = min(SHAPES, key=lambda each: abs((size_billions(each) or 14) - size))
    return published(shape).anatomy


def box(gpus: int) -> Machine:
    cards = [GpuDevice(index, "NVIDIA H200", 139.8, 139.8, (9, 0), None, None, None, None) for index in range(gpus)]
    return Machine("Linux", "EPYC", 128, 4000.0, 3900.0, 100_000.0, tuple(cards), "575", f"{gpus} NVIDIA GPUs.")


@each_file
def test_it_plans(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))
    recipe = read_recipe(path)
    anatomy = published("SmolLM2-135M").anatomy if path in STARTERS else shape_of(recipe.base.model)
    longest = recipe.data.max_length
    lengths = [max(8, longest * part // 40) for part in range(1, 41)] * 4
    for gpus in (1, 2, 8, 16, 64):
        try:
            plan = make_plan(
                recipe, box(gpus), anatomy, lengths, [], [longest // 4], None, wish=gpus if gpus > 1 else None
            )
        except TunewrightError as error:
            assert error.title in ("Does not fit this machine", "Not by so many GPUs"), (gpus, error)
            continue
        assert plan.micro_batch * plan.accumulation * plan.gpus == recipe.training.global_batch
        assert plan.total_steps >= 1
        return
    pytest.fail("it fits on no number of cards")


def test_the_starters_differ_in_what_they_compare_alone() -> None:
    starters = [read_recipe(FOLDER / f"starter-{kind}.toml") for kind in ("lora", "qlora", "full")]
    shared = [recipe.model_dump(include={"base", "data", "evaluation"}) for recipe in starters]
    assert shared[0] == shared[1] == shared[2]
    assert adapters(starters[0]) == adapters(starters[1])


def adapters(recipe: Recipe) -> dict[str, object]:
    return recipe.method.model_dump(exclude={"kind", "quantisation", "double_quantisation"})
