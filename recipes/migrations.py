"""The steps from one version of the registry's schema to the next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..foundation.errors import TunewrightError

if TYPE_CHECKING:
    from .model import Recipe

Tables = Any
"""sqlite-utils' Database, whose methods are only partly typed."""

_SIZE = re.compile(
    r"(?<![\d.])(?:(?P<experts>\d{1,3})x)?(?P<count>\d{1,4}(?:\.\d{1,2})?)(?P<unit>[bm])(?![a-z0-9])", re.IGNORECASE
)


def find_by_more_than_names(tables: Tables) -> None:
    """1 to 2: editions say objective, licence, size and tier; evidence says more of a run, and is counted."""
    from .model import parse_recipe

    for column in (
        "objective TEXT NOT NULL DEFAULT ''",
        "licence TEXT NOT NULL DEFAULT ''",
        "size_billions REAL",
        "tier TEXT NOT NULL DEFAULT ''",
        "accepted REAL",
    ):
        tables.execute(f"ALTER TABLE editions ADD COLUMN {column}")
    for column in (
        "claimed_by TEXT",
        "reason TEXT NOT NULL DEFAULT ''",
        "steps INTEGER",
        "first_loss REAL",
        "last_loss REAL",
        "validation_loss REAL",
        "predicted_tokens_per_second REAL",
        "measured_tokens_per_second REAL",
    ):
        tables.execute(f"ALTER TABLE evidence ADD COLUMN {column}")
    for statement in statements(schema()):
        if re.search(r"CREATE (?:TABLE|TRIGGER|INDEX) (?:tallies|places|proofs|shelf)", statement):
            tables.execute(statement)
    # Every row comes in again, for the triggers to see it.
    tables.execute("CREATE TEMPORARY TABLE counted AS SELECT * FROM evidence")
    tables.execute("DELETE FROM evidence")
    tables.execute("INSERT INTO evidence SELECT * FROM counted")
    tables.execute("DROP TABLE counted")
    # What is here was written here or came with the program: version 1 knew no strangers.
    tables.execute("UPDATE editions SET accepted = created")
    for row in list(tables.query("SELECT id, toml FROM editions")):
        try:
            found = facets(parse_recipe(row["toml"], "an edition"))
        except TunewrightError:  # written by a version that knew other keys: it is found by its name alone
            continue
        tables.table("editions").update(row["id"], found)
    tables.execute("UPDATE recipes SET edition = edition")


def facets(recipe: Recipe) -> dict[str, Any]:
    """Return what an edition says of its recipe so that it is found by it; the licence is that of the text, of the model and of the data."""
    card = recipe.card
    return {
        "title": card.title,
        "summary": card.summary,
        "method": recipe.method.kind,
        "model": recipe.base.model,
        "data": recipe.data.source,
        "objective": recipe.training.objective,
        "licence": "; ".join(dict.fromkeys(filter(None, (card.licence, card.model_licence, card.data_licence)))),
        "size_billions": size_billions(recipe.base.model),
    }


def size_billions(model: str) -> float | None:
    """Return the parameters that a model's name gives, in billions, such as 8 for `owner/model-8B`; None for none."""
    found = _SIZE.search(model.rpartition("/")[2])
    if found is None:
        return None
    count = float(found["count"]) * int(found["experts"] or 1)
    return count if found["unit"] in "bB" else count / 1000


def schema() -> str:
    """Return the script that makes an empty registry of the newest version."""
    return (Path(__file__).parent.parent / "registry.db.sql").read_text(encoding="utf-8")


def statements(script: str) -> Iterator[str]:
    """Yield the statements of `script` one by one, since executescript would end the transaction that they share."""
    import sqlite3

    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(statement):
            yield statement
            statement = ""
