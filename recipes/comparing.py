"""Comparing two recipes: what differs in meaning, and what each difference does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from .editing import Change, apply_to_values
from .model import LoraMethod, Recipe, check_recipe
from .reading import written
from .schema import meaning_at, slot_at

_WORDS_ONLY = ("card", "evaluation")
LORA_OVER_FULL = 10
"""LoRA learns best at about ten times the rate of full fine-tuning."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that two recipes have otherwise."""

    path: str
    before: str
    after: str
    meaning: str
    """What the field says."""
    effect: str
    """What this difference does."""
    changes_result: bool
    """Whether a run comes out otherwise by it; false for words and for how the result is judged."""


def differences(before: Recipe, after: Recipe) -> tuple[Difference, ...]:
    """Return what differs between two recipes, in the order of their fields, what changes the result first."""
    left, right = _flat(before), _flat(after)
    found: list[Difference] = []
    for path in [*left, *(path for path in right if path not in left)]:
        one, other = left.get(path), right.get(path)
        if path in left and path in right and one == other and type(one) is type(other):
            continue
        if one == other and not (isinstance(one, bool) or isinstance(other, bool)):
            continue
        changes = not path.startswith(_WORDS_ONLY)
        effect = _effect(path, one, other, before, after)
        found.append(Difference(path, written(one), written(other), meaning_at(path), effect, changes))
    order = {name: place for place, name in enumerate(Recipe.model_fields)}
    found.sort(key=lambda each: (not each.changes_result, order[each.path.partition(".")[0]]))
    return tuple(found)


