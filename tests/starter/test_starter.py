"""The starter's files: small, ours, reproducible, and without overlap between training and held-out rows."""

import json
import math
import struct
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tunewright import starter
from tunewright.starter import corpus, language

TOKENIZER = Tokenizer.from_file(str(starter.MODEL / "tokenizer.json"))
SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def rows(path: Path) -> list[language.Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


TRAIN, HELD_OUT = rows(starter.TRAINING_DATA), rows(starter.HELD_OUT_DATA)
PAIRS, HELD_OUT_PAIRS = (
    [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for path in (starter.PREFERENCES, starter.HELD_OUT_PREFERENCES)
)


def test_everything_fits_in_eight_megabytes() -> None:
    folder = starter.MODEL.parent
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


def test_the_model_has_two_to_five_million_parameters() -> None:
    with (starter.MODEL / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    assert {entry["dtype"] for entry in tensors} == {"BF16"}
    parameters = sum(math.prod(entry["shape"]) for entry in tensors)
    assert 2_000_000 <= parameters <= 5_000_000
    assert parameters == json.loads(starter.FIGURES.read_text(encoding="utf-8"))["parameters"]


def test_the_special_tokens_are_distinct_and_named_in_the_configuration() -> None:
    ids = [TOKENIZER.token_to_id(token) for token in SPECIAL]
    assert ids == list(range(len(SPECIAL)))
    for name in ("config.json", "generation_config.json"):
        config = json.loads((starter.MODEL / name).read_text(encoding="utf-8"))
        assert [config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]] == ids[:3]


def test_there_are_a_thousand_training_and_two_hundred_held_out_rows() -> None:
    assert (len(TRAIN), len(HELD_OUT)) == (language.TRAINING_ROWS, language.HELD_OUT_ROWS) == (1_000, 200)


@pytest.mark.parametrize("position", [0, 1], ids=["message", "order"])
def test_nothing_occurs_twice(position: int) -> None:
    texts = [row["messages"][position]["content"] for row in TRAIN + HELD_OUT]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    "row", [pytest.param(rows_, id=name) for name, rows_ in (("train", TRAIN), ("held", HELD_OUT))]
)
def test_every_answer_is_an_order(row: list[language.Row]) -> None:
    for asked, answer in (entry["messages"] for entry in row):
        assert (asked["role"], answer["role"]) == ("user", "assistant")
        record = json.loads(answer["content"])
        assert set(record) - {"delivery", "note"} == {"name", "city", "items"}
        assert record["name"] in asked["content"]
        assert record["city"] in asked["content"]
        assert 1 <= len(record["items"]) <= 3
        for line in record["items"]:
            assert list(line) == ["item", "colour", "size", "quantity"]
            assert line["item"] in language.ITEMS
            assert line["colour"] in language.COLOURS
            assert line["size"] in language.SIZES
            assert line["quantity"] >= 1
        assert json.dumps(record, ensure_ascii=False, separators=(",", ":")) == answer["content"]


def test_rows_are_short() -> None:
    lengths = [
        [len(TOKENIZER.encode(message["content"]).ids) for message in row["messages"]] for row in TRAIN + HELD_OUT
    ]
    assert max(sum(pair) for pair in lengths) <= 150
    assert sum(answer for _, answer in lengths) / len(lengths) <= 60


@given(st.text())
@settings(deadline=None)
def test_the_tokenizer_gives_any_text_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_the_generator_reproduces_the_data() -> None:
    seed = json.loads(starter.FIGURES.read_text(encoding="utf-8"))["seed"]
    train, held_out = language.data(seed)
    assert language.as_jsonl(train).encode() == starter.TRAINING_DATA.read_bytes()
    assert language.as_jsonl(held_out).encode() == starter.HELD_OUT_DATA.read_bytes()
    pairs, held_out_pairs = language.preferences(seed)
    assert language.as_jsonl(pairs).encode() == starter.PREFERENCES.read_bytes()
    assert language.as_jsonl(held_out_pairs).encode() == starter.HELD_OUT_PREFERENCES.read_bytes()


def test_every_pair_prefers_a_slip_to_a_word_and_no_message_occurs_twice() -> None:
    assert (len(PAIRS), len(HELD_OUT_PAIRS)) == (language.PAIRS, language.HELD_OUT_PAIRS) == (400, 100)
    for pair in PAIRS + HELD_OUT_PAIRS:
        (asked,), (chosen,), (rejected,) = pair["prompt"], pair["chosen"], pair["rejected"]
        assert [each["role"] for each in (asked, chosen, rejected)] == ["user", "assistant", "assistant"]
        name = chosen["content"].splitlines()[0].removeprefix("customer: ")
        assert name in asked["content"] and rejected["content"].startswith(f"Thank you, {name}! We will send ")
    asked_for = [pair["prompt"][0]["content"] for pair in PAIRS + HELD_OUT_PAIRS]
    asked_for += [row["messages"][0]["content"] for row in TRAIN + HELD_OUT]
    assert len(set(asked_for)) == len(asked_for)


def test_pre_training_never_shows_an_order_as_json_nor_a_message_of_the_data() -> None:
    reserved = frozenset(row["messages"][0]["content"] for row in TRAIN + HELD_OUT)
    rng = Random("test")
    for document in (corpus.document(rng, reserved) for _ in range(3_000)):
        texts = [document] if isinstance(document, str) else [message["content"] for message in document]
        assert not any('"items"' in text or text in reserved for text in texts)
