"""Fixes are written to a new file, and leave nothing of what they mend."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.data.audit import audit
from tunewright.engine.data.findings import CATALOGUE
from tunewright.engine.data.fixes import write_fixed
from tunewright.engine.data.statistics import AuditRequest
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Data

MODEL = "tunewright/starter"
QUESTION = "Where did they put the stone after the rain?"


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [turn("user", question), turn("assistant", answer)]}


GOOD = [
    chat(f"{QUESTION} It rained for {number} days.", f"Into the garden, {number} steps from here.")
    for number in range(5)
]


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def read(path: Path) -> list[Any]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return [json.loads(line) for line in text.splitlines()]


def fix(folder: Path, rows: Sequence[Any], *codes: str, model: str | None = None) -> tuple[list[Any], dict[str, int]]:
    """Return the rows after fixing `codes`, and what was changed; the audit then finds none of them any more."""
    source = write(folder / "rows.jsonl", rows)
    before = source.read_bytes()
    target = folder / "fixed.jsonl"
    report = write_fixed(str(source), Data(source=str(source), max_length=512), codes, target, model)
    assert source.read_bytes() == before
    assert report.rows_read == len(rows)
    fixed = read(target)
    assert report.rows_written == len(fixed)
    if fixed:
        again = audit(AuditRequest(str(target), Data(source=str(target), max_length=512), model, workers=0))
        assert not set(codes) & {each.code for each in again.findings}
    return fixed, report.changed


def test_rows_with_nothing_wrong_stay_as_they_are(tmp_path: Path) -> None:
    codes = [code for code, kind in CATALOGUE.items() if kind.fix and code != "contamination"]
    fixed, changed = fix(tmp_path, GOOD, *codes, model=MODEL)
    assert fixed == GOOD
    assert set(changed.values()) == {0}


def test_rows_with_a_finding_are_dropped(tmp_path: Path) -> None:
    fixed, changed = fix(
        tmp_path, [*GOOD, chat("Is it?", ""), chat("Is it?", "TODO")], "empty_answer", "placeholder_answer"
    )
    assert fixed == GOOD
    assert changed == {"empty_answer": 1, "placeholder_answer": 1}


def test_rows_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [*GOOD, "{", {"messages": []}])
    report = write_fixed(str(source), Data(source=str(source)), ["no_turns"], tmp_path / "fixed.jsonl")
    assert (report.rows_read, report.rows_written, report.changed) == (7, 5, {"no_turns": 1})
    assert [(str(each.place), each.code) for each in report.faults] == [("line 6", "not_json")]
    assert report.to_json()["faults"][0]["place"] == "line 6"


def test_repeats_are_dropped_and_the_first_stays(tmp_path: Path) -> None:
    fixed, changed = fix(tmp_path, [*GOOD, GOOD[2], GOOD[0], GOOD[2]], "duplicates")
    assert fixed == GOOD and changed == {"duplicates": 3}


def test_text_decoded_wrongly_is_mended(tmp_path: Path) -> None:
    fixed, changed = fix(tmp_path, [*GOOD, chat("Where is the cafÃ©?", "The cafÃ© is naÃ¯ve.")], "broken_encoding")
    assert fixed[-1] == chat("Where is the café?", "The café is naïve.")
    assert changed == {"broken_encoding": 1}


def test_control_characters_and_escapes_are_removed(tmp_path: Path) -> None:
    fixed, changed = fix(
        tmp_path, [*GOOD, chat("Why?\x00", "It is \x1b[31mred\x1b[0m,\nand\tstays\x07.")], "control_characters"
    )
    assert fixed[-1] == chat("Why?", "It is red,\nand\tstays.")
    assert changed == {"control_characters": 1}


def test_neighbouring_turns_of_one_role_are_merged(tmp_path: Path) -> None:
    row = {
        "messages": [
            turn("user", "Hello."),
            turn("user", QUESTION),
            turn("assistant", "In."),
            turn("assistant", "Out."),
        ]
    }
    fixed, changed = fix(tmp_path, [*GOOD, row], "roles_out_of_order")
    assert fixed[-1] == chat(f"Hello.\n\n{QUESTION}", "In.\n\nOut.")
    assert changed == {"roles_out_of_order": 1}


def test_what_follows_the_last_answer_is_cut(tmp_path: Path) -> None:
    row = {"messages": [*GOOD[0]["messages"], turn("user", "Thanks!")]}
    fixed, changed = fix(tmp_path, [*GOOD[1:], row], "no_last_answer")
    assert fixed[-1] == GOOD[0] and changed == {"no_last_answer": 1}


def test_secrets_are_redacted_and_addresses_only_when_asked(tmp_path: Path) -> None:
    key = "AKIA" + "QYLPMN5HHHFPZAM2"
    row = chat(f"I am jane.miller@orbitalmail.com, what is {key}?", "It is yours.")
    fixed, changed = fix(tmp_path, [*GOOD, row], "secrets")
    assert fixed[-1]["messages"][0]["content"] == "I am jane.miller@orbitalmail.com, what is [API KEY]?"
    assert changed == {"secrets": 1}
    (tmp_path / "more").mkdir()
    fixed, _ = fix(tmp_path / "more", [*GOOD, row], "secrets", "personal_data")
    assert fixed[-1]["messages"][0]["content"] == "I am [EMAIL], what is [API KEY]?"


def test_secrets_in_the_arguments_of_calls_are_redacted(tmp_path: Path) -> None:
    key = "AKIA" + "QYLPMN5HHHFPZAM2"
    call = {"type": "function", "function": {"name": "sign_in", "arguments": {"keys": [key]}}}
    tool = {"type": "function", "function": {"name": "sign_in", "parameters": {"type": "object", "properties": {}}}}
    row = {"messages": [turn("user", "Sign in."), turn("assistant", "", tool_calls=[call])], "tools": [tool]}
    fixed, _ = fix(tmp_path, [row], "secrets")
    assert fixed[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"keys": ["[API KEY]"]}
    assert fixed[0]["tools"] == [tool]


def test_a_begin_token_at_the_start_is_removed(tmp_path: Path) -> None:
    fixed, changed = fix(tmp_path, [*GOOD, chat(f"<|begin|>{QUESTION}", "In the garden.")], "bos_doubled", model=MODEL)
    assert fixed[-1] == chat(QUESTION, "In the garden.") and changed == {"bos_doubled": 1}


def test_rows_in_which_nothing_is_trained_are_dropped_with_the_models_tokenizer(tmp_path: Path) -> None:
    long = chat("stone garden " * 600, "Yes, it is.")
    fixed, changed = fix(tmp_path, [*GOOD, long], "row_not_trained", model=MODEL)
    assert fixed == GOOD and changed == {"row_not_trained": 1}


def test_rows_that_the_template_refuses_are_dropped(tmp_path: Path) -> None:
    row = {"messages": [*GOOD[0]["messages"], turn("tool", "12 degrees"), turn("assistant", "It is mild.")]}
    fixed, changed = fix(tmp_path, [*GOOD, row], "template_refused", model=MODEL)
    assert fixed == GOOD and changed == {"template_refused": 1}


@pytest.mark.parametrize("code", ["few_rows", "contamination", "no_such_code"])
def test_what_cannot_be_mended_is_refused(tmp_path: Path, code: str) -> None:
    source = write(tmp_path / "rows.jsonl", GOOD)
    with pytest.raises(TunewrightError, match=code):
        write_fixed(str(source), Data(source=str(source)), [code], tmp_path / "fixed.jsonl")
    assert not (tmp_path / "fixed.jsonl").exists()


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", GOOD)
    target = write(tmp_path / "target.jsonl", ["{}"])
    for path in (target, source):
        before = path.read_bytes()
        with pytest.raises(TunewrightError, match="there already"):
            write_fixed(str(source), Data(source=str(source)), (), path)
        assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.jsonl", "target.jsonl"]


def test_a_target_may_be_compressed(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", GOOD)
    target = tmp_path / "rows.fixed.jsonl.gz"
    assert write_fixed(str(source), Data(source=str(source)), (), target).rows_written == 5
    assert read(target) == GOOD


SYSTEM = turn("system", "Be brief.")
USER = turn("user", QUESTION)
ANSWER = turn("assistant", "In the garden.")


@pytest.mark.parametrize(
    ("row", "plain"),
    [
        ({"text": "They left it there."}, {"text": "They left it there."}),
        (
            {"instruction": QUESTION, "input": "", "output": "In the garden."},
            {"prompt": [USER], "completion": [ANSWER]},
        ),
        (
            {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": QUESTION}, {"from": "gpt", "value": "In the garden."}]},
            {"messages": [SYSTEM, USER, ANSWER]},
        ),
        (
            {"prompt": QUESTION, "chosen": "In the garden.", "rejected": "No idea."},
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [turn("assistant", "No idea.")]},
        ),
        (
            {"prompt": QUESTION, "completion": "In the garden.", "label": False},
            {"prompt": [USER], "completion": [ANSWER], "label": False},
        ),
        (
            {"messages": [USER, turn("assistant", "Hm.", weight=0), USER, turn("assistant", "In.", reasoning_content="It is wet.")]},
            {"messages": [USER, turn("assistant", "Hm.", weight=0), USER, turn("assistant", "In.", thinking="It is wet.")]},
        ),
    ],
    ids=["text", "alpaca", "sharegpt", "preference", "kto", "messages"],
)  # fmt: skip
def test_every_format_is_written_plainly_and_reads_the_same(
    tmp_path: Path, row: dict[str, Any], plain: dict[str, Any]
) -> None:
    source = write(tmp_path / "rows.jsonl", [row])
    target = tmp_path / "plain.jsonl"
    assert write_fixed(str(source), Data(source=str(source)), (), target).rows_written == 1
    assert read(target) == [plain]
    write_fixed(str(target), Data(source=str(target)), (), tmp_path / "again.jsonl")
    assert read(tmp_path / "again.jsonl") == [plain]
