"""`tunewright recipes publish` and `pull`: what people see before anything leaves, and what programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewright.__main__ import main
from tunewright.recipes.registry import open_registry


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    at_home(tmp_path, monkeypatch, "ours")


def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / name))


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_road_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    team = tmp_path / "team"
    made = run_json(capsys, "recipes", "fork", "starter-lora", "mine", "--set", "method.rank=8")
    shown = run_json(capsys, "recipes", "publish", "mine", str(team), "--dry-run")
    assert set(shown["contents"]) == {"recipe.toml", "evidence.json", "README.md", "tunewright.json"}
    assert not team.exists()
    assert main(["recipes", "publish", "mine", str(team)]) == 2
    assert "--yes" in capsys.readouterr().err
    sent = run_json(capsys, "recipes", "publish", "mine", str(team), "--yes")
    for name, content in shown["contents"].items():
        assert (team / "mine" / name).read_text(encoding="utf-8") == content
    assert run_json(capsys, "recipes", "publish", "mine", str(team), "--yes")["unchanged"]

    at_home(tmp_path, monkeypatch, "theirs")
    assert run_json(capsys, "recipes", "pull", str(team / "mine"), "--dry-run")["kept"] is False
    assert main(["recipes", "pull", str(team)]) == 2
    assert "recipes in mine" in capsys.readouterr().err
    pulled = run_json(capsys, "recipes", "pull", str(team / "mine"))
    assert (pulled["name"], pulled["hash"], pulled["commit"]) == ("team/mine", made["hash"], sent["commit"])
    assert pulled["accepted"] is False
    assert main(["plan", "team/mine"]) == 2
    assert "recipes accept team/mine" in capsys.readouterr().err
    assert main(["recipes", "show", "team/mine"]) == 0
    assert "A stranger's: read it" in capsys.readouterr().out
    assert run_json(capsys, "recipes", "accept", "team/mine")["accepted"]
    assert main(["recipes", "pull", "team/mine"]) == 0
    assert "A stranger's" not in capsys.readouterr().out


def test_every_byte_is_shown_without_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_registry() as registry:
        registry.add(registry.get("starter-lora").toml, "mine")
    assert main(["recipes", "publish", "mine", str(tmp_path / "team"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "──── recipe.toml" in shown and "# Twice the rank" in shown and "which is new" in shown
    assert not any(ord(each) < 32 and each != "\n" for each in shown)


def test_what_changed_on_the_other_side_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    team = str(tmp_path / "team")
    run_json(capsys, "recipes", "fork", "starter-lora", "mine")
    run_json(capsys, "recipes", "publish", "mine", team, "--yes")
    at_home(tmp_path, monkeypatch, "theirs")
    run_json(capsys, "recipes", "pull", f"{team}/mine")
    at_home(tmp_path, monkeypatch, "ours")
    with open_registry() as registry:
        registry.add(registry.get("mine").toml.replace("rank = 16", "rank = 4"), "mine", origin="fork")
    run_json(capsys, "recipes", "publish", "mine", team, "--yes")
    at_home(tmp_path, monkeypatch, "theirs")
    assert main(["recipes", "pull", "team/mine"]) == 0
    shown = capsys.readouterr().out
    assert "-rank = 16" in shown and "+rank = 4" in shown


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["pull"], "What to pull?"),
        (["pull", "nowhere"], "Place not understood"),
        (["pull", "/nowhere/at/all"], "Nothing there"),
        (["publish", "starter-lora", "nowhere"], "Place not understood"),
        (["publish", "nothing-like-it", "./x"], "Unknown recipe"),
    ):
        assert main(["recipes", *arguments]) == 2
        assert said in capsys.readouterr().err
