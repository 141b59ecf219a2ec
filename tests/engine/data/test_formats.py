"""Every published way of writing a row is read into one shape, and every row that cannot be is named with the reason."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewright.engine.data.detection import detect
from tunewright.engine.data.examples import ROLES, Example, Fault, Message, Place, Record, ToolCall
from tunewright.engine.data.findings import CATALOGUE
from tunewright.engine.data.formats import FIELDS, Shape, convert, notes
from tunewright.engine.data.shapes.fields import REQUIRED
from tunewright.recipes.model import FORMATS

USER, ANSWER = {"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}
HUMAN, GPT = {"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}
WEATHER = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOL = {"type": "function", "function": WEATHER}
HOW, SO = Message("user", "How?"), Message("assistant", "So.")
ROME = ToolCall("weather", {"city": "Rome"})


def record(row: dict[str, Any], number: int = 17) -> Record:
    return Record(Place(number), row)


def read(row: dict[str, Any], format: str = "auto") -> tuple[str, Example]:
    """Convert one row by the shape that it is detected as."""
    shape = detect([record(row)], format).shape
    assert shape is not None
    example = convert(record(row), shape)
    assert isinstance(example, Example), example
    return shape.format, example


def fail(row: dict[str, Any], shape: Shape) -> tuple[str, str]:
    fault = convert(record(row), shape)
    assert isinstance(fault, Fault), fault
    assert fault.place == Place(17)
    assert fault.code in CATALOGUE
    return fault.code, fault.problem


MESSAGES = Shape("messages", "openai", (("messages", "messages"),))
SHAREGPT = Shape("sharegpt", "sharegpt", (("messages", "conversations"),))
TOOLS = Shape("tools", "openai", (("messages", "messages"), ("tools", "tools")))
ALPACA = Shape(
    "alpaca",
    "alpaca",
    (("instruction", "instruction"), ("input", "input"), ("output", "output"), ("history", "history")),
)
PAIR = Shape("prompt-completion", "strings", (("prompt", "prompt"), ("completion", "completion")))
TEXT = Shape("text", "plain", (("text", "text"),))
PREFERENCE = Shape("preference", "", (("prompt", "prompt"), ("chosen", "chosen"), ("rejected", "rejected")))
KTO = Shape("kto", "trl", (("prompt", "prompt"), ("completion", "completion"), ("label", "label")))


@pytest.mark.parametrize(
    ("row", "format", "turns", "prompt_turns"),
    [
        ({"messages": [USER, ANSWER]}, "messages", [HOW, SO], 0),
        ({"conversation": [USER, ANSWER]}, "messages", [HOW, SO], 0),
        ({"conversations": [USER, ANSWER]}, "messages", [HOW, SO], 0),
        ({"chat": [USER, ANSWER], "id": 3}, "messages", [HOW, SO], 0),
        ({"Messages": [USER, ANSWER]}, "messages", [HOW, SO], 0),
        ({"messages": [{"role": "developer", "content": "Be brief."}, USER, ANSWER]}, "messages",
         [Message("system", "Be brief."), HOW, SO], 0),
        ({"messages": [{"role": "User", "content": "How?"}, {"role": "model", "parts": [{"text": "So."}]}]}, "messages",
         [HOW, SO], 0),
        ({"messages": {"role": ["user", "assistant"], "content": ["How?", "So."]}}, "messages", [HOW, SO], 0),
        ({"conversations": [HUMAN, GPT]}, "sharegpt", [HOW, SO], 0),
        ({"messages": [HUMAN, GPT]}, "sharegpt", [HOW, SO], 0),
        ({"conversations": [HUMAN, {"from": "bing", "value": "So.", "text": None}], "system": "Be brief."}, "sharegpt",
         [Message("system", "Be brief."), HOW, SO], 0),
        ({"conversations": [{"role": "user", "value": "How?"}, {"role": "bot", "value": "So."}]}, "sharegpt", [HOW, SO], 0),
        ({"instruction": "How?", "input": "", "output": "So."}, "alpaca", [HOW, SO], 1),
        ({"instruction": "How?", "output": "So.", "text": "Below is an instruction …"}, "alpaca", [HOW, SO], 1),
        ({"instruction": "Sum up", "input": "a b", "output": "So."}, "alpaca", [Message("user", "Sum up\n\na b"), SO], 1),
        ({"INSTRUCTION": "How?", "RESPONSE": "So."}, "alpaca", [HOW, SO], 1),
        ({"instruction": "Sum up", "context": "a b", "response": "So.", "category": "x"}, "alpaca",
         [Message("user", "Sum up\n\na b"), SO], 1),
        ({"prompt": "Sum up", "input": "a b", "output": "So."}, "alpaca", [Message("user", "Sum up\n\na b"), SO], 1),
        ({"id": "a.1", "system_prompt": "Be brief.", "question": "How?", "response": "So."}, "alpaca",
         [Message("system", "Be brief."), HOW, SO], 2),
        ({"id": "a.1", "system_prompt": "", "question": "How?", "response": "So."}, "alpaca", [HOW, SO], 1),
        ({"instruction": "How?", "output": {"b": [1]}}, "alpaca", [HOW, Message("assistant", '{"b": [1]}')], 1),
        ({"instruction": "How?", "input": None, "output": "So.", "history": [["Hi", "Ho"]], "system": "S"}, "alpaca",
         [Message("system", "S"), Message("user", "Hi"), Message("assistant", "Ho"), HOW, SO], 4),
        ({"prompt": "How?", "completion": "So."}, "prompt-completion", [HOW, SO], 1),
        ({"prompt": "How?", "response": "So."}, "prompt-completion", [HOW, SO], 1),
        ({"question": "How?", "answer": "So."}, "prompt-completion", [HOW, SO], 1),
        ({"Question": "How?", "Answer": "So."}, "prompt-completion", [HOW, SO], 1),
        ({"input": "How?", "output": "So."}, "prompt-completion", [HOW, SO], 1),
        ({"query": "How?", "response": "So."}, "prompt-completion", [HOW, SO], 1),
        ({"system": "S", "prompt": "How?", "completion": "So."}, "prompt-completion", [Message("system", "S"), HOW, SO], 2),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt-completion", [HOW, SO], 1),
        ({"prompt": json.dumps([USER]), "completion": json.dumps([ANSWER])}, "prompt-completion", [HOW, SO], 1),
        ({"prompt": "[1, 2] sorted?", "completion": '["yes"]'}, "prompt-completion",
         [Message("user", "[1, 2] sorted?"), Message("assistant", '["yes"]')], 1),
        ({"prompt": "", "completion": ""}, "prompt-completion", [Message("user", ""), Message("assistant", "")], 1),
    ],
)  # fmt: skip
def test_conversations_are_read_as_their_publishers_write_them(
    row: dict[str, Any], format: str, turns: list[Message], prompt_turns: int
) -> None:
    detected, example = read(row)
    assert detected == format
    assert example.kind == "conversation"
    assert list(example.messages) == turns
    assert example.prompt_turns == prompt_turns


@pytest.mark.parametrize("column", ["text", "content", "document", "body"])
def test_plain_text_is_kept_as_it_is(column: str) -> None:
    format, example = read({column: "<|im_start|>user\nHow?", "url": "x"})
    assert (format, example.kind, example.text) == ("text", "text", "<|im_start|>user\nHow?")


BAD = Message("assistant", "No.")
WORSE = {"role": "assistant", "content": "No."}
TALK = "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: How?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "How?", "chosen": "So.", "rejected": "No."}, [HOW]),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]}, [HOW]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, [HOW]),
        ({"chosen": json.dumps([USER, ANSWER]), "rejected": json.dumps([USER, WORSE])}, [HOW]),
        ({"prompt": "How?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE], "messages": [USER, ANSWER]}, [HOW]),
        ({"prompt": "How?", "system": "S", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
         [Message("system", "S"), HOW]),
        ({"system": "S", "question": "How?", "chosen": "So.", "rejected": "No."}, [Message("system", "S"), HOW]),
        ({"system": "", "question": "How?", "chatgpt": "So.", "llama2-13b-chat": "No."}, [HOW]),
        ({"question": "How?", "response_j": "So.", "response_k": "No.", "qid": 3}, [HOW]),
        ({"instruction": "How?", "chosen_response": "So.", "rejected_response": "No."}, [HOW]),
        ({"instruction": "Sum up", "input": "a", "chosen": "So.", "rejected": "No."}, [Message("user", "Sum up\n\na")]),
        ({"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}}, [HOW]),
        ({"messages": [USER], "chosen": ANSWER, "rejected": WORSE}, [HOW]),
        ({"input": {"messages": [USER], "tools": []}, "preferred_output": [ANSWER], "non_preferred_output": [WORSE]}, [HOW]),
        ({"chosen": TALK + " So.", "rejected": TALK + " No."}, [Message("user", "Hi"), Message("assistant", "Ho"), HOW]),
        ({"prompt": TALK, "chosen": "So.", "rejected": "No."}, [Message("user", "Hi"), Message("assistant", "Ho"), HOW]),
    ],
)  # fmt: skip
def test_preferences_are_read_with_explicit_and_implicit_prompts(row: dict[str, Any], prompt: list[Message]) -> None:
    format, example = read(row)
    assert (format, example.kind) == ("preference", "preference")
    assert list(example.messages) == [*prompt, SO]
    assert example.rejected == (BAD,)
    assert example.prompt_turns == len(prompt)


def test_an_implicit_prompt_of_two_texts_ends_at_the_end_of_a_word() -> None:
    _, example = read({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert [turn.content for turn in example.messages] == ["The sky is", " blue."]
    assert [turn.content for turn in example.rejected] == [" black."]


def test_the_same_answer_twice_converts_for_the_audit_to_judge() -> None:
    _, example = read({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]})
    assert (example.messages, example.rejected, example.prompt_turns) == ((HOW, SO), (SO,), 1)


def test_a_tool_call_that_both_answers_begin_with_is_part_of_neither_when_results_differ() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
    sides = [[USER, call, {"role": "tool", "content": text}, ANSWER] for text in ("hot", "cold")]
    _, example = read({"chosen": sides[0], "rejected": sides[1]})
    assert example.prompt_turns == 1
    assert [turn.role for turn in example.rejected] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"prompt": "How?", "completion": "So.", "label": True}, True),
        ({"prompt": [USER], "completion": [ANSWER], "label": False}, False),
        ({"prompt": "How?", "completion": "So.", "label": 1}, True),
        ({"prompt": "How?", "completion": "So.", "label": 0.0}, False),
        ({"prompt": "How?", "completion": "So.", "label": "False"}, False),
        ({"completion": [USER, ANSWER], "label": True}, True),
        ({"conversations": [HUMAN, GPT], "kto_tag": True}, True),
        ({"messages": [USER, ANSWER], "kto_tag": False}, False),
        ({"messages": [USER, ANSWER], "label": False}, False),
        ({"instruction": "How?", "input": "", "output": "So.", "kto_tag": True}, True),
    ],
)
def test_marked_answers_are_read_with_their_labels(row: dict[str, Any], label: bool) -> None:
    format, example = read(row)
    assert (format, example.kind, example.label) == ("kto", "kto", label)
    assert (example.messages, example.prompt_turns) == ((HOW, SO), 1)


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


RESULT = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "hot"}


@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city": "Rome"}'])
@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], [WEATHER], json.dumps([WEATHER])])
def test_tool_calls_are_read_as_openai_and_trl_write_them(arguments: Any, tools: Any) -> None:
    format, example = read({"messages": [USER, call(arguments), RESULT, ANSWER], "tools": tools})
    assert format == "tools"
    assert example.tools == (TOOL,)
    assert example.messages == (
        HOW,
        Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Rome"}, "c1"),)),
        Message("tool", "hot", name="weather", call_id="c1"),
        SO,
    )


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "weather", "arguments": {"city": "Rome"}}',
        '[{"name":"weather","arguments":"{\\"city\\":\\"Rome\\"}"}]',
    ],
)
def test_tool_calls_are_read_as_llama_factory_writes_them(said: str) -> None:
    turns = [HUMAN, {"from": "function_call", "value": said}, {"from": "observation", "value": "hot"}, GPT]
    format, example = read({"conversations": turns, "tools": json.dumps([WEATHER])})
    assert format == "tools"
    assert example.tools == (TOOL,)
    assert example.messages == (HOW, Message("assistant", "", tool_calls=(ROME,)), Message("tool", "hot"), SO)


def test_tool_calls_are_read_as_xlam_writes_them() -> None:
    answers = json.dumps([{"name": "weather", "arguments": {"city": "Rome"}}])
    format, example = read({"id": 1, "query": "How?", "answers": answers, "tools": json.dumps([WEATHER])})
    assert format == "tools"
    assert example == Example("conversation", (HOW, Message("assistant", "", tool_calls=(ROME,))), 1, tools=(TOOL,))


def test_hermes_calls_stay_text() -> None:
    said = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    turns = [
        HUMAN,
        {"from": "gpt", "value": said},
        {"from": "tool", "value": "<tool_response>hot</tool_response>"},
        GPT,
    ]
    format, example = read({"conversations": turns})
    assert format == "tools"
    assert example.messages[1] == Message("assistant", said)


def test_the_old_function_call_is_a_tool_call() -> None:
    turn = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    _, example = read({"messages": [USER, turn, {"role": "function", "name": "weather", "content": "hot"}, ANSWER],
                       "functions": [WEATHER]})  # fmt: skip
    assert example.tools == (TOOL,)
    assert example.messages[1].tool_calls == (ROME,)
    assert example.messages[2] == Message("tool", "hot", name="weather")


def test_what_a_table_pads_with_nulls_is_taken_out_again() -> None:
    tool = {"type": "function", "function": {**WEATHER, "strict": None, "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": None}, "pages": None}}}}  # fmt: skip
    row = {"messages": [USER, call({"city": None, "pages": None}), RESULT, ANSWER], "tools": [tool]}
    _, example = read(row)
    properties = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert example.tools[0]["function"] == {"name": "weather", "description": "d", "parameters": properties}
    assert example.messages[1].tool_calls[0].arguments == {"city": None}


def test_thinking_names_and_marks_for_training_are_kept() -> None:
    turns = [
        {"role": "user", "content": "How?", "name": "Ann", "weight": None},
        {"role": "assistant", "content": "So.", "reasoning_content": "Hm.", "weight": 0},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
        {"role": "assistant", "content": "Yes.", "thinking": "", "train": True},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Ah."}, {"type": "text", "text": "No."}]},
    ]
    _, example = read({"messages": turns})
    assert example.messages == (
        Message("user", "How?", name="Ann"),
        Message("assistant", "So.", thinking="Hm.", learned=False),
        Message("user", "And now?"),
        Message("assistant", "Yes.", thinking="", learned=True),
        Message("assistant", "No.", thinking="Ah."),
    )


def turn(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER, fields, ANSWER]}


@pytest.mark.parametrize(
    ("row", "shape", "code", "problem"),
    [
        (turn(role="user", content=None), MESSAGES, "missing_field", "turn 2 has a content that is null"),
        (turn(role="user"), MESSAGES, "missing_field", "turn 2 has no content"),
        (turn(role="assistant", content=None, tool_calls=[]), MESSAGES, "missing_field", "turn 2 has a content that is null"),
        (turn(role="user", content=5), MESSAGES, "not_text", "turn 2 has a content that is a number (5), not text"),
        (turn(role="user", content=["a", 5]), MESSAGES, "not_text", "turn 2 has a content that is a list"),
        (turn(role="narrator", content="x"), MESSAGES, "unknown_role", "turn 2 has the role `narrator`"),
        (turn(role=None, content="x"), MESSAGES, "missing_field", "turn 2 has a role that is null"),
        (turn(role=7, content="x"), MESSAGES, "not_text", "turn 2 has a role that is a number (7)"),
        (turn(content="x"), MESSAGES, "bad_turn", "turn 2 has no role; its keys are: content"),
        (turn(role="user", content="x", thinking=3), MESSAGES, "not_text", "turn 2 has a thinking that is a number"),
        (turn(role="user", content=[{"type": "image_url", "image_url": {}}]), MESSAGES, "not_supported_content",
         "turn 2 has a part of the type `image_url`"),
        ({"messages": [USER, ANSWER], "images": ["a.png"]}, MESSAGES, "not_supported_content", "`images` beside the turns"),
        ({"messages": ["hi"]}, MESSAGES, "bad_turn", "turn 1 is text, not an object"),
        ({"messages": "hi"}, MESSAGES, "bad_turn", "`messages` holds text, not a list of turns"),
        ({"messages": str([USER, ANSWER])}, MESSAGES, "bad_turn", "`messages` holds lists as Python prints them, not JSON"),
        ({"messages": 3}, MESSAGES, "bad_turn", "`messages` is a number (3), not a list of turns"),
        ({"messages": []}, MESSAGES, "no_turns", "`messages` has no turns"),
        ({"messages": None, "id": 3}, MESSAGES, "missing_field", "`messages` is null"),
        ({"id": 3}, MESSAGES, "missing_field", "no `messages`; its keys are: id"),
        ({"messages": [USER]}, MESSAGES, "no_answer", "no turn of the assistant"),
        ({"messages": "[" * 100_000}, MESSAGES, "nested_too_deeply", "nested too deeply"),
        ({"conversations": [HUMAN, GPT]}, MESSAGES, "mixed_schema",
         "no `messages`, but `conversations`: that is sharegpt, not messages"),
        ({"messages": None, "conversations": [HUMAN, GPT]}, MESSAGES, "mixed_schema", "that is sharegpt"),
        ({"instruction": "a", "output": "b"}, MESSAGES, "mixed_schema", "`instruction`, `output`: that is alpaca"),
        ({"text": "a"}, SHAREGPT, "mixed_schema", "`text`: that is text, not sharegpt"),
        ({"messages": [HUMAN, GPT]}, MESSAGES, "mixed_schema", "turn 1 has the keys from and value: that is sharegpt"),
        ({"conversations": [USER, ANSWER]}, SHAREGPT, "mixed_schema", "turn 1 has the keys role and content"),
        ({"conversations": [HUMAN, {"from": "gpt", "value": None}]}, SHAREGPT, "missing_field", "turn 2 has a value that is null"),
        ({"instruction": "a", "input": "", "output": None}, ALPACA, "missing_field", "`output` is null"),
        ({"instruction": "a"}, ALPACA, "missing_field", "no `output`; its keys are: instruction"),
        ({"instruction": "a", "output": 42}, ALPACA, "not_text", "`output` is a number (42), not text"),
        ({"instruction": 1.5, "output": "a"}, ALPACA, "not_text", "`instruction` is a number (1.5), not text"),
        ({"instruction": "a", "input": True, "output": "b"}, ALPACA, "not_text", "`input` is true, not text"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, ALPACA, "bad_turn", "pair 1 of `history`"),
        ({"messages": [USER, ANSWER]}, ALPACA, "mixed_schema", "`messages`: that is messages, not alpaca"),
        ({"prompt": "a", "completion": 3}, PAIR, "not_text", "`completion` is a number (3), not text"),
        ({"prompt": "a", "completion": [USER]}, PAIR, "no_answer", "`completion` has no turn of the assistant"),
        ({"prompt": "a", "completion": []}, PAIR, "no_turns", "`completion` has no turns"),
        ({"prompt": [{"role": "user", "content": None}], "completion": "b"}, PAIR, "missing_field", "`prompt`, turn 1"),
        ({"text": 5}, TEXT, "not_text", "`text` is a number (5), not text"),
        ({"text": None}, TEXT, "missing_field", "`text` is null"),
        ({"prompt": "a", "chosen": "b"}, PREFERENCE, "missing_field", "no `rejected`"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, PREFERENCE, "missing_field", "`rejected` is null"),
        ({"chosen": "b", "rejected": "c"}, PREFERENCE, "prompts_differ", "begin differently"),
        ({"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "Why?"}, ANSWER]}, PREFERENCE,
         "prompts_differ", "do not begin with the same turns"),
        ({"chosen": [USER], "rejected": [USER]}, PREFERENCE, "prompts_differ", "same turns"),
        ({"prompt": "a", "completion": "b", "label": "good"}, KTO, "bad_label", "`label` is `good`, not true or false"),
        ({"prompt": "a", "completion": "b", "label": 2}, KTO, "bad_label", "`label` is a number (2), not true or false"),
        ({"prompt": "a", "completion": "b", "label": None}, KTO, "missing_field", "`label` is null"),
        ({"prompt": "a", "completion": "b"}, KTO, "missing_field", "no `label`"),
        ({"completion": "b", "label": True}, KTO, "missing_field", "`prompt` is missing"),
        ({"messages": [USER, call("{city"), ANSWER]}, TOOLS, "bad_tools", "turn 2 calls `weather` with arguments that are not JSON"),
        ({"messages": [USER, call("[1]"), ANSWER]}, TOOLS, "bad_tools", "arguments that are a list, no object"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]}, TOOLS, "bad_tools", "tool call without a name"),
        ({"messages": [USER, ANSWER], "tools": "[{"}, TOOLS, "bad_tools", "`tools` is text that is not JSON"),
        ({"messages": [USER, ANSWER], "tools": [3]}, TOOLS, "bad_tools", "tool 1 of `tools` is a number (3)"),
        ({"messages": [USER, ANSWER], "tools": [{"description": "d"}]}, TOOLS, "bad_tools", "tool 1 of `tools` has no name"),
        ({"messages": [HUMAN, {"from": "function_call", "value": "weather(Rome)"}]}, TOOLS, "bad_tools", "turn 2"),
    ],
)  # fmt: skip
def test_a_row_at_fault_is_named_with_what_is_wrong(row: dict[str, Any], shape: Shape, code: str, problem: str) -> None:
    found, told = fail(row, shape)
    assert found == code
    assert problem in told


def test_what_a_file_says_about_itself_is_clean_in_a_fault() -> None:
    _, told = fail(turn(role="\x1b]0;evil\x07\x1b[31mred", content="x"), MESSAGES)
    assert "\x1b" not in told
    assert "`red`" in told


@pytest.mark.parametrize(
    "row", [{"messages": json.dumps([USER, ANSWER])}, {"messages": " \n" + json.dumps([USER, ANSWER])}]
)
def test_turns_in_json_text_are_read_and_noted(row: dict[str, Any]) -> None:
    assert read(row)[1].messages == (HOW, SO)
    assert notes(record(row), MESSAGES) == ("nested_json",)
    assert notes(record({"messages": [USER, ANSWER]}), MESSAGES) == ()


def test_every_format_has_fields_and_the_required_are_among_them() -> None:
    assert set(FIELDS) == set(FORMATS) == set(REQUIRED)
    assert all(set(REQUIRED[name]) <= set(fields) for name, fields in FIELDS.items())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(ROLES),
    lambda each: st.lists(each, max_size=4)
    | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text", "tool_calls", "function",
                                       "name", "arguments", "messages", "parameters", "properties"]), each, max_size=4),
    max_leaves=20,
)  # fmt: skip
ROWS = st.dictionaries(
    st.sampled_from(
        sorted({*(name for names in FIELDS.values() for name in names), "conversations", "kto_tag", "images"})
    )
    | st.text(max_size=5),
    JSON | JSON.map(lambda each: json.dumps(each)),
    max_size=7,
)


@given(ROWS, st.sampled_from([MESSAGES, SHAREGPT, TOOLS, ALPACA, PAIR, TEXT, PREFERENCE, KTO]))
@settings(max_examples=300, deadline=None)
def test_no_row_whatever_makes_conversion_raise(row: dict[str, Any], shape: Shape) -> None:
    result = convert(record(row), shape)
    notes(record(row), shape)
    if isinstance(result, Fault):
        assert result.code in CATALOGUE
        assert result.problem
    else:
        assert {each.role for each in (*result.messages, *result.rejected)} <= set(ROLES)
        assert 0 <= result.prompt_turns <= len(result.messages)


@given(ROWS, st.sampled_from(FORMATS))
@settings(max_examples=200, deadline=None)
def test_no_row_makes_a_shape_without_columns_raise(row: dict[str, Any], format: Any) -> None:
    assert isinstance(convert(record(row), Shape(format, "", ())), Example | Fault)


@pytest.mark.parametrize(
    ("row", "shape", "most_microseconds"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER]}, MESSAGES, 15),
        ({"conversations": [HUMAN, GPT] * 2}, SHAREGPT, 25),
        ({"instruction": "a", "input": "b", "output": "c"}, ALPACA, 25),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]}, PREFERENCE, 25),
        ({"messages": [USER, call('{"city": "Rome"}'), RESULT, ANSWER], "tools": [TOOL]}, TOOLS, 25),
    ],
)
def test_a_million_rows_are_converted_in_seconds(row: dict[str, Any], shape: Shape, most_microseconds: float) -> None:
    each = record(row)
    best = float("inf")
    for _ in range(20):
        start = time.process_time()
        for _ in range(200):
            convert(each, shape)
        best = min(best, (time.process_time() - start) / 200)
    assert best * 1e6 <= most_microseconds
