"""What tests of runs start from."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tunewright.cli.recipe_argument import change_recipe
from tunewright.engine.machine import inspect_machine
from tunewright.engine.planner import plan_recipe
from tunewright.engine.runs.directory import RunDirectory, create_run
from tunewright.recipes.registry import open_registry
from tunewright.starter import TRAINING_DATA


@pytest.fixture
def without_data(tmp_path: Path) -> Callable[[str], RunDirectory]:
    """Makes a run of a name whose data is gone, so that its trainer ends within a moment and without torch."""

    def make(name: str) -> RunDirectory:
        data = tmp_path / "rows.jsonl"
        data.write_bytes(TRAINING_DATA.read_bytes())
        with open_registry() as registry:
            recipe = change_recipe(registry.get("starter-lora").recipe, [f'data.source="{data}"', "training.steps=4"])
        recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"source": None})})
        made = create_run(recipe, plan_recipe(recipe, inspect_machine(tmp_path)), name)
        data.unlink()
        return made

    return make
