"""Finding recipes: what is asked for, how it becomes one statement of SQL, and what is found without reading a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from .records import Origin

BUILT_IN, LOCAL = "tunewright", "local"
"""The namespaces whose recipes go by their bare names; a built-in one wins while it is in the catalogue."""
Grade = Literal["replicated", "proven", "ran", "fits", "claimed", "none"]
GRADES: tuple[Grade, ...] = ("none", "claimed", "fits", "ran", "proven", "replicated")
"""What the evidence of a recipe comes to, the least first."""
GRADE_WORDS: dict[Grade, str] = {
    "replicated": "others got its published result too",
    "proven": "its author published its result",
    "ran": "it ran to its end on this machine",
    "fits": "its memory and speed are known, not what it teaches",
    "claimed": "a stranger says that it works",
    "none": "nothing is known: a template",
}
SIZE_TOLERANCE = 0.15
"""A size asked for as one number is that of models up to this much larger or smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for; what is None does not matter."""

    text: str | None = None
    """Words that all occur in the name, title, tags, model, data, method or summary, by their beginnings."""
    task: str | None = None
    """A tag, such as `chat` or `reasoning`."""
    model: str | None = None
    """A part of the model's name."""
    smallest_billions: float | None = None
    largest_billions: float | None = None
    method: str | None = None
    objective: str | None = None
    licence: str | None = None
    """A part of the licence's name."""
    evidence: Grade | None = None
    """At least this much evidence."""
    hardware: str | None = None
    """A card on which it ran to its end."""
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How much is known about a recipe, and of what kind."""

    replicated: int
    published: int
    finished: int
    """Runs on this machine that came to their end."""
    failed: int
    smoke: int
    claims: int
    """Strangers' figures, which prove nothing by themselves."""


