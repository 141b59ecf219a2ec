"""Inspection of what was loaded: that the model about to be trained is the one that recipe and plan describe.

Libraries leave out, replace or round what they do not support without a word; here every such difference is found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import LoraMethod, QloraMethod, Recipe
from ..anatomy import Anatomy
from ..plan import Plan
from ..saved_modules import saved_modules
from ..setting import Tuning

ADAPTER = "default"
"""The name under which PEFT keeps the adapter that is trained."""
DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16", "fp32": "torch.float32"}
SHOWN_DIFFERENCES = 8


def require_as_planned(model: Any, recipe: Recipe, plan: Plan, anatomy: Anatomy) -> None:
    """Raise TunewrightError that lists how `model` departs from the recipe and the plan, if it does."""
    found = list(differences(model, recipe, plan, anatomy))
    if not found:
        return
    other = "transformers" if plan.backend == "unsloth" else "unsloth"
    more = [f"and {len(found) - SHOWN_DIFFERENCES} more"] if len(found) > SHOWN_DIFFERENCES else []
    raise TunewrightError(
        "Not what the recipe says",
        f"What {plan.backend} made of {one_line(recipe.base.model, 200)} would train something else:\n"
        + "\n".join(f"  {each}" for each in [*found[:SHOWN_DIFFERENCES], *more]),
        f"Take the other backend: `tunewright train … --backend {other}`.",
    )


def differences(model: Any, recipe: Recipe, plan: Plan, anatomy: Anatomy) -> Iterator[str]:
    """Yield in words how `model` departs from the recipe and the plan."""
    method = recipe.method
    expected = Tuning.of(method).trainable_parameters(anatomy)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    if trained == 0:
        yield "no parameter is trained"
    elif trained != expected:
        yield f"{trained:,} parameters are trained, not {expected:,}"
    if isinstance(method, LoraMethod):
        yield from _adapter_differences(model, method, anatomy)
        yield from _saved_differences(model, method, anatomy)
    yield from _weight_differences(model, recipe, plan, anatomy)


def adapted_layers(model: Any) -> dict[str, Any]:
    """Return the layers of `model` that carry the adapter, by their paths."""
    return {name: module for name, module in model.named_modules() if ADAPTER in getattr(module, "lora_A", ())}


def _adapter_differences(model: Any, method: LoraMethod, anatomy: Anatomy) -> Iterator[str]:
    layers = adapted_layers(model)
    wanted = Tuning.of(method).adapted(anatomy)
    expected = {each.path: each.count for each in anatomy.projections if each.name in wanted}
    places = Counter[str]()
    for name in layers:
        # The longest path first: that of a shared expert's matrix ends like an ordinary one's.
        path = max((path for path in expected if f".{name}".endswith(f".{path}")), key=len, default=None)
        if path is None:
            yield f"{one_line(name, 100)} carries an adapter, and the recipe gives it none"
        else:
            places[path] += 1
    for path, count in expected.items():
        if places[path] != count:
            yield f"{path} carries an adapter in {places[path]} places, not in {count}"
    scaling = method.alpha / (math.sqrt(method.rank) if method.rslora else method.rank)
    for name, layer in layers.items():
        facts: list[tuple[str, object, object]] = [
            ("rank", layer.r[ADAPTER], method.rank),
            ("scaling", round(float(layer.scaling[ADAPTER]), 6), round(scaling, 6)),
            ("dropout", float(getattr(layer.lora_dropout[ADAPTER], "p", 0.0)), method.dropout),
            ("DoRA", ADAPTER in getattr(layer, "lora_magnitude_vector", ()), method.dora),
        ]
        wrong = [f"{what} {its}, not {ours}" for what, its, ours in facts if its != ours]
        if wrong:
            yield f"{one_line(name, 100)}: {', '.join(wrong)}"
            return  # what is wrong with one is wrong with all


def _saved_differences(model: Any, method: LoraMethod, anatomy: Anatomy) -> Iterator[str]:
    names = saved_modules(anatomy, method.modules_to_save or (), isinstance(method, QloraMethod))
    expected = {each.name: each.parameters for each in names}
    found = Counter[str]()
    for name, parameter in model.named_parameters():  # a matrix that two modules share is met once
        if f".modules_to_save.{ADAPTER}." in name and parameter.requires_grad:
            path = name.partition(".modules_to_save.")[0]
            end = next((end for end in sorted(expected, key=len, reverse=True) if f".{path}".endswith(f".{end}")), path)
            found[end] += parameter.numel()
    for name in {*expected, *found}:
        if found[name] != expected.get(name, 0):
            yield f"{one_line(name, 100)} is trained whole with {found[name]:,} parameters, not {expected.get(name, 0):,}"


def _weight_differences(model: Any, recipe: Recipe, plan: Plan, anatomy: Anatomy) -> Iterator[str]:
    """Yield how the projections are kept: 4-bit ones as the recipe says, others in the plan's precision."""
    method = recipe.method
    wanted = weight_dtype(recipe, plan)
    ends = tuple(f".{each.path}" for each in anatomy.projections)
    kinds = Counter[str]()
    for name, module in model.named_modules():
        if hasattr(module, "base_layer"):
            continue  # PEFT's layer, which stands around the projection
        if not f".{name.removesuffix('.base_layer')}".endswith(ends) or getattr(module, "weight", None) is None:
            continue
        if hasattr(module, "modules_to_save"):
            continue  # trained whole, and kept for that in 32 bits
        four_bits = type(module).__name__ == "Linear4bit"
        kinds[_four_bits(module) if four_bits else str(module.weight.dtype)] += 1
    if isinstance(method, QloraMethod):
        for kind in sorted(set(kinds) - set(DTYPES.values())):
            if kind != (expected := f"{method.quantisation}{' twice' if method.double_quantisation else ''}"):
                yield f"matrices are quantised to {kind}, not to {expected}"
        if not any(kind not in DTYPES.values() for kind in kinds):
            yield "no matrix is kept in 4 bits"
        return
    for kind in sorted(set(kinds) - {wanted}):
        yield f"{kinds[kind]} matrices are kept as {kind.removeprefix('torch.')}, not {wanted.removeprefix('torch.')}"


def weight_dtype(recipe: Recipe, plan: Plan) -> str:
    """Return the type of unquantised matrices: the plan's, but fp32 where they are trained themselves in fp16."""
    if plan.precision == "fp16" and not isinstance(recipe.method, LoraMethod):
        return DTYPES["fp32"]
    return DTYPES[plan.precision]


def _four_bits(module: Any) -> str:
    state = getattr(module.weight, "quant_state", None)
    if state is None:  # split among GPUs, it keeps its settings alone
        return f"{module.weight.quant_type}{' twice' if module.weight.compress_statistics else ''}"
    return f"{state.quant_type}{' twice' if state.nested else ''}"
