"""The registry: found again after every crash, shared between processes, and clear about what is wrong with its file."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes import database, registry
from tunewright.recipes.finding import parse_sizes
from tunewright.recipes.migrations import size_billions, statements
from tunewright.recipes.model import parse_recipe
from tunewright.recipes.registry import Evidence, IndexedRun, Query, Registry, Tally, open_registry

from ..mounting import can_mount

# A child that writes one row after another and names each on stdout once it is on the disk.
WRITER = """
import sys
from pathlib import Path
from tunewright.recipes.registry import Evidence, open_registry
with open_registry(Path(sys.argv[1])) as registry:
    revision = registry.get("starter-lora").hash
    for number in range(int(sys.argv[3])):
        run = f"{sys.argv[2]}-{number}"
        registry.record_evidence(
            Evidence(revision=revision, kind="smoke", status="finished", hardware="cpu", run=run, metric="loss", value=1.0)
        )
        print(run, flush=True)
"""
# A child that lists and searches until its stdin is closed.
READER = """
import os, sys, threading
from pathlib import Path
from tunewright.recipes.registry import open_registry
closed = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
with open_registry(Path(sys.argv[1])) as registry:
    revision = registry.get("starter-lora").hash
    seen = 0
    print("ready", flush=True)
    while not closed.is_set():
        assert len(registry.list()) >= 3
        assert [entry.name for entry in registry.list(search="starter qlora")] == ["starter-qlora"]
        now = len(registry.evidence(revision))
        assert now >= seen
        seen = now
print(seen, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "registry.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Registry]:
    with open_registry(path) as registry:
        yield registry


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_whole(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")


def evidence(revision: str, **fields: Any) -> Evidence:
    return Evidence(**{"revision": revision, "kind": "local", "status": "finished", "hardware": "cpu", **fields})


def indexed(id: str, **fields: Any) -> IndexedRun:
    defaults = {"folder": f"/runs/{id}", "recipe": "0" * 64, "title": "t", "method": "lora", "model": "m"}
    return IndexedRun(**{"id": id, **defaults, "state": "running", "created": 1.0, **fields})


def test_fresh_registry_holds_the_catalogue(opened: Registry) -> None:
    names = [entry.name for entry in opened.list()]
    assert names == sorted(registry.built_in())
    assert {entry.origin for entry in opened.list()} == {"built-in"}
    assert_whole(opened.path)


def test_the_default_place_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "elsewhere"))
    with open_registry() as opened:
        assert opened.path == tmp_path / "elsewhere" / "registry.db"


def test_reopening_writes_nothing(path: Path) -> None:
    open_registry(path).close()
    before = path.read_bytes()
    with open_registry(path) as opened:
        opened.list(search="lora")
    assert path.read_bytes() == before


