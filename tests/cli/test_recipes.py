"""`tunewright recipes`: what people see, what programs read, and how a mistake is told."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewright.__main__ import main
from tunewright.cli.recipe_argument import change_recipe
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.catalogue import built_in
from tunewright.recipes.model import parse_recipe
from tunewright.recipes.registry import open_registry


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")


def test_list_is_an_aligned_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "EVIDENCE", "METHOD", "MODEL", "TITLE"]
    assert sorted(row.split()[0] for row in rows) == sorted(built_in())
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
    assert all("Starter: " in line for line in lines if "starter-" in line or "a-rather-long" in line)


def test_list_searches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list", "--search", "4-bit", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["recipes"]
    assert found["name"] == "starter-qlora"
    assert {"name", "title", "summary", "method", "model", "data", "tags", "origin", "hash", "evidence"} <= found.keys()
    assert main(["recipes", "list", "--search", "zzz\x1b[31m"]) == 0
    assert capsys.readouterr().out == "No recipe matches 'zzz'. `tunewright recipes list` shows them all.\n"


def test_show_prints_the_text_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "starter-lora", "--toml"]) == 0
    shown = capsys.readouterr().out
    with open_registry() as registry:
        entry = registry.get("starter-lora")
    assert shown.startswith(f"# starter-lora (built-in)\n# hash {entry.hash}\n")
    assert shown.endswith(entry.toml)
    assert parse_recipe(shown, "what was shown") == entry.recipe


def test_show_gives_programs_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "starter-qlora", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {"name", "hash", "origin", "recipe", "toml", "fields", "parents", "evidence"} <= shown.keys()
    assert parse_recipe(shown["toml"], "what was shown").hash() == shown["hash"]
    assert shown["recipe"]["method"]["quantisation"] == "nf4"


def test_show_checks_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_registry() as registry:
        entry = registry.get("starter-full")
    path = tmp_path / "mine.toml"
    path.write_text(f"\ufeff# \x9b31mred\n{entry.toml}", encoding="utf-8")
    assert main(["recipes", "show", str(path), "--toml"]) == 0
    shown = capsys.readouterr().out
    assert f"# mine ({path})\n# hash {entry.hash}\n" in shown
    assert "\x9b" not in shown
    assert main(["recipes", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] == entry.hash


def test_reading_fits_the_terminal_and_says_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "starter-lora"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  alpha = 32   (default 16)" in lines
    assert "  rank = 16   (as the default)" in lines
    assert "      here: Twice the rank, so that the adapters' output counts double." in lines
    assert max(len(line) for line in lines if not line.startswith(("from", "         "))) <= 80


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_fork_keeps_comments_and_lineage(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(
        capsys, "recipes", "fork", "starter-lora", "mine", "--set", "method.rank=8", "--set", "training.steps=9"
    )
    assert made["parent"]["name"] == "starter-lora"
    assert made["changed"] == ["method.rank", "training.epochs", "training.steps"]
    shown = run_json(capsys, "recipes", "show", "mine")
    assert shown["parents"] == [{"hash": made["parent"]["hash"], "kind": "fork", "name": "starter-lora"}]
    assert "# The task is narrow" in shown["toml"]
    (edition,) = run_json(capsys, "recipes", "history", "mine")["editions"]
    assert (edition["note"], edition["current"]) == (
        "Forked from starter-lora: method.rank = 8, training.steps = 9", True
    )  # fmt: skip
    assert main(["recipes", "fork", "starter-lora", "mine"]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_a_difference_is_told_with_its_price(capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "recipes", "diff", "starter-lora", "starter-full")
    assert not told["same_meaning"]
    assert told["differences"][0]["path"] == "method.kind"
    assert told["predicted"]["after"]["peak_gib"] > 0
    assert main(["recipes", "diff", "starter-lora", "starter-qlora"]) == 0
    shown = capsys.readouterr().out
    assert "method.kind: lora → qlora" in shown and "Predicted on this machine" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["recipes", "diff", "starter-lora", "starter-lora"]) == 0
    assert capsys.readouterr().out == "starter-lora → starter-lora: the same.\n"


EDITOR = """
import sys
path = sys.argv[-1]
text = open(path).read()
open(path, "w").write(text.replace(*sys.argv[1:3]))
"""


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Sets an editor that puts one text in the place of another."""
    script = tmp_path / "editor.py"
    script.write_text(EDITOR, encoding="utf-8")

    def replace(before: str, after: str) -> None:
        monkeypatch.setenv("VISUAL", shlex.join([sys.executable, str(script), before, after]))

    return replace


