"""What of a recipe is on the Hub and not whole here; nothing is asked of the Hub to find that out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import Recipe
from ..sources import BUILT_IN_DATA, BUILT_IN_MODELS, cached_snapshot, fetch_command, find_data, find_weights
from .cache import Kind, parse_hub_name

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class Need:
    """A model or a data set of a recipe that is on the Hub and not whole here."""

    kind: Kind
    name: str
    revision: str | None = None
    split: str = "train"

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return fetch_command(self.kind, self.name, self.revision, self.split)


def needs_of(recipe: Recipe) -> tuple[Need, ...]:
    """Return what of `recipe` would have to be fetched before its run; nothing is asked of the Hub."""
    data, evaluation = recipe.data, recipe.evaluation
    needs = [Need("model", recipe.base.model, recipe.base.revision), Need("dataset", data.source, None, data.split)]
    if recipe.base.adapter:
        needs.append(Need("model", recipe.base.adapter))
    if data.validation.source:
        needs.append(Need("dataset", data.validation.source, None, data.split))
    if evaluation.source:
        needs.append(Need("dataset", evaluation.source))
    return missing(needs)


def missing(needs: Iterable[Need]) -> tuple[Need, ...]:
    """Return those that are on the Hub and not whole here, each once."""
    return tuple(dict.fromkeys(each for each in needs if is_on_hub(each.name) and not _is_here(each)))


def require_here(recipe: Recipe) -> None:
    """Raise TunewrightError with the commands that fetch it when something of `recipe` is on the Hub and not whole here."""
    needs = needs_of(recipe)
    if needs:
        names = " and ".join(one_line(each.name, 200) for each in needs)
        commands = " and ".join(f"`{each.command}`" for each in needs)
        message = f"{names} {'is' if len(needs) == 1 else 'are'} not, or not whole, in the Hub's cache on this machine."
        raise TunewrightError("Not here yet", message, f"Fetch first: {commands}.")


def is_on_hub(name: str) -> bool:
    """Tell whether `name` can only be one on the Hub: neither built in nor something on this disk."""
    if name in BUILT_IN_MODELS or name in BUILT_IN_DATA or parse_hub_name(name) is None:
        return False
    return not Path(name).expanduser().exists()


def _is_here(need: Need) -> bool:
    try:
        if need.kind == "dataset":
            return bool(find_data(need.name, need.split))
        snapshot = cached_snapshot("model", need.name, need.revision)
        if snapshot is not None and (snapshot / ADAPTER_FILES[0]).exists():
            return (snapshot / ADAPTER_FILES[1]).exists()
        return bool(find_weights(need.name, need.revision))
    except TunewrightError:
        return False
