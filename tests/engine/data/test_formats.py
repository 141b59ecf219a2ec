"""Every line that is no conversation is named with its number and what is wrong with it."""

import json
import os
from pathlib import Path

import pytest
from tunewright.engine.data.formats import read_conversations
from tunewright.foundation.errors import TunewrightError

GOOD = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return path


def test_good_rows_come_with_blank_lines_crlf_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + GOOD.encode() + b"\r", "", "   ", GOOD)
    conversations = read_conversations(path)
    assert conversations.faults == ()
    assert [[turn.role for turn in row] for row in conversations.require_whole()] == [["user", "assistant"]] * 2


def test_malformed_json_on_line_17_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[GOOD] * 16, '{"messages": [', GOOD)
    with pytest.raises(TunewrightError) as caught:
        read_conversations(path).require_whole()
    assert caught.value.title == "Data not readable"
    assert "line 17: not JSON" in caught.value.message
    assert len(read_conversations(path).rows) == 17


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ('{"text": "x"}', "no `messages`; its keys are: text"),
        ('{"messages": []}', "not a list with at least one turn"),
        ('{"messages": "hi"}', "not a list with at least one turn"),
        ('{"messages": ["hi"]}', "turn 1 is not an object"),
        ('{"messages": [{"role": "human", "content": "x"}]}', "turn 1 has the role 'human'"),
        ('{"messages": [{"role": "user", "content": null}]}', "turn 1 has a content that is missing"),
        ('{"messages": [{"role": "user", "content": 5}]}', "turn 1 has a content that is not text"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no turn of the assistant"),
        (b'{"messages": "\xff"}', "not UTF-8 text"),
        ("[" * 100_000, "nested too deeply"),
        ('{"\x1b]0;evil\x07": 1}', "not JSON"),
    ],
)
def test_each_fault_is_told_in_words(tmp_path: Path, line: str | bytes, problem: str) -> None:
    (fault,) = read_conversations(write(tmp_path / "a.jsonl", GOOD, line)).faults
    assert fault.line == 2
    assert problem in fault.problem
    assert "\x1b" not in fault.problem


def test_a_line_without_end_is_cut_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b"x" * (40 * 2**20) + b"\n" + GOOD.encode() + b"\n")
    conversations = read_conversations(path)
    assert [(fault.line, fault.problem) for fault in conversations.faults] == [(1, "longer than 16 MiB")]
    assert len(conversations.rows) == 1


def test_an_empty_file_holds_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(TunewrightError, match="is empty"):
        read_conversations(write(tmp_path / "a.jsonl")).require_whole()


def test_a_folder_and_a_missing_file_are_explained(tmp_path: Path) -> None:
    for path, title in ((tmp_path, "A folder, not a file"), (tmp_path / "none", "File not found")):
        with pytest.raises(TunewrightError) as caught:
            read_conversations(path)
        assert caught.value.title == title


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD)
    path.chmod(0)
    with pytest.raises(TunewrightError, match="No permission"):
        read_conversations(path)


def test_the_limit_stops_reading(tmp_path: Path) -> None:
    assert len(read_conversations(write(tmp_path / "a.jsonl", *[GOOD] * 10), limit=3).rows) == 3
