"""What is rendered is what is trained: our tokens and labels are those of transformers and TRL."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from tunewright import starter
from tunewright.engine.data.examples import Conversation, Example, Message, ToolCall
from tunewright.engine.data.rendering import IGNORED, Layout, Renderer, Row
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Data

TALK = (
    Message("system", "Be brief."),
    Message("user", "Two mügs 🎉 please"),
    Message("assistant", '{"item":"mug"}'),
    Message("user", "And a bowl"),
    Message("assistant", '{"item":"bowl"}'),
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(starter.MODEL)


def with_template(folder: Path, template: str | None, source: Path = starter.MODEL) -> Path:
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copy(source / name, folder / name)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def with_begin(folder: Path) -> Path:
    """A model whose tokenizer puts the begin token before every text, as Llama's does."""
    with_template(folder, CHATML)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def data(**fields: Any) -> Data:
    return Data(source="x.jsonl", **fields)


def trained(renderer: Renderer, row: Row) -> str:
    return renderer.tokenizer.decode([label for label in row.labels if label != IGNORED], skip_special_tokens=False)


def learned(layout: Layout) -> list[str]:
    return [layout.text[start:end] for start, end in layout.learned]


def test_the_end_of_the_turn_is_learned(renderer: Renderer) -> None:
    row = renderer.render(TALK)
    labels = [label for label in row.labels if label != IGNORED]
    assert labels[-1] in renderer.end_tokens
    assert renderer.tokenizer.decode(labels) == '{"item":"mug"}{"item":"bowl"}'
    assert renderer.facts().trains_end


@pytest.mark.parametrize(
    ("loss_on", "expected"),
    [
        ("assistant", ['{"item":"mug"}<|im_end|>\n', '{"item":"bowl"}<|im_end|>\n']),
        ("last", ['{"item":"bowl"}<|im_end|>\n']),
        ("completion", ['{"item":"bowl"}<|im_end|>\n']),
        (("user",), ["Two mügs 🎉 please<|im_end|>\n", "And a bowl<|im_end|>\n"]),
        (
            ("system", "assistant"),
            ["Be brief.<|im_end|>\n", '{"item":"mug"}<|im_end|>\n', '{"item":"bowl"}<|im_end|>\n'],
        ),
    ],
)
@pytest.mark.parametrize("marked", [False, True])
def test_what_is_learned(tmp_path: Path, loss_on: Any, expected: list[str], marked: bool) -> None:
    choice = data(loss_on=loss_on, template="chatml" if marked else "model")
    renderer = Renderer(with_template(tmp_path, CHATML), choice)
    assert learned(renderer.lay_out(TALK)) == expected
    assert trained(renderer, renderer.render(TALK)) == "".join(expected)
    everything = renderer.render(TALK, loss_on="all")
    assert everything.labels == everything.input_ids


def test_the_completion_begins_where_the_row_says(tmp_path: Path) -> None:
    renderer = Renderer(with_template(tmp_path, CHATML), data(loss_on="completion"))
    layout = renderer.lay_out(Example("conversation", TALK, prompt_turns=2))
    assert learned(layout) == [layout.text[layout.text.index('{"item":"mug"}') :]]


def test_rows_switch_their_own_turns_off_and_on(tmp_path: Path) -> None:
    renderer = Renderer(with_template(tmp_path, CHATML))
    off = (*TALK[:2], Message("assistant", "wrong", learned=False), *TALK[3:])
    on = (TALK[0], Message("user", "learn me", learned=True), *TALK[2:])
    assert learned(renderer.lay_out(off)) == ['{"item":"bowl"}<|im_end|>\n']
    assert learned(renderer.lay_out(on))[0] == "learn me<|im_end|>\n"
    assert "wrong" not in "".join(learned(renderer.lay_out(off, "all")))
    assert learned(renderer.lay_out(off, "completion")) == ['{"item":"bowl"}<|im_end|>\n']


def test_of_judged_answers_only_the_answer_is_learned(tmp_path: Path) -> None:
    renderer = Renderer(with_template(tmp_path, CHATML))
    chosen = Example("preference", TALK, prompt_turns=4, rejected=(Message("assistant", "no"),))
    assert learned(renderer.lay_out(chosen)) == ['{"item":"bowl"}<|im_end|>\n']
    assert learned(renderer.lay_out(Example("kto", TALK, prompt_turns=4, label=True))) == [
        '{"item":"bowl"}<|im_end|>\n'
    ]