def test_editing_keeps_what_is_valid(
    capsys: pytest.CaptureFixture[str], editor: Callable[[str, str], None], tmp_path: Path
) -> None:
    run_json(capsys, "recipes", "fork", "starter-lora", "mine")
    editor("rank = 16", "rank = 4")
    kept = run_json(capsys, "recipes", "edit", "mine", "--note", "smaller")
    assert (kept["changed"], kept["kept"]) == (["method.rank"], True)
    notes = [each["note"] for each in run_json(capsys, "recipes", "history", "mine")["editions"]]
    assert notes == ["smaller", "Forked from starter-lora"]
    editor("no such words", "others")
    assert run_json(capsys, "recipes", "edit", "mine")["kept"] is False


def test_an_edit_that_is_not_valid_is_kept_as_a_draft(
    capsys: pytest.CaptureFixture[str], editor: Callable[[str, str], None], tmp_path: Path
) -> None:
    before = run_json(capsys, "recipes", "fork", "starter-lora", "mine")["hash"]
    editor("rank = 16", "rank = 'many'")
    assert main(["recipes", "edit", "mine"]) == 2
    told = capsys.readouterr().err
    draft = tmp_path / "home" / "drafts" / "mine.toml"
    assert str(draft) in told and "method.rank" in told
    assert "rank = 'many'" in draft.read_text(encoding="utf-8")
    assert run_json(capsys, "recipes", "show", "mine")["hash"] == before
    editor("rank = 'many'", "rank = 4")
    assert run_json(capsys, "recipes", "edit", "mine")["changed"] == ["method.rank"]
    assert not draft.exists()


def test_what_is_not_ones_own_is_not_edited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "edit", "starter-lora"]) == 2
    assert "recipes fork starter-lora my-starter-lora" in capsys.readouterr().err


def test_aliases_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "recipes", "fork", "starter-lora", "mine")
    assert run_json(capsys, "recipes", "alias", "best", "mine")["hash"] == made["hash"]
    assert run_json(capsys, "recipes", "show", "best")["aliases"] == ["best"]
    run_json(capsys, "recipes", "note", "mine", "tried on\x1b[31m Monday")
    (edition,) = run_json(capsys, "recipes", "history", "best")["editions"]
    assert edition["note"] == "tried on Monday"


def test_what_was_removed_is_no_longer_listed_and_can_be_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "recipes", "fork", "starter-lora", "mine", "--note", "the first")
    assert run_json(capsys, "recipes", "remove", "mine") == {"name": "mine", "hash": made["hash"], "listed": False}
    for words in (["list"], ["search"], ["search", "mine"], ["search", "--origin", "fork"]):
        assert "mine" not in [each["name"] for each in run_json(capsys, "recipes", *words)["recipes"]], words
    assert run_json(capsys, "recipes", "show", "mine")["hash"] == made["hash"]
    run_json(capsys, "recipes", "remove", "--undo", "mine")
    assert [each["name"] for each in run_json(capsys, "recipes", "search", "mine")["recipes"]] == ["mine"]
    run_json(capsys, "recipes", "remove", "mine")
    again = run_json(capsys, "recipes", "fork", "starter-lora", "mine", "--set", "method.rank=4")
    editions = run_json(capsys, "recipes", "history", "mine")["editions"]
    assert [each["hash"] for each in editions] == [again["hash"], made["hash"]]
    assert main(["recipes", "remove", "starter-lora"]) == 2
    assert "built in" in capsys.readouterr().err


def test_search_narrows(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "recipes", "search", "starter", "--method", "qlora", "--task", "starter", "--fits")
    assert [each["name"] for each in found["recipes"]] == ["starter-qlora"]
    assert "GiB" in found["recipes"][0]["fit"]
    assert run_json(capsys, "recipes", "search", "starter", "--size", "70b")["total"] == 0
    one = run_json(capsys, "recipes", "search", "--limit", "1")
    assert (len(one["recipes"]), one["total"] >= 4) == (1, True)
    for wrong in (["--size", "huge"], ["--limit", "0"], ["--method", "magic"]):
        assert main(["recipes", "search", *wrong]) == 2


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


def test_without_a_verb_the_library_wants_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 2
    assert "needs a terminal" in capsys.readouterr().err
