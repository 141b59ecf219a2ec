"""Hostile recipes and repositories: each is refused with its reason, or read as plain data; nothing runs, nothing lands outside."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright.__main__ import main
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.hub import HubRemote
from tunewright.recipes.model import parse_recipe
from tunewright.recipes.parcel import EVIDENCE, MANIFEST, RECIPE, leaks, merged_card, unpack
from tunewright.recipes.places import FolderRemote, GitRemote
from tunewright.recipes.registry import open_registry
from tunewright.recipes.sharing import fetch, keep, parse_remote

from ..hub_server import Fault, HubServer

TOML = built_in()["starter-lora"]
PLAIN = TOML.encode()
PATHS = (
    "../../../etc/passwd", "/etc/shadow", "..\\..\\windows", "~/.ssh/id_rsa", "$HOME/x", "`id`", "$(touch ran)", "a\x00b",
    "file:///etc/passwd", "//host/share", "C:\\x", "%2e%2e%2f", "....//", "-rf", "; touch ran", "|touch ran",
)  # fmt: skip
ESCAPES = (
    "\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x9b31m", "\x1b]0;title\x07", "\x1b]8;;http://evil\x1b\\\\", "\u202egnp.exe", "\u200bhidden",
    "\x07", "\x08\x08", "\x7f", "\u2066", "\U000e0041", "\x90q\x9c", "\x1bc", "\x1b[?1049h",
)  # fmt: skip
MARKUP = (
    "[@click=app.quit]x[/]",
    "[/nope]",
    "[link=file:///etc/passwd]x[/]",
    "<script>x</script>",
    "{{ 7*7 }}",
    "{% raw %}",
    "${jndi:x}",
)


# Recipes that have to be refused, each with a part of the reason.
REFUSED: dict[str, tuple[bytes, str]] = {
    "not TOML": (b"\x00\x01\x02", "not"),
    "not UTF-8": (b"# \xff\xfe\n" + PLAIN, "UTF-8"),
    "UTF-16": (TOML.encode("utf-16"), "UTF-8"),
    "empty": (b"", "missing"),
    "too large": (PLAIN + b"#" * 300_000, "larger than 256 KiB"),
    "key twice": (PLAIN.replace(b"rank = 16", b"rank = 16\nrank = 17"), "TOML"),
    "table twice": (PLAIN + b"\n[base]\nmodel = 'x'\n", "TOML"),
    "deep arrays": (b"x = " + b"[" * 5000 + b"]" * 5000, "TOML"),
    "deep tables": (b"".join(b"[%s]\n" % b".".join([b"a"] * n) for n in range(1, 400)), "known key"),
    "huge integer": (PLAIN.replace(b"rank = 16", b"rank = " + b"9" * 5000), ""),
    "infinite rate": (PLAIN.replace(b"learning_rate = 4e-3", b"learning_rate = inf"), "learning_rate"),
    "no number": (PLAIN.replace(b"learning_rate = 4e-3", b"learning_rate = nan"), "learning_rate"),
    "negative rank": (PLAIN.replace(b"rank = 16", b"rank = -1"), "rank"),
    "true for one": (PLAIN.replace(b"rank = 16", b"rank = true"), "rank"),
    "text for a number": (PLAIN.replace(b"rank = 16", b'rank = "16"'), "rank"),
    "a table for a text": (PLAIN.replace(b'model = "tunewright/starter"', b"model = {a = 1}"), "base.model"),
    "a list for a text": (PLAIN.replace(b'model = "tunewright/starter"', b'model = ["a"]'), "base.model"),
    "a date for a text": (PLAIN.replace(b'model = "tunewright/starter"', b"model = 2020-01-01"), "base.model"),
    "length for ever": (PLAIN.replace(b"max_length = 256", b"max_length = 999999999999"), "max_length"),
    "steps for ever": (PLAIN.replace(b"epochs = 1\n", b"steps = 99999999999\n"), "steps"),
    "module that is code": (PLAIN.replace(b'targets = "all-linear"', b"targets = ['x; import os']"), "targets"),
    "unknown method": (PLAIN.replace(b'kind = "lora"', b'kind = "exec"'), "kind"),
    "title without end": (PLAIN.replace(b'title = "Starter: LoRA"', b'title = "' + b"x" * 5000 + b'"'), "title"),
    "bare carriage return": (PLAIN.replace(b"rank = 16", b"rank = 16\rrank = 1"), ""),
    "a comment with a control": (b"# \x00\n" + PLAIN, ""),
    **{
        f"key {key}": (f"{TOML}\n[{table}]\n{key} = 'x'\n".encode(), "known key")
        for table, key in itertools.product(
            ("environment", "hooks", "run"), ("HF_ENDPOINT", "command", "output_dir", "python", "trust_remote_code", "__class__")
        )
    },
    **{
        f"data key {key}": (PLAIN.replace(b"[data]\n", f"[data]\n{key} = 'x'\n".encode(), 1), "known key")
        for key in (
            "output_dir", "script", "loader", "code", "trust_remote_code", "url", "token", "env", "cache_dir", "type", "hub_token",
            "__proto__", "constructor", "import",
        )
    },
    **{
        f"base key {key}": (PLAIN.replace(b"[base]\n", f"[base]\n{key} = true\n".encode(), 1), "known key")
        for key in ("trust_remote_code", "endpoint", "device_map", "attn_implementation", "model_file", "vhead_file", "auto_map")
    },
    **{
        f"training key {key}": (PLAIN.replace(b"[training]\n", f"[training]\n{key} = 'x'\n".encode(), 1), "known key")
        for key in ("output_dir", "report_to", "resume_from_checkpoint", "push_to_hub", "deepspeed", "callbacks", "optimizer_class")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_recipe_is_refused_with_its_reason(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, reason = REFUSED[name]
    with pytest.raises(TunewrightError) as caught:
        unpack({RECIPE: content}, "hub:evil/recipe")
    assert reason in str(caught.value)
    assert not any(ord(each) < 32 and each != "\n" for each in str(caught.value))
    assert list(tmp_path.iterdir()) == []


TEXT_FIELDS = ("base.model", "data.source", "card.title", "card.summary", "data.system_prompt")


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize("text", (*PATHS, *ESCAPES, *MARKUP), ids=lambda text: ascii(text))
def test_hostile_text_is_data_and_shown_clean(
    field: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path, an escape or markup in a text is kept as text, without what could reach a terminal."""
    monkeypatch.chdir(tmp_path)
    section, key = field.split(".")
    lines = [
        line for line in TOML.splitlines() if not (line.startswith(f"{key} = ") and section in ("base", "card", "data"))
    ]
    lines.insert(lines.index(f"[{section}]") + 1, f"{key} = {json.dumps(text)}")
    body = "\n".join(lines).encode()
    try:
        parcel = unpack({RECIPE: body}, "hub:evil/recipe")
    except TunewrightError as error:
        assert not any(ord(each) < 32 and each != "\n" for each in str(error))
    else:
        shown = repr(parcel.recipe)
        assert not any(escape in shown for escape in ESCAPES)
        assert parse_recipe(parcel.toml, "again") == parcel.recipe
    assert list(tmp_path.iterdir()) == []


