"""`tunewright recipes`: what people see, what programs read, and how a mistake is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewright.__main__ import main
from tunewright.cli.recipe_argument import change_recipe
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import parse_recipe
from tunewright.recipes.registry import open_registry


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")


def test_list_is_an_aligned_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "METHOD", "MODEL", "TITLE"]
    assert [row.split()[0] for row in rows] == ["starter-dpo", "starter-full", "starter-lora", "starter-qlora"]
    column = header.index("TITLE")
    assert all(row[column - 1] == " " and row[column] != " " for row in rows)


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_list_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with open_registry() as registry:
        text = registry.get("starter-lora").toml.replace('tunewright/starter"', f'owner/{"long" * 20}"')
        registry.add(text, "a-rather-long-name-for-a-recipe")
    assert main(["recipes", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert all("Starter: " in line for line in lines[1:])


def test_list_searches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list", "--search", "4-bit", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["recipes"]
    assert found["name"] == "starter-qlora"
    assert found.keys() == {"name", "title", "summary", "method", "model", "data", "tags", "origin", "hash"}
    assert main(["recipes", "list", "--search", "zzz\x1b[31m"]) == 0
    assert capsys.readouterr().out == "No recipe matches 'zzz'. `tunewright recipes list` shows them all.\n"


def test_show_prints_the_text_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "starter-lora"]) == 0
    shown = capsys.readouterr().out
    with open_registry() as registry:
        entry = registry.get("starter-lora")
    assert shown.startswith(f"# starter-lora (built-in)\n# hash {entry.hash}\n")
    assert shown.endswith(entry.toml)
    assert parse_recipe(shown, "what was shown") == entry.recipe


def test_show_gives_programs_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "starter-qlora", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == {"name", "hash", "origin", "recipe"}
    assert shown["recipe"]["method"]["quantisation"] == "nf4"


def test_show_checks_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_registry() as registry:
        entry = registry.get("starter-full")
    path = tmp_path / "mine.toml"
    path.write_text(f"\ufeff# \x9b31mred\n{entry.toml}", encoding="utf-8")
    assert main(["recipes", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"# mine ({path})\n# hash {entry.hash}\n" in shown
    assert "\x9b" not in shown
    assert main(["recipes", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] == entry.hash


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "starter-lorra"]) == 2
    assert "Did you mean starter-lora?" in capsys.readouterr().err
    assert main(["recipes", "show", "nowhere.toml", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["title"] == "File not found"
    (tmp_path / "bad.toml").write_text("[base]\nmodl = 'x'\n", encoding="utf-8")
    assert main(["recipes", "show", str(tmp_path / "bad.toml")]) == 2
    assert "line 2: base.modl is not a known key; did you mean model?" in capsys.readouterr().err
    assert main(["recipes"]) == 2


def test_a_section_is_set_as_a_whole() -> None:
    with open_registry() as registry:
        recipe = registry.get("starter-lora").recipe
    assert change_recipe(recipe, ['method={"kind": "full"}']).method.kind == "full"
    for wrong in ("method", "nothing=1", '={"kind": "full"}', "method=full"):
        with pytest.raises(TunewrightError):
            change_recipe(recipe, [wrong])
