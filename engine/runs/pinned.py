"""The commits of the Hub that a run works with: settled at its start, so that what is fetched later changes nothing for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from ...foundation.errors import TunewrightError
from ...foundation.files import read_text, write_atomically
from ...recipes.model import Recipe
from ..hub.cache import COMMIT, Kind, parse_hub_name
from ..hub.needs import is_on_hub
from ..sources import cached_snapshot
from .directory import RunDirectory

SOURCES_FILE = "sources.json"


def pin(run: RunDirectory, recipe: Recipe, earlier: Mapping[str, str] | None = None) -> None:
    """Write into the run's folder which commit each of its models and data sets from the Hub is at; raises TunewrightError.

    Of what `earlier` names, that commit is taken while it is still here: a run made from another differs by its changes alone.
    """
    commits: dict[str, str] = {}
    for kind, name, revision in _sources(recipe):
        kept = (earlier or {}).get(name)
        snapshot = cached_snapshot(kind, name, kept) if kept and revision is None else None
        snapshot = snapshot or cached_snapshot(kind, name, revision)
        if snapshot is not None and COMMIT.fullmatch(snapshot.name):
            commits[name] = snapshot.name
    if commits:
        write_atomically(run.path / SOURCES_FILE, json.dumps(commits, indent=2) + "\n")


def commits_of(run: RunDirectory) -> dict[str, str]:
    """Return the commit of each model and data set of the run that is from the Hub, by its name in the recipe."""
    place = run.path / SOURCES_FILE
    if not place.exists():
        return {}
    try:
        values: Any = json.loads(read_text(place))
        named = cast("dict[str, Any]", values).items()
        return {name: commit for name, commit in named if isinstance(commit, str) and COMMIT.fullmatch(commit)}
    except (ValueError, AttributeError) as error:
        raise TunewrightError(
            "Run damaged", f"{place} cannot be read.", "Start the run anew from its recipe."
        ) from error


def pinned_recipe(run: RunDirectory) -> Recipe:
    """Return the run's recipe with every name on the Hub led to the commit that the run began with; raises TunewrightError."""
    recipe, commits = run.recipe(), commits_of(run)
    if not commits:
        return recipe
    base, data, evaluation = recipe.base, recipe.data, recipe.evaluation
    based: dict[str, Any] = {"revision": commits.get(base.model, base.revision)}
    based["adapter"] = _at(base.adapter, commits)
    validation = data.validation.model_copy(update={"source": _at(data.validation.source, commits)})
    return recipe.model_copy(
        update={
            "base": base.model_copy(update=based),
            "data": data.model_copy(update={"source": _at(data.source, commits), "validation": validation}),
            "evaluation": evaluation.model_copy(update={"source": _at(evaluation.source, commits)}),
        }
    )


def _at(name: str | None, commits: dict[str, str]) -> str | None:
    """Return `name` at its commit, as it is where it has none."""
    named = parse_hub_name(name) if name in commits and name else None
    return str(replace(named, revision=commits[str(name)])) if named else name


def _sources(recipe: Recipe) -> Iterator[tuple[Kind, str, str | None]]:
    """Yield what the recipe names that may be from the Hub: neither built in nor on this disk."""
    named: list[tuple[Kind, str | None, str | None]] = [
        ("model", recipe.base.model, recipe.base.revision),
        ("model", recipe.base.adapter, None),
        ("dataset", recipe.data.source, None),
        ("dataset", recipe.data.validation.source, None),
        ("dataset", recipe.evaluation.source, None),
    ]
    for kind, name, revision in named:
        if name and is_on_hub(name):
            yield kind, name, revision