def manifest(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "format": 1, "name": "mine", "hash": parse_recipe(TOML, "t").hash(), "parents": [],
        "files": {RECIPE: hashlib.sha256(PLAIN).hexdigest()},
    }  # fmt: skip
    return json.dumps(values | changes).encode()


LIES: dict[str, dict[str, bytes]] = {
    "another hash": {MANIFEST: manifest(hash="0" * 64)},
    "another file": {MANIFEST: manifest(files={RECIPE: "0" * 64})},
    "a file that is not there": {MANIFEST: manifest(files={EVIDENCE: "0" * 64})},
    "a file outside": {MANIFEST: manifest(files={"../../.bashrc": "0" * 64})},
    "an absolute file": {MANIFEST: manifest(files={"/etc/passwd": "0" * 64})},
    "a hash that is none": {MANIFEST: manifest(hash="x")},
    "a hash with an escape": {MANIFEST: manifest(hash="\x1b[2J")},
    "parents that are none": {MANIFEST: manifest(parents=["../x"])},
    "too many parents": {MANIFEST: manifest(parents=["0" * 64] * 100)},
    "parents that are a text": {MANIFEST: manifest(parents="0" * 64)},
    "a newer format": {MANIFEST: manifest(format=99)},
    "a format that is a text": {MANIFEST: manifest(format="1")},
    "a name that is a list": {MANIFEST: manifest(name=["x"])},
    "a list": {MANIFEST: b"[]"},
    "nothing": {MANIFEST: b""},
    "a key twice": {MANIFEST: manifest()[:-1] + b', "format": 1}'},
    "deep": {MANIFEST: b"[" * 50_000},
    "no number": {MANIFEST: b'{"format": NaN}'},
    "large": {MANIFEST: manifest() + b" " * 70_000},
    "evidence that is an object": {EVIDENCE: b"{}"},
    "evidence without end": {EVIDENCE: json.dumps([{"kind": "local"}] * 501).encode()},
    "evidence with a wrong kind": {EVIDENCE: b'[{"kind": "gospel", "status": "finished", "hardware": "x", "created": 1}]'},
    "evidence with infinite value": {
        EVIDENCE: b'[{"kind": "local", "status": "finished", "hardware": "x", "created": 1, "value": 1e999}]'
    },
    "evidence with huge versions": {
        EVIDENCE: json.dumps(
            [{"kind": "local", "status": "finished", "hardware": "x", "created": 1.0, "versions": {"x" * 100: "y"}}]
        ).encode()
    },
    "evidence too large": {EVIDENCE: b" " * 2_000_000},
    "a file of another name": {"setup.py": b"import os"},
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_manifest_or_evidence_that_lies_is_refused(name: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        unpack({RECIPE: PLAIN, **LIES[name]}, "hub:evil/recipe")
    assert caught.value.title in ("Recipe refused", "From a newer Tunewright")
    assert not any(ord(each) < 32 and each != "\n" for each in str(caught.value))


def test_a_claim_is_cleaned_and_counts_for_nothing(tmp_path: Path) -> None:
    claim = {"kind": "replicated", "status": "finished", "hardware": "\x1b]52;c;x\x07card", "created": 1.0, "value": 1.0,
             "metric": "exact_match", "run": "../x", "claimed_by": "us"}  # fmt: skip
    (tmp_path / "evil" / "mine").mkdir(parents=True)
    (tmp_path / "evil" / "mine" / RECIPE).write_bytes(PLAIN)
    (tmp_path / "evil" / "mine" / EVIDENCE).write_text(json.dumps([claim]), encoding="utf-8")
    with open_registry(tmp_path / "registry.db") as registry:
        kept = keep(registry, fetch(registry, FolderRemote(tmp_path / "evil" / "mine")))
        (found,) = (each for each in registry.evidence(kept.hash))
        assert (found.hardware, found.run) == ("card", None)
        assert found.claimed_by == f"folder:{tmp_path}/evil/mine"
        from tunewright.recipes.registry import Query

        grades = {each.name: each.grade for each in registry.find(Query()).found}
        assert grades["starter-lora"] == grades["evil/mine"] == "claimed"


def make_link(folder: Path, name: str) -> None:
    os.symlink("/etc/passwd", folder / name)


def make_pipe(folder: Path, name: str) -> None:
    os.mkfifo(folder / name)


def make_folder(folder: Path, name: str) -> None:
    (folder / name).mkdir()


@pytest.mark.parametrize("make", [make_link, make_pipe, make_folder], ids=["link", "pipe", "folder"])
@pytest.mark.parametrize("name", [RECIPE, MANIFEST, EVIDENCE, "README.md"])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, make: Callable[[Path, str], None], name: str) -> None:
    if name != RECIPE:
        (tmp_path / RECIPE).write_bytes(PLAIN)
    make(tmp_path, name)
    with pytest.raises(TunewrightError):
        FolderRemote(tmp_path).read()


@pytest.mark.parametrize("mode", ["120000", "160000"])
def test_links_and_submodules_in_git_are_not_read(tmp_path: Path, mode: str) -> None:
    def git(*arguments: str, content: bytes = b"") -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, input=content, capture_output=True, check=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    blob = git("hash-object", "-w", "--stdin", content=b"/etc/passwd") if mode == "120000" else "1" * 40
    git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{RECIPE}")
    git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "x")
    with pytest.raises(TunewrightError, match="Recipe refused"):
        GitRemote(str(tmp_path)).read()


