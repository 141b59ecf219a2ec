"""Objectives: the rows of pairs, marked answers and long documents, token by token against a plain oracle."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tunewright import starter
from tunewright.engine.data.examples import IGNORED
from tunewright.engine.data.measuring import measure_here
from tunewright.engine.data.objectives import divide
from tunewright.engine.data.preparing import Rows, prepare
from tunewright.engine.data.rendering import Row
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Recipe, validate_recipe

TOKENIZER = Tokenizer.from_file(str(starter.MODEL / "tokenizer.json"))
END = TOKENIZER.token_to_id("<|end|>")
EVERY_ROW = {"kind": "none", "value": 0.0}


def recipe(objective: str, source: Path | str, **changes: Any) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": "tunewright/starter"},
            "data": {"source": str(source), "validation": EVERY_ROW, **changes},
            "method": {"kind": "full"},
            "training": {"learning_rate": 1e-3, "epochs": 1.0, "objective": objective},
        },
        "test",
    )


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def oracle(asked: str, answer: str, length: int = 2048) -> tuple[list[int], list[int]]:
    """Token ids and labels of a question and its answer, written out by hand."""
    prompt = TOKENIZER.encode(f"<|begin|><|user|>{asked}<|end|><|assistant|>").ids
    learned = TOKENIZER.encode(f"{answer}<|end|>").ids
    ids, labels = prompt + learned, [IGNORED] * len(prompt) + learned
    return ids[:length], labels[:length]


def tokens(rows: Rows | None) -> list[tuple[list[int], list[int]]]:
    assert rows is not None
    return [(row.input_ids, row.labels) for row in rows]


QUESTIONS = ["Two red mugs, please.", "Do you have blue bowls?", "Hello!"]
BETTER = ["With pleasure: two red mugs.", "Yes, we have blue bowls.", "Hello! How can I help you?"]
WORSE = ["No.", "I do not know that. " * 3, "Bye"]


def explicit() -> list[dict[str, Any]]:
    return [
        {"prompt": said("user", asked), "chosen": said("assistant", good), "rejected": said("assistant", bad)}
        for asked, good, bad in zip(QUESTIONS, BETTER, WORSE, strict=True)
    ]


def implicit() -> list[dict[str, Any]]:
    return [
        {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in explicit()
    ]


@pytest.mark.parametrize("objective", ["dpo", "orpo"])
@pytest.mark.parametrize("rows", [explicit(), implicit()], ids=["explicit", "implicit"])
def test_pairs_are_both_answers_after_the_same_prompt(
    tmp_path: Path, objective: str, rows: list[dict[str, Any]]
) -> None:
    found = prepare(recipe(objective, write(tmp_path / "pairs.jsonl", rows))).training
    better = [oracle(*pair) for pair in zip(QUESTIONS, BETTER, strict=True)]
    worse = [oracle(*pair) for pair in zip(QUESTIONS, WORSE, strict=True)]
    assert tokens(found) == better
    assert tokens(found.rejected) == worse
    assert found.lengths == [2 * max(len(one[0]), len(two[0])) for one, two in zip(better, worse, strict=True)]
    learned = [[label != IGNORED for label in one[1] + two[1]] for one, two in zip(better, worse, strict=True)]
    assert found.supervised == [sum(each) for each in learned]


def test_pairs_that_are_too_long_or_say_nothing_are_cut_or_left_out(tmp_path: Path) -> None:
    long = "mug " * 60
    same = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Hello!"}
    no_room = {"prompt": long, "chosen": "Yes.", "rejected": "No."}
    grown = {"prompt": "Hi", "chosen": "Yes.", "rejected": f"No. {long}"}
    source = write(tmp_path / "pairs.jsonl", [same, no_room, grown, explicit()[0]])
    cut = prepare(recipe("dpo", source, max_length=40))
    assert (len(cut.training), cut.cut, cut.dropped) == (2, 1, 2)
    assert tokens(cut.training.rejected)[0] == oracle("Hi", f"No. {long}", 40)
    assert tokens(cut.training)[0] == oracle("Hi", "Yes.")
    dropped = prepare(recipe("dpo", source, max_length=40, overlong="drop"))
    assert (len(dropped.training), dropped.cut, dropped.dropped) == (1, 0, 3)


def test_a_split_keeps_both_answers_together() -> None:
    source = "tunewright/starter-preferences"
    split = prepare(recipe("dpo", source, validation={"kind": "rows", "value": 40.0}, share=0.5))
    everything = prepare(recipe("dpo", source)).training
    partner = {tuple(one): tuple(two) for (one, _), (two, _) in zip(*map(tokens, both(everything)), strict=True)}
    for rows, count in ((split.training, 180), (split.validation, 40)):
        ours = list(zip(*map(tokens, both(rows)), strict=True))
        assert len(ours) == count
        assert all(partner[tuple(one)] == tuple(two) for (one, _), (two, _) in ours)


def both(rows: Rows) -> tuple[Rows, Rows]:
    assert rows.rejected is not None
    return rows, rows.rejected


def test_marked_answers_keep_their_marks(tmp_path: Path) -> None:
    rows = [
        {"prompt": asked, "completion": answer, "label": good}
        for asked, answers in zip(QUESTIONS, zip(BETTER, WORSE, strict=True), strict=True)
        for answer, good in zip(answers, (True, False), strict=True)
    ]
    marked = prepare(recipe("kto", write(tmp_path / "marked.jsonl", rows))).training
    pairs = prepare(recipe("kto", write(tmp_path / "pairs.jsonl", explicit()))).training
    wanted = [oracle(row["prompt"], row["completion"]) for row in rows]
    for found in (marked, pairs):
        assert tokens(found) == wanted
        assert found.desirable is not None and found.desirable.tolist() == [True, False] * 3
        chosen = found.take([4, 1])
        assert tokens(chosen) == [wanted[4], wanted[1]]
        assert chosen.desirable is not None and chosen.desirable.tolist() == [True, False]
    supervised = prepare(recipe("sft", tmp_path / "marked.jsonl"))
    assert tokens(supervised.training) == wanted[::2]  # a bad answer is not imitated
    assert supervised.dropped == 3


def test_both_answers_of_a_pair_stay_on_one_side_when_they_are_judged_apart() -> None:
    found = prepare(recipe("kto", "tunewright/starter-preferences", validation={"kind": "rows", "value": 40.0}))
    assert (len(found.training), len(found.validation), len(found.kept_out)) == (720, 80, 40)
    for rows in (found.training, found.validation):
        assert rows.desirable is not None and rows.desirable.tolist() == [True, False] * (len(rows) // 2)


def test_long_documents_are_divided_and_keep_every_token_once(tmp_path: Path) -> None:
    texts = ["A short one.", "The shop is open. " * 40, "mug " * 7]
    source = write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    prepared = prepare(recipe("cpt", source, max_length=16))
    whole = [TOKENIZER.encode(f"{text}<|end|>").ids for text in texts]
    pieces = [row.input_ids for row in prepared.training]
    assert [token for piece in pieces for token in piece] == [token for ids in whole for token in ids]
    assert all(row.labels == row.input_ids for row in prepared.training)
    assert all(1 < len(piece) <= 16 for piece in pieces)
    assert [END in piece[:-1] for piece in pieces] == [False] * len(pieces)
    assert sum(piece[-1] == END for piece in pieces) == len(texts)
    assert (prepared.divided, prepared.cut, prepared.dropped) == (1, 0, 0)
    dropped = prepare(recipe("cpt", source, max_length=16, overlong="drop"))
    assert (len(dropped.training), dropped.divided, dropped.dropped) == (2, 0, 1)
    assert measure_here(recipe("cpt", source, max_length=16)).divided == 1


def test_conversations_are_learned_whole_in_continued_pretraining(tmp_path: Path) -> None:
    found = prepare(recipe("cpt", write(tmp_path / "talks.jsonl", implicit_talks()))).training
    ids = [oracle(*pair)[0] for pair in zip(QUESTIONS, BETTER, strict=True)]
    assert tokens(found) == [(each, each) for each in ids]


def implicit_talks() -> list[dict[str, Any]]:
    return [{"messages": row["prompt"] + row["chosen"]} for row in explicit()]


def test_the_parts_of_a_document_stay_on_one_side(tmp_path: Path) -> None:
    texts = [{"text": f"{number} " + "red mugs and blue bowls. " * 20} for number in range(20)]
    source = write(tmp_path / "texts.jsonl", texts)
    rows = {"kind": "rows", "value": 5.0}
    found = prepare(recipe("cpt", source, max_length=16, validation=rows))
    assert (len(found.kept_out), len(found.chosen), found.divided) == (5, 5, 20)
    ends = [row.input_ids[-1] == END for row in found.validation]
    assert ends.count(True) == 5 and ends[-1]  # whole documents, nothing but them
    assert sum(row.input_ids[-1] == END for row in found.training) == 15


@given(st.integers(1, 200), st.integers(8, 40))
def test_dividing_loses_no_token_and_leaves_none_alone(length: int, most: int) -> None:
    row = Row(list(range(length)), list(range(length)), length)
    parts = divide(row, most)
    assert [token for part in parts for token in part.input_ids] == row.input_ids
    assert [label for part in parts for label in part.labels] == row.labels
    assert all(part.length <= most and (part.length > 1 or length == 1) for part in parts)
    assert len(parts) == -(-length // most)


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_a_format_that_does_not_fit_is_refused_with_those_that_do(tmp_path: Path, objective: str) -> None:
    with pytest.raises(TunewrightError, match="Data does not fit the objective") as caught:
        prepare(recipe(objective, write(tmp_path / "talks.jsonl", implicit_talks())))
    assert f"of the format messages, and {objective} learns from" in caught.value.message
    assert caught.value.remedy.endswith("one that learns from messages: sft or cpt.")


def test_marked_answers_are_no_pairs(tmp_path: Path) -> None:
    source = write(tmp_path / "marked.jsonl", [{"prompt": "Hi", "completion": "Hello!", "label": True}] * 3)
    with pytest.raises(TunewrightError) as caught:
        prepare(recipe("dpo", source))
    assert "(the format preference)" in caught.value.message
    assert caught.value.remedy.endswith("one that learns from kto: sft or cpt or kto.")
