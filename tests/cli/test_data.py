"""`tunewright data`: every verb on real files, for people and as JSON."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tunewright.cli.parser import run

MODEL = "tunewright/starter"


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"How many pages has volume {number}?"},
                {"role": "assistant", "content": f"Volume {number} has {17 * number} pages."},
            ],
            "shelf": f"shelf {number % 5}",
        }
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> dict[str, Any]:
    assert run([*map(str, words), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_inspect_tells_what_a_file_is(talks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "data", "inspect", talks)
    assert (found["format"], found["rows"], found["columns"]) == ("messages", 40, ["messages", "shelf"])
    assert found["confidence"] > 0.9
    assert run(["data", "inspect", str(talks)]) == 0
    text = capsys.readouterr().out
    assert "messages" in text
    assert "How many pages has volume 0?" in text


def test_a_format_and_columns_are_named_in_one_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("Frage,Antwort\n" + "".join(f"Was ist {n} mal zwei?,Das ist {2 * n}.\n" for n in range(20)))
    columns = ("--column", "prompt=Frage", "--column", "completion=Antwort")
    found = answer(capsys, "data", "inspect", path, "--format", "prompt-completion", *columns)
    assert found["mapping"] == {"prompt": "Frage", "completion": "Antwort"}
    assert found["samples"][0]["turns"] == [
        {"role": "user", "text": "Was ist 0 mal zwei?"},
        {"role": "assistant", "text": "Das ist 0."},
    ]


def test_audit_prints_what_outside_checks_read(talks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "data", "audit", talks, "--model", MODEL)
    assert found["rows"] == 40
    assert 0 < found["supervised_share"] < 1
    assert found["tokens"]["total"] > 0
    assert all({"code", "severity", "count", "examples", "remedy"} <= set(each) for each in found["findings"])


def test_audit_names_the_bad_row_and_strict_fails_for_it(talks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with talks.open("a") as file:
        file.write('{"messages": [{"role": "user", "content": null}]}\n')
    found = answer(capsys, "data", "audit", talks, "--strict", status=1)
    [bad] = [each for each in found["findings"] if each["severity"] == "error"]
    assert (bad["code"], bad["count"], bad["examples"][0]["place"]) == ("missing_field", 1, "line 41")
    assert run(["data", "audit", str(talks)]) == 0
    text = capsys.readouterr().out
    assert "missing_field" in text
    assert "--fix missing_field" in text


def test_preview_marks_what_is_trained(talks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "data", "preview", talks, "--model", MODEL, "--row", 4, "--count", 2)
    assert [each["row"] for each in found["rows"]] == [4, 5]
    trained = "".join(each["text"] for each in found["rows"][0]["pieces"] if each["trained"])
    assert trained.startswith("Volume 3 has 51 pages.")
    assert run(["data", "preview", str(talks), "--model", MODEL, "--search", "volume 7?"]) == 0
    assert "⟦Volume 7 has 119 pages." in capsys.readouterr().out
    assert answer(capsys, "data", "preview", talks, "--row", 99, status=2)["error"]["title"] == "No such row"


def test_convert_mends_into_a_new_file_and_overwrites_nothing(
    talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = talks.read_bytes()
    with talks.open("ab") as file:
        file.write(b"not json\n" + before.splitlines()[0] + b"\n")
    out = tmp_path / "mended.jsonl.gz"
    fixes = ("--fix", "not_json", "--fix", "duplicates")
    found = answer(capsys, "data", "convert", talks, *fixes, "--out", out)
    assert (found["rows_read"], found["rows_written"]) == (42, 40)
    assert found["changed"] == {"not_json": 1, "duplicates": 1}
    assert len(gzip.decompress(out.read_bytes()).splitlines()) == 40
    assert answer(capsys, "data", "convert", talks, "--out", out, status=2)["error"]["title"] == "File exists"
    assert (
        answer(capsys, "data", "convert", talks, "--fix", "not_jsn", status=2)["error"]["remedy"]
        == "Did you mean not_json?"
    )


def test_split_keeps_groups_whole_and_the_source_as_it_is(talks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = talks.read_bytes()
    found = answer(capsys, "data", "split", talks, "--fraction", 0.2, "--key", "shelf")
    assert (found["training_rows"], found["validation_rows"], found["groups"]) == (32, 8, 5)
    shelves = [
        {json.loads(line)["shelf"] for line in Path(found[side]).read_text().splitlines()}
        for side in ("training", "validation")
    ]
    assert not shelves[0] & shelves[1]
    assert talks.read_bytes() == before
    assert answer(capsys, "data", "split", talks, status=2)["error"]["title"] == "File exists"


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (("inspect", "/nowhere.jsonl"), "Data not found"),
        (("inspect", "x", "--column", "prompt"), "Argument not understood"),
        (("audit", "x", "--set", "sytem=user"), "Not a valid value"),
        (("audit", "x", "--loss-on", "robot"), "Not a valid value"),
        (("split", "x", "--fraction", "0.9"), "Not a valid value"),
        (("preview", "x", "--count", "0"), "Count out of range"),
    ],
)
def test_mistakes_are_explained(words: tuple[str, ...], title: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "data", *words, status=2)["error"]["title"] == title