@dataclass(frozen=True, slots=True)
class Found:
    """One recipe that was found, as a list shows it."""

    name: str
    title: str
    summary: str
    method: str
    objective: str
    model: str
    size_billions: float | None
    data: str
    licence: str
    tags: tuple[str, ...]
    hash: str
    origin: Origin
    accepted: bool
    tier: str
    grade: Grade
    tally: Tally
    edition_id: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, best first, and how many recipes match in all."""

    found: tuple[Found, ...]
    total: int


def parse_sizes(text: str) -> tuple[float, float] | None:
    """Return the smallest and largest billions of parameters that `7b`, `<3b`, `>30b` or `7b-14b` ask for; else None."""
    number = r"(\d{1,4}(?:\.\d{1,3})?)\s*b?"
    if single := re.fullmatch(rf"([<>]?)=?\s*{number}", text.strip(), re.IGNORECASE):
        size = float(single[2])
        match single[1]:
            case "<":
                return 0.0, size
            case ">":
                return size, float("inf")
            case _:
                return size * (1 - SIZE_TOLERANCE), size * (1 + SIZE_TOLERANCE)
    if pair := re.fullmatch(rf"{number}\s*(?:-|–|to|\.\.)\s*{number}", text.strip(), re.IGNORECASE):
        return float(pair[1]), float(pair[2])
    return None


def as_words(text: str) -> str:
    """Return the FTS5 query for rows that hold every word of `text`, the last letters of each left open."""
    return " ".join(f'"{word}"*' for word in re.findall(r"\w+", text))


NAME = f"""
    CASE WHEN r.namespace = '{BUILT_IN}' AND r.withdrawn IS NULL THEN r.slug
         WHEN r.namespace IN ('{BUILT_IN}', '{LOCAL}') AND NOT EXISTS (
             SELECT 1 FROM recipes AS o
             WHERE o.slug = r.slug AND o.id <> r.id AND o.namespace IN ('{BUILT_IN}', '{LOCAL}')
               AND (o.namespace = '{LOCAL}' OR o.withdrawn IS NULL)) THEN r.slug
         ELSE r.namespace || '/' || r.slug END"""
"""The shortest name that finds the recipe r."""
MEANINGFUL_MATCHES = 2000
"""Of words that more recipes hold than this, how well they fit says nothing, and costs more than all else."""


def count_statement(query: Query) -> tuple[str, tuple[str]] | None:
    """Return the statement that counts the recipes with the words of `query`; None when it asks for none."""
    if query.text is None or not query.text.strip():
        return None
    return "SELECT count(*) AS number FROM search WHERE search MATCH ?", (as_words(query.text) or '""',)


def statement(query: Query, limit: int | None, matches: int | None) -> tuple[str, str, dict[str, Any]]:
    """Return the statements that find and that count what `query` asks for, with their parameters.

    `matches` is how many recipes have its words, None where it asks for none.
    """
    parameters: dict[str, Any] = {}
    conditions: list[str] = []
    found, best = "", ""

    def require(condition: str, **values: Any) -> None:
        if None not in values.values():
            conditions.append(condition)
            parameters.update(values)

    if matches is not None and matches <= MEANINGFUL_MATCHES:
        # Name and title weigh most, then tags; the columns stand in the order of the search table.
        found = """JOIN (SELECT rowid AS recipe, round(bm25(search, 8.0, 6.0, 4.0, 2.0, 2.0, 2.0, 1.0), 1) AS fit
                         FROM search WHERE search MATCH :words) AS m ON m.recipe = s.recipe"""
        best = "m.fit, "
        parameters["words"] = as_words(query.text or "")
    elif matches is not None:
        require("s.recipe IN (SELECT rowid FROM search WHERE search MATCH :words)", words=as_words(query.text or ""))
    require("s.method = :method", method=query.method)
    require("s.objective = :objective", objective=query.objective)
    require("instr(lower(s.model), lower(:model)) > 0", model=query.model)
    require("instr(lower(s.licence), lower(:licence)) > 0", licence=query.licence)
    require("s.size_billions >= :smallest", smallest=query.smallest_billions)
    require("s.size_billions <= :largest", largest=query.largest_billions)
    require("s.origin = :origin", origin=query.origin)
    require("EXISTS (SELECT 1 FROM tags WHERE recipe = s.recipe AND lower(tag) = lower(:task))", task=query.task)
    require("s.grade >= :grade", grade=None if query.evidence is None else GRADES.index(query.evidence))
    require(
        "EXISTS (SELECT 1 FROM proofs WHERE hardware = :hardware AND revision = s.revision)", hardware=query.hardware
    )
    chosen = f"FROM shelf AS s {found} WHERE {' AND '.join(conditions) or 'true'}"
    # A search by words goes by how well they fit, among equals by evidence; everything else by evidence alone, in the
    # order of an index, so that the first ones are there without the others.
    order = f"{best}s.grade DESC, s.finished DESC, s.failed, s.slug"
    sql = f"""
        SELECT {NAME} AS name, e.title, e.summary, s.method, s.objective, s.model, s.size_billions, e.data, s.licence,
               s.revision, s.origin, e.accepted, s.tier, s.edition, s.grade,
               t.replicated, t.published, t.finished, t.failed, t.smoke, t.claims,
               (SELECT group_concat(tag, char(10)) FROM (SELECT tag FROM tags WHERE recipe = r.id ORDER BY rowid)) AS tags
        FROM (SELECT s.recipe AS chosen, row_number() OVER () AS place FROM (
                SELECT s.recipe {chosen} ORDER BY {order} LIMIT {-1 if limit is None else int(limit)}) AS s) AS c
        JOIN shelf AS s ON s.recipe = c.chosen JOIN recipes AS r ON r.id = c.chosen
        JOIN editions AS e ON e.id = s.edition
        LEFT JOIN tallies AS t ON t.revision = s.revision
        ORDER BY c.place
    """
    return sql, f"SELECT count(*) AS number {chosen}", parameters
