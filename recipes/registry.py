"""The registry: every recipe that this user has, what is known about it, and an index of the runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..foundation.errors import TunewrightError, nearest
from ..foundation.home import registry_path
from ..foundation.text import clean, one_line
from .catalogue import built_in, fingerprint
from .database import Connection, Tables
from .finding import BUILT_IN, GRADES, LOCAL, NAME, Findings, Found, Query, Tally, count_statement, statement
from .migrations import facets
from .records import Edition, Entry, Evidence, IndexedRun, Origin, Place, Relation

if TYPE_CHECKING:
    import sqlite3

    from .model import Recipe

__all__ = [
    "BUILT_IN", "LOCAL", "Edition", "Entry", "Evidence", "Findings", "Found", "IndexedRun", "Origin", "Place", "Query",
    "Registry", "Relation", "Tally", "open_registry",
]  # fmt: skip

RECIPE_SCHEMA_VERSION = 1
"""The version of the recipe's schema that revisions are stored with."""
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

    def find(self, query: Query, limit: int | None = None) -> Findings:
        """Return the `limit` best recipes (all for None) that match everything in `query`, those with most evidence first."""
        count = count_statement(query)
        matches = self._connection.read(*count)[0]["number"] if count else None
        if matches == 0:
            return Findings((), 0)
        sql, counting, parameters = statement(query, limit, matches)
        rows = self._connection.read(sql, parameters)
        total = len(rows)
        if limit is not None and total >= limit:
            total = self._connection.read(counting, parameters)[0]["number"]
        return Findings(tuple(map(_found, rows)), total)

    def list(self, search: str | None = None) -> list[Entry]:
        """Return the recipes that hold every word of `search`, best first; all of them by name, built-in ones first."""
        if search and search.strip():
            return self.entries(self.find(Query(text=search)).found)
        rows = self._connection.read(
            f"""{_SELECT_ENTRY} WHERE r.edition = e.id AND r.withdrawn IS NULL
            ORDER BY r.namespace <> '{BUILT_IN}', r.namespace <> '{LOCAL}', r.namespace, r.slug"""
        )
        return [_entry(row) for row in rows]

    def entries(self, found: Iterable[Found]) -> list[Entry]:
        """Return the whole recipes of what was `found`, in its order."""
        editions = [each.edition_id for each in found]
        rows = self._connection.read(
            f"{_SELECT_ENTRY} WHERE e.id IN (SELECT value FROM json_each(?))", (json.dumps(editions),)
        )
        entries = {entry.edition_id: entry for entry in map(_entry, rows)}
        return [entries[number] for number in editions if number in entries]

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
        parents: Iterable[str] = (),
        note: str = "",
        accepted: bool = True,
        new: bool = False,
    ) -> Entry:
        """Keep the recipe in the TOML `text` under `name`; a name that is known gets a new edition, and keeps the old.

        `parents` are the hashes of the recipes that this one was made from; a stranger's recipe is not `accepted`; `new`
        says that the name has to be free. Raises TunewrightError when the text is no recipe, or the name is malformed,
        taken, or belongs to a built-in recipe.
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
        from .model import parse_recipe

        text = clean(text)
        recipe = parse_recipe(text, origin=name)
        with self._connection.writing() as tables:
            taken = list(
                tables.query(
                    "SELECT origin, withdrawn FROM recipes WHERE namespace = ? AND slug = ?", [namespace, name]
                )
            )
            if taken and (
                (new and taken[0]["withdrawn"] is None) or (taken[0]["origin"] == "hub") != (origin == "hub")
            ):
                raise TunewrightError(
                    "Name taken",
                    f"There is a recipe {one_line(name, 80)} already; what is there is not overwritten.",
                    f"Choose another name, or change that one: `tunewright recipes edit {one_line(name, 80)}`.",
                )
            _put(tables, namespace, name, origin, text, recipe, note, accepted)
            own = {
                row["revision"]
                for row in tables.query(
                    "SELECT e.revision FROM editions AS e JOIN recipes AS r ON r.id = e.recipe WHERE r.namespace = ? AND r.slug = ?",
                    [namespace, name],
                )
            }
            for parent in parents:
                if parent != recipe.hash():
                    relation: Relation = origin if origin in ("fork", "import") and parent not in own else "derived"
                    row = {"child": recipe.hash(), "parent": parent, "kind": relation}
                    tables.table("parents").insert(row, pk=("child", "parent"), ignore=True)
        return self.get(f"{namespace}/{name}")

    def history(self, name: str) -> list[Edition]:
        """Return every text that `name` has stood for, newest first, with where it came from and what is known of it."""
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
            Edition(
                hash=row["revision"],
                title=row["title"],
                toml=row["toml"],
                note=row["note"],
                created=row["created"],
                current=bool(row["current"]),
                evidence=self._counts(row["revision"]),
                parents=tuple(self.parents(row["revision"])),
            )
            for row in rows
        ]

    def _counts(self, revision: str) -> dict[str, int]:
        rows = self._connection.read(
            "SELECT iif(claimed_by IS NULL, status, 'claimed') AS status, count(*) AS number FROM evidence"
            " WHERE revision = ? GROUP BY 1 ORDER BY 1",
            (revision,),
        )
        return {row["status"]: row["number"] for row in rows}

    def parents(self, revision: str) -> list[tuple[str, Relation]]:
        """Return the hashes that the recipe with hash `revision` was made from, and how."""
        rows = self._connection.read("SELECT parent, kind FROM parents WHERE child = ? ORDER BY parent", (revision,))
        return [(row["parent"], row["kind"]) for row in rows]

    def name_of(self, revision: str) -> str | None:
        """Return a name of the recipe with the hash `revision`, the one that means it now rather than before."""
        rows = self._connection.read(
            f"{_SELECT_ENTRY} WHERE e.revision = ? ORDER BY r.edition <> e.id, r.id LIMIT 1", (revision,)
        )
        return rows[0]["name"] if rows else None

    def aliases(self, edition: int) -> list[str]:
        """Return the aliases of the edition with this number."""
        return [row["name"] for row in self._connection.read("SELECT name FROM aliases WHERE edition = ?", (edition,))]

    def set_note(self, name: str, note: str) -> Entry:
        """Say in `note` why the present edition of `name` was made."""
        row = self._find(name)
        if row is None:
            raise self._unknown(name)
        with self._connection.writing() as tables:
            tables.table("editions").update(row["id"], {"note": clean(note, 2000)})
        return _entry(row)

    def accept(self, name: str) -> Entry:
        """Take the present edition of a stranger's recipe for one's own to run."""
        row = self._find(name)
        if row is None:
            raise self._unknown(name)
        with self._connection.writing() as tables:
            tables.table("editions").update(row["id"], {"accepted": time.time()})
        return self.get(name)

    def withdraw(self, name: str) -> Entry:
        """Take `name` out of every list; its editions and evidence stay, and it is still found by its name.

        Raises TunewrightError for a built-in recipe.
        """
        row = self._find(name)
        if row is None:
            raise self._unknown(name)
        entry = _entry(row)
        if entry.origin == "built-in":
            raise TunewrightError(
                "Not yours to remove",
                f"{one_line(entry.name, 100)} is built in: it comes with this version.",
                "`tunewright recipes search` has filters that leave recipes out.",
            )
        self._set_withdrawn(entry, time.time())
        return entry

    def restore(self, name: str) -> Entry:
        """Put a recipe that was withdrawn back into the lists."""
        entry = self.get(name)
        self._set_withdrawn(entry, None)
        return entry

    def _set_withdrawn(self, entry: Entry, when: float | None) -> None:
        with self._connection.writing() as tables:
            tables.table("recipes").update(entry.recipe_id, {"withdrawn": when})

    def place_of(self, entry: Entry) -> Place | None:
        """Return where `entry` was pulled from or published to last."""
        names = ", ".join(f.name for f in fields(Place))
        rows = self._connection.read(f"SELECT {names} FROM places WHERE recipe = ?", (entry.recipe_id,))
        return Place(**dict(rows[0])) if rows else None

    def set_place(self, entry: Entry, place: Place) -> None:
        """Remember where `entry` was pulled from or published to."""
        with self._connection.writing() as tables:
            tables.table("places").upsert({"recipe": entry.recipe_id, **asdict(place)}, pk="recipe")

    def entries_at(self, place: str) -> list[Entry]:
        """Return the recipes that were pulled from `place` or published to it."""
        rows = self._connection.read(
            f"{_SELECT_ENTRY} WHERE r.edition = e.id AND r.id IN (SELECT recipe FROM places WHERE place = ?)", (place,)
        )
        return [_entry(row) for row in rows]

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

    def record_run(self, recipe: Recipe, evidence: Sequence[Evidence], run: IndexedRun) -> None:
        """Keep what a run of `recipe` came to, in the place of what it said before; the recipe need have no name here."""
        with self._connection.writing() as tables:
            _put_revision(tables, recipe, time.time())
            tables.table("evidence").delete_where("run = ?", [run.id])
            for each in evidence:
                _put_evidence(tables, each)
            tables.table("runs").upsert(asdict(run), pk="id")

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
            _put_evidence(tables, evidence)

    def claim_evidence(self, revision: str, place: str, claims: Iterable[Evidence]) -> None:
        """Keep what a stranger's `place` says of a revision, in the place of what it said before."""
        with self._connection.writing() as tables:
            tables.table("evidence").delete_where("revision = ? AND claimed_by = ?", [revision, place])
            for each in claims:
                _put_evidence(tables, replace(each, revision=revision, claimed_by=place, run=None))

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
        from .model import parse_recipe

        with self._connection.writing() as tables:
            for name, text in built_in().items():
                _put(tables, BUILT_IN, name, "built-in", text, parse_recipe(text, origin=name), "", accepted=True)
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
    SELECT e.id, e.recipe, e.toml, e.revision, e.created, e.title, e.summary, e.method, e.model, e.data, e.accepted,
           r.origin, {NAME} AS name,
           (SELECT group_concat(tag, char(10)) FROM (SELECT tag FROM tags WHERE recipe = r.id ORDER BY rowid)) AS tags
    FROM recipes AS r JOIN editions AS e ON e.recipe = r.id"""


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        name=row["name"],
        title=one_line(row["title"]) or row["name"],
        summary=one_line(row["summary"]),
        method=row["method"],
        model=row["model"],
        data=row["data"],
        tags=tuple((row["tags"] or "").splitlines()),
        hash=row["revision"],
        origin=row["origin"],
        toml=row["toml"],
        created=row["created"],
        accepted=row["accepted"] is not None,
        recipe_id=row["recipe"],
        edition_id=row["id"],
    )


def _found(row: sqlite3.Row) -> Found:
    return Found(
        name=row["name"],
        title=one_line(row["title"]) or row["name"],
        summary=one_line(row["summary"]),
        method=row["method"],
        objective=row["objective"],
        model=row["model"],
        size_billions=row["size_billions"],
        data=row["data"],
        licence=row["licence"],
        tags=tuple((row["tags"] or "").splitlines()),
        hash=row["revision"],
        origin=row["origin"],
        accepted=row["accepted"] is not None,
        tier=row["tier"],
        grade=GRADES[int(row["grade"])],
        tally=Tally(**{f.name: row[f.name] or 0 for f in fields(Tally)}),
        edition_id=row["edition"],
    )


def _put_revision(tables: Tables, recipe: Recipe, now: float) -> None:
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


def _put_evidence(tables: Tables, evidence: Evidence) -> None:
    tables.table("evidence").insert({**asdict(evidence), "versions": json.dumps(evidence.versions)})


def _put(
    tables: Tables, namespace: str, slug: str, origin: Origin, text: str, recipe: Recipe, note: str, accepted: bool
) -> None:
    """Make `text` the current edition of the name, with its revision, tags and sources."""
    now = time.time()
    _put_revision(tables, recipe, now)
    key = {"namespace": namespace, "slug": slug}
    tables.table("recipes").insert({**key, "origin": origin, "created": now}, ignore=True)
    number = _identity(tables, "SELECT id FROM recipes WHERE namespace = :namespace AND slug = :slug", key)
    tables.table("editions").insert(
        {
            "recipe": number,
            "revision": recipe.hash(),
            "toml": text,
            **facets(recipe),
            # What a card says of its own evidence counts where we have written it.
            "tier": (recipe.card.tier or "") if origin == "built-in" else "",
            "note": note,
            "created": now,
            "accepted": now if accepted else None,
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
