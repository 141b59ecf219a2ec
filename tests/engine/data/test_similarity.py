"""Tests of exact and near-duplicates, and of overlap with evaluation texts."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
from tunewright.engine.data.auditing.contamination import EvaluationIndex
from tunewright.engine.data.auditing.similarity import (
    ENOUGH_EQUAL,
    PERMUTATIONS,
    exact_hash,
    find_near_duplicates,
    sign_batch,
)

CHINESE = (
    "光合作用是植物利用阳光水和二氧化碳产生氧气的过程其中叶绿素吸收光能并把它转化为化学能储存在糖里面供植物生长使用"
)


def words(count: int, seed: int, most: int = 5000) -> list[str]:
    chance = random.Random(seed)
    return [f"w{chance.randrange(most)}" for _ in range(count)]


def jaccard(one: list[str], other: list[str]) -> float:
    left, right = ({tuple(each[i : i + 3]) for i in range(len(each) - 2)} for each in (one, other))
    return len(left & right) / len(left | right)


def agreement(one: str, other: str) -> int:
    left, right = sign_batch([one, other])
    return int((left == right).sum())


def near(texts: list[str]) -> list[tuple[int, int]]:
    return find_near_duplicates(sign_batch(texts), [exact_hash((text,)) for text in texts])


# Exact duplicates.


def test_white_space_does_not_tell_rows_apart():
    one = exact_hash(("user", "What is\n\n  this?", "assistant", "A test."))
    assert one == exact_hash(("user", " What\tis this? \r\n", "assistant", "A\u00a0test."))
    assert one == exact_hash(["user", "What is this?", "assistant", "A\u3000test."])


def test_roles_words_case_and_bounds_tell_rows_apart():
    rows = [
        ("user", "What is this?", "assistant", "A test."),
        ("user", "What is this?", "assistant", "a test."),
        ("user", "What is this?", "system", "A test."),
        ("user", "What is this? assistant", "A test."),
        ("user", "What is", "this?", "assistant", "A test."),
        ("user", "Whatis this?", "assistant", "A test."),
        (),
        ("",),
        ("", ""),
    ]
    hashes = {exact_hash(row) for row in rows}
    # Nothing at all and one empty text are both empty.
    assert len(hashes) == len(rows) - 1
    assert all(0 <= each < 1 << 64 for each in hashes)


def test_hashes_and_signatures_are_the_same_in_every_process():
    code = (
        "from tunewright.engine.data.auditing.similarity import *;"
        "print(exact_hash(('user', 'Grüße')), sign_batch(['one two three four Grüße 世界']).tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{exact_hash(('user', 'Grüße'))} {sign_batch(['one two three four Grüße 世界']).tolist()}\n"}


def test_lone_surrogates_are_hashed_like_any_other_text():
    assert exact_hash(("\ud800 a",)) != exact_hash(("\ud801 a",))
    assert sign_batch(["\ud800 a b c"]).shape == (1, PERMUTATIONS)
    assert EvaluationIndex(["\ud800 " + " ".join(words(20, 1))]).overlap("\udfff") == 0.0


# Signatures.


def test_a_signature_does_not_depend_on_the_rows_beside_it():
    texts = [
        "",
        "one",
        "one two",
        "one two three",
        " ".join(words(400, 1)),
        "世界 one",
        CHINESE,
        "x" * 70_000,
        "!?",
        "a b c d",
    ]
    together = sign_batch(texts * 5)
    alone = np.concatenate([sign_batch([text]) for text in texts])
    assert together.dtype == np.uint32
    assert np.array_equal(together, np.tile(alone, (5, 1)))
    # Wherever the blocks end.
    many = [" ".join(words(count, count)) for count in range(1, 400)]
    assert np.array_equal(sign_batch(many), np.concatenate([sign_batch([text]) for text in many]))


def test_no_rows_and_rows_without_words_are_signed():
    assert sign_batch([]).shape == (0, PERMUTATIONS)
    assert np.all(sign_batch(["", " \n", "?!"]) == 0xFFFFFFFF)
    assert near(["", "?", "!", " . "]) == []


def test_case_and_punctuation_do_not_matter_to_a_signature():
    assert agreement("What IS this, then? A test.", "what is this then a test") == PERMUTATIONS
    assert agreement("ÄPFEL und Öl sind da", "äpfel und öl sind da") == PERMUTATIONS
    assert agreement("one two", "two one") < ENOUGH_EQUAL
    assert agreement("one", "one two") < ENOUGH_EQUAL


@pytest.mark.parametrize("changed", [2, 10, 30, 80])
def test_agreement_estimates_the_similarity_of_sets_of_shingles(changed: int):
    agreements: list[float] = []
    truths: list[float] = []
    for seed in range(200):
        one = words(200, seed)
        other = list(one)
        for place in random.Random(-seed).sample(range(200), changed):
            other[place] = f"changed{place}"
        agreements.append(agreement(" ".join(one), " ".join(other)) / PERMUTATIONS)
        truths.append(jaccard(one, other))
    # The standard error of 200 estimates of 32 trials each is below 0.007.
    assert abs(np.mean(agreements) - np.mean(truths)) < 0.025
    expected = np.sqrt(np.mean(truths) * (1 - np.mean(truths)) / PERMUTATIONS)
    assert np.std(agreements) < 1.5 * expected


def test_minima_are_spread_evenly():
    signatures = sign_batch([" ".join(words(3, seed, 10**9)) for seed in range(4000)])
    assert abs(signatures.astype(np.float64).mean() / 2**32 - 0.5) < 0.01
    assert all(np.unique(signatures[:, each]).size > 3990 for each in range(PERMUTATIONS))


def test_text_without_spaces_is_compared_by_its_characters():
    chance = random.Random(1)
    text = "".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(300))
    assert near([text, f"{text[:150]}很{text[150:]}", text[::-1], CHINESE]) == [(1, 0)]
    thai = "เมืองหลวงของฝรั่งเศสคือปารีสและมีคนอาศัยอยู่ที่นั่นมากกว่าสองล้านคนในปัจจุบันนี้ " * 3
    assert agreement(thai, thai[1:]) >= ENOUGH_EQUAL - 4
    assert agreement(thai, "พืชเปลี่ยนแสงเป็นน้ำตาลและออกซิเจนที่เราหายใจคือสิ่งที่เหลืออยู่ " * 3) < 8


# Near-duplicates.


def test_rows_with_a_word_changed_are_near_duplicates_and_others_are_not():
    first, second = words(200, 1), words(200, 2)
    changed = list(first)
    changed[100] = "other"
    texts = [" ".join(each) for each in (first, second, changed, [*second, "more"], words(200, 3))]
    assert near(texts) == [(2, 0), (3, 1)]


def test_exact_duplicates_are_left_out_but_for_their_first():
    base = words(100, 1)
    other = " ".join([*base[:-1], "end"])
    text = " ".join(base)
    assert near([text, text, text]) == []
    assert near([text, other, text, other, "something else entirely"]) == [(1, 0)]


def test_chains_belong_to_the_earliest_row():
    base = words(150, 1)
    chain: list[str] = []
    for step in range(12):
        chain.append(" ".join(base))
        base[step * 12] = f"new{step}"
    assert agreement(chain[0], chain[-1]) < ENOUGH_EQUAL
    assert near(chain) == [(index, 0) for index in range(1, 12)]
    assert near(chain[::-1]) == [(index, 0) for index in range(1, 12)]


def test_every_pair_that_agrees_in_28_minima_is_found():
    chance = np.random.default_rng(1)
    signatures = chance.integers(0, 2**32 - 2, (20_000, PERMUTATIONS), dtype=np.uint32)
    signatures[10_000:] = signatures[:10_000]
    for row in range(10_000, 20_000):
        places = chance.choice(PERMUTATIONS, PERMUTATIONS - ENOUGH_EQUAL, replace=False)
        signatures[row, places] = chance.integers(0, 2**32 - 2, places.size)
    # One more difference is one too many.
    signatures[15_000:, :] = np.where(
        np.cumsum(signatures[15_000:] == signatures[5_000:10_000], axis=1) == 1, 7, signatures[15_000:]
    )
    found = find_near_duplicates(signatures, np.arange(20_000, dtype=np.uint64))
    assert found == [(row, row - 10_000) for row in range(10_000, 15_000)]


def test_very_many_rows_of_one_template_are_joined():
    template = words(300, 1)
    texts = [" ".join([*template, f"name{number}", f"place{number % 7}"]) for number in range(3000)]
    found = near([*texts, "nothing of the kind at all"])
    assert found == [(index, 0) for index in range(1, 3000)]


def test_few_rows_are_no_trouble():
    assert near([]) == []
    assert near(["one two three four"]) == []
    assert near(["one two three four", "five six seven eight"]) == []


# Contamination.

QUESTION = (
    "A train leaves the station at noon and travels north at sixty miles an hour while another leaves an hour later at "
    "eighty miles an hour. When does the second train catch up with the first?"
)


def test_a_row_that_holds_an_evaluation_text_overlaps_wholly():
    index = EvaluationIndex([QUESTION, " ".join(words(60, 1))])
    assert len(index) == 2
    assert index.overlap(f"Solve this. {QUESTION.upper()} Think step by step.") == 1.0
    assert index.overlap(QUESTION.replace(",", " ,").replace(" ", "\n")) == 1.0
    assert index.overlap(" ".join(words(60, 2))) == 0.0
    assert index.overlap("") == 0.0


def test_the_share_is_that_of_the_evaluation_text():
    text = words(112, 1, 10**9)
    index = EvaluationIndex([" ".join(text), QUESTION])
    assert index.overlap(" ".join([*words(500, 2, 10**9), *text[:62]])) == pytest.approx(0.5)
    assert index.overlap(" ".join(text[:12])) == 0.0
    assert index.overlap(" ".join(text[:13])) == pytest.approx(0.01)


def test_short_evaluation_texts_are_found_by_eight_words_and_shorter_ones_not_at_all():
    index = EvaluationIndex(["Who was the first person on the moon?", "Who are you?", ""])
    assert len(index) == 1
    assert index.overlap("Tell me: who was the first person on the moon?") == 1.0
    assert index.overlap("Who was the first person on the sun?") == 0.0
    assert index.overlap("Who are you?") == 0.0


def test_set_phrases_of_an_evaluation_say_nothing():
    phrase = "Read the passage below and answer the question that follows it with one word only please"
    index = EvaluationIndex([f"{phrase} {' '.join(words(20, seed, 10**9))}" for seed in range(30)])
    assert index.overlap(phrase) == 0.0
    assert index.overlap(f"{phrase} {' '.join(words(20, 3, 10**9))}") == 1.0


def test_repeats_within_an_evaluation_count_once():
    assert EvaluationIndex([QUESTION] * 50).overlap(QUESTION) == 1.0


def test_many_texts_at_once_are_judged_as_each_alone():
    index = EvaluationIndex([QUESTION, *(" ".join(words(40, seed)) for seed in range(50))])
    texts = [" ".join(words(100, seed)) for seed in range(40, 60)] + [QUESTION, "", CHINESE, QUESTION[:150]]
    assert index.overlaps(texts) == [index.overlap(text) for text in texts]


def test_an_evaluation_text_deep_within_a_long_row_is_found():
    filler = " ".join(words(60_000, 1))
    index = EvaluationIndex([QUESTION, CHINESE])
    for place in range(49_800, 50_300, 50):
        assert index.overlap(f"{filler[:place]} {QUESTION} {filler[place:]}") == 1.0
    assert index.overlap(f"{filler}{CHINESE}") == 1.0


def test_an_index_without_texts_finds_nothing():
    index = EvaluationIndex([])
    assert len(index) == 0
    assert index.overlap(QUESTION) == 0.0


def test_an_index_can_be_sent_to_another_process():
    index = pickle.loads(pickle.dumps(EvaluationIndex([QUESTION])))
    assert index.overlap(QUESTION) == 1.0
