"""Remedies: when nothing fits, the smallest change to a recipe that would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..foundation.errors import TunewrightError
from ..foundation.text import one_line
from ..recipes.model import FullMethod, LoraMethod, QloraMethod, Recipe
from .search import Candidate, Surroundings, search
from .work import Work


def nothing_fits(work: Work, around: Surroundings, candidates: Sequence[Candidate]) -> TunewrightError:
    """Return the error that names what is missing and the smallest change to the recipe that would fit."""
    least = min(each.needed_gib for each in candidates)
    place = "GPU" if around.gpu else "memory"
    total = around.gpu.memory_total_gib if around.gpu else None
    remedy = "No change of the recipe fits this model here: take a smaller model or a larger machine."
    for said, recipe in smaller_recipes(work.recipe):
        smaller = _cut(work, recipe)
        needed = min(each.needed_gib for each in search(smaller, around))
        if needed <= around.budget_gib:
            remedy = f"The smallest change that fits: {said}, which needs {needed:.1f} GiB."
            break
    if total is not None and least <= total * (around.budget_gib / around.free_gib):
        remedy += f" Or free the card: all of its {total:.1f} GiB would do."
    return TunewrightError(
        "Does not fit this machine",
        f"{one_line(work.recipe.base.model, 200)} with {work.recipe.method.kind} needs at least {least:.1f} GiB; of the {place}'s "
        f"{around.free_gib:.1f} GiB that are free, {around.budget_gib:.1f} may be used.",
        remedy,
    )


def smaller_recipes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield changes that need less memory, with their descriptions, the one that changes least first."""
    training, data, method = recipe.training, recipe.data, recipe.method
    eight_bit = recipe.model_copy(update={"training": training.model_copy(update={"optimizer": "adamw_8bit"})})
    if training.optimizer != "adamw_8bit":
        yield 'training.optimizer = "adamw_8bit"', eight_bit
    if isinstance(method, FullMethod):
        yield 'method.kind = "lora"', recipe.model_copy(update={"method": LoraMethod(kind="lora")})
    if not isinstance(method, QloraMethod):
        shape = method.model_dump(exclude={"kind"}) if isinstance(method, LoraMethod) else {}
        quantised = QloraMethod(kind="qlora", **shape)
        yield 'method.kind = "qlora"', recipe.model_copy(update={"method": quantised})
    length = data.max_length // 2
    while length >= 128:
        yield (
            f"data.max_length = {length}",
            recipe.model_copy(update={"data": data.model_copy(update={"max_length": length})}),
        )
        length //= 2
    if not isinstance(method, QloraMethod):
        quantised = QloraMethod(kind="qlora", rank=8)
        short = data.model_copy(update={"max_length": min(256, data.max_length)})
        yield (
            f'method.kind = "qlora" with rank 8 and data.max_length = {short.max_length}',
            eight_bit.model_copy(update={"method": quantised, "data": short}),
        )


def _cut(work: Work, recipe: Recipe) -> Work:
    """Return the work of a changed recipe over the same rows, cut to its length."""
    longest = recipe.data.max_length
    return Work(
        recipe,
        work.anatomy,
        tuple(min(length, longest) for length in work.training),
        tuple(min(length, longest) for length in work.validation),
        work.supervised,
        work.longest_answer,
        work.judged,
    )
