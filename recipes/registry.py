"""The registry: every recipe that this user has, what is known about it, and an index of the runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..foundation.errors import TunewrightError, nearest
from ..foundation.home import registry_path
from ..foundation.text import clean, one_line
from .catalogue import built_in, fingerprint
from .database import Connection, Tables
from .model import Recipe, parse_recipe
from .records import Edition, Entry, Evidence, IndexedRun, Origin, Relation

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Edition", "Entry", "Evidence", "IndexedRun", "Origin", "Registry", "Relation", "open_registry"]

RECIPE_SCHEMA_VERSION = 1
"""The version of the recipe's schema that revisions are stored with."""
BUILT_IN, LOCAL = "tunewright", "local"
"""The namespaces whose recipes go by their bare names; a built-in one wins while it is in the catalogue."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_CITATION = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<commit_id>[0-9a-f]{7,64}))?(?::(?P<path>\S+))?")
_HASH_PREFIX = re.compile(r"[0-9a-f]{7,64}")


def open_registry(path: Path | None = None) -> Registry:
    """Open the registry at `path` (the user's own for None), made when new, with this version's catalogue in it.

    Raises TunewrightError when the file is no registry, is newer than this version, or cannot be written.
    """
    connection = Connection(path or registry_path())
    try:
        registry = Registry(connection)
        registry.load_catalogue()
    except BaseException:
        connection.close()
        raise
    return registry


class Registry:
    """Recipes by name and by hash, their history and evidence, and the index of runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The registry's file."""
        return self._connection.path

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def list(
        self,
        search: str | None = None,
        *,
        method: str | None = None,
        tag: str | None = None,
        origin: Origin | None = None,
    ) -> list[Entry]:
        """Return the recipes that match everything given: built-in ones first, or the best match for `search` first."""
        query = _as_query(search) if search and search.strip() else None
        if query == "":  # punctuation alone matches nothing
            return []
        if query:
            found = "JOIN search ON search.rowid = r.id AND search MATCH :search"
            # Name and title weigh most, then tags; the columns stand in the order of the search table.
            order = "bm25(search, 8.0, 6.0, 4.0, 2.0, 2.0, 2.0, 1.0), r.slug"
        else:
            found = ""
            order = f"r.namespace <> '{BUILT_IN}', r.namespace <> '{LOCAL}', r.namespace, r.slug"
        rows = self._connection.read(
            f"""
            {_SELECT_ENTRY} {found}
            WHERE r.edition = e.id AND r.withdrawn IS NULL
              AND (:method IS NULL OR e.method = :method)
              AND (:origin IS NULL OR r.origin = :origin)
              AND (:tag IS NULL OR EXISTS (SELECT 1 FROM tags WHERE recipe = r.id AND tag = :tag))
            ORDER BY {order}
            """,
            {"search": query, "method": method, "origin": origin, "tag": tag},
        )
        return [_entry(row) for row in rows]

    def get(self, name: str) -> Entry:
        """Return the recipe that `name` stands for: a name, owner/name, an alias, or the start of a hash.

        Raises TunewrightError that names the nearest known one.
        """
        row = self._find(name)
        if row is None:
            raise self._unknown(name)
        return _entry(row)

    def add(
        self,
        text: str,
        name: str,
        *,
        namespace: str = LOCAL,
        origin: Origin = "local",
        parent: str | None = None,
        note: str = "",
    ) -> Entry:
        """Keep the recipe in the TOML `text` under `name`; a name that is known gets a new edition, and keeps the old.

        `parent` is the hash of the recipe that this one was made from. Raises TunewrightError when the text is no
        recipe, or the name is malformed or belongs to a built-in recipe.
        """
        if not _NAME.fullmatch(name) or not _NAMESPACE.fullmatch(namespace):
            raise TunewrightError(
                "Not a recipe name",
                f"{one_line(f'{namespace}/{name}', 200)} cannot be a recipe's name.",
                "Use small letters, digits, dots, dashes and underscores, such as support-qlora-2.",
            )
        if namespace == BUILT_IN or (namespace == LOCAL and name in built_in()):
            raise TunewrightError(
                "Name taken", f"{name} is a built-in recipe.", f"Choose another name, such as my-{name}."
            )
        text = clean(text)
        recipe = parse_recipe(text, origin=name)
        with self._connection.writing() as tables:
            _put(tables, namespace, name, origin, text, recipe, note)
            if parent is not None and parent != recipe.hash():
                relation: Relation = origin if origin in ("fork", "import") else "derived"
                tables.table("parents").insert(
                    {"child": recipe.hash(), "parent": parent, "kind": relation}, pk=("child", "parent"), ignore=True
                )
        return self.get(f"{namespace}/{name}")

    def history(self, name: str) -> list[Edition]:
        """Return every text that `name` has stood for, newest first."""
        entry = self._find(name)
        if entry is None:
            raise self._unknown(name)
        rows = self._connection.read(
            """
            SELECT e.revision, e.title, e.toml, e.note, e.created, r.edition = e.id AS current
            FROM editions AS e JOIN recipes AS r ON r.id = e.recipe
            WHERE r.id = ?
            ORDER BY e.id DESC
            """,
            (entry["recipe"],),
        )
        return [
            Edition(row["revision"], row["title"], row["toml"], row["note"], row["created"], bool(row["current"]))
            for row in rows
        ]

    def parents(self, revision: str) -> list[tuple[str, Relation]]:
        """Return the hashes that the recipe with hash `revision` was made from, and how."""
        rows = self._connection.read("SELECT parent, kind FROM parents WHERE child = ? ORDER BY parent", (revision,))
        return [(row["parent"], row["kind"]) for row in rows]

    def set_alias(self, alias: str, name: str) -> None:
        """Make `alias` stand for the present edition of `name`, wherever it pointed before."""
        row = self._find(name)
        if row is None:
            raise self._unknown(name)
        taken = self._connection.read("SELECT 1 FROM recipes WHERE slug = ?", (alias,))
        if taken or not _NAME.fullmatch(alias):
            raise TunewrightError(
                "Not an alias", f"{one_line(alias, 100)} is a recipe's name, or malformed.", "Choose another word."
            )
        with self._connection.writing() as tables:
            tables.table("aliases").upsert({"name": alias, "edition": row["id"], "moved": time.time()}, pk="name")

    def record_evidence(self, evidence: Evidence) -> None:
        """Keep `evidence`, in the place of what the same run said about the same metric before.

        Raises TunewrightError when its recipe is not in the registry.
        """
        if not self._connection.read("SELECT 1 FROM revisions WHERE hash = ?", (evidence.revision,)):
            raise TunewrightError(
                "Unknown recipe",
                f"No recipe with the hash {one_line(evidence.revision, 64)} is in the registry.",
                "Add the recipe before its evidence.",
            )
        with self._connection.writing() as tables:
            if evidence.run is not None:
                tables.table("evidence").delete_where("run = ? AND metric IS ?", [evidence.run, evidence.metric])
            tables.table("evidence").insert({**asdict(evidence), "versions": json.dumps(evidence.versions)})

    def evidence(self, revision: str) -> list[Evidence]:
        """Return everything known about the recipe with the hash `revision`, newest first."""
        names = ", ".join(f.name for f in fields(Evidence))
        rows = self._connection.read(
            f"SELECT {names} FROM evidence WHERE revision = ? ORDER BY created DESC, id DESC", (revision,)
        )
        return [Evidence(**{**dict(row), "versions": json.loads(row["versions"])}) for row in rows]

    def index_run(self, run: IndexedRun) -> None:
        """Put `run` into the index, in the place of what was there for its id."""
        with self._connection.writing() as tables:
            tables.table("runs").upsert(asdict(run), pk="id")

    def rebuild_runs(self, runs: Iterable[IndexedRun]) -> int:
        """Make `runs` the whole index in one step, and return how many there are."""
        rows = [asdict(run) for run in runs]
        with self._connection.writing() as tables:
            tables.table("runs").delete_where()
            tables.table("runs").insert_all(rows, pk="id")
        return len(rows)

    def runs(self) -> list[IndexedRun]:
        """Return the indexed runs, newest first."""
        rows = self._connection.read("SELECT * FROM runs ORDER BY created DESC, id DESC")
        return [IndexedRun(**dict(row)) for row in rows]

    def load_catalogue(self) -> None:
        """Bring the built-in recipes up to this version's, when they differ; texts of before stay in the history."""
        known = self._connection.read("SELECT value FROM facts WHERE name = 'catalogue'")
        if known and known[0]["value"] == fingerprint():
            return
        with self._connection.writing() as tables:
            for name, text in built_in().items():
                _put(tables, BUILT_IN, name, "built-in", text, parse_recipe(text, origin=name), note="")
            kept = ", ".join("?" * len(built_in()))
            tables.execute(
                f"UPDATE recipes SET withdrawn = ? WHERE namespace = ? AND withdrawn IS NULL AND slug NOT IN ({kept})",
                [time.time(), BUILT_IN, *built_in()],
            )
            tables.table("facts").upsert({"name": "catalogue", "value": fingerprint()}, pk="name")

    def _find(self, name: str) -> sqlite3.Row | None:
        """Return the row for `name`, looked for as owner/name, bare name, alias and hash, in this order."""
        namespace, _, slug = name.rpartition("/")
        named = "r.edition = e.id AND r.namespace = ? AND r.slug = ?"
        attempts: list[tuple[str, tuple[str, ...]]] = []
        if namespace:
            attempts.append((named, (namespace, slug)))
        else:
            attempts.append((f"{named} AND r.withdrawn IS NULL", (BUILT_IN, slug)))
            attempts.append((named, (LOCAL, slug)))
            attempts.append((named, (BUILT_IN, slug)))
            attempts.append(("e.id = (SELECT edition FROM aliases WHERE name = ?)", (slug,)))
            if _HASH_PREFIX.fullmatch(slug):
                attempts.append(("e.revision >= ? AND e.revision < ? ORDER BY r.edition <> e.id", (slug, slug + "g")))
        for condition, parameters in attempts:
            if rows := self._connection.read(f"{_SELECT_ENTRY} WHERE {condition} LIMIT 1", parameters):
                return rows[0]
        return None

    def _unknown(self, name: str) -> TunewrightError:
        rows = self._connection.read(
            "SELECT slug FROM recipes UNION SELECT namespace || '/' || slug FROM recipes UNION SELECT name FROM aliases"
        )
        suggestion = nearest(name, (row["slug"] for row in rows))
        return TunewrightError(
            "Unknown recipe",
            f"There is no recipe {one_line(name, 100)!r} in the registry.",
            f"Did you mean {suggestion}?" if suggestion else "`tunewright recipes list` shows them all.",
        )


_SELECT_ENTRY = f"""
    SELECT e.id, e.recipe, e.toml, e.revision, e.created, r.origin,
           CASE WHEN r.namespace = '{BUILT_IN}' AND r.withdrawn IS NULL THEN r.slug
                WHEN r.namespace IN ('{BUILT_IN}', '{LOCAL}') AND NOT EXISTS (
                    SELECT 1 FROM recipes AS o
                    WHERE o.slug = r.slug AND o.id <> r.id AND o.namespace IN ('{BUILT_IN}', '{LOCAL}')
                      AND (o.namespace = '{LOCAL}' OR o.withdrawn IS NULL)) THEN r.slug
                ELSE r.namespace || '/' || r.slug END AS name
    FROM recipes AS r JOIN editions AS e ON e.recipe = r.id"""


def _entry(row: sqlite3.Row) -> Entry:
    recipe = parse_recipe(row["toml"], origin=row["name"])
    return Entry(
        name=row["name"],
        title=one_line(recipe.card.title) or row["name"],
        summary=one_line(recipe.card.summary),
        method=recipe.method.kind,
        model=recipe.base.model,
        data=recipe.data.source,
        tags=recipe.card.tags,
        hash=row["revision"],
        origin=row["origin"],
        recipe=recipe,
        toml=row["toml"],
        created=row["created"],
    )


def _put(tables: Tables, namespace: str, slug: str, origin: Origin, text: str, recipe: Recipe, note: str) -> None:
    """Make `text` the current edition of the name, with its revision, tags and sources."""
    now = time.time()
    tables.table("revisions").insert(
        {
            "hash": recipe.hash(),
            "canonical_json": recipe.canonical_json().decode(),
            "schema_version": RECIPE_SCHEMA_VERSION,
            "created": now,
        },
        pk="hash",
        ignore=True,
    )
    key = {"namespace": namespace, "slug": slug}
    tables.table("recipes").insert({**key, "origin": origin, "created": now}, ignore=True)
    number = _identity(tables, "SELECT id FROM recipes WHERE namespace = :namespace AND slug = :slug", key)
    tables.table("editions").insert(
        {
            "recipe": number,
            "revision": recipe.hash(),
            "toml": text,
            "title": recipe.card.title,
            "summary": recipe.card.summary,
            "method": recipe.method.kind,
            "model": recipe.base.model,
            "data": recipe.data.source,
            "note": note,
            "created": now,
        },
        ignore=True,
    )
    edition = _identity(
        tables, "SELECT id FROM editions WHERE recipe = :recipe AND toml = :toml", {"recipe": number, "toml": text}
    )
    tables.table("recipes").update(number, {"edition": edition, "withdrawn": None})
    for table, rows in (("tags", _tags(recipe)), ("sources", _sources(recipe))):
        tables.table(table).delete_where("recipe = ?", [number])
        tables.table(table).insert_all([{"recipe": number, **row} for row in rows], ignore=True)


def _identity(tables: Tables, sql: str, parameters: dict[str, Any]) -> int:
    return int(next(iter(tables.query(sql, parameters)))["id"])


def _tags(recipe: Recipe) -> Iterator[dict[str, str]]:
    yield from ({"tag": one_line(tag, 60)} for tag in recipe.card.tags)


def _sources(recipe: Recipe) -> Iterator[dict[str, str | None]]:
    """Yield each citation of the card with what can be read from `owner/name@commit:path` or from a web address."""
    for citation in recipe.card.sources:
        parts = _CITATION.fullmatch(citation)
        yield {
            "citation": citation,
            "url": citation if citation.startswith("https://") else None,
            "repository": parts["repository"] if parts else None,
            "commit_id": parts["commit_id"] if parts else None,
            "path": parts["path"] if parts else None,
        }


def _as_query(search: str) -> str:
    """Return the FTS5 query for rows that hold every word of `search`, the last letters of each left open."""
    return " ".join(f'"{word}"*' for word in re.findall(r"\w+", search))
