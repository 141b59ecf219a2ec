"""Templates: where they are found, in what form they want turns, what they may not do, and what is known of them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tunewright import starter
from tunewright.engine.data.examples import Message, ToolCall
from tunewright.engine.data.rendering import Renderer
from tunewright.engine.data.templates import (
    NAMED,
    ChatTemplate,
    Form,
    named_template,
    read_special_tokens,
    read_templates,
    training_template,
)
from tunewright.engine.data.templates.facts import TemplateFacts
from tunewright.engine.data.templates.sandbox import Template
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Data

TALK = (Message("user", "a"), Message("assistant", "b"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SIMPLE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|e|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def folder(path: Path, **files: Any) -> Path:
    shutil.copy(starter.MODEL / "tokenizer.json", path / "tokenizer.json")
    for name, content in files.items():
        file = path / name.replace("__", "/").replace("_jinja", ".jinja").replace("_json", ".json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def text_of(source: str, *messages: Message, tools: tuple[dict[str, Any], ...] = ()) -> str:
    return ChatTemplate(source, TOKENS).render(messages, tools)[0]


def test_a_template_in_its_own_file_comes_first(tmp_path: Path) -> None:
    settings = {"chat_template": "old"}
    model = folder(tmp_path, chat_template_jinja="new", tokenizer_config_json=settings)
    assert read_templates(model) == {"default": "new"}


def test_templates_in_other_files_are_found(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    model = folder(tmp_path, tokenizer_config_json={"chat_template": named})
    assert read_templates(model) == {"default": "plain", "tool_use": "tools"}
    folder(tmp_path, chat_template_json={"chat_template": "processor"})
    assert read_templates(model) == {"default": "processor"}
    folder(tmp_path, additional_chat_templates__tool_use_jinja="more")
    assert read_templates(model) == {"default": "processor", "tool_use": "more"}


def test_rows_with_tools_take_the_template_for_tools(tmp_path: Path) -> None:
    model = folder(
        tmp_path, chat_template_jinja=SIMPLE, additional_chat_templates__tool_use_jinja="{{ tools | tojson }}" + SIMPLE
    )
    renderer = Renderer(model)
    assert renderer.prompt(TALK[:1]) == "<|user|>a<|e|><|assistant|>"
    assert renderer.prompt(TALK[:1], ({"name": "f"},)).startswith('[{"name": "f"}]<|user|>')
    assert not renderer.facts().ignores_tools


def test_special_tokens_are_read_in_every_form(tmp_path: Path) -> None:
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None, "add_bos_token": True}
    model = folder(
        tmp_path, tokenizer_config_json=settings, special_tokens_map_json={"unk_token": "<unk>", "eos_token": "x"}
    )
    assert read_special_tokens(model) == {"unk_token": "<unk>", "eos_token": "</s>", "bos_token": "<s>"}
    (model / "tokenizer_config.json").write_text("{")
    with pytest.raises(TunewrightError, match="Model damaged"):
        read_special_tokens(model)


@pytest.mark.parametrize("name", NAMED)
def test_named_templates_mark_their_turns_and_end_them(name: str) -> None:
    template = ChatTemplate(named_template(name), TOKENS)
    text, marks = template.render(TALK)
    assert len([1 for start, end in marks if start < end]) >= 1
    assert text[marks[0][0] : marks[0][1]].lstrip().startswith("b")
    assert marks[-1][1] == len(text)
    prompt, _ = template.render(TALK[:1], answer=True)
    assert text.startswith(prompt)


def test_named_templates_are_chosen_by_the_recipe(tmp_path: Path) -> None:
    model = folder(tmp_path, tokenizer_config_json={"eos_token": "<|end|>"})
    renderer = Renderer(model, Data(source="x", template="zephyr"))
    assert renderer.lay_out(TALK).text == "<|user|>\na<|end|>\n<|assistant|>\nb<|end|>\n"
    assert renderer.facts().trains_end


def test_the_training_template_of_a_stock_template_is_trls() -> None:
    specification = importlib.util.find_spec("trl")
    assert specification is not None and specification.submodule_search_locations
    templates = Path(specification.submodule_search_locations[0]) / "chat_templates"
    stock = (templates / "qwen3.jinja").read_text()
    assert training_template(stock) == (templates / "qwen3_training.jinja").read_text()
    marked = (templates / "lfm2_2_5.jinja").read_text()
    assert training_template(marked) == marked
    with pytest.raises(TunewrightError, match="No training template"):
        training_template(stock + " ")


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (SIMPLE, Form()),
        ("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}", Form(parts=True)),
        ("{% for m in messages %}{{ m.content[0]['text'] + '' }}{% endfor %}", Form(parts=True)),
        (
            "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
            "{{ c.function.name + c.function.arguments }}{% endfor %}{% endfor %}",
            Form(arguments="text"),
        ),
        (
            "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.name }}"
            "{{ m.tool_calls[0].function.arguments | tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}",
            Form(silent=None),
        ),
    ],
)
def test_turns_are_written_in_the_form_that_the_template_wants(source: str, form: Form) -> None:
    assert ChatTemplate(source, TOKENS).form == form


def test_what_a_turn_does_not_have_has_no_key() -> None:
    show = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
    full = Message("assistant", "", "hm", (ToolCall("f", {"x": "ü"}, "1"),), "n", "2")
    assert json.loads(text_of(show, TALK[0])) == {"role": "user", "content": "a"}
    assert json.loads(text_of(show, full)) == {
        "role": "assistant", "content": "", "reasoning_content": "hm", "thinking": "hm", "name": "n", "tool_call_id": "2",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": "ü"}}, "id": "1"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("{% for %}", "Chat template not valid"),
        ("{{ 'x' | center(100000000000) }}", "Chat template refused a row"),
        ("{# " + "x" * 2**20 + " #}", "Chat template not valid"),
        ("{{ raise_exception('no system here') }}", "Chat template refused a row"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "Chat template refused a row"),
        ("{{ undefined_thing.attribute }}", "Chat template refused a row"),
        ("{{ messages.append(1) }}", "Chat template refused a row"),
        ("{{ 10 ** 1000000 }}", "Chat template refused a row"),
        ("{{ 'x' * 100000000 }}", "Chat template refused a row"),
        ("{{ [1] * 100000000 }}", "Chat template refused a row"),
        ("{{ 'x'.ljust(10000000) }}", "Chat template refused a row"),
        ("{{ '%99999999d' % 1 }}", "Chat template refused a row"),
        ("{{ messages | tojson(indent=1000000) }}", "Chat template refused a row"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "Chat template refused a row"),
        ("{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}", "Chat template refused a row"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}", "Chat template does not end"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "Chat template does not end"),
    ],
)  # fmt: skip
def test_a_bad_template_is_explained(source: str, title: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(TunewrightError) as caught:
        Template(source).render({"messages": [{"role": "user", "content": "a"}]})
    assert caught.value.title == title
    assert time.perf_counter() - begun < 60


def test_the_time_limit_leaves_signals_as_they_were() -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError("never")

    before = signal.signal(signal.SIGVTALRM, mine)
    try:
        Template(SIMPLE).render({"messages": []})
        assert signal.getsignal(signal.SIGVTALRM) is mine
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


def test_other_threads_render_too() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(text_of(SIMPLE, *TALK)))
    thread.start()
    thread.join()
    assert found == ["<|user|>a<|e|><|assistant|>b<|e|>"]


def test_marks_in_macros_are_not_guessed_at() -> None:
    source = "{% macro say(t) %}, {% generation %}{{ t }}{% endgeneration %}{% endmacro %}Hello{{ say('you') }}"
    with pytest.raises(TunewrightError, match="Loss mask not provable"):
        Template(source).render({"messages": []})


def test_the_date_is_one_for_all_rows() -> None:
    template = Template("{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }}")
    assert template.render({}) == template.render({})


def test_filters_are_those_of_transformers() -> None:
    source = (
        "{{ {'b': '<ü>', 'a': 1} | tojson }}{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=True) }}"
        "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}"
    )
    assert Template(source).render({})[0] == '{"b": "<ü>", "a": 1}{"a":2,"b":1}13'


def facts(tmp_path: Path, source: str) -> TemplateFacts:
    return Renderer(folder(tmp_path, chat_template_jinja=source, tokenizer_config_json=TOKENS)).facts()


def test_the_facts_of_a_simple_template(tmp_path: Path) -> None:
    assert facts(tmp_path, "{{ bos_token }}" + SIMPLE) == TemplateFacts(
        marks_turns=False, keeps_prefix=True, drops_thinking=False, knows_thinking=False, ignores_system=False,
        refuses_system=False, ignores_tools=True, ignores_tool_calls=True, header="<|assistant|>",
        ends_turn_with="<|e|>", trains_end=False, trains_empty_thinking=False, adds_bos=True,
    )  # fmt: skip


def test_what_templates_leave_out_is_told(tmp_path: Path) -> None:
    qwen3 = facts(tmp_path, (Path(__file__).parent / "templates" / "qwen3.jinja").read_text())
    assert (qwen3.keeps_prefix, qwen3.drops_thinking, qwen3.trains_empty_thinking) == (False, True, True)
    refusing = facts(tmp_path, "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + SIMPLE)
    assert (refusing.refuses_system, refusing.ignores_system) == (True, False)
    ignoring = facts(tmp_path, SIMPLE.replace("in messages", "in messages if m.role != 'system'"))
    assert (ignoring.refuses_system, ignoring.ignores_system) == (False, True)
    calling = SIMPLE.replace("<|e|>", "{{ m.tool_calls | tojson if m.tool_calls }}<|e|>")
    assert not facts(tmp_path, "{{ tools | tojson if tools }}" + calling).ignores_tool_calls
