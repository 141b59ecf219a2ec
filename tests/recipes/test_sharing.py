"""Sharing: real HTTP to a server with the Hub's protocol through the real client, real git, real folders."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.editing import change_text, read_change
from tunewright.recipes.hub import HubRemote, search
from tunewright.recipes.parcel import ALLOWED, CARD, EVIDENCE, MANIFEST, RECIPE
from tunewright.recipes.places import FolderRemote, GitRemote, Gone
from tunewright.recipes.records import Entry, Evidence
from tunewright.recipes.registry import Registry, open_registry
from tunewright.recipes.sharing import fetch, keep, parse_address, parse_remote, prepare, send

from ..hub_server import HubServer

WRITER = "hf_" + "w" * 34
HOME = "team/recipe"


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path / "ours" / "registry.db") as registry:
        yield registry


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path / "theirs" / "registry.db") as registry:
        yield registry


@pytest.fixture
def writable(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    hub_server.writers.add(WRITER)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    return hub_server


def make(registry: Registry, *changes: str, name: str = "mine") -> Entry:
    parent = registry.get("starter-lora")
    text = change_text(parent.toml, map(read_change, changes or ("method.rank=8",)), "a test")
    entry = registry.add(text, name, origin="fork", parents=[parent.hash])
    registry.record_evidence(
        Evidence(
            revision=entry.hash, kind="local", status="finished", hardware="Some card", run="secret-run-name",
            measured_peak_gib=1.5, first_loss=3.0, last_loss=0.5, seed=42, versions={"torch": "2.13.0"}, created=5.0,
        )
    )  # fmt: skip
    return entry


@pytest.fixture(params=["hub", "folder", "git"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, writable: HubServer) -> HubRemote | FolderRemote | GitRemote:
    """A place of each kind with nothing there yet."""
    if request.param == "hub":
        return HubRemote(HOME)
    if request.param == "folder":
        return FolderRemote(tmp_path / "team" / "recipe")
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "team.git"], check=True)
    return GitRemote(str(tmp_path / "team.git"), "recipe")


def test_what_is_published_can_be_pulled(
    ours: Registry, theirs: Registry, remote: HubRemote | FolderRemote | GitRemote
) -> None:
    entry = make(ours)
    shipment = prepare(ours, entry, remote)
    assert (set(shipment.files), shipment.leaks, shipment.parent) == (set(ALLOWED), (), None)
    assert b"secret-run-name" not in b"".join(shipment.files.values())
    commit = send(ours, entry, shipment)
    arrival = fetch(theirs, remote)
    assert arrival.snapshot.commit == commit
    assert dict(arrival.snapshot.files) == dict(shipment.files)  # the exact bytes that were shown
    kept = keep(theirs, arrival)
    assert kept.name.startswith("team/") and (kept.hash, kept.toml) == (entry.hash, entry.toml)
    assert (kept.origin, kept.accepted) == ("hub", False)
    assert theirs.parents(kept.hash) == [(ours.get("starter-lora").hash, "derived")]
    (claim,) = theirs.evidence(kept.hash)
    assert (claim.claimed_by, claim.run, claim.hardware, claim.last_loss) == (remote.address, None, "Some card", 0.5)
    place = theirs.place_of(kept)
    assert place is not None and (place.place, place.commit_id) == (remote.address, commit)
    with pytest.raises(TunewrightError, match="nobody here has accepted"):
        kept.require_accepted()
    theirs.accept(kept.name).require_accepted()


def test_what_is_there_already_is_not_sent_again(ours: Registry, remote: HubRemote | FolderRemote | GitRemote) -> None:
    entry = make(ours)
    commit = send(ours, entry, prepare(ours, entry, remote))
    again = prepare(ours, entry, remote)
    assert again.unchanged and send(ours, entry, again) == commit


def test_a_new_edition_goes_on_top_and_old_pulls_stay_pinned(
    ours: Registry, theirs: Registry, remote: HubRemote | FolderRemote | GitRemote
) -> None:
    entry = make(ours)
    first = send(ours, entry, prepare(ours, entry, remote))
    keep(theirs, fetch(theirs, remote), accepted=True)
    changed = make(ours, "method.rank=4")
    shipment = prepare(ours, changed, remote)
    assert shipment.parent == first
    second = send(ours, changed, shipment)
    assert second != first
    name = f"team/{'recipe' if isinstance(remote, HubRemote) else 'mine'}"
    assert theirs.get(name).hash == entry.hash  # nothing moves by itself
    if not isinstance(remote, FolderRemote):
        assert fetch(theirs, remote, first).parcel.recipe.hash() == entry.hash
    moved = keep(theirs, fetch(theirs, remote))
    assert (moved.name, moved.hash, moved.accepted) == (name, changed.hash, False)
    assert [each.hash for each in theirs.history(name)] == [changed.hash, entry.hash]


def test_what_others_changed_is_not_overwritten(
    ours: Registry, theirs: Registry, remote: HubRemote | FolderRemote | GitRemote
) -> None:
    entry = make(ours)
    send(ours, entry, prepare(ours, entry, remote))
    waiting = prepare(ours, make(ours, "method.rank=4"), remote)
    # Meanwhile somebody else goes on from what was there.
    other = theirs.add(entry.toml, "mine")
    send(theirs, other, prepare(theirs, other, remote))
    other = theirs.add(entry.toml.replace("rank = 8", "rank = 2"), "mine")
    send(theirs, other, prepare(theirs, other, remote))
    with pytest.raises(TunewrightError, match="changed by somebody else"):
        send(ours, ours.get("mine"), waiting)
    with pytest.raises(TunewrightError, match="not overwritten"):
        prepare(ours, ours.get("mine"), remote)
    assert fetch(ours, remote).parcel.recipe.hash() == other.hash


def test_a_place_that_is_gone_is_remembered_and_the_copy_stays(
    ours: Registry,
    theirs: Registry,
    remote: HubRemote | FolderRemote | GitRemote,
    tmp_path: Path,
    hub_server: HubServer,
) -> None:
    entry = make(ours)
    send(ours, entry, prepare(ours, entry, remote))
    kept = keep(theirs, fetch(theirs, remote))
    match remote:
        case HubRemote():
            del hub_server.repos[f"models/{HOME}"]
        case FolderRemote():
            (tmp_path / "team").rename(tmp_path / "elsewhere")
        case GitRemote():
            (tmp_path / "team.git").rename(tmp_path / "elsewhere")
    with pytest.raises(Gone):
        fetch(theirs, remote)
    place = theirs.place_of(kept)
    assert place is not None and place.gone
    assert theirs.get(kept.name).hash == entry.hash


def test_a_renamed_repository_is_followed_and_told(ours: Registry, theirs: Registry, writable: HubServer) -> None:
    entry = make(ours)
    send(ours, entry, prepare(ours, entry, HubRemote(HOME)))
    kept = keep(theirs, fetch(theirs, HubRemote(HOME)))
    writable.rename(HOME, "team/better-name")
    arrival = fetch(theirs, HubRemote(HOME))
    assert arrival.warnings == ("The other side calls it team/better-name now; here it keeps its name.",)
    assert keep(theirs, arrival).name == kept.name == HOME
    place = theirs.place_of(kept)
    assert place is not None and place.moved_to == "team/better-name"


def test_one_commit_with_the_parent_and_the_files_by_name(ours: Registry, writable: HubServer) -> None:
    entry = make(ours)
    send(ours, entry, prepare(ours, entry, HubRemote(HOME)), private=True)
    repo = writable.repos[f"models/{HOME}"]
    assert set(repo.files) == {".gitattributes", *ALLOWED} and repo.private
    assert repo.messages == [f"Publish the recipe mine ({entry.hash[:12]})"]
    posts = [seen.path for seen in writable.seen if seen.method == "POST" and "/commit/" in seen.path]
    assert len(posts) == 1
    assert all(WRITER not in content.decode() for content in repo.files.values())
    assert WRITER.encode() not in ours.path.read_bytes()


def test_an_adapters_repository_keeps_its_readme_and_is_found(ours: Registry, writable: HubServer) -> None:
    readme = b"---\nlicense: mit\ntags:\n- peft\n---\n# My adapter\n\nEvery word of it.\n"
    weights = b"\x00" * 100
    writable.model(HOME, {"README.md": readme, "adapter_model.safetensors": weights})
    entry = make(ours)
    shipment = prepare(ours, entry, HubRemote(HOME))
    send(ours, entry, shipment)
    repo = writable.repos[f"models/{HOME}"]
    text = repo.files["README.md"].decode()
    assert text.endswith("---\n# My adapter\n\nEvery word of it.\n") and "license: mit" in text
    assert {"peft", "tunewright-recipe", "lora"} <= set(repo.tags)
    assert repo.files["adapter_model.safetensors"] == weights
    assert [each.name for each in search("")] == [HOME]
    assert search("no such words") == ()
    assert prepare(ours, entry, HubRemote(HOME)).unchanged


@pytest.mark.parametrize(
    "words",
    [
        "hf_Zq7RtPv2KmXw9LsBn4YcJd6GhF3uTeAo8i",
        "api_key = sk-proj-9f3kQzX7bLm2Vw8RtYu4Ns6Pd1Hc5Gj0Ea7Ki",
        "postgres://bob:Tr0ub4dor&3x@db.company.com/rows",
    ],
    ids=["token", "key", "password"],
)
def test_a_secret_is_not_sent(ours: Registry, writable: HubServer, words: str) -> None:
    text = f"# {words}\n" + ours.get("starter-lora").toml
    entry = ours.add(text, "mine")
    shipment = prepare(ours, entry, HubRemote(HOME))
    assert {leak.file for leak in shipment.leaks} == {RECIPE}
    with pytest.raises(TunewrightError) as caught:
        send(ours, entry, shipment)
    assert words not in str(caught.value)
    assert not writable.repos


def test_the_token_in_use_is_not_sent_whatever_it_looks_like(
    ours: Registry, writable: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "plain words that are a token")
    entry = ours.add("# plain words that are a token\n" + ours.get("starter-lora").toml, "mine")
    assert [leak.kind for leak in prepare(ours, entry, FolderRemote(Path("/nowhere/x"))).leaks] == [
        "a token of this machine"
    ]


def test_without_the_right_to_write_it_is_told(ours: Registry, hub_server: HubServer) -> None:
    entry = make(ours)
    shipment = prepare(ours, entry, HubRemote(HOME))
    with pytest.raises(TunewrightError, match="Not allowed to write there"):
        send(ours, entry, shipment)


def test_places_on_this_machine_are_told(ours: Registry) -> None:
    text = change_text(ours.get("starter-lora").toml, [read_change("data.source=/home/bob/rows.jsonl")], "t")
    entry = ours.add(text, "mine")
    assert any("/home/bob/rows.jsonl" in each for each in prepare(ours, entry, FolderRemote(Path("/no/x"))).warnings)


def test_two_places_do_not_share_a_name(ours: Registry, theirs: Registry, tmp_path: Path) -> None:
    entry = make(ours)
    for parent in ("a", "b"):
        remote = FolderRemote(tmp_path / parent / "team" / "recipe")
        send(ours, entry, prepare(ours, entry, remote))
    keep(theirs, fetch(theirs, FolderRemote(tmp_path / "a" / "team" / "recipe")))
    with pytest.raises(TunewrightError, match="not overwritten"):
        keep(theirs, fetch(theirs, FolderRemote(tmp_path / "b" / "team" / "recipe")))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("owner/name", "hub:owner/name"),
        ("owner/name@v1.0", "hub:owner/name"),
        ("https://huggingface.co/owner/name/blob/main/recipe.toml", "hub:owner/name"),
        ("hf://owner/name", "hub:owner/name"),
        ("/srv/recipes/mine", "folder:/srv/recipes/mine"),
        ("git+https://host.org/team/recipes#mine", "git:https://host.org/team/recipes#mine"),
        ("git@host.org:team/recipes.git#a/b", "git:git@host.org:team/recipes.git#a/b"),
    ],
)
def test_places_are_named(text: str, address: str) -> None:
    remote = parse_remote(text)
    assert remote.address == address
    assert parse_address(remote.address).address == address


@pytest.mark.parametrize(
    "text", ["name", "https://evil.org/owner/name", "a/b/c", "owner/../name", "owner/name@../x", ""]
)
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(TunewrightError, match="Place not understood"):
        parse_remote(text)


def test_a_repository_without_hooks_or_checkout(ours: Registry, theirs: Registry, tmp_path: Path) -> None:
    """A repository's own filters, hooks and links have nothing to run on."""
    work = tmp_path / "work"
    ran = tmp_path / "ran"
    entry = make(ours)
    send(ours, entry, prepare(ours, entry, FolderRemote(work / "recipe")))
    (work / ".gitattributes").write_text("* filter=evil\n", encoding="utf-8")
    os.symlink("/etc/passwd", work / "link")
    for command in (
        ["init", "-q"], ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "x"],
        ["config", "filter.evil.smudge", f"touch {ran}"], ["config", "uploadpack.packObjectsHook", f"touch {ran}"],
    ):  # fmt: skip
        subprocess.run(["git", *command], cwd=work, check=True)
    hook = work / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n", encoding="utf-8")
    hook.chmod(0o755)
    assert keep(theirs, fetch(theirs, GitRemote(str(work), "recipe"))).hash == entry.hash
    assert not ran.exists()


def test_the_manifest_says_what_the_files_are(ours: Registry) -> None:
    entry = make(ours)
    files = prepare(ours, entry, FolderRemote(Path("/no/x"))).files
    manifest = json.loads(files[MANIFEST])
    assert manifest["hash"] == entry.hash
    assert manifest["files"] == {name: hashlib.sha256(files[name]).hexdigest() for name in (RECIPE, EVIDENCE)}
    assert (
        files[CARD]
        .decode()
        .startswith("---\nlibrary_name: tunewright\nlicense: apache-2.0\ntags:\n- tunewright-recipe\n")
    )


@pytest.mark.hub
def test_the_live_hub_knows_the_tag_and_a_model() -> None:
    assert isinstance(search(""), tuple)
    with pytest.raises(Gone, match=r"has no recipe\.toml"):
        HubRemote("hf-internal-testing/tiny-random-gpt2").read()
