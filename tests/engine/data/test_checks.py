"""What one row can have wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tunewright.engine.data.auditing.checks import check, check_ids, check_rendered, check_text, group_words
from tunewright.engine.data.auditing.contents import whole_text
from tunewright.engine.data.examples import Example, Message, ToolCall
from tunewright.engine.data.findings import CATALOGUE
from tunewright.recipes.model import Data

USER = Message("user", "What is the capital of France, please?")
ANSWER = Message("assistant", "Paris.")
CALL = ToolCall("weather", {"city": "Paris"}, "call_1")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def conversation(*messages: Message, **more: object) -> Example:
    return Example("conversation", messages, **more)  # type: ignore[arg-type]


def codes(example: Example) -> list[str]:
    return [code for code, _ in check(example)]


def codes_of_text(text: str, kind: str = "conversation") -> list[str]:
    example = Example("text", text=text) if kind == "text" else conversation(USER, Message("assistant", text))
    return [code for code, _ in check_text(example, whole_text(example))]


@pytest.mark.parametrize(
    "messages",
    [
        (USER, ANSWER),
        (Message("system", "Be brief."), USER, ANSWER, USER, ANSWER),
        (USER, Message("assistant", "", tool_calls=(CALL,)), Message("tool", "12 °C", call_id="call_1"), ANSWER),
        (USER, Message("assistant", "", tool_calls=(CALL, CALL)), Message("tool", "1"), Message("tool", "2"), ANSWER),
        (USER, Message("assistant", "", tool_calls=(CALL,))),
        (USER, Message("assistant", "", thinking="It asks for the weather.", tool_calls=(CALL,))),
    ],
)
def test_an_ordinary_conversation_has_nothing_wrong(messages: tuple[Message, ...]) -> None:
    assert check(conversation(*messages, tools=(WEATHER,))) == []


def test_an_empty_answer_is_named_with_its_turn() -> None:
    assert check(conversation(USER, ANSWER, USER, Message("assistant", " \n"))) == [
        ("empty_answer", "turn 4 has no content")
    ]


def test_an_empty_prompt_is_named() -> None:
    assert codes(conversation(Message("user", "  "), ANSWER)) == ["empty_prompt"]


def test_an_empty_text_is_named() -> None:
    assert codes(Example("text", text=" \n ")) == ["empty_answer"]


@pytest.mark.parametrize(
    "text",
    ["TODO", "todo.", "N/A", "n/a", "nan", "null", "None", "...", "…", "[insert answer here]", "<answer>", "Your answer here",
     "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.", "{{response}}", "TBD"],
)  # fmt: skip
def test_a_placeholder_is_named(text: str) -> None:
    assert codes(conversation(USER, Message("assistant", text))) == ["placeholder_answer"]


@pytest.mark.parametrize(
    "text", ["No.", "none", "42", "Text", "The answer is here.", "Not applicable to cats.", "A", "?"]
)
def test_a_short_answer_is_no_placeholder(text: str) -> None:
    assert codes(conversation(USER, Message("assistant", text))) == []


@pytest.mark.parametrize(
    ("messages", "detail"),
    [
        ((ANSWER, USER, ANSWER), "turn 1 is assistant at the start"),
        ((USER, USER, ANSWER), "turn 2 is user after user"),
        ((USER, ANSWER, ANSWER), "turn 3 is assistant after assistant"),
        ((USER, ANSWER, Message("system", "Be brief."), USER, ANSWER), "turn 3 is system after assistant"),
        ((USER, Message("assistant", "", tool_calls=(CALL,)), USER, ANSWER), "turn 3 is user after assistant"),
    ],
)
def test_turns_in_an_unusual_order_are_named(messages: tuple[Message, ...], detail: str) -> None:
    assert ("roles_out_of_order", detail) in check(conversation(*messages, tools=(WEATHER,)))


def test_a_last_turn_that_is_not_the_assistants_is_named() -> None:
    assert check(conversation(USER, ANSWER, USER)) == [("no_last_answer", "the last turn is user")]


def test_a_call_of_a_tool_that_is_not_declared_is_named() -> None:
    turn = Message("assistant", "", tool_calls=(ToolCall("delete_everything", {}),))
    assert check(conversation(USER, turn, tools=(WEATHER,))) == [("unknown_tool", "turn 2 calls delete_everything")]


def test_a_tool_that_the_system_prompt_describes_is_declared() -> None:
    system = Message("system", "You may call weather(city).")
    assert codes(conversation(system, USER, Message("assistant", "", tool_calls=(CALL,)))) == []


def test_a_tools_answer_that_nobody_asked_for_is_named() -> None:
    assert codes(conversation(USER, ANSWER, Message("tool", "12 °C"), ANSWER, tools=(WEATHER,))) == [
        "tool_result_unasked"
    ]


def test_a_tools_answer_to_another_call_is_named() -> None:
    calling = Message("assistant", "", tool_calls=(CALL,))
    turns = (USER, calling, Message("tool", "12 °C", call_id="call_7"), ANSWER)
    assert codes(conversation(*turns, tools=(WEATHER,))) == ["tool_result_unasked"]


def test_a_call_within_the_text_asks_for_an_answer() -> None:
    calling = Message("assistant", '<tool_call>{"name": "weather"}</tool_call>')
    assert codes(conversation(USER, calling, Message("tool", "12 °C"), ANSWER)) == []


def test_an_answer_that_begins_with_its_prompt_is_named() -> None:
    repeating = Message("assistant", f"{USER.content} Paris.")
    assert codes(conversation(USER, repeating)) == ["answer_repeats_prompt"]


def test_an_answer_to_a_greeting_may_begin_with_it() -> None:
    assert codes(conversation(Message("user", "Hello"), Message("assistant", "Hello, how can I help?"))) == []


def test_a_pair_of_the_same_answers_is_named() -> None:
    pair = Example("preference", (USER, ANSWER), 1, rejected=(ANSWER,))
    assert codes(pair) == ["same_answers"]
    assert codes(replace(pair, rejected=(Message("assistant", "Lyon."),))) == []


def test_an_empty_rejected_answer_is_named() -> None:
    pair = Example("preference", (USER, ANSWER), 1, rejected=(Message("assistant", ""),))
    assert check(pair) == [("empty_answer", "the rejected answer is empty")]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>assistant\nHello<|im_end|>",
        "[INST] Hello [/INST] Hi",
        "<start_of_turn>model\nHi<end_of_turn>",
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        "### Instruction:\nSay hi.\n\n### Response:\nHi",
        "USER: Say hi.\nASSISTANT: Hi",
        "<<SYS>>\nBe brief.\n<</SYS>>",
        "<｜User｜>Hi<｜Assistant｜>Hello",
        "<s>Hello</s>",
    ],
)
def test_control_words_of_templates_are_named(text: str) -> None:
    assert codes_of_text(text) == ["template_in_text"]
    assert codes_of_text(text, "text") == ["template_in_text"]


@pytest.mark.parametrize(
    "text",
    [
        "The price is <s>12</s> 10 dollars.",
        "## Instruction manual\n\nThe response is below.",
        "a <| b |> c << 3",
        "User: is the name of a column.",
        "for (i = 0; i << 3; i++)",
    ],
)
def test_ordinary_text_has_no_control_words(text: str) -> None:
    assert codes_of_text(text) == []


def test_the_models_own_control_words_are_named() -> None:
    example = conversation(USER, Message("assistant", "Say <|end|> or [STOP]."))
    found = check_text(example, whole_text(example), group_words(["[STOP]", "[GO]"]))
    assert [code for code, _ in found] == ["template_in_text"]


def test_a_text_made_to_be_slow_is_not() -> None:
    text = "### Instruction:\n" * 50_000 + "<s> </s>" * 50_000 + "<think> " * 50_000
    assert codes_of_text(text) == []


def test_terminal_escapes_are_named_and_not_shown_raw() -> None:
    example = conversation(USER, Message("assistant", "red: \x1b[31mred\x1b[0m"))
    ((code, detail),) = check_text(example, whole_text(example))
    assert code == "control_characters"
    assert "\x1b" not in detail and "0x1b" in detail


def test_text_decoded_wrongly_is_named() -> None:
    assert codes_of_text("The cafÃ© at the corner is naÃ¯ve.") == ["broken_encoding"]


def test_secrets_are_masked_in_the_detail() -> None:
    key = "AKIA" + "QYLPMN5HHHFPZAM2"
    example = conversation(USER, Message("assistant", f"Use {key} to sign in."))
    ((code, detail),) = check_text(example, whole_text(example))
    assert code == "secrets"
    assert key not in detail and detail.startswith("AWS key: AKIA")


class TestTokens:
    """Ids 1 and 2 begin and end; 3 is unknown."""

    def codes(self, ids: list[int], learned: list[tuple[int, int]], kept: int | None = None) -> list[str]:
        kept = len(ids) if kept is None else kept
        return [code for code, _ in check_ids(ids, learned, kept, ends=frozenset({2}), begin=1, unknown=3)]

    def test_a_row_whose_answer_ends_is_right(self) -> None:
        assert self.codes([1, 10, 11, 12, 2], [(2, 5)]) == []

    def test_a_line_end_may_follow_the_end_token(self) -> None:
        assert self.codes([1, 10, 11, 12, 2, 13], [(2, 6)]) == []

    def test_an_answer_without_an_end_token_is_named(self) -> None:
        assert self.codes([1, 10, 11, 12, 2], [(2, 4)]) == ["end_not_trained"]

    def test_an_answer_that_is_cut_off_is_not_blamed_for_its_end(self) -> None:
        assert self.codes([1, 10, 11, 12, 2], [(2, 5)], kept=4) == ["truncated", "answer_cut_off"]

    def test_an_answer_behind_the_cut_trains_nothing(self) -> None:
        assert self.codes([1, 10, 11, 12, 2], [(3, 5)], kept=3) == ["truncated", "answer_cut_off", "row_not_trained"]

    def test_a_row_without_learned_tokens_is_named(self) -> None:
        assert self.codes([1, 10, 2], []) == ["row_not_trained"]

    def test_two_begin_tokens_are_named(self) -> None:
        assert self.codes([1, 1, 10, 2], [(2, 4)]) == ["bos_doubled"]

    def test_unknown_tokens_are_counted(self) -> None:
        ((code, detail),) = check_ids([1, 3, 3, 2], [(1, 4)], 4, frozenset({2}), 1, 3)
        assert (code, detail) == ("unknown_tokens", "2 of 4 tokens are unknown")


class TestRendered:
    def codes(self, example: Example, text: str) -> list[str]:
        return [code for code, _ in check_rendered(example, text, [(0, len(text))], Data(source="rows.jsonl"))]

    def test_what_the_template_writes_is_not_missed(self) -> None:
        system, thinking = Message("system", " Be brief. "), Message("assistant", "Paris.", thinking="It is Paris.")
        example = conversation(system, USER, thinking, tools=(WEATHER,))
        assert self.codes(example, f"Be brief. {WEATHER} {USER.content} <think>It is Paris.</think> Paris.") == []

    def test_a_system_prompt_that_is_left_out_is_named(self) -> None:
        assert self.codes(conversation(Message("system", "Be brief."), USER, ANSWER), "") == ["system_ignored"]

    def test_tools_that_are_left_out_are_named(self) -> None:
        assert self.codes(conversation(USER, ANSWER, tools=(WEATHER,)), "") == ["tools_ignored"]

    def test_thinking_that_is_left_out_is_named(self) -> None:
        assert self.codes(conversation(USER, Message("assistant", "<think>Hm.</think>A"), USER, ANSWER), "A") == [
            "thinking_dropped"
        ]

    def test_empty_thinking_tags_are_named(self) -> None:
        text = "<think>\n\n</think>\n\nParis."
        assert self.codes(conversation(USER, ANSWER), text) == ["empty_thinking_trained"]
        assert self.codes(conversation(USER, ANSWER), text.replace("\n\n</", "Hm.</")) == []


def test_every_code_is_in_the_catalogue() -> None:
    rows = [
        conversation(ANSWER),
        conversation(USER, Message("assistant", "TODO\x1b")),
        conversation(Message("user", ""), Message("assistant", "")),
    ]
    for row in rows:
        assert {code for code, _ in check(row) + check_text(row, whole_text(row))} <= CATALOGUE.keys()