def possible_effects(recipe: Recipe, path: str) -> tuple[tuple[str, str], ...]:
    """Return what the field at `path` might be instead, in words, and what each of these changes would do.

    Of a choice these are the others, of a number twice and half of it; what would not be a recipe is left out.
    """
    slot, values = slot_at(path), _flat(recipe)
    before = values.get(path)
    if slot is None:
        return ()
    instead: tuple[Any, ...] = slot.choices
    if slot.kind == "yes or no":
        instead = (not before,)
    elif isinstance(before, (int, float)) and path not in _NOT_SCALED:
        instead = (before * 2, before // 2 if isinstance(before, int) else before / 2)
    told: dict[str, list[str]] = {}
    for value in instead:
        tables: dict[str, Any] = recipe.model_dump(mode="json", exclude_none=True)
        apply_to_values(tables, [Change(tuple(path.split(".")), value)])
        after = check_recipe(tables)
        if value != before and isinstance(after, Recipe):
            told.setdefault(_effect(path, before, value, recipe, after), []).append(written(value))
    return tuple((", ".join(names), effect) for effect, names in told.items() if effect)


_NOT_SCALED = ("training.seed",)
"""Numbers of which twice and half mean nothing."""


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return every value of a recipe by its path; target modules and roles as sets, for their order means nothing."""

    def walk(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in table.items():
            if isinstance(value, dict) and f"{prefix}{name}" != "data.columns":
                yield from walk(cast("dict[str, Any]", value), f"{prefix}{name}.")
            elif isinstance(value, list) and f"{prefix}{name}" in ("method.targets", "data.loss_on"):
                yield f"{prefix}{name}", sorted(set(cast("list[str]", value)))
            else:
                yield f"{prefix}{name}", value

    return dict(walk(recipe.model_dump(mode="json", exclude_none=True), ""))


def _effect(path: str, before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    if path.startswith("card."):
        return "Words alone: a run of either comes out the same."
    if path.startswith("evaluation."):
        return "The result is judged otherwise; what is trained stays the same."
    for name in (path, path.rpartition(".")[0]):
        if name in _EFFECTS:
            return _EFFECTS[name](before, after, one, other)
    return ""


def _times(before: Any, after: Any) -> str:
    """Return a ratio in words: twice, half, 3 times."""
    if not isinstance(before, (int, float)) or not isinstance(after, (int, float)) or not before or not after:
        return "other than"
    ratio = after / before
    if math.isclose(ratio, 2):
        return "twice"
    if math.isclose(ratio, 0.5):
        return "half"
    return f"{ratio:.3g} times"


def _more(before: Any, after: Any, more: str, less: str) -> str:
    if before is None or after is None:
        return more if before is None else less
    return more if after > before else less


def _says(text: str) -> Callable[[Any, Any, Recipe, Recipe], str]:
    return lambda before, after, one, other: text


def _scale(recipe: Recipe) -> float | None:
    """Return by what an adapter's output is multiplied."""
    method = recipe.method
    if not isinstance(method, LoraMethod):
        return None
    return method.alpha / (math.sqrt(method.rank) if method.rslora else method.rank)


def _scaling(one: Recipe, other: Recipe) -> str:
    before, after = _scale(one), _scale(other)
    if before is None or after is None:
        return ""
    if math.isclose(before, after):
        return f" Its output is still multiplied by {after:.3g}."
    return f" Its output is multiplied by {after:.3g} instead of {before:.3g}, as if the learning rate were another."


def _rank(before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    if before is None or after is None:
        return "Only adapters have a rank."
    return f"The adapters have {_times(before, after)} the parameters, in memory and in the file." + _scaling(
        one, other
    )


def _kind(before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    said = {
        "full": "Every weight is trained: the most it can learn, and about four times the model's memory and more.",
        "lora": "Adapters beside frozen 16-bit weights: a file of megabytes, and no optimizer states for the weights.",
        "qlora": "Frozen weights in 4 bits: about a quarter of their memory, and steps a little slower.",
    }[after]
    if "full" in (before, after):
        rates = (one.training.learning_rate, other.training.learning_rate)
        lower, higher = rates if after != "full" else rates[::-1]
        if higher < 3 * lower:
            said += f" Adapters learn best at about {LORA_OVER_FULL} times the rate of full fine-tuning; the rates here do not show that."
    return said


def _learning_rate(before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    more = _more(
        before,
        after,
        "Learns faster; too far, and the loss jumps or what was known is forgotten.",
        "Learns more slowly and forgets less; too low, and little is learned in the same steps.",
    )
    return f"Each step moves the weights {_times(before, after)} as far. {more}"


def _batch(before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    fewer = _more(before, after, "fewer and smoother steps in an epoch", "more and noisier steps in an epoch")
    rate = (
        ""
        if one.training.learning_rate != other.training.learning_rate
        else " The learning rate was chosen for the other."
    )
    return f"{_times(before, after).capitalize()} the rows in each step: {fewer}. Memory stays, for the plan divides them.{rate}"


def _length(before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    return _more(
        before,
        after,
        "Longer rows are learned whole; activations take more memory where rows are that long.",
        f"Rows beyond {after:,} tokens are {'left out' if other.data.overlong == 'drop' else 'cut'}; less memory where rows were longer.",
    )


def _amount(before: Any, after: Any, one: Recipe, other: Recipe) -> str:
    if before is None or after is None:
        return "The run's length is counted otherwise: by steps it does not follow the data, by epochs it does."
    return f"{_times(before, after).capitalize()} the training: " + _more(
        before, after, "more time, and with repeated rows more is learned by heart.", "less time, and less is learned."
    )


def _on(yes: str, no: str) -> Callable[[Any, Any, Recipe, Recipe], str]:
    return lambda before, after, one, other: yes if after else no


_EFFECTS: dict[str, Callable[[Any, Any, Recipe, Recipe], str]] = {
    "base.model": _says("Other weights, another tokenizer and template: figures of one say little about the other."),
    "base.revision": _says("Weights or template may differ where the repository changed between the two."),
    "base.adapter": _says("Training goes on from other adapters, or from none."),
    "data.source": _says("Other rows are learned."),
    "data.split": _says("Other rows of the same data set are learned."),
    "data.format": _says("The rows are read in another shape; with the wrong one they mean something else."),
    "data.columns": _says("Other columns of the rows are read."),
    "data.template": _says("Other text stands around each turn: the tuned model has to be asked in the same form."),
    "data.system": _says("System prompts reach the model otherwise, in training and so in use."),
    "data.system_prompt": _says(
        "Rows without a system prompt get another one, which belongs to the model's use from then on."
    ),
    "data.thinking": lambda before, after, one, other: (
        "The reasoning in the rows is left out: answers come at once."
        if after == "drop"
        else "The reasoning in the rows is learned too."
    ),
    "data.loss_on": _says("The loss is taken on other tokens: what it counts is learned, the rest is only read."),
    "data.validation": _says("Other rows are kept out: validation losses of the two are not comparable."),
    "data.max_length": _length,
    "data.overlong": _says("Rows beyond the maximum length are cut in one and left out in the other."),
    "data.faulty": _says("Rows that cannot be read stop the run in one and are left out in the other."),
    "data.share": lambda before, after, one, other: f"{_times(before, after).capitalize()} the training rows are used.",
    "data.packing": _on(
        "Short rows share a sequence: less padding, fewer and larger steps.",
        "Each row has a sequence of its own: more steps, and padding costs time.",
    ),
    "method.kind": _kind,
    "method.rank": _rank,
    "method.alpha": lambda before, after, one, other: "The adapters weigh otherwise." + _scaling(one, other),
    "method.dropout": lambda before, after, one, other: _more(
        before,
        after,
        "More is left to chance: less is learned by heart, and slower.",
        "Less is left to chance: rows are learned faster, and sooner by heart.",
    ),
    "method.targets": _says(
        "Other projections get adapters: more of them learn more than a higher rank does, and take more memory."
    ),
    "method.dora": _on("A quarter slower, a little better where it was compared.", "A quarter faster."),
    "method.rslora": lambda before, after, one, other: (
        "The scale falls with the root of the rank, for high ranks." + _scaling(one, other)
        if after
        else "The scale falls with the rank." + _scaling(one, other)
    ),
    "method.lora_plus_ratio": _says("The B matrices learn by another factor faster than the A matrices."),
    "method.modules_to_save": _says(
        "Other modules are trained whole: they take memory like full fine-tuning, and room in the file."
    ),
    "method.quantisation": _says("The frozen weights are kept in 4 bits."),
    "method.double_quantisation": _on("Saves 0.37 bits a weight.", "Takes 0.37 bits a weight more."),
    "training.objective": _says("Something else is learned from the rows, and other rows are needed for it."),
    "training.preference.beta": lambda before, after, one, other: _more(
        before, after, "The model stays nearer to the reference.", "The model may move further from the reference."
    ),
    "training.preference": _says("Better and worse answers are told apart by another measure."),
    "training.learning_rate": _learning_rate,
    "training.schedule": _says("The rate falls along another curve: the last steps settle more, or less."),
    "training.floor": _says("The rate ends at another share of its peak: the last steps still learn, or settle."),
    "training.warmup": _says("The rate rises otherwise at the start, which matters when the first steps are unsteady."),
    "training.epochs": _amount,
    "training.steps": _amount,
    "training.extensions": _says("Steps are taken after the planned end, at learning rates of their own."),
    "training.global_batch": _batch,
    "training.optimizer": lambda before, after, one, other: (
        "A quarter of the optimizer's memory, results as good."
        if after == "adamw_8bit"
        else "Four times the optimizer's memory."
    ),
    "training.beta2": _says("AdamW forgets large gradients sooner, or later; 0.95 is usual where batches are large."),
    "training.weight_decay": lambda before, after, one, other: _more(
        before, after, "Weights are pulled towards zero more strongly.", "Weights are pulled towards zero less."
    ),
    "training.max_grad_norm": lambda before, after, one, other: _more(
        before, after, "Single wild steps are let through further.", "Single wild steps are held back more."
    ),
    "training.seed": _says(
        "Other chance: the order of the rows and the adapters' start. Results differ as two runs of one recipe do."
    ),
    "training.early_stopping": _says("The run may end at another step."),
    "training.finish_with": _says("The run ends with the last step's weights in one, with the best ones in the other."),
    "training.guard": _says(
        "A run that goes wrong is stopped, or warned about, at another point; one that goes well is the same."
    ),
}
