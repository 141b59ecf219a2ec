"""Exporting: the adapter merged into its base model.

`python -m tunewright.engine.results.export RUN_DIRECTORY`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.files import replaced_whole
from ...recipes.model import QloraMethod, Recipe
from ..plan import Plan
from ..runs.directory import RunDirectory
from ..runs.pinned import pinned_recipe
from ..sources import find_weights


def merge(run: RunDirectory, recipe: Recipe, plan: Plan, folder: Path) -> Path:
    """Write the base model in `folder` with the run's adapter merged in, and return where.

    A QLoRA adapter was trained beside the quantised weights, so it is merged into those, dequantised first: merged
    into the 16-bit originals, the model would answer differently.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    from ..training.transformers import load_base

    if not (run.adapter / "adapter_config.json").exists():
        raise TunewrightError("No adapter", f"{run.id} has none yet.", "Let the run finish, or resume it.")
    base: Any = load_base(recipe, plan, folder)
    if isinstance(recipe.method, QloraMethod):
        base = base.dequantize()
        base.config.quantization_config = None
    merged: Any = PeftModel.from_pretrained(base, str(run.adapter)).merge_and_unload()
    merged.config.use_cache = True
    with replaced_whole(run.model) as aside:
        merged.save_pretrained(aside, safe_serialization=True)
        AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(aside)
    return run.model


def main(arguments: list[str]) -> int:
    """Merge the run in the first argument."""
    run = RunDirectory(Path(arguments[0]))
    recipe = pinned_recipe(run)
    try:
        merge(run, recipe, run.plan(), find_weights(recipe.base.model, recipe.base.revision))
    except TunewrightError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
