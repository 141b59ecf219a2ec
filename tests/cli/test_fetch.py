"""`tunewright fetch`, `plan` and `train` as people and programs call them, with a Hub on this machine."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tunewright import starter
from tunewright.engine.hub.cache import Repository
from tunewright.engine.plan import read_plan
from tunewright.engine.runs.directory import list_runs
from tunewright.engine.runs.pinned import commits_of, pinned_recipe
from tunewright.engine.sources import find_data, find_model, find_weights

from ..hub_server import Fault, HubServer

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
CARD = b"---\nconfigs:\n- config_name: orders\n  data_files: orders/*.jsonl\n- config_name: none\n  data_files: none/*\n---\n"
MODEL, DATA = "owner/starter", "owner/sets:orders"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_server: HubServer) -> Path:
    """A home of its own, and a Hub with the built-in model and data under other names."""
    model = {path.name: path.read_bytes() for path in starter.MODEL.iterdir() if path.is_file()}
    hub_server.model(MODEL, model)
    rows = b"".join(starter.TRAINING_DATA.read_bytes().splitlines(keepends=True)[:64])
    hub_server.data("owner/sets", {"README.md": CARD, "orders/rows.jsonl": rows, "none/rows.jsonl": b"{}"})
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def tunewright(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunewright", *arguments],
        capture_output=True, text=True, check=False, timeout=200, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def on_terminal(*arguments: str, typed: str = "") -> tuple[int, str]:
    """Run a command on a terminal of its own, type into it, and return its status and what was to be seen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "tunewright", *arguments])
    os.write(terminal, typed.encode())
    seen = b""
    while True:
        try:
            seen += (block := os.read(terminal, 65536))
        except OSError:
            break
        if not block:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


def wanted(hub_server: HubServer) -> set[str]:
    """Return the names of the files of weights and rows that were asked for."""
    return {each.path.rpartition("/")[2] for each in hub_server.seen if each.store and each.method == "GET"}


def test_a_dry_run_lists_and_a_real_one_brings(home: Path, hub_server: HubServer) -> None:
    said = tunewright("fetch", MODEL, "--dry-run")
    assert said.returncode == 0, said.stderr
    assert f"{MODEL} from 127.0.0.1" in said.stdout and "model.safetensors" in said.stdout
    assert wanted(hub_server) == set()
    lines = [json.loads(line) for line in tunewright("fetch", MODEL, "--json").stdout.splitlines()]
    assert [*lines[0]] == ["plan"] and [*lines[-1]] == ["fetched"]
    assert lines[0]["plan"]["missing_bytes"] == lines[0]["plan"]["total_bytes"] > 0
    assert lines[-2]["progress"]["done_bytes"] == lines[0]["plan"]["total_bytes"]
    assert lines[-1]["fetched"]["folder"] == str(find_weights(MODEL))
    again = tunewright("fetch", DATA, "--dataset")
    assert again.returncode == 0, again.stderr
    assert "100 %" in again.stderr and f"{DATA} is whole in" in again.stdout
    assert [path.name for path in find_data(DATA)] == ["rows.jsonl"]


