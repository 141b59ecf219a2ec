"""Variants of the starter's model: templates and tokenizers that each have one fault or one habit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tunewright.starter import MODEL

TEMPLATE = """\
{{- bos_token }}
{%- if tools %}
    {{- '<|system|>You may call: ' }}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
    {{- eos_token }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content or '' %}
    {%- if message.role == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
            {%- set thinking = message.reasoning_content or message.thinking %}
            {%- if thinking %}{{- '<think>\\n' + thinking + '\\n</think>\\n\\n' }}{%- endif %}
            {{- content }}
            {%- for call in message.tool_calls or [] %}
                {%- set function = call.function or call %}
                {{- '<tool_call>' + function.name + ' ' + (function.arguments | tojson) + '</tool_call>' }}
            {%- endfor %}
            {{- eos_token }}
        {%- endgeneration %}
    {%- elif message.role in ('system', 'user', 'tool') %}
        {{- '<|' + message.role + '|>' + content + eos_token }}
    {%- else %}
        {{- raise_exception('Unknown role: ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
_MARKS = re.compile(r"^ *\{%- (end)?generation %\}\n", re.MULTILINE)
_TOOLS = re.compile(
    r"\{%- if tools %\}.*?\{%- endif %\}\n|^ *\{%- for call in.*?endfor %\}\n", re.DOTALL | re.MULTILINE
)
_ENDED = "            {{- eos_token }}\n        {%- endgeneration %}\n"
_MARKLESS = _MARKS.sub("", TEMPLATE)
_EACH = "{%- for message in messages %}"
_THOUGHT = "{%- if thinking %}"
TEMPLATES = {
    "without marks": _MARKLESS,
    "without system": TEMPLATE.replace("('system', 'user', 'tool')", "('user', 'tool')").replace(
        "{{- raise_exception('Unknown role: ' + message.role) }}", ""
    ),
    "refuses system": TEMPLATE.replace(
        _EACH,
        _EACH + "{%- if message.role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}",
    ),
    "alternates": TEMPLATE.replace(
        _EACH,
        _EACH + "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}",
    ),
    "without tools": _TOOLS.sub("", TEMPLATE),
    "without end": TEMPLATE.replace(_ENDED, "        {%- endgeneration %}\n"),
    "end outside the marks": TEMPLATE.replace(_ENDED, "        {%- endgeneration %}\n        {{- eos_token }}\n"),
    # How many turns there are stands first, and the answers are altered: neither prefixes nor contents are found again.
    "not provable": "{{- messages | length }}"
    + _MARKLESS.replace("{{- content }}", "{{- content | upper | replace('E', messages | length | string) }}"),
    "endless": "{%- for a in range(99999) %}{%- for b in range(99999) %}{%- for c in range(99999) %}"
    + "{%- endfor %}" * 3
    + TEMPLATE,
    "without answers": TEMPLATE.replace("            {{- content }}\n", "").replace(
        _ENDED, "        {%- endgeneration %}\n"
    ),
    "drops thinking": TEMPLATE.replace(_THOUGHT, "{%- if thinking and loop.last %}"),
    "empty thinking": TEMPLATE.replace(
        "            {{- content }}\n",
        "            {%- if not thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n"
        "            {{- content }}\n",
    ),
    "two begins": "{{- bos_token }}" + TEMPLATE,
}
CONTEXT = 8192
CHATML = ("<|im_start|>", "<|im_end|>")


def _settings(**changes: object) -> Callable[[Path], None]:
    """Return what changes tokenizer_config.json; None takes a key away."""
    return lambda folder: _rewrite(folder / "tokenizer_config.json", changes)


def _rewrite(path: Path, changes: Mapping[str, object]) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def _forget_end(folder: Path) -> None:
    _rewrite(folder / "tokenizer_config.json", {"eos_token": None})
    _rewrite(folder / "generation_config.json", {"eos_token_id": None})
    _rewrite(folder / "config.json", {"eos_token_id": None})
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("eos_token", "'<|end|>'"))


def _forget_letters(folder: Path) -> None:
    """Leave only ASCII in the vocabulary, and a token for all that is not."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    model = tokenizer["model"]

    def known(token: str) -> bool:
        return token.startswith("<|") or all(letter == "Ġ" or letter == "Ċ" or " " < letter <= "~" for letter in token)

    model["vocab"] = {token: number for token, number in model["vocab"].items() if known(token)} | {"<|unknown|>": 2048}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    model["merges"] = [pair for pair in pairs if "".join(pair) in model["vocab"] and all(map(known, pair))]
    model["unk_token"] = "<|unknown|>"
    path.write_text(json.dumps(tokenizer))
    _rewrite(folder / "tokenizer_config.json", {"unk_token": "<|unknown|>"})


def _end_as_chatml(folder: Path) -> None:
    path = folder / "tokenizer.json"
    added = json.loads(path.read_text())["added_tokens"]
    added += [added[-1] | {"id": 2048 + number, "content": word} for number, word in enumerate(CHATML)]
    _rewrite(path, {"added_tokens": added})
    _rewrite(folder / "tokenizer_config.json", {"eos_token": CHATML[1]})
    for name in ("generation_config.json", "config.json"):
        _rewrite(folder / name, {"eos_token_id": 2049})


def _add_begin(folder: Path) -> None:
    """Let the tokenizer begin every text with the begin token, as those of Llama do."""
    begin, text = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [1], "tokens": ["<|begin|>"]}},
    }
    _rewrite(folder / "tokenizer.json", {"post_processor": processor})
    _rewrite(folder / "tokenizer_config.json", {"add_bos_token": True})


ALTERED: dict[str, Callable[[Path], None]] = {
    "roomy": lambda folder: None,
    "without template": lambda folder: (folder / "chat_template.jinja").unlink(),
    "pad is end": _settings(pad_token="<|end|>"),
    "without end token": _forget_end,
    "knows ASCII only": _forget_letters,
    "adds begin": _add_begin,
    "ends as ChatML does": _end_as_chatml,
}


def build_model(name: str, folder: Path) -> str:
    """Return the path of the variant `name` of the starter's tokenizer, built in `folder` where it is not yet."""
    if name == "starter":
        return str(MODEL)
    model = folder / name.replace(" ", "-")
    if model.exists():
        return str(model)
    model.mkdir(parents=True)
    for file in MODEL.iterdir():
        if file.suffix == ".safetensors":
            (model / file.name).symlink_to(file)
        else:
            shutil.copyfile(file, model / file.name)
    _rewrite(model / "config.json", {"max_position_embeddings": CONTEXT})
    _rewrite(model / "tokenizer_config.json", {"model_max_length": CONTEXT})
    (model / "chat_template.jinja").write_text(TEMPLATES.get(name, TEMPLATE))
    if name in ALTERED:
        ALTERED[name](model)
    else:
        assert TEMPLATES[name] != TEMPLATE, name
    return str(model)