@pytest.mark.parametrize(
    "text",
    ["git+--upload-pack=touch ran", "git+ext::sh -c touch%20ran", "git+fd::17", "git+https://a\x1b/x", "git+/x#../../y", "git+/x#-rf",
     "git+http://127.0.0.1:1/x", "ssh://-oProxyCommand=touch ran/x", "git@-oProxyCommand=x:y.git"],
)  # fmt: skip
def test_git_addresses_that_are_commands_run_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TunewrightError) as caught:
        parse_remote(text).read()
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_the_hub_is_read_no_further_than_it_may_be_long(hub_server: HubServer) -> None:
    hub_server.model("evil/large", {RECIPE: b"#" * 3_000_000})
    with pytest.raises(TunewrightError, match="larger than 256 KiB"):
        HubRemote("evil/large").read()


def test_files_with_other_names_are_not_asked_for(hub_server: HubServer, tmp_path: Path) -> None:
    others = {
        "setup.py": b"x",
        "../../evil": b"x",
        "recipe.toml.py": b"x",
        "\x1b[2J": b"x",
        "pytorch_model.bin": b"x" * 5000,
    }
    hub_server.model("evil/many", {RECIPE: PLAIN, **others})
    assert set(HubRemote("evil/many").read().files) == {RECIPE}
    assert {each.path for each in hub_server.seen if "resolve" in each.path} == {
        f"/evil/many/resolve/{hub_server.repos['models/evil/many'].commit}/{RECIPE}"
    }


