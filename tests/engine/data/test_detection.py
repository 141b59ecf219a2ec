"""A format is told from what the rows hold, with the evidence, and a file is never taken for what it is not."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewright.engine.data.detection import MOST_COLUMNS, Detection, detect, shape_of
from tunewright.engine.data.examples import Example, Fault, Place, Record
from tunewright.engine.data.formats import convert
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import FORMATS, Data

USER, ANSWER = {"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}
HUMAN, GPT = {"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}
CHAT: dict[str, Any] = {"messages": [USER, ANSWER]}
SHARED: dict[str, Any] = {"conversations": [HUMAN, GPT]}
INSTRUCTION: dict[str, Any] = {"instruction": "How?", "input": "", "output": "So."}


def records(*rows: dict[str, Any]) -> list[Record | Fault]:
    return [Record(Place(number), row) for number, row in enumerate(rows, start=1)]


def format_of(*rows: dict[str, Any]) -> str | None:
    shape = detect(records(*rows)).shape
    return None if shape is None else shape.format


def told(detection: Detection, words: str) -> bool:
    return any(words in sentence for sentence in detection.evidence)


def test_the_evidence_gives_columns_values_and_figures() -> None:
    detection = detect(records(*[SHARED] * 998, {"conversations": None}, {"conversations": "?"}))
    assert detection.shape is not None
    assert (detection.shape.format, detection.shape.columns) == ("sharegpt", (("messages", "conversations"),))
    assert detection.confidence == 0.998
    assert told(detection, "`conversations` holds lists of objects with from and value in 998 of 1,000 rows.")
    assert told(detection, "998 of 1,000 rows convert.")
    assert told(detection, "Line 999 does not: `conversations` is null.")


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({**SHARED, "instruction": "How?", "input": "", "output": "So."}, "sharegpt"),
        ({**SHARED, "text": "How? So."}, "sharegpt"),
        ({**CHAT, "prompt": "How?", "prompt_id": "x"}, "messages"),
        ({**CHAT, "prompt": "How?", "completion": "So."}, "messages"),
        ({**CHAT, "label": 1}, "messages"),
        ({**CHAT, "prompt": "How?", "chosen": "So.", "rejected": "No."}, "preference"),
        ({**INSTRUCTION, "text": "all of it"}, "alpaca"),
        ({**INSTRUCTION, "conversations": None}, "alpaca"),
        ({"prompt": "a", "completion": "b", "label": True}, "kto"),
        ({"prompt": "a", "completion": "b", "label": "positive"}, "prompt-completion"),
        ({"prompt": "a", "response": "b", "text": "c"}, "prompt-completion"),
        ({"question": "a", "context": "b", "answer": "c"}, "alpaca"),
        ({"text": "a", "label": 1}, "text"),
        ({"content": "a", "title": "b"}, "text"),
        ({**CHAT, "tools": None}, "messages"),
        ({**CHAT, "tools": "[]"}, "messages"),
        ({**CHAT, "tools": [{"name": "f"}]}, "tools"),
        ({**SHARED, "tools": '[{"name": "f"}]'}, "tools"),
        ({"prompt": "a"}, None),
        ({"role": "user", "content": "a"}, None),
        ({"from": "human", "value": "a"}, None),
        ({"tweet": "a", "likes": 3}, None),
    ],
)
def test_the_most_specific_format_is_taken(row: dict[str, Any], format: str | None) -> None:
    assert format_of(row, row) == format


def test_sharegpt_and_alpaca_are_never_taken_for_each_other() -> None:
    assert format_of(*[SHARED] * 3, *[INSTRUCTION] * 2) == "sharegpt"
    assert format_of(*[SHARED] * 2, *[INSTRUCTION] * 3) == "alpaca"
    assert format_of({**SHARED, "instruction": "x", "output": ""}) == "sharegpt"
    assert format_of({**INSTRUCTION, "conversations": []}) == "alpaca"


def test_one_row_with_tools_makes_the_file_one_of_tools() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    detection = detect(records(*[CHAT] * 99, {"messages": [USER, call]}))
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence) == ("tools", 1.0)
    assert told(detection, "1 of 100 rows declare or call tools.")


def test_rows_of_other_formats_are_counted_by_format() -> None:
    detection = detect(records(*[CHAT] * 90, *[SHARED] * 6, *[INSTRUCTION] * 3, {"messages": [HUMAN, GPT]}))
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence) == ("messages", 0.9)
    assert detection.others == {"sharegpt": 7, "alpaca": 3}
    assert told(detection, "7 rows are of the format sharegpt.")


def test_rows_that_are_only_incomplete_are_not_counted_as_others() -> None:
    rows = [{"prompt": "a", "completion": "b", "label": True}] * 8
    detection = detect(
        records(*rows, {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b", "label": 7})
    )
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence, detection.others) == ("kto", 0.8, {})


def test_columns_of_two_formats_in_the_same_rows_lower_the_confidence() -> None:
    detection = detect(records(*[{**CHAT, "prompt": "How?", "completion": "So."}] * 10))
    assert detection.confidence == pytest.approx(0.9)
    assert told(detection, "`prompt` alone would speak for prompt-completion; messages is more specific.")


def test_optional_columns_are_found_though_most_rows_have_none() -> None:
    rows = [{"instruction": "a", "output": "b", "input": None, "system": None}] * 9
    shape = detect(records(*rows, {"instruction": "a", "output": "b", "input": "c", "system": "s"})).shape
    assert shape is not None
    assert dict(shape.columns) == {
        "instruction": "instruction",
        "input": "input",
        "output": "output",
        "system": "system",
    }


@pytest.mark.parametrize(
    ("row", "format", "code"),
    [
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "messages", "missing_field"),
        ({"messages": []}, "messages", "no_turns"),
        ({"messages": None}, "messages", "missing_field"),
        ({"messages": ["a", "b"]}, "messages", "bad_turn"),
        ({"conversations": "a"}, "sharegpt", "bad_turn"),
        ({"instruction": "a", "output": 5}, "alpaca", "not_text"),
        ({"prompt": 1, "completion": 2}, "prompt-completion", "not_text"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "preference", "missing_field"),
        ({"text": 5}, "text", "not_text"),
    ],
)
def test_a_file_wholly_at_fault_still_has_its_format(row: dict[str, Any], format: str, code: str) -> None:
    detection = detect(records(row, row))
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence) == (format, 0.0)
    fault = convert(Record(Place(1), row), detection.shape)
    assert isinstance(fault, Fault)
    assert fault.code == code


def test_turns_in_json_text_are_detected_and_said() -> None:
    detection = detect(records({"messages": json.dumps([USER, ANSWER])}))
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence) == ("messages", 1.0)
    assert told(detection, "`messages` holds its turns as JSON text, which is read.")


def test_labels_of_0_and_1_and_rendered_texts_are_said() -> None:
    assert told(detect(records({"prompt": "a", "completion": "b", "label": 1})), "`label` is read as true or false.")
    rendered = {"text": "<|im_start|>user\nHow?<|im_end|>"}
    assert told(detect(records(rendered)), "1 of 1 rows hold control words of a chat template")


def test_an_unknown_file_says_what_its_columns_hold() -> None:
    detection = detect(records(*[{"tweet": "four", "thread": [USER, ANSWER], "likes": 3, "none": None}] * 3))
    assert (detection.shape, detection.confidence, detection.others) == (None, 0.0, {})
    assert detection.columns == ("tweet", "thread", "likes", "none")
    assert told(detection, "`tweet` holds text in 3 of 3 rows, 4 characters on average.")
    assert told(detection, "`thread` holds lists of objects with role and content in 3 of 3 rows")
    assert told(detection, "`likes` holds numbers in 3 of 3 rows.")
    assert told(detection, "`none` is null in 3 of 3 rows.")


def test_single_turns_a_row_are_explained_and_not_read_as_text() -> None:
    detection = detect(records(USER, ANSWER))
    assert detection.shape is None
    assert told(detection, "Each row is a single turn")


def test_columns_come_most_frequent_first_clean_and_not_without_end() -> None:
    rows = [{"\x1b[31mtext": "a", "b": "b"}, {"b": "b"}, {f"c{number}": "" for number in range(300)}]
    columns = detect(records(*rows)).columns
    assert columns[:2] == ("b", "text")
    assert len(columns) == MOST_COLUMNS


def test_mapped_columns_make_an_unknown_file_known() -> None:
    rows = records(*[{"q": "How?", "a": "So.", "rating": 3}] * 3)
    assert detect(rows).shape is None
    detection = detect(rows, columns={"prompt": "q", "completion": "a"})
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence) == ("prompt-completion", 1.0)
    assert dict(detection.shape.columns) == {"prompt": "q", "completion": "a"}


def test_mapped_columns_go_before_those_of_the_same_name() -> None:
    rows = records(*[{"prompt": "generic", "question": "How?", "completion": "So."}] * 3)
    shape = detect(rows, columns={"prompt": "question"}).shape
    assert shape is not None
    example = convert(Record(Place(1), {"prompt": "generic", "question": "How?", "completion": "So."}), shape)
    assert isinstance(example, Example)
    assert example.messages[0].content == "How?"


def test_a_named_format_is_taken_over_what_the_rows_speak_for() -> None:
    detection = detect(records(*[{**INSTRUCTION, "text": "all"}] * 3), "text")
    assert detection.shape is not None
    assert (detection.shape.format, detection.shape.columns, detection.confidence) == ("text", (("text", "text"),), 1.0)


def test_a_named_format_that_the_rows_are_not_of_is_told_by_its_faults() -> None:
    detection = detect(records(*[SHARED] * 3), "messages")
    assert detection.shape is not None
    assert (detection.shape.format, detection.confidence, detection.others) == ("messages", 0.0, {"sharegpt": 3})
    assert told(detection, "that is sharegpt, not messages")


def test_a_mapped_column_that_is_not_there_is_told() -> None:
    detection = detect(records(*[{"q": "a", "answer": "b"}] * 2), "prompt-completion", {"prompt": "qq"})
    assert detection.confidence == 0.0
    assert told(detection, "`qq`, the prompt, is in no row.")


def test_other_words_for_a_field_may_be_mapped_too() -> None:
    shape = detect(records({"q": "a", "a": "b"}), "alpaca", {"instruction": "q", "response": "a"}).shape
    assert shape is not None
    assert dict(shape.columns) == {"instruction": "q", "output": "a"}


def test_rows_that_could_not_be_read_are_counted_and_none_at_all_is_said() -> None:
    fault = Fault(Place(2), "not_json", "not JSON")
    assert told(detect([*records(CHAT), fault]), "1 row is not readable.")
    for rows in ([], [fault]):
        detection = detect(rows)
        assert detection.shape is None
        assert told(detection, "no rows")
        assert detect(rows, "alpaca").shape is not None


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_is_detected_with_the_recipes_overrides(tmp_path: Path) -> None:
    from tunewright.engine.data.reading import open_source

    name = write(tmp_path / "a.jsonl", *[{"q": "How?", "a": "So."}] * 20)
    source = open_source(name)
    assert shape_of(source, Data(source=name)).shape is None
    detection = shape_of(source, Data(source=name, columns={"prompt": "q", "completion": "a"}))
    assert detection.shape is not None
    assert detection.shape.format == "prompt-completion"


def test_a_mapped_field_that_there_is_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    from tunewright.engine.data.reading import open_source

    name = write(tmp_path / "a.jsonl", {"q": "How?", "a": "So."})
    with pytest.raises(TunewrightError, match="Did you mean completion") as caught:
        shape_of(open_source(name), Data(source=name, format="prompt-completion", columns={"compltion": "a"}))
    assert caught.value.title == "Unknown field"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda each: st.lists(each, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "messages"]) | st.text(max_size=3), each, max_size=3),
    max_leaves=10,
)  # fmt: skip
NAMES = st.sampled_from(["messages", "conversations", "prompt", "completion", "text", "chosen", "rejected", "label", "tools",
                         "instruction", "output", "query", "answers", "input", "system"])  # fmt: skip
ROWS = st.dictionaries(NAMES | st.text(max_size=5), VALUES | VALUES.map(json.dumps), max_size=6)


@given(
    st.lists(ROWS, max_size=8),
    st.sampled_from(["auto", "nonsense", *FORMATS]),
    st.dictionaries(NAMES, NAMES, max_size=2),
)
@settings(max_examples=300, deadline=None)
def test_no_rows_whatever_make_detection_raise(
    rows: list[dict[str, Any]], format: str, columns: dict[str, str]
) -> None:
    detection = detect(records(*rows), format, columns)
    assert 0 <= detection.confidence <= 1
    assert detection.evidence
    assert all("\x1b" not in sentence and "\n" not in sentence for sentence in detection.evidence)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER] * 3},
        {"conversations": [HUMAN, GPT] * 3, "tools": '[{"name": "f"}]'},
        {"prompt": "a" * 500, "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No."}]},
        {f"column {number}": "text" * 20 for number in range(40)},
    ],
)
def test_a_thousand_rows_are_detected_within_a_tenth_of_a_second(row: dict[str, Any]) -> None:
    sample = records(*[dict(row) for _ in range(1000)])
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        detect(sample)
        best = min(best, time.process_time() - start)
    assert best <= 0.1