def test_errors_are_pages_and_no_output_holds_the_token(
    home: Path, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_server.known_tokens.add(TOKEN)
    hub_server.repos[f"models/{MODEL}"].gated = True
    ended = tunewright("--traceback", "fetch", MODEL, "--json")
    assert (ended.returncode, json.loads(ended.stdout)["error"]["title"]) == (2, "Gated model")
    assert TOKEN not in ended.stdout + ended.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = tunewright("fetch", MODEL)
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (2, "The Hub is switched off")


def test_on_a_terminal_one_line_lives_and_ctrl_c_leaves_what_has_arrived(home: Path, hub_server: HubServer) -> None:
    weights = random.Random(1).randbytes(400_000)
    hub_server.model("owner/other", {"config.json": b"{}", "model.safetensors": weights})
    hub_server.faults["model.safetensors"] = [Fault("stall", after_bytes=300_000)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background ignore it
    child = subprocess.Popen([sys.executable, "-m", "tunewright", "fetch", "owner/other"], stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, before)
    assert hub_server.stalled.wait(60)
    os.kill(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"the same command goes on" in told and b"Traceback" not in told
    assert tunewright("fetch", "owner/other", "--description").returncode == 0
    assert not (find_model("owner/other") / "model.safetensors").exists()
    status, seen = on_terminal("fetch", "owner/other")
    assert status == 0, seen
    assert "\r\x1b[K" in seen and "100 %" in seen and "is whole in" in seen
    assert (find_weights("owner/other") / "model.safetensors").read_bytes() == weights


def test_a_plan_needs_no_weights_and_says_what_is_to_be_fetched(home: Path, hub_server: HubServer) -> None:
    ended = tunewright("plan", "starter-lora", "--model", MODEL, "--data", str(starter.TRAINING_DATA))
    assert ended.returncode == 0, ended.stderr
    assert f"Still to be fetched from 127.0.0.1:{hub_server.url.rpartition(':')[2]}: {MODEL}" in ended.stdout
    assert "model.safetensors" not in wanted(hub_server)
    assert find_model(MODEL).is_dir()
    hub_server.seen.clear()
    again = tunewright("plan", "starter-lora", "--model", MODEL, "--data", str(starter.TRAINING_DATA))
    assert (again.returncode, hub_server.seen) == (0, []), again.stderr
    assert "Still to be fetched" in again.stdout
    missing = tunewright("plan", "starter-lora", "--data", DATA, "--json")
    error = json.loads(missing.stdout)["error"]
    assert (missing.returncode, error["title"]) == (2, "Not here yet")
    assert f"`tunewright fetch {DATA} --dataset`" in error["remedy"] and "KiB" in error["message"]


def test_a_model_on_the_hub_is_planned_by_its_name(home: Path, hub_server: HubServer) -> None:
    ended = tunewright("plan", MODEL, "--data", str(starter.TRAINING_DATA), "--json")
    assert ended.returncode == 0, ended.stdout
    assert [each["name"] for each in json.loads(ended.stdout)["to_fetch"]] == [MODEL]
    assert "model.safetensors" not in wanted(hub_server)


def test_without_a_terminal_nothing_large_is_fetched_unasked(home: Path, hub_server: HubServer) -> None:
    ended = tunewright("train", "starter-lora", "--model", MODEL, "--data", str(starter.TRAINING_DATA))
    assert (ended.returncode, ended.stderr.splitlines()[-3]) == (2, "Not here yet")
    assert f"Add --fetch, or fetch first: `tunewright fetch {MODEL}" in ended.stderr
    assert "steps, about" in ended.stdout, "the plan is shown before anything large is asked for"
    assert "model.safetensors" not in wanted(hub_server)
    status, seen = on_terminal(
        "train", "starter-lora", "--model", MODEL, "--data", str(starter.TRAINING_DATA), typed="n\n"
    )
    assert status == 2 and f"of {MODEL} from 127.0.0.1" in seen and "[y/N]" in seen
    assert "model.safetensors" not in wanted(hub_server)
    assert list_runs() == []


@pytest.mark.slow
def test_a_run_on_a_fetched_model_and_data_set_keeps_to_their_commits(home: Path, hub_server: HubServer) -> None:
    ended = tunewright(
        "train", "starter-lora", "--model", MODEL, "--data", DATA, "--set", "training.steps=2", "--fetch", "--follow"
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    run = list_runs()[0]
    commits = {MODEL: find_weights(MODEL).name, DATA: find_data(DATA)[0].parent.parent.name}
    assert commits_of(run) == commits
    repository = Repository(MODEL, "model")
    repository.refer("main", "c" * 40)  # what main leads to later changes nothing for the run
    recipe = pinned_recipe(run)
    assert (recipe.base.model, recipe.base.revision) == (MODEL, commits[MODEL])
    assert recipe.data.source == f"owner/sets@{commits[DATA]}:orders"
    assert find_weights(recipe.base.model, recipe.base.revision) == repository.snapshot(commits[MODEL])
    assert read_plan(run.plan_file).total_steps == 2