def test_a_hub_that_answers_with_nonsense_is_told(hub_server: HubServer) -> None:
    for body in (
        b"[]",
        b"{}",
        b'{"id": "../../x", "sha": "../../y"}',
        b"\x1b[2J",
        b'{"id": 1, "sha": null, "siblings": 7}',
    ):
        hub_server.model("evil/nonsense", {RECIPE: PLAIN})
        hub_server.faults["api"] = [Fault("status", 200, headers={"Content-Type": "application/json"}, body=body)]
        with pytest.raises(TunewrightError) as caught:
            HubRemote("evil/nonsense").read()
        assert "\x1b" not in str(caught.value)


def test_an_alias_bomb_in_a_readme_is_left_alone() -> None:
    bomb = "---\na: &a [x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\ntags: [*c,*c]\n---\ntext\n"
    recipe = parse_recipe(TOML, "t")
    assert merged_card(bomb, "ours", recipe) == bomb
    for odd in ("---\n- a\n- b\n---\nx", "---\n: : :\n---\nx", "---\n!!python/object/apply:os.system [id]\n---\nx"):
        assert merged_card(odd, "ours", recipe) == odd


def test_names_do_not_collide_by_their_case_or_look(tmp_path: Path) -> None:
    """Two places whose names come to the same here are told apart by where they are."""
    with open_registry(tmp_path / "registry.db") as registry:
        for number, parent in enumerate(("Team", "team", "TEAM")):
            folder = tmp_path / str(number) / parent / "Mine"
            folder.mkdir(parents=True)
            (folder / RECIPE).write_bytes(PLAIN.replace(b"rank = 16", f"rank = {number + 2}".encode()))
        kept = keep(registry, fetch(registry, FolderRemote(tmp_path / "0" / "Team" / "Mine")))
        for number, parent in ((1, "team"), (2, "TEAM")):
            with pytest.raises(TunewrightError, match="not overwritten"):
                keep(registry, fetch(registry, FolderRemote(tmp_path / str(number) / parent / "Mine")))
        assert registry.get(kept.name).hash == kept.hash


@pytest.mark.parametrize("owner", ["tunewright", "local", "Tunewright"])
def test_a_stranger_cannot_take_our_names(owner: str, tmp_path: Path) -> None:
    folder = tmp_path / owner / "starter-lora"
    folder.mkdir(parents=True)
    (folder / RECIPE).write_bytes(PLAIN.replace(b"rank = 16", b"rank = 2"))
    with open_registry(tmp_path / "registry.db") as registry:
        kept = keep(registry, fetch(registry, FolderRemote(folder)))
        assert kept.name == f"from-{owner.lower()}/starter-lora"
        assert registry.get("starter-lora").recipe == parse_recipe(TOML, "t")


@pytest.mark.parametrize("verb", ["show", "diff", "history", "pull"])
def test_no_raw_byte_reaches_the_terminal(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "evil" / "mine"
    folder.mkdir(parents=True)
    body = TOML.replace("Starter: LoRA", "".join(f"\\U{ord(each):08X}" for each in "".join(ESCAPES)))
    (folder / RECIPE).write_text(body, encoding="utf-8")
    arguments = {
        "show": ["show", "evil/mine"], "diff": ["diff", "starter-full", "evil/mine"], "history": ["history", "evil/mine"],
        "pull": ["pull", str(folder), "--dry-run"],
    }[verb]  # fmt: skip
    assert main(["recipes", "pull", str(folder)]) == 0
    assert main(["recipes", *arguments]) == 0
    captured = capsys.readouterr()
    for each in captured.out + captured.err:
        assert each == "\n" or (
            ord(each) >= 32 and not 127 <= ord(each) < 160 and each not in "\u202e\u200b\u2066\U000e0041"
        )


def test_secrets_are_found_wherever_they_stand() -> None:
    files = {"README.md": b"x\n" * 10 + b"password: Zx9!qLm2vT\n", RECIPE: b"# AKIAZ7QXW3RTPLMN2VBS\n"}
    assert {(leak.file, leak.line) for leak in leaks(files)} == {("README.md", 11), (RECIPE, 1)}