def test_the_file_is_durable_by_its_settings(opened: Registry) -> None:
    with contextlib.closing(sqlite3.connect(opened.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA user_version").fetchone() == (database.SCHEMA_VERSION,)
        assert connection.execute("PRAGMA application_id").fetchone() == (database.APPLICATION_ID,)


def test_entries_carry_the_recipe_and_its_text(opened: Registry) -> None:
    entry = opened.get("starter-lora")
    assert entry.toml == registry.built_in()["starter-lora"]
    assert entry.hash == entry.recipe.hash()
    assert (entry.method, entry.model, entry.data) == ("lora", "tunewright/starter", "tunewright/starter-orders")
    assert entry.title == entry.recipe.card.title
    assert "starter" in entry.tags


def test_a_recipe_is_found_by_every_name(opened: Registry) -> None:
    entry = opened.get("starter-lora")
    opened.set_alias("favourite", "starter-lora")
    for name in ("tunewright/starter-lora", "favourite", entry.hash, entry.hash[:7]):
        assert opened.get(name) == entry


def test_an_alias_moves_and_else_stays(opened: Registry) -> None:
    text = opened.get("starter-lora").toml
    first = opened.add(text.replace("rank = 16", "rank = 8"), "mine")
    opened.set_alias("best", "mine")
    opened.add(text.replace("rank = 16", "rank = 4"), "mine")
    assert opened.get("best").hash == first.hash
    opened.set_alias("best", "mine")
    assert opened.get("best").hash == opened.get("mine").hash != first.hash
    with pytest.raises(TunewrightError, match="recipe's name"):
        opened.set_alias("mine", "starter-lora")


def test_an_unknown_name_names_the_nearest(opened: Registry) -> None:
    with pytest.raises(TunewrightError) as caught:
        opened.get("starter-lorra\x1b[31m")
    assert caught.value.remedy == "Did you mean starter-lora?"
    assert "\x1b" not in caught.value.message
    with pytest.raises(TunewrightError, match="recipes list"):
        opened.get("zzzzzz")


@pytest.fixture
def few(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry with the starters alone."""
    change_catalogue(
        monkeypatch, {name: text for name, text in registry.built_in().items() if name.startswith("starter-")}
    )
    with open_registry(path) as made:
        yield made


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(method="qlora"), ["starter-qlora"]),
        (Query(objective="dpo"), ["starter-dpo"]),
        (Query(task="GPU"), ["alice/seven"]),
        (Query(origin="hub"), ["alice/seven"]),
        (Query(model="OWNER/"), ["alice/seven"]),
        (Query(smallest_billions=6, largest_billions=8), ["alice/seven"]),
        (Query(licence="mit"), ["alice/seven"]),
        (Query(task="gpu", method="full"), []),
        (Query(text="seven", method="lora"), ["alice/seven"]),
        (Query(text="!!!"), []),
        (Query(hardware="RTX 4090"), ["starter-full"]),
        (Query(evidence="ran"), ["starter-full"]),
        (Query(evidence="fits"), ["starter-full", "starter-lora"]),
        (Query(evidence="claimed"), ["starter-full", "starter-lora", "alice/seven"]),
    ],
    ids=lambda value: None if isinstance(value, list) else repr(value)[6:-1][:40],
)
def test_finding_narrows_and_goes_by_evidence(few: Registry, query: Query, found: list[str]) -> None:
    opened = few
    text = opened.get("starter-lora").toml.replace('"cpu"', '"gpu"').replace('"Apache-2.0"', '"MIT"')
    stranger = opened.add(
        text.replace('"tunewright/starter"', '"owner/chat-7B-it"'), "seven", namespace="alice", origin="hub"
    )
    opened.record_evidence(evidence(opened.get("starter-full").hash, hardware="RTX 4090", run="a"))
    opened.record_evidence(evidence(opened.get("starter-lora").hash, kind="smoke", run="b"))
    opened.claim_evidence(stranger.hash, "hub:alice/seven", [evidence(stranger.hash, hardware="RTX 4090")])
    findings = opened.find(query)
    assert [each.name for each in findings.found] == found
    assert findings.total == len(found)
    assert opened.find(query, limit=1).found == findings.found[:1]


def test_what_is_found_says_what_is_known(few: Registry) -> None:
    opened = few
    revision = opened.get("starter-full").hash
    for number, status in enumerate(("finished", "finished", "failed", "out-of-memory", "stopped")):
        opened.record_evidence(evidence(revision, status=status, run=str(number)))
    opened.record_evidence(evidence(revision, metric="exact_match", value=1.0, run="0"))
    best = opened.find(Query()).found[0]
    assert (best.name, best.grade, best.size_billions, best.accepted) == ("starter-full", "ran", None, True)
    assert best.tally == Tally(replicated=0, published=0, finished=2, failed=2, smoke=0, claims=0)
    # Saying again what a run came to counts it once.
    opened.record_evidence(evidence(revision, status="failed", run="0"))
    assert opened.find(Query()).found[0].tally == Tally(0, 0, 1, 3, 0, 0)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("7b", (5.95, 8.05)),
        ("<3B", (0, 3)),
        (">=30", (30, float("inf"))),
        ("7b-14b", (7, 14)),
        ("big", None),
        ("", None),
    ],
)
def test_sizes_are_read(text: str, sizes: tuple[float, float] | None) -> None:
    assert parse_sizes(text) == (None if sizes is None else pytest.approx(sizes))


@pytest.mark.parametrize(
    ("model", "billions"),
    [("Qwen/Qwen3-8B", 8), ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135), ("mistralai/Mixtral-8x7B-v0.1", 56),
     ("meta-llama/Llama-3.2-1B", 1), ("a/gpt-4bit", None), ("tunewright/starter", None), ("/models/70b/of-us", None)],
)  # fmt: skip
def test_a_models_name_tells_its_size(model: str, billions: float | None) -> None:
    assert size_billions(model) == (None if billions is None else pytest.approx(billions))


@pytest.mark.parametrize(
    ("search", "first"),
    [
        ("start qlo", "starter-qlora"),
        ("starter-fu", "starter-full"),
        ("FULL fine starter", "starter-full"),
        ("4-bit", "starter-qlora"),
    ],
)
def test_search_finds_the_beginnings_of_words(opened: Registry, search: str, first: str) -> None:
    assert next(entry.name for entry in opened.list(search=search)) == first


def test_search_follows_what_changes(opened: Registry) -> None:
    text = opened.get("starter-lora").toml
    opened.add(text.replace('title = "Starter: LoRA"', 'title = "Zucchini"'), "mine")
    assert [entry.name for entry in opened.list(search="zucch")] == ["mine"]
    opened.add(text.replace('"cpu"', '"aubergine"'), "mine")
    assert opened.list(search="zucch") == []
    assert [entry.name for entry in opened.list(search="aubergine")] == ["mine"]


@given(st.text(max_size=30) | st.sampled_from(['"', "*", "a AND", "name:", "NEAR(", "-x", "'--", "½ ⅳ ٣", "_", "\0"]))
def test_no_search_breaks_the_query(tmp_path_factory: pytest.TempPathFactory, search: str) -> None:
    path = tmp_path_factory.getbasetemp() / "searched.db"
    with open_registry(path) as opened:
        assert len(opened.list(search=search)) <= len(registry.built_in())


def test_a_new_text_is_a_new_edition(opened: Registry) -> None:
    parent = opened.get("starter-lora")
    text = parent.toml.replace("rank = 16", "rank = 8")
    first = opened.add(text, "mine", origin="fork", parents=[parent.hash], note="smaller")
    second = opened.add(f"# another comment\n{text}", "mine", origin="fork", parents=[parent.hash], note="explained")
    assert first.hash == second.hash
    assert opened.parents(first.hash) == [(parent.hash, "fork")]
    editions = opened.history("mine")
    assert [(edition.note, edition.current) for edition in editions] == [("explained", True), ("smaller", False)]
    opened.add(text, "mine")
    assert [edition.current for edition in opened.history("mine")] == [False, True]
    assert opened.get("mine").toml == text


def test_an_edition_comes_from_the_one_before_and_the_first_from_what_it_was_forked_from(opened: Registry) -> None:
    parent = opened.get("starter-lora")
    first = opened.add(parent.toml.replace("rank = 16", "rank = 8"), "mine", origin="fork", parents=[parent.hash])
    second = opened.add(parent.toml.replace("rank = 16", "rank = 4"), "mine", origin="fork", parents=[first.hash])
    assert opened.parents(first.hash) == [(parent.hash, "fork")]
    assert opened.parents(second.hash) == [(first.hash, "derived")]


def test_two_names_may_mean_the_same(opened: Registry) -> None:
    original = opened.get("starter-lora")
    copy = opened.add(original.toml, "mine", origin="fork", parents=[original.hash])
    assert copy.hash == original.hash
    assert opened.parents(copy.hash) == []
    assert [len(opened.history(name)) for name in ("mine", "starter-lora")] == [1, 1]


def test_what_is_there_is_not_overwritten(opened: Registry) -> None:
    text = opened.get("starter-lora").toml
    opened.add(text, "mine")
    opened.add(text, "theirs", namespace="alice", origin="hub", accepted=False)
    with pytest.raises(TunewrightError, match="not overwritten"):
        opened.add(text, "mine", new=True)
    with pytest.raises(TunewrightError, match="not overwritten"):
        opened.add(text, "theirs", namespace="alice")


def test_a_strangers_recipe_is_accepted_edition_by_edition(opened: Registry) -> None:
    text = opened.get("starter-lora").toml
    assert not opened.add(text, "theirs", namespace="alice", origin="hub", accepted=False).accepted
    assert opened.accept("alice/theirs").accepted
    changed = opened.add(
        text.replace("rank = 16", "rank = 8"), "theirs", namespace="alice", origin="hub", accepted=False
    )
    assert not changed.accepted
    assert opened.get("starter-lora").accepted


def test_strangers_recipes_go_by_their_owners_name(opened: Registry) -> None:
    text = opened.get("starter-lora").toml.replace("rank = 16", "rank = 2")
    entry = opened.add(text, "starter-lora", namespace="Alice", origin="hub")
    assert entry.name == "Alice/starter-lora"
    assert opened.get("Alice/starter-lora").hash == entry.hash != opened.get("starter-lora").hash
    assert opened.list()[-1].name == "Alice/starter-lora"


@pytest.mark.parametrize(
    ("name", "namespace"),
    [("starter-lora", "local"), ("Big", "local"), ("", "local"), ("a/b", "local"), ("x\x1b", "local"), ("x", "tunewright"),
     ("x", "../up"), ("..", "local"), ("x", "")],
)  # fmt: skip
def test_bad_names_are_refused(opened: Registry, name: str, namespace: str) -> None:
    with pytest.raises(TunewrightError):
        opened.add(opened.get("starter-lora").toml, name, namespace=namespace)
    assert len(opened.list()) == len(registry.built_in())


def test_a_bad_recipe_leaves_no_trace(opened: Registry) -> None:
    with pytest.raises(TunewrightError, match="mine:"):
        opened.add("[base]\nmodel = 3", "mine")
    assert len(opened.list()) == len(registry.built_in())


def test_escapes_do_not_reach_the_stored_text(opened: Registry) -> None:
    text = "# \x9b31m\u202e comment\n" + opened.get("starter-lora").toml
    assert opened.add(text, "mine").toml.startswith("#  comment\n")


def test_citations_are_taken_apart(opened: Registry) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    line = f'sources = ["owner/name@{commit}:a/b.yaml", "https://arxiv.org/abs/2106.09685", "by word of mouth"]'
    text = opened.get("starter-full").toml + line + "\n"
    opened.add(text, "mine")
    with contextlib.closing(sqlite3.connect(opened.path)) as connection:
        rows = connection.execute(
            "SELECT repository, path, commit_id, url FROM sources JOIN recipes ON recipes.id = sources.recipe "
            "WHERE slug = 'mine' ORDER BY sources.id"
        ).fetchall()
    assert rows == [
        ("owner/name", "a/b.yaml", commit, None),
        (None, None, None, "https://arxiv.org/abs/2106.09685"),
        (None, None, None, None),
    ]


def test_evidence_is_kept_and_replaced_by_run_and_metric(opened: Registry) -> None:
    revision = opened.get("starter-lora").hash
    first = evidence(revision, run="a", metric="exact_match", value=0.5, versions={"torch": "2.13.0"}, created=1.0)
    failed = evidence(
        revision, run="b", status="out-of-memory", predicted_peak_gib=1.0, measured_peak_gib=2.0, created=2.0
    )
    published = evidence(revision, kind="published", source="a paper", metric="loss", value=0.9, created=3.0)
    for each in (first, failed, published, published):
        opened.record_evidence(each)
    again = evidence(revision, run="a", metric="exact_match", value=0.6, created=4.0)
    other_metric = evidence(revision, run="a", metric="loss", value=0.1, created=5.0)
    opened.record_evidence(again)
    opened.record_evidence(other_metric)
    assert opened.evidence(revision) == [other_metric, again, published, published, failed]
    with pytest.raises(TunewrightError, match="Unknown recipe"):
        opened.record_evidence(evidence("f" * 64))


def test_runs_are_indexed_and_rebuilt(opened: Registry) -> None:
    opened.index_run(indexed("a"))
    opened.index_run(indexed("a", state="finished", ended=2.0, loss=0.5))
    opened.index_run(indexed("b", created=3.0))
    assert [(run.id, run.state) for run in opened.runs()] == [("b", "running"), ("a", "finished")]
    rebuilt = [indexed("c", exact_match_before=0.0, exact_match_after=0.97, peak_gib=0.5, step=3, total_steps=4)]
    assert opened.rebuild_runs(iter(rebuilt)) == 1
    assert opened.runs() == rebuilt
    assert opened.rebuild_runs([]) == 0
    assert opened.runs() == []


def test_a_failed_rebuild_keeps_the_index(opened: Registry) -> None:
    opened.index_run(indexed("a"))
    with pytest.raises(sqlite3.IntegrityError):
        opened.rebuild_runs([indexed("b"), indexed("c", state=None)])
    assert [run.id for run in opened.runs()] == ["a"]


def change_catalogue(monkeypatch: pytest.MonkeyPatch, texts: dict[str, str]) -> None:
    monkeypatch.setattr(registry, "built_in", lambda: texts)
    monkeypatch.setattr(registry, "fingerprint", lambda: str(hash(tuple(texts.items()))))


def test_a_changed_catalogue_is_taken_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = registry.built_in()
    with open_registry(path) as opened:
        before = opened.get("starter-lora")
        opened.record_evidence(evidence(before.hash, run="a"))
        opened.add(before.toml, "new")
    changed = shipped | {"starter-lora": before.toml.replace("rank = 16", "rank = 8"), "new": shipped["starter-full"]}
    del changed["starter-qlora"]
    change_catalogue(monkeypatch, changed)
    with open_registry(path) as opened:
        after = opened.get("starter-lora")
        assert after.recipe.method.model_dump()["rank"] == 8
        assert [edition.hash for edition in opened.history("starter-lora")] == [after.hash, before.hash]
        assert len(opened.evidence(before.hash)) == 1
        # A built-in recipe takes the bare name; the user's own is still there.
        assert [entry.name for entry in opened.list()] == [*sorted(changed), "local/new"]
        assert opened.get("local/new").hash == before.hash
        # One that left the catalogue is no longer offered, but runs that name it still find it.
        assert opened.list(search="starter qlora") == []
        assert opened.get("starter-qlora").method == "qlora"
    change_catalogue(monkeypatch, shipped)
    with open_registry(path) as opened:
        assert [entry.name for entry in opened.list()] == [*sorted(shipped), "new"]
        assert [entry.name for entry in opened.list(search="starter qlora")] == ["starter-qlora"]
        assert opened.get("starter-lora") == before
        assert opened.get("new").hash == before.hash
        assert opened.get("tunewright/new").name == "tunewright/new"
    assert_whole(path)


def make_version_1(path: Path) -> str:
    """Make a registry as version 1 left it, with a recipe, its evidence and one that no version can read."""
    path.parent.mkdir()
    toml = registry.built_in()["starter-full"].replace('"tunewright/starter"', '"owner/small-3b"')
    revision = parse_recipe(toml, "mine").hash()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements((Path(__file__).parent / "registry.v1.sql").read_text(encoding="utf-8")):
            connection.execute(statement)
        connection.execute("INSERT INTO revisions VALUES (?, '{}', 1, 1.0)", (revision,))
        for number, (slug, text) in enumerate((("mine", toml), ("odd", "[base]\nmodl = 1")), start=1):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO recipes VALUES (?, 'local', ?, 'local', NULL, 1.0, NULL)", (number, slug))
            connection.execute(
                "INSERT INTO editions VALUES (?, ?, ?, ?, 'Kept', '', 'full', 'owner/small-3b', 'd', '', 1.0)",
                (number, number, revision, text),
            )
            connection.execute("UPDATE recipes SET edition = ? WHERE id = ?", (number, number))
            connection.execute("COMMIT")
        for run, status in (("a", "finished"), ("b", "failed")):
            connection.execute(
                "INSERT INTO evidence (revision, kind, status, hardware, run, created) VALUES (?, 'local', ?, 'cpu', ?, 1.0)",
                (revision, status, run),
            )
        connection.execute("PRAGMA user_version = 1")
    return revision


def columns(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'search_%'").fetchall()
        shape: dict[str, list[tuple[Any, ...]]] = {f"{kind} {name}": [] for kind, name in names}
        for kind, name in names:
            if kind == "table":
                shape[f"{kind} {name}"] = connection.execute(f"PRAGMA table_info({name})").fetchall()
        return shape


def test_version_1_becomes_what_is_made_anew(path: Path, tmp_path: Path) -> None:
    revision = make_version_1(path)
    with open_registry(path) as opened:
        (found,) = opened.find(Query(smallest_billions=2, largest_billions=4, origin="local")).found
        assert (found.name, found.objective, found.accepted, found.grade) == ("mine", "sft", True, "ran")
        assert found.tally == Tally(0, 0, 1, 1, 0, 0)
        assert [each.run for each in opened.evidence(revision)] == ["b", "a"]
        assert opened.get("odd").toml == "[base]\nmodl = 1"
    open_registry(tmp_path / "new.db").close()
    assert columns(path) == columns(tmp_path / "new.db")
    assert_whole(path)
    (backup,) = path.parent.glob("registry.db.v1-*.backup")
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT count(*) FROM editions").fetchone() == (2,)


def test_a_migration_is_backed_up_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_registry(path).close()
    here = database.SCHEMA_VERSION
    monkeypatch.setattr(database, "SCHEMA_VERSION", here + 2)
    steps = {
        here: lambda tables: tables.execute("ALTER TABLE runs ADD COLUMN colour TEXT"),
        here + 1: lambda tables: tables.execute("UPDATE runs SET colour = 'red'"),
    }
    monkeypatch.setattr(database, "MIGRATIONS", steps)
    with open_registry(path) as opened:
        assert len(opened.list()) == len(registry.built_in())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (here + 2,)
    (backup,) = path.parent.glob(f"registry.db.v{here}-*.backup")
    monkeypatch.undo()
    with open_registry(backup) as opened:
        assert len(opened.list()) == len(registry.built_in())


def test_a_failed_migration_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_registry(path).close()
    here = database.SCHEMA_VERSION
    monkeypatch.setattr(database, "SCHEMA_VERSION", here + 1)

    def fail(tables: Any) -> None:
        tables.execute("DROP TABLE runs")
        raise RuntimeError("half done")

    monkeypatch.setattr(database, "MIGRATIONS", {here: fail})
    with pytest.raises(RuntimeError, match="half done"):
        open_registry(path)
    monkeypatch.undo()
    with open_registry(path) as opened:
        assert opened.runs() == []


def test_a_newer_schema_is_refused(path: Path) -> None:
    open_registry(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(TunewrightError, match=r"newer.*schema 99"):
        open_registry(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 5000, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(TunewrightError, match="Not a Tunewright registry"):
        open_registry(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", [0, 1])
def test_another_programs_database_is_refused(path: Path, version: int) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"CREATE TABLE theirs (x); PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(TunewrightError, match="Not a Tunewright registry"):
        open_registry(path)
    assert path.read_bytes() == before


def test_damage_inside_is_told(path: Path) -> None:
    open_registry(path).close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(TunewrightError, match="Not a Tunewright registry"):
        open_registry(path)


def test_an_empty_file_becomes_a_registry(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with open_registry(path) as opened:
        assert len(opened.list()) == len(registry.built_in())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TunewrightError):
        open_registry(tmp_path / "file" / "registry.db")
    with pytest.raises(TunewrightError, match="No permission"):
        open_registry(tmp_path)


def test_a_lock_that_is_held_too_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with open_registry(path) as opened, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TunewrightError, match="Registry busy"):
            opened.index_run(indexed("a"))
        other.execute("COMMIT")
        opened.index_run(indexed("a"))


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.registry import Evidence, open_registry
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4000k", "none", folder], check=True)
path = folder / "registry.db"
with open_registry(path) as registry:
    revision = registry.get("starter-lora").hash
    kept = 0
    try:
        while True:
            registry.record_evidence(
                Evidence(revision=revision, kind="smoke", status="failed", hardware="x" * 20_000, run=f"{kept}")
            )
            kept += 1
    except TunewrightError as error:
        print(error.title)
    print(len(registry.evidence(revision)) == kept > 0)
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
with open_registry(path) as registry:
    print(len(registry.list()))
    try:
        registry.set_alias("a", "starter-lora")
    except TunewrightError as error:
        print(error.title)
try:
    open_registry(folder / "new.db")
except TunewrightError as error:
    print(error.title)
try:
    open_registry(folder / "new" / "registry.db")
except TunewrightError as error:
    print(error.title)
"""


@pytest.mark.skipif(not can_mount(), reason="needs a file system of its own (unshare -rm, mount)")
def test_a_full_and_a_read_only_disk_are_told(tmp_path: Path) -> None:
    command = ["unshare", "-rm", sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    expected = [
        "The disk is full",
        "True",
        str(len(registry.built_in())),
        "No permission",
        "No permission",
        "No permission",
    ]
    assert done.stdout.splitlines() == expected


def test_processes_that_open_a_new_registry_at_once_agree(path: Path) -> None:
    children = [child(WRITER, path, name, 5) for name in "abc"]
    for each in children:
        output, errors = each.communicate(timeout=60)
        assert (each.returncode, len(output.splitlines())) == (0, 5), errors
    with open_registry(path) as opened:
        assert len(opened.evidence(opened.get("starter-lora").hash)) == 15
    assert_whole(path)


def test_readers_are_never_in_the_way_of_a_writer(path: Path) -> None:
    open_registry(path).close()
    readers = [child(READER, path) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    writer = child(WRITER, path, "w", 40)
    output, errors = writer.communicate(timeout=120)
    assert len(output.splitlines()) == 40, errors
    for reader in readers:
        output, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        assert 0 <= int(output) <= 40
    assert_whole(path)


def test_threads_share_one_registry(opened: Registry) -> None:
    from concurrent.futures import ThreadPoolExecutor

    revision = opened.get("starter-lora").hash

    def work(number: int) -> int:
        opened.record_evidence(evidence(revision, run=str(number)))
        return len(opened.list(search="starter"))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(40))) == {sum(name.startswith("starter-") for name in registry.built_in())}
    assert len(opened.evidence(revision)) == 40


def test_a_killed_writer_loses_nothing_that_it_acknowledged(path: Path, tmp_path: Path) -> None:
    random.seed(7)
    open_registry(path).close()
    acknowledged: set[str] = set()
    for number in range(6):
        said = tmp_path / f"said-{number}"
        with said.open("wb") as output:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, path, str(number), "100000"], stdout=output)
        while said.stat().st_size == 0 and writer.poll() is None:  # it has not written yet
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.2))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(timeout=60) == -signal.SIGKILL
        # The kill may cut the last line short; only whole lines are acknowledgements.
        acknowledged |= set(said.read_text(encoding="utf-8").split("\n")[:-1])
        with open_registry(path) as opened:
            kept = {each.run for each in opened.evidence(opened.get("starter-lora").hash)}
        assert acknowledged <= kept
        assert len(kept - acknowledged) <= number + 1  # at most the row that was being acknowledged
        assert_whole(path)
    assert len(acknowledged) >= 6