def test_system_prompts_are_kept_dropped_moved_or_added(tmp_path: Path) -> None:
    folder = with_template(tmp_path, CHATML)

    def start(**fields: Any) -> str:
        return Renderer(folder, data(**fields)).lay_out(TALK).text.split("<|im_end|>")[0]

    assert start() == "<|im_start|>system\nBe brief."
    assert start(system="drop") == "<|im_start|>user\nTwo mügs 🎉 please"
    assert start(system="user") == "<|im_start|>user\nBe brief.\n\nTwo mügs 🎉 please"
    assert start(system="drop", system_prompt="Be kind.") == "<|im_start|>system\nBe kind."
    assert start(system_prompt="Be kind.") == "<|im_start|>system\nBe brief."
    bare = Example("conversation", TALK[1:], prompt_turns=3)
    added = Renderer(folder, data(system_prompt="Be kind.", loss_on="completion")).lay_out(bare)
    assert added.text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    assert learned(added) == ['{"item":"bowl"}<|im_end|>\n']


def test_thinking_is_kept_in_its_place_or_in_the_content_and_can_be_dropped(tmp_path: Path) -> None:
    apart = (Message("user", "hi"), Message("assistant", "yes", thinking="hm"))
    within = (Message("user", "hi"), Message("assistant", "<think>\nhm\n</think>\n\nyes"))
    folder = with_template(tmp_path / "plain", CHATML)
    assert learned(Renderer(folder).lay_out(apart)) == ["<think>\nhm\n</think>\n\nyes<|im_end|>\n"]
    for turns in (apart, within):
        assert learned(Renderer(folder, data(thinking="drop")).lay_out(turns)) == ["yes<|im_end|>\n"]
    knowing = CHATML.replace(
        "{{ message.content }}", "{% if message.thinking %}[{{ message.thinking }}]{% endif %}{{ message.content }}"
    )
    known = Renderer(with_template(tmp_path / "knowing", knowing))
    assert learned(known.lay_out(apart)) == ["[hm]yes<|im_end|>\n"]
    assert known.facts().knows_thinking


def test_the_parts_of_a_row_have_their_authors(tmp_path: Path) -> None:
    layout = Renderer(with_template(tmp_path, CHATML)).lay_out(TALK)
    assert "".join(layout.text[span.start : span.end] for span in layout.spans) == layout.text
    told = [(span.role, layout.text[span.start : span.end], span.learned) for span in layout.spans]
    assert told[:5] == [
        ("template", "<|im_start|>system\n", False),
        ("system", "Be brief.", False),
        ("template", "<|im_end|>\n<|im_start|>user\n", False),
        ("user", "Two mügs 🎉 please", False),
        ("template", "<|im_end|>\n<|im_start|>assistant\n", False),
    ]
    assert told[5] == ("assistant", '{"item":"mug"}<|im_end|>\n', True)


def test_plain_text_is_learned_whole_and_ends_with_the_end_token(tmp_path: Path) -> None:
    renderer = Renderer(with_begin(tmp_path), data(template="none"))
    for text, start in (("Once upon", [1]), ("<|begin|>Once upon", [1]), ("Once upon<|end|>", [1])):
        row = renderer.render(Example("text", text=text))
        assert row.labels == row.input_ids
        assert row.input_ids[0] == 1 and row.input_ids.count(1) == len(start)
        assert row.input_ids[-1] == renderer.eos and row.input_ids.count(2) == 1


def test_plain_text_needs_no_chat_template_but_turns_do(tmp_path: Path) -> None:
    renderer = Renderer(with_template(tmp_path, None))
    assert not renderer.has_template
    assert renderer.render(Example("text", text="Once")).supervised
    with pytest.raises(TunewrightError, match="No chat template"):
        renderer.render(TALK)


def test_template_none_joins_a_prompt_and_its_completion(tmp_path: Path) -> None:
    renderer = Renderer(with_begin(tmp_path), data(template="none"))
    pair = (Message("user", "2 + 2 ="), Message("assistant", " 4"))
    row = renderer.render(Example("conversation", pair, prompt_turns=1))
    assert renderer.tokenizer.decode(row.input_ids, skip_special_tokens=False) == "<|begin|>2 + 2 = 4<|end|>"
    assert trained(renderer, row) == " 4<|end|>"
    assert renderer.prompt(pair[:1]) == "<|begin|>2 + 2 ="
    with pytest.raises(TunewrightError, match="refused"):
        renderer.render((pair[0], Message("assistant", "", tool_calls=(ToolCall("f", {}),))))


