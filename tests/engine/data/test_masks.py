"""The mask is right: it equals what the families' documented formats say, character by character, or the row is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewright.engine.data.examples import Message, ToolCall
from tunewright.engine.data.masks import TurnFinder
from tunewright.engine.data.masks.skeletons import Found, join_spans
from tunewright.engine.data.masks.stand_ins import Depth
from tunewright.engine.data.templates import NAMED, ChatTemplate, named_template
from tunewright.foundation.errors import TunewrightError

TEMPLATES = Path(__file__).parent / "templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
Turns = Sequence[tuple[str, str]]
Pieces = list[tuple[str, bool]]
"""Text, and whether the assistant produced it: nothing here knows how the renderer finds that out."""
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
SMOL = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def headed(
    header: str, end: str, start: str = "", default: str | None = None, answer: str = "assistant", strip: bool = False
) -> Callable[[Turns], Pieces]:
    """Return the format in which every turn has a header with its role, and the same end."""

    def write(turns: Turns) -> Pieces:
        pieces: Pieces = [(start, False)]
        if default is not None and turns[0][0] != "system":
            pieces += [(header.format("system") + default + end, False)]
        for role, text in turns:
            if strip:
                text = text.strip()
            if role == "assistant":
                pieces += [(header.format(answer), False), (text + end, True)]
            else:
                pieces += [(header.format(role) + text + end, False)]
        return pieces

    return write


def qwen3(turns: Turns) -> Pieces:
    pieces: Pieces = []
    question = max((place for place, (role, _) in enumerate(turns) if role == "user"), default=-1)
    for place, (role, text) in enumerate(turns):
        pieces += [(f"<|im_start|>{role}\n", False)]
        if role != "assistant":
            pieces += [(text + "<|im_end|>\n", False)]
            continue
        thought = text.split("</think>")[0].split("<think>")[-1].strip("\n") if "</think>" in text else ""
        if place > question:
            pieces += [(f"<think>\n{thought}\n</think>\n\n", True)]
        pieces += [(text.split("</think>")[-1].lstrip("\n") + "<|im_end|>\n", True)]
    return pieces


def smollm3(turns: Turns) -> Pieces:
    system, rest = (turns[0][1].rstrip(), turns[1:]) if turns[0][0] == "system" else (SMOL + ".", turns)
    about = "## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: /no_think\n\n## Custom Instructions\n\n"
    pieces: Pieces = [(f"<|im_start|>system\n{about}{system}\n\n<|im_end|>\n", False)]
    for role, text in rest:
        if role == "assistant":  # the empty tags are of the turn, as in the templates that TRL trains with
            answer = "<think>\n\n</think>\n" + text.lstrip("\n") + "<|im_end|>\n"
            pieces += [("<|im_start|>assistant\n", False), (answer, True)]
        else:
            pieces += [(f"<|im_start|>{role}\n{text}<|im_end|>\n", False)]
    return pieces


def llama2(turns: Turns) -> Pieces:
    system = f"<<SYS>>\n{turns[0][1]}\n<</SYS>>\n\n" if turns[0][0] == "system" else ""
    pieces: Pieces = []
    for place, (role, text) in enumerate(turns[1:] if system else turns):
        if role == "user":
            pieces += [("<s>[INST] " + ((system if place == 0 else "") + text).strip() + " [/INST]", False)]
        else:
            pieces += [(" " + text.strip() + " </s>", True)]
    return pieces


def llama31(turns: Turns) -> Pieces:
    system, rest = (turns[0][1].strip(), turns[1:]) if turns[0][0] == "system" else ("", turns)
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    start = f"<s><|start_header_id|>system<|end_header_id|>\n\n{dates}{system}<|eot_id|>"
    return headed("<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>", start, strip=True)(rest)


def mistral01(turns: Turns) -> Pieces:
    asked = [(f"[INST] {text} [/INST]", False) if role == "user" else (text + "</s>", True) for role, text in turns]
    return [("<s>", False), *asked]


def mistral03(turns: Turns) -> Pieces:
    system, rest = (turns[0][1] + "\n\n", turns[1:]) if turns[0][0] == "system" else ("", turns)
    last = max((place for place, (role, _) in enumerate(rest) if role == "user"), default=-1)
    pieces: Pieces = [("<s>", False)]
    for place, (role, text) in enumerate(rest):
        if role == "user":
            pieces += [("[INST] " + (system if place == last else "") + text + "[/INST]", False)]
        else:
            pieces += [(" " + text + "</s>", True)]
    return pieces


def gemma3(turns: Turns) -> Pieces:
    system, rest = (turns[0][1] + "\n\n", turns[1:]) if turns[0][0] == "system" else ("", turns)
    pieces: Pieces = [("<s>", False)]
    for place, (role, text) in enumerate(rest):
        if role == "user":
            before = system if place == 0 else ""
            pieces += [(f"<start_of_turn>user\n{before}{text.strip()}<end_of_turn>\n", False)]
        else:
            pieces += [("<start_of_turn>model\n", False), (text.strip() + "<end_of_turn>\n", True)]
    return pieces


def phi3(turns: Turns) -> Pieces:
    return [*headed("<|{}|>\n", "<|end|>\n")(turns), ("</s>", turns[-1][0] == "assistant")]


def deepseek_v2(turns: Turns) -> Pieces:
    pieces: Pieces = [("<s>", False)]
    for role, text in turns:
        if role == "assistant":
            pieces += [("Assistant:", False), (f" {text}</s>", True)]
        else:
            pieces += [(("User: " if role == "user" else "") + text + "\n\n", False)]
    return pieces


def deepseek(turns: Turns, thinks: bool = False) -> Pieces:
    pieces: Pieces = [("<s>" + "".join(text for role, text in turns if role == "system"), False)]
    for role, text in turns:
        if role == "user":
            pieces += [("<｜User｜>" + text, False)]
        elif role == "assistant":
            answer = text.split("</think>")[-1] if thinks else text
            pieces += [("<｜Assistant｜>", False), (answer + "<｜end▁of▁sentence｜>", True)]
    return pieces


def falcon(turns: Turns) -> Pieces:
    pieces: Pieces = []
    for role, text in turns:
        if role == "assistant":
            pieces += [("Falcon:", False), (f" {text}\n", True)]
        else:
            pieces += [(f"{role.capitalize()}: {text}\n", False)]
    return pieces


def tulu(turns: Turns) -> Pieces:
    pieces: Pieces = []
    for place, (role, text) in enumerate(turns):
        pieces += [(f"<|{role}|>\n", False)]
        if role == "assistant":  # a line end follows only where another turn does
            pieces += [(text + "</s>", True), ("" if place == len(turns) - 1 else "\n", False)]
        else:
            pieces += [(text + "\n", False)]
    return pieces


def vicuna(turns: Turns) -> Pieces:
    system = next((text for role, text in turns if role == "system"), VICUNA)
    pieces: Pieces = [(f"<s>{system} ", False)]
    for role, text in turns:
        if role == "user":
            pieces += [(f"USER: {text} ", False)]
        elif role == "assistant":
            pieces += [("ASSISTANT:", False), (f" {text}</s>", True)]
    return pieces


def command_r(turns: Turns) -> Pieces:
    names = {"system": "SYSTEM", "user": "USER", "assistant": "CHATBOT"}
    pieces: Pieces = [("<s>", False)]
    for role, text in turns:
        pieces += [(f"<|START_OF_TURN_TOKEN|><|{names[role]}_TOKEN|>", False)]
        pieces += [(text.strip() + "<|END_OF_TURN_TOKEN|>", role == "assistant")]
    return pieces


def harmony(turns: Turns) -> Pieces:
    about = (
        "You are ChatGPT, a large language model trained by OpenAI.\n\n# Valid channels: analysis, commentary, final."
    )
    pieces: Pieces = [(f"<|start|>system<|message|>{about}<|end|>", False)]
    if turns[0][0] == "system":
        pieces += [(f"<|start|>developer<|message|># Instructions\n\n{turns[0][1]}\n\n<|end|>", False)]
    for place, (role, text) in enumerate(turns):
        if role == "user":
            pieces += [(f"<|start|>user<|message|>{text}<|end|>", False)]
        elif role == "assistant":
            end = "<|return|>" if place == len(turns) - 1 else "<|end|>"
            pieces += [("<|start|>assistant", False), (f"<|channel|>final<|message|>{text}{end}", True)]
    return pieces


def openchat(turns: Turns) -> Pieces:
    pieces: Pieces = [("<s>", False)]
    for role, text in turns:
        if role == "assistant":
            pieces += [("GPT4 Correct Assistant:", False), (f" {text}<|end_of_turn|>", True)]
        else:
            pieces += [(("GPT4 Correct User: " if role == "user" else "") + text + "<|end_of_turn|>", False)]
    return pieces


def solar(turns: Turns) -> Pieces:
    pieces: Pieces = []
    for role, text in turns:
        pieces += [(f"### {role.title()}:\n", False), (text + "\n\n", role == "assistant")]
    return pieces


def alpaca(turns: Turns) -> Pieces:
    about = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    system, rest = (turns[0][1], turns[1:]) if turns[0][0] == "system" else (about, turns)
    pieces: Pieces = [(f"<s>{system}\n\n", False)]
    for place, (role, text) in enumerate(rest):
        if role == "user":
            pieces += [(f"### Instruction:\n{text}\n\n", False)]
        else:
            pieces += [("### Response:\n", False), (text + "</s>", True)]
            pieces += [("" if place == len(rest) - 1 else "\n\n", False)]
    return pieces


def named_gemma(turns: Turns) -> Pieces:
    first = (turns[0][0], turns[0][1].strip())
    return gemma3([first, *turns[1:]] if first[0] == "system" else turns)


def named_mistral(turns: Turns) -> Pieces:
    before, rest = (turns[0][1] + "\n\n", turns[1:]) if turns[0][0] == "system" else ("", turns)
    pieces: Pieces = [("<s>", False)]
    for place, (role, text) in enumerate(rest):
        if role == "user":
            pieces += [("[INST] " + (before if place == 0 else "") + text + " [/INST]", False)]
        else:
            pieces += [(f" {text}</s>", True)]
    return pieces


CHATML = headed("<|im_start|>{}\n", "<|im_end|>\n")
LLAMA_3 = headed("<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>", "<s>", strip=True)
FAMILIES: dict[str, Callable[[Turns], Pieces]] = {
    "chatml-yi": CHATML,
    "internlm2": headed("<|im_start|>{}\n", "<|im_end|>\n", "<s>"),
    "qwen2.5": headed("<|im_start|>{}\n", "<|im_end|>\n", default=QWEN),
    "smollm2": headed("<|im_start|>{}\n", "<|im_end|>\n", default=SMOL),
    "qwen3": qwen3,
    "smollm3": smollm3,
    "llama-2": llama2,
    "llama-3.1": llama31,
    "mistral-v0.1": mistral01,
    "mistral-v0.3": mistral03,
    "zephyr": headed("<|{}|>\n", "</s>\n"),
    "stablelm-zephyr": headed("<|{}|>\n", "<|endoftext|>\n"),
    "gemma-2": gemma3,
    "gemma-3": gemma3,
    "phi-3": phi3,
    "phi-4": headed("<|im_start|>{}<|im_sep|>", "<|im_end|>"),
    "deepseek-v2": deepseek_v2,
    "deepseek-v3": deepseek,
    "deepseek-r1": lambda turns: deepseek(turns, thinks=True),
    "falcon-180b": falcon,
    "tulu-3": tulu,
    "olmo-2": lambda turns: [("<s>", False), *tulu(turns)],
    "vicuna": vicuna,
    "granite-3": headed("<|start_of_role|>{}<|end_of_role|>", "<|end_of_text|>\n"),
    "command-r": command_r,
    "gpt-oss": harmony,
    "openchat-3.5": openchat,
    "solar": solar,
    "named chatml": CHATML,
    "named alpaca": alpaca,
    "named vicuna": vicuna,
    "named zephyr": headed("<|{}|>\n", "</s>\n"),
    "named llama3": LLAMA_3,
    "named gemma": named_gemma,
    "named mistral": named_mistral,
    "named phi3": phi3,
}
WITHOUT_SYSTEM = {"gemma-2", "mistral-v0.1"}
CAREFUL = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
FINDERS: dict[str, TurnFinder] = {}
LIKE_HEADERS = (
    "<|im_start|>assistant\nNo.<|im_end|>\n", "USER: a ASSISTANT: b</s>", " [/INST] c </s>[INST] ", "### Assistant:\n",
    "<｜Assistant｜>d<｜end▁of▁sentence｜>", "Falcon: e\nUser: f", "<|start|>assistant<|channel|>final<|message|>g",
    "GPT4 Correct Assistant: h", "Assistant: i\n\nUser: j", "<|eot_id|><|start_header_id|>", "\ue000", "\n\n### Response:\n",
)  # fmt: skip
THOUGHTS = ("<think>\nhm\n</think>\n\nyes", "</think>", "<think></think>", "<think>\n\n</think>\n\n", "so\n</think> no")
PLAIN = st.one_of(
    st.sampled_from(["", " ", "\n", "Yes.", "  padded \n", "\n\nlines\n\n", "ünï 🎉 漢字", '{"a": "b\\n"}', "{{ x }}"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\ue000"), max_size=20),
)
ANY = st.one_of(PLAIN, st.sampled_from(LIKE_HEADERS), st.sampled_from(THOUGHTS))


@st.composite
def conversations(draw: st.DrawFn, texts: st.SearchStrategy[str], system: bool = True) -> list[tuple[str, str]]:
    turns = [("system", draw(texts))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns += [("user", draw(texts)), ("assistant", draw(texts))]
    return turns if len(turns) < 3 or draw(st.integers(0, 3)) else turns[:-1]


def finder_of(family: str) -> TurnFinder:
    if family not in FINDERS:
        name = family.removeprefix("named ")
        source = named_template(name) if name != family else (TEMPLATES / f"{family}.jinja").read_text()
        FINDERS[family] = TurnFinder(ChatTemplate(source, TOKENS))
    return FINDERS[family]


def find(finder: TurnFinder, turns: Turns, depths: Sequence[Depth] = tuple(Depth)) -> tuple[str, list[tuple[int, int]]]:
    messages = [Message(role, text) for role, text in turns]
    text, marks = finder.template.render(messages)
    if marks:
        return text, join_spans(marks)
    return text, answers(finder.find(messages, (), answer_places(messages), text, depths), messages)


def answer_places(messages: Sequence[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if message.role == "assistant"]


def answers(found: Found, messages: Sequence[Message]) -> list[tuple[int, int]]:
    return join_spans([span for index in answer_places(messages) for span in found.written(index)])


def oracle(family: str, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
    text, spans = "", []
    for piece, produced in FAMILIES[family](turns):
        if produced:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, join_spans(spans)


def test_every_fact_has_its_oracle() -> None:
    facts = {file.stem for file in TEMPLATES.glob("*.jinja")} | {f"named {name}" for name in NAMED}
    assert facts == set(FAMILIES)
    assert len(facts) - len(NAMED) >= 20


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_equals_the_documented_format_and_rows_with_words_are_never_refused(family: str) -> None:
    @settings(CAREFUL, max_examples=80)
    @given(conversations(PLAIN, family not in WITHOUT_SYSTEM))
    def check(turns: list[tuple[str, str]]) -> None:
        try:
            found = find(finder_of(family), turns)
        except TunewrightError:
            # Where there are no words to tell turns apart by, only the beginnings of the text can prove anything.
            assert any(role != "assistant" and not text.strip() for role, text in turns)
            return
        assert found == oracle(family, turns)

    check()


@pytest.mark.parametrize("family", FAMILIES)
def test_contents_that_look_like_headers_or_thoughts_are_right_or_refused(family: str) -> None:
    @settings(CAREFUL, max_examples=80)
    @given(conversations(ANY, family not in WITHOUT_SYSTEM))
    def check(turns: list[tuple[str, str]]) -> None:
        try:
            found = find(finder_of(family), turns)
        except TunewrightError as error:
            assert error.title == "Loss mask not provable"
            return
        assert found == oracle(family, turns)

    check()


@pytest.mark.parametrize("family", sorted(family for family in FAMILIES if not family.startswith("named")))
def test_the_proofs_at_every_depth_agree_where_they_apply(family: str) -> None:
    finder = finder_of(family)
    applied = 0

    @settings(CAREFUL, max_examples=40)
    @given(conversations(ANY, family not in WITHOUT_SYSTEM))
    def check(turns: list[tuple[str, str]]) -> None:
        nonlocal applied
        found: list[object] = []
        for depth in (Depth.ALL, Depth.ANSWERS, Depth.NOTHING):
            try:
                found.append(find(finder, turns, (depth,)))
            except TunewrightError:
                continue
        applied += len(found) > 1
        assert all(each == found[0] for each in found)

    check()
    assert applied > 5


TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}  # fmt: skip
HERMES = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- elif message.role != 'system' or not tools %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
CALLING = (
    Message("system", "Count."),
    Message("user", "1 + 1? 2 + 2?"),
    Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1}, "call1"), ToolCall("add", {"a": "2\n"}, "call2"))),
    Message("tool", "2\n", name="add", call_id="call1"),
    Message("tool", '{"sum": 4}', name="add", call_id="call2"),
    Message("assistant", "2 and 4"),
)


@pytest.mark.parametrize("tools", [(), (TOOL,), (TOOL, TOOL)])
@pytest.mark.parametrize("depth", [Depth.ALL, Depth.TEXTS])
def test_calls_are_the_assistants_and_answers_of_tools_are_not(tools: tuple[dict[str, object]], depth: Depth) -> None:
    finder = TurnFinder(ChatTemplate(HERMES, TOKENS))
    found = finder.find(CALLING, tools, (2, 5), depths=(depth,))
    assert [found.text[start:end] for start, end in answers(found, CALLING)] == [
        '\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        '\n<tool_call>\n{"name": "add", "arguments": {"a": "2\\n"}}\n</tool_call><|im_end|>\n',
        "2 and 4<|im_end|>\n",
    ]


def test_tools_of_many_shapes_share_one_skeleton() -> None:
    finder = TurnFinder(ChatTemplate(HERMES, TOKENS))
    bare = {"name": "x"}
    for tools in ((TOOL,), (bare,), (bare, TOOL, {"type": "function", "function": bare})):
        found = finder.find(CALLING, tools, (2, 5), depths=(Depth.ALL,))
        assert [found.text[start:end] for start, end in found.written(5)] == ["2 and 4<|im_end|>\n"]


def test_long_conversations_are_proved_by_their_neighbourhoods_alike() -> None:
    turns = [("user", "Q"), ("assistant", "A")] * 30
    for family in ("qwen3", "tulu-3", "phi-3", "gpt-oss", "vicuna"):
        assert find(finder_of(family), turns) == oracle(family, turns)


def test_a_template_that_always_opens_an_answer_is_refused() -> None:
    source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eot|>{% endfor %}<|assistant|>"
    finder = TurnFinder(ChatTemplate(source, TOKENS))
    messages = [Message("user", "a"), Message("assistant", "b")]
    with pytest.raises(TunewrightError, match="even where none is asked for"):
        finder.find(messages, (), (1,))


def test_words_that_are_not_written_as_they_are_are_found_by_the_beginnings_of_the_text() -> None:
    source = "{% for m in messages %}{{ m.content[::-1] }}{{ '</s>' if m.role == 'assistant' else ' -> ' }}{% endfor %}"
    turns = [("user", "ab"), ("assistant", "cd"), ("user", "ef"), ("assistant", "gh")]
    text, spans = find(TurnFinder(ChatTemplate(source, TOKENS)), turns)
    assert [text[start:end] for start, end in spans] == ["dc</s>", "hg</s>"]


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages | reverse %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "{{ messages | length }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end {{ loop.revindex }}|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    ],
)
def test_what_cannot_be_shown_is_refused(source: str) -> None:
    finder = TurnFinder(ChatTemplate(source, TOKENS))
    messages = [Message("user", "ab"), Message("assistant", "cd"), Message("user", "ef"), Message("assistant", "gh")]
    with pytest.raises(TunewrightError, match="Loss mask not provable"):
        finder.find(messages, (), (1, 3))
