"""Saved modules: those that are trained whole beside adapters, by name, with their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..foundation.errors import TunewrightError, by_likeness
from ..foundation.text import one_line
from .anatomy import Anatomy, Targets
from .architectures import FAMILIES

EMBEDDING, HEAD = "embed_tokens", "lm_head"


@dataclass(frozen=True, slots=True)
class SavedModule:
    """A module that adapters' `modules_to_save` may name."""

    name: str
    path: str
    """An end of its path in the model that no other module's path has: PEFT compares letters, not whole names."""
    parameters: int
    """Those of all modules of this name, in all layers."""
    kind: Literal["embedding", "head", "norm", "projection"]


def known_modules(anatomy: Anatomy) -> dict[str, SavedModule]:
    """Return all modules that can be trained whole, by name; those of experts cannot, and routers are left alone."""
    family = FAMILIES.get(anatomy.family)
    head = anatomy.embedding_parameters + anatomy.head_bias_parameters
    found = [
        SavedModule(EMBEDDING, EMBEDDING, anatomy.embedding_parameters, "embedding"),
        SavedModule(HEAD, HEAD, head, "head"),
    ]
    if family is not None and family.norm_vectors:
        vector = family.norm_vectors * anatomy.hidden
        found.append(SavedModule(family.last_norm, f"model.{family.last_norm}", vector, "norm"))
        found += [SavedModule(name, name, anatomy.layers * vector, "norm") for name in family.norm_names]
    for each in anatomy.projections:
        biases = each.outputs * each.count if each.bias else 0
        found.append(SavedModule(each.name, each.name, each.weights + biases, "projection"))
    return {each.name: each for each in found}


def saved_modules(anatomy: Anatomy, names: Sequence[str], quantised: bool = False) -> tuple[SavedModule, ...]:
    """Return the modules that `names` means, each once; `quantised` says that projections lie in 4 bits.

    Where the output layer is the embedding's own matrix, both names mean that one, and it stays one. Raises
    TunewrightError for a name that no module has, and for a projection in 4 bits, which cannot be trained.
    """
    known = known_modules(anatomy)
    chosen: dict[str, SavedModule] = {}
    for written in names:
        name = written.removeprefix("model.")
        module = known.get(name)
        if module is None:
            names_ = by_likeness(name, known)
            raise TunewrightError(
                "Unknown module to save",
                f"A {anatomy.family} model has no module {one_line(written, 80)!r} that can be trained whole; "
                f"it has {', '.join(names_)}.",
                f"Did you mean {names_[0]}? (method.modules_to_save)",
            )
        if quantised and module.kind == "projection":
            raise TunewrightError(
                "Module cannot be saved in 4 bits",
                f"QLoRA keeps {name} in 4 bits, and such weights cannot be trained.",
                f'Leave {name} to the adapters (method.targets), or take method.kind = "lora".',
            )
        if module.kind == "head" and anatomy.tied_embeddings:
            module = known[EMBEDDING]
        chosen[module.name] = module
    return tuple(chosen.values())


def adapted_names(
    anatomy: Anatomy, targets: Targets, names: Sequence[str] = (), quantised: bool = False
) -> tuple[str, ...]:
    """Return the projections that get an adapter: those that `targets` means, without those that are trained whole.

    Raises TunewrightError when none is left.
    """
    saved = {each.name for each in saved_modules(anatomy, names, quantised)} if names else set[str]()
    left = tuple(each for each in anatomy.target_names(targets) if each not in saved)
    if not left:
        raise TunewrightError(
            "No targets left",
            "Every projection that method.targets means is trained whole (method.modules_to_save).",
            'Take one of them out of modules_to_save, or tune all parameters: method.kind = "full".',
        )
    return left
