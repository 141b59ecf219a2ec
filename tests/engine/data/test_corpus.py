"""The audit on its proving ground: what is planted is found, and what is clean is left in peace."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunewright.engine.data.findings import CATALOGUE

from .corpus import (
    CONTAINERS,
    SHAPES,
    TEMPLATES,
    Case,
    audit_case,
    build_model,
    clean_cases,
    failing_cases,
    good_rows,
    judge,
)

FAILING = {case.name: case for case in failing_cases()}
CLEAN = {case.name: case for case in clean_cases()}
OF_THE_MACHINE = {"worker_ended"}
"""Codes that no file can plant."""
NEARLY_THE_SAME = 0.85
SHAPES_OF_TURNS = ("messages", "sharegpt", "alpaca", "prompt-completion", "preference", "kto", "text", "tools", "dolly")
"""Those whose rows are long enough that three words in a row say something."""


def words_of(value: Any) -> Iterator[str]:
    """Yield the words of all the texts in a row but those of the schemas of tools."""
    if isinstance(value, str):
        yield from value.split()
    elif isinstance(value, list):
        for each in value:
            yield from words_of(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in ("tools", "role", "from"):
                yield from words_of(each)


def shingles_of(row: Any) -> set[tuple[str, ...]]:
    words = list(words_of(row))
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the models are built once for all cases."""
    return tmp_path_factory.mktemp("ground")


def check(case: Case, ground: Path) -> Any:
    """Return the audit's report on a case after it was judged to be right."""
    report = audit_case(case, ground)
    assert judge(case, report) == []
    return report


def test_the_ground_has_enough_of_both() -> None:
    assert len(FAILING) == sum(1 for _ in failing_cases()) >= 66
    assert len(CLEAN) == sum(1 for _ in clean_cases()) >= 44


def test_every_code_of_the_catalogue_is_planted_and_no_other() -> None:
    assert frozenset().union(*(case.expects for case in FAILING.values())) == set(CATALOGUE) - OF_THE_MACHINE
    assert frozenset().union(*(case.allows for case in FAILING.values())) <= set(CATALOGUE)
    assert all(case.expects for case in FAILING.values())
    assert not any(case.expects or case.allows for case in CLEAN.values())


def test_every_shape_and_container_is_seen_clean() -> None:
    assert {shape for shape in SHAPES if not any(name.startswith(shape) for name in CLEAN)} == set()
    unseen = {container for container in CONTAINERS if not any(name.endswith(f"in {container}") for name in CLEAN)}
    assert unseen == {"jsonl in UTF-16", "csv in UTF-16"}


@pytest.mark.parametrize("shape", SHAPES_OF_TURNS)
def test_good_rows_differ_and_have_a_sane_length(shape: str) -> None:
    rows = good_rows(shape, "measured")
    assert rows == good_rows(shape, "measured")
    words = [len(list(words_of(row))) for row in rows]
    assert min(words) >= 20 and max(words) <= 400
    shingles = [shingles_of(row) for row in rows]
    nearest = max(len(one & other) / len(one | other) for one, other in itertools.combinations(shingles, 2))
    assert nearest < NEARLY_THE_SAME / 1.5


@pytest.mark.parametrize("shape", SHAPES)
def test_good_rows_are_json_and_none_is_there_twice(shape: str) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in good_rows(shape, "measured", 40)]
    assert len(set(lines)) == len(lines)
    assert [json.loads(line) for line in lines] == good_rows(shape, "measured", 40)


@pytest.mark.parametrize("case", FAILING.values(), ids=list(FAILING))
def test_a_failing_case_writes_the_same_bytes_twice(case: Case, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written.append(case.write(tmp_path / name).read_bytes())
        shutil.rmtree(tmp_path / name)
    assert written[0] == written[1]


def test_every_template_compiles_and_loads(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    for name in (
        "roomy",
        *TEMPLATES,
        "without template",
        "adds begin",
        "knows ASCII only",
        "without end token",
        "ends as ChatML does",
    ):
        folder = Path(build_model(name, tmp_path))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert tokenizer.encode("Hello<|end|>", add_special_tokens=False).ids[-1] == 2
    knows_ascii = Tokenizer.from_file(str(tmp_path / "knows-ASCII-only" / "tokenizer.json"))
    assert "<|unknown|>" in knows_ascii.encode("窗户", add_special_tokens=False).tokens
    assert "<|unknown|>" not in knows_ascii.encode("Windows, and\na door", add_special_tokens=False).tokens


@pytest.mark.parametrize("case", FAILING.values(), ids=list(FAILING))
def test_what_is_planted_is_found_with_its_rows_and_remedy(case: Case, ground: Path) -> None:
    report = check(case, ground)
    told = {each["code"]: each for each in (finding.to_json() for finding in report.findings)}
    for code in case.expects:
        assert told[code]["remedy"] == CATALOGUE[code].remedy
        assert told[code]["title"] == CATALOGUE[code].title
    if "truncated_file" in case.expects and "Parquet" not in case.name:  # its table of contents is at the end
        assert report.converted > 0


@pytest.mark.parametrize("case", CLEAN.values(), ids=list(CLEAN))
def test_nothing_above_a_hint_is_found_in_a_clean_file(case: Case, ground: Path) -> None:
    report = check(case, ground)
    assert report.rows >= 24
    assert report.converted == report.rows
    codes = [finding.code for finding in report.findings]
    assert len(codes) == len(set(codes))