def test_without_a_model_tokens_are_counted_roughly() -> None:
    renderer = Renderer(None)
    assert not renderer.exact
    row = renderer.render(TALK)
    size = len(renderer.lay_out(TALK).text.encode())
    assert size / 6 < row.length < size / 3
    assert 0 < row.supervised < row.length
    assert renderer.eos in renderer.end_tokens and renderer.facts().trains_end


def test_rows_are_cut_whatever_the_tokenizer_was_saved_with(tmp_path: Path) -> None:
    folder = with_template(tmp_path, CHATML)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=500)
    tokenizer.save(str(folder / "tokenizer.json"))
    row = Renderer(folder).render(TALK, 20)
    assert (row.length, len(row.labels)) == (20, 20)
    assert 40 < row.whole_length < 200


def test_text_that_cannot_be_written_is_refused(renderer: Renderer) -> None:
    with pytest.raises(TunewrightError, match="Text that cannot be written"):
        renderer.render((Message("user", "\ud83d"), Message("assistant", "x")))


def test_a_folder_without_a_tokenizer_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TunewrightError, match="No fast tokenizer"):
        Renderer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TunewrightError, match="Model damaged"):
        Renderer(tmp_path)


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=15), min_size=2, max_size=6))
def test_a_token_is_learned_when_any_of_its_characters_is(texts: list[str]) -> None:
    renderer = starter_renderer()
    turns = tuple(Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts))
    layout, row = renderer.lay_out(turns), renderer.render(turns)
    encoding = renderer.encode(layout)
    expected = [
        token if any(start < stop and end > begin for begin, stop in layout.learned) else IGNORED
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
    assert row.labels == expected


@functools.cache
def starter_renderer() -> Renderer:
    return Renderer(starter.MODEL)


# What transformers and TRL do.

ROLES: tuple[Conversation, ...] = (
    TALK[1:3],
    TALK[1:],
    TALK,
    TALK[1:4],
    # Of a character in several tokens at the very end of a mark transformers takes only the first: a full stop follows.
    (Message("user", " a \n"), Message("assistant", "\n b 漢.\n\n"), Message("user", "c"), Message("assistant", "  d")),
)
DIFFERENT = {
    "deepseek_r1_distill": "TRL trains the header <｜Assistant｜> too, which the generation prompt already holds",
    "deepseekv3": "TRL trains the header <｜Assistant｜> too, which the generation prompt already holds",
    "gptoss": "TRL trains the header <|start|>assistant too, which the generation prompt already holds",
    "muse_glimmer": "TRL trains the header <|start|>assistant too, which the generation prompt already holds",
    "qwen2_5": "TRL trains the line end of the header too, which the generation prompt already holds",
    "glm4moe": "TRL's template writes the control word of the next turn into the turn, the stock template does not",
}


def trl_templates() -> Path:
    specification = importlib.util.find_spec("trl")
    assert specification is not None and specification.submodule_search_locations
    return Path(specification.submodule_search_locations[0]) / "chat_templates"


PAIRS = sorted(file.name.removesuffix("_training.jinja") for file in trl_templates().glob("*_training.jinja"))


@pytest.fixture(scope="module")
def many_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's tokenizer with the control words of all templates as tokens."""
    from transformers import AutoTokenizer

    words: set[str] = set()
    for file in trl_templates().glob("*.jinja"):
        words |= set(re.findall(r"<\|\w+\|>|<｜[^｜'\"]+｜>|</?\w+>", file.read_text()))
    folder = tmp_path_factory.mktemp("words")
    tokenizer = AutoTokenizer.from_pretrained(starter.MODEL)
    tokenizer.add_tokens(sorted(words), special_tokens=True)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    shutil.copy(starter.MODEL / "generation_config.json", folder)
    return folder


def theirs(tokenizer: Any, turns: Conversation, template: str, parts: bool) -> tuple[list[int], list[bool]]:
    messages = [
        {"role": turn.role, "content": [{"type": "text", "text": turn.content}] if parts else turn.content}
        for turn in turns
    ]
    found = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return found["input_ids"], [bool(bit) for bit in found["assistant_masks"]]


def ours(renderer: Renderer, turns: Conversation) -> tuple[list[int], list[bool]]:
    row = renderer.render(turns)
    return row.input_ids, [label != IGNORED for label in row.labels]


@pytest.mark.slow
def test_tokens_and_mask_equal_those_of_transformers(renderer: Renderer) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(starter.MODEL)
    rows = [json.loads(line)["messages"] for line in starter.TRAINING_DATA.read_text().splitlines()[:100]]
    talks = [tuple(Message(turn["role"], turn["content"]) for turn in row) for row in rows]
    for turns in (*talks, TALK):
        assert ours(renderer, turns) == theirs(tokenizer, turns, tokenizer.chat_template, False)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
        assert renderer.prompt(turns[:-1]) == tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_the_mask_is_that_of_trl(tmp_path: Path, many_words: Path, name: str) -> None:
    from transformers import AutoTokenizer

    stock = (trl_templates() / f"{name}.jinja").read_text()
    training = (trl_templates() / f"{name}_training.jinja").read_text()
    tokenizer = AutoTokenizer.from_pretrained(many_words)
    folder = with_template(tmp_path, stock, many_words)
    proving, by_trl = Renderer(folder), Renderer(folder, data(template="trl"))
    parts = name in ("idefics3", "llava_next")
    same = compared = 0
    for turns in ROLES:
        try:
            expected = theirs(tokenizer, turns, training, parts)
        except Exception:  # noqa: BLE001 — whatever the template raises, ours raises too
            with pytest.raises(TunewrightError, match="refused"):
                by_trl.render(turns)
            continue
        assert ours(by_trl, turns) == expected
        found = ours(proving, turns)
        if found[0] == expected[0]:
            compared += 1
            same += found == expected
    if name in DIFFERENT:
        assert same < compared or name == "glm4moe", "it may leave the list"
    else:
        assert same == compared > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_the_completion_is_that_of_trl(tmp_path: Path, many_words: Path, name: str) -> None:
    from transformers import AutoTokenizer
    from trl.data_utils import common_prefix_length

    stock = (trl_templates() / f"{name}.jinja").read_text()
    tokenizer = AutoTokenizer.from_pretrained(many_words)
    renderer = Renderer(with_template(tmp_path, stock, many_words), data(loss_on="completion"))
    parts = name in ("idefics3", "llava_next")
    for turns in ((TALK[1], TALK[2]), TALK[1:]):
        messages = [
            {"role": turn.role, "content": [{"type": "text", "text": turn.content}] if parts else turn.content}
            for turn in turns
        ]
        prompt, whole = (
            tokenizer.apply_chat_template(
                each, chat_template=stock, tokenize=True, return_dict=True, add_generation_prompt=asking
            )["input_ids"]
            for each, asking in ((messages[:-1], True), (messages, False))
        )
        start = common_prefix_length(prompt, whole)
        row = renderer.render(Example("conversation", turns, prompt_turns=len(turns) - 1))
        assert row.input_ids == whole
        assert row.labels == [IGNORED] * start + whole[start:]


@pytest.mark.slow
@pytest.mark.parametrize("begins", [False, True])
def test_template_none_is_what_trl_makes_of_strings(tmp_path: Path, begins: bool) -> None:
    from transformers import AutoTokenizer
    from trl.data_utils import common_prefix_length

    folder = with_begin(tmp_path) if begins else with_template(tmp_path, CHATML)
    renderer = Renderer(folder, data(template="none"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, completion in (
        ("2 + 2 =", " 4"), ("hel", "lo there"), ("item", "s"), ("", "all"), ("ü", "🎉"), ("a ", " b"), ("x", "y<|end|>"),
    ):  # fmt: skip
        ended = completion if completion.endswith("<|end|>") else completion + "<|end|>"
        asked, whole = tokenizer(text=prompt)["input_ids"], tokenizer(text=prompt + ended)["input_ids"]
        start = common_prefix_length(asked, whole)
        row = renderer.render(
            Example("conversation", (Message("user", prompt), Message("assistant", completion)), prompt_turns=1)
        )
        assert row.input_ids == whole
        assert row.labels == [IGNORED] * start + whole[start:]