def test_a_process_killed_while_it_makes_the_registry_leaves_one_that_opens(tmp_path: Path) -> None:
    random.seed(11)
    for number in range(5):
        path = tmp_path / str(number) / "registry.db"
        maker = child(WRITER, path, "w", 1)
        while not path.exists() and maker.poll() is None:  # the fault point moves on from the first byte
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.03))
        maker.kill()
        maker.communicate(timeout=60)
        with open_registry(path) as opened:
            assert len(opened.list()) == len(registry.built_in())
        assert_whole(path)


def test_writing_needs_neither_pandas_nor_numpy(path: Path) -> None:
    script = """
import sys
from pathlib import Path
from tunewright.recipes.registry import open_registry
open_registry(Path(sys.argv[1])).close()
assert "sqlite_utils" in sys.modules
assert not {"pandas", "numpy", "torch"} & sys.modules.keys()
import numpy  # it was hidden for a moment, and is there again
"""
    done = child(script, path)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors


def test_reading_needs_no_sqlite_utils(path: Path) -> None:
    open_registry(path).close()
    script = """
import sys
from pathlib import Path
from tunewright.recipes.registry import open_registry
with open_registry(Path(sys.argv[1])) as registry:
    registry.list(search="lora")
assert "sqlite_utils" not in sys.modules
"""
    done = child(script, path)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
