"""What is rendered is what is trained: our tokens and masks are those of transformers."""

import json
import shutil
from pathlib import Path

import pytest
from tunewright import starter
from tunewright.engine.data.formats import Message, read_conversations
from tunewright.engine.data.rendering import IGNORED, Renderer, choose_validation, prepare
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe, validate_recipe

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


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(starter.MODEL)


def with_template(folder: Path, template: str | None) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(starter.MODEL / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def recipe(**changes: object) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": "tunewright/starter"},
            "data": {"source": "tunewright/starter-orders", **changes},
            "method": {"kind": "full"},
            "training": {"learning_rate": 1e-3, "epochs": 1.0},
        },
        "test",
    )


@pytest.mark.slow
def test_tokens_and_mask_equal_those_of_transformers(renderer: Renderer) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(starter.MODEL)
    conversations = [*read_conversations(starter.TRAINING_DATA, limit=100).rows, TALK]
    for conversation in conversations:
        turns = [{"role": turn.role, "content": turn.content} for turn in conversation]
        theirs = tokenizer.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ours = renderer.render(conversation)
        assert ours.input_ids == theirs["input_ids"]
        assert [label != IGNORED for label in ours.labels] == [bool(bit) for bit in theirs["assistant_masks"]]
        assert renderer.prompt(conversation[:-1]) == tokenizer.apply_chat_template(
            turns[:-1], tokenize=False, add_generation_prompt=True
        )


def test_the_end_of_the_turn_is_learned(renderer: Renderer) -> None:
    row = renderer.render(TALK)
    trained = [label for label in row.labels if label != IGNORED]
    assert trained[-1] in renderer.end_tokens
    assert renderer.tokenizer.decode(trained) == '{"item":"mug"}{"item":"bowl"}'


def test_loss_on_the_last_turn_and_on_all(renderer: Renderer) -> None:
    last = [label for label in renderer.render(TALK, "last").labels if label != IGNORED]
    assert renderer.tokenizer.decode(last) == '{"item":"bowl"}'
    everything = renderer.render(TALK, "all")
    assert everything.labels == everything.input_ids


def test_a_template_without_marks_gives_the_same_mask_by_prefix(tmp_path: Path) -> None:
    unmarked = Renderer(with_template(tmp_path, CHATML))
    row = unmarked.render(TALK)
    trained = unmarked.tokenizer.decode([label for label in row.labels if label != IGNORED], skip_special_tokens=False)
    assert trained == '{"item":"mug"}<|im_end|>\n{"item":"bowl"}<|im_end|>\n'


def test_a_template_that_changes_earlier_turns_is_not_guessed_at(tmp_path: Path) -> None:
    fickle = Renderer(with_template(tmp_path, "{{ messages | length }}" + CHATML))
    with pytest.raises(TunewrightError, match="Loss mask not provable"):
        fickle.render(TALK)


@pytest.mark.parametrize(
    ("template", "title"),
    [
        (None, "No chat template"),
        ("{% for %}", "Chat template not valid"),
        ("{{ raise_exception('no system here') }}", "Chat template refused a row"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "Chat template refused a row"),
        ("{{ undefined_thing.attribute }}", "Chat template refused a row"),
    ],
)
def test_a_bad_template_is_explained(tmp_path: Path, template: str | None, title: str) -> None:
    with pytest.raises(TunewrightError) as caught:
        Renderer(with_template(tmp_path, template)).render(TALK)
    assert caught.value.title == title


def test_a_folder_without_a_tokenizer_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TunewrightError, match="No fast tokenizer"):
        Renderer(tmp_path)


def test_preparing_splits_the_same_way_every_time_and_loses_nothing() -> None:
    kept_out = recipe(validation={"kind": "rows", "value": 50.0})
    one, two = prepare(kept_out), prepare(kept_out)
    assert one == two
    assert (len(one.training), len(one.validation), len(one.kept_out), one.cut, one.dropped) == (950, 50, 50, 0, 0)
    renderer = Renderer(starter.MODEL)
    assert [renderer.render(each, max_length=2048) for each in one.kept_out] == list(one.validation)


def test_cut_rows_are_counted_and_rows_without_anything_to_learn_dropped() -> None:
    prepared = prepare(recipe(max_length=40))
    assert prepared.cut > 900
    assert prepared.dropped > 0
    assert all(row.length <= 40 and row.supervised for row in prepared.training)
    with pytest.raises(TunewrightError, match="Nothing to learn"):
        prepare(recipe(max_length=8))


def test_the_validation_rows_follow_the_seed_and_leave_rows_to_train_on() -> None:
    rule = recipe(validation={"kind": "fraction", "value": 0.1})
    assert choose_validation(100, rule) == choose_validation(100, rule)
    assert len(choose_validation(100, rule)) == 10
    other = rule.model_copy(update={"training": rule.training.model_copy(update={"seed": 7})})
    assert choose_validation(100, rule) != choose_validation(100, other)
    with pytest.raises(TunewrightError, match="No rows left"):
        choose_validation(50, recipe(validation={"kind": "rows", "value": 50.0}))
