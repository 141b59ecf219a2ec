"""The judgement on a whole data set: what its rows have in common, and how grave each finding is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....recipes.model import Data
from ..findings import CATALOGUE, MOST_EXAMPLES, Finding, Severity, Shown
from ..reading.batches import FILE_CODES
from ..statistics import percent
from .checks import Found
from .similarity import find_near_duplicates

FEW_ROWS = 200
"""Fewer rows than this rarely teach what a prompt with examples does not (threshold assumed)."""
NEARLY_ALL = 0.9
FEWEST_ANSWERS = 8
"""So many answers there must be before it says anything that nearly all are the same."""
HALF = 0.5
RARE = 0.01
"""What concerns fewer rows than this share is a hint, of the findings in RARELY_HARMFUL."""
RARELY_HARMFUL = frozenset({"truncated", "answer_cut_off", "answer_repeats_prompt", "unknown_tokens"})
WORSE_WHEN_COMMON = frozenset({"row_not_trained", "end_not_trained"})
"""Errors where more than half of the rows are concerned."""
UNREADABLE = frozenset(
    {
        "not_json", "not_object", "not_utf8", "row_too_long", "nested_too_deeply", "ragged_row", "mixed_schema",
        "missing_field", "not_text", "no_turns", "bad_turn", "unknown_role", "no_answer", "not_supported_content",
        "bad_label", "bad_tools", "prompts_differ", "worker_ended",
    }
)  # fmt: skip
"""Rows that are left out when the recipe says so."""
CROSSED_SHARE = 0.05
SECOND_LANGUAGE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of the model and its template without a row."""

    exact: bool = False
    """Whether the model's own tokenizer counts."""
    context: int | None = None
    """The longest sequence that the model takes, in tokens."""
    has_end: bool = True
    pads_with_end: bool = False
    template_fault: Found | None = None
    """Why no conversation can be rendered, where one has to be."""


@dataclass(frozen=True, slots=True)
class OtherRows:
    """Rows of another file, to compare with."""

    exact: NDArray[np.uint64]
    signatures: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the rows gave, to be judged."""

    data: Data
    format: str
    """Empty where it was not recognised."""
    unrecognised: str
    """Why it was not."""
    facts: ModelFacts
    rows: int
    converted: int
    rendered: int
    supervised_tokens: int
    counts: Mapping[str, int]
    """Rows by the code of what is wrong with them."""
    shown: Mapping[str, tuple[Shown, ...]]
    languages: Mapping[str, int]
    crossed: int
    """Rows whose answer is in another language than its prompt."""
    labels: Mapping[bool, int]
    complete: bool
    array: Callable[[str], NDArray[Any]]
    """One value a converted row, by name."""
    place: Callable[[int], str]
    validation: OtherRows | None


def judge(gathered: Gathered) -> Iterator[Finding]:
    """Yield the findings, in no order."""
    for code, count in gathered.counts.items():
        yield _judge_rows(gathered, code, count)
    yield from _judge_file(gathered)
    yield from _judge_model(gathered)
    if gathered.rendered and not gathered.supervised_tokens:
        yield _finding("nothing_trained", gathered.rendered, f"0 tokens of {gathered.rendered:,} rows are learned.")
    if gathered.converted:
        yield from _judge_duplicates(gathered)
        yield from _judge_answers(gathered)
        yield from _judge_languages(gathered)


def _finding(
    code: str, count: int, detail: str = "", examples: tuple[Shown, ...] = (), severity: Severity | None = None
) -> Finding:
    return Finding(code, count, examples, severity or CATALOGUE[code].severity, detail)


def _judge_rows(gathered: Gathered, code: str, count: int) -> Finding:
    """Return what was found in single rows, as grave as its share makes it."""
    severity = CATALOGUE[code].severity
    data = gathered.data
    of = max(1, gathered.rendered if code in WORSE_WHEN_COMMON | RARELY_HARMFUL else gathered.rows)
    share = count / of
    detail = "" if code in FILE_CODES else f"{percent(share)} of {of:,} rows."
    if code in UNREADABLE and data.faulty == "drop":
        severity = "warning"
        detail += " They are left out, as data.faulty says."
    elif code in WORSE_WHEN_COMMON and share > HALF:
        severity = "error"
    elif (code in RARELY_HARMFUL and share < RARE) or (code == "template_in_text" and gathered.format == "text"):
        severity = "hint"
    if code == "truncated":
        verb = "cut to" if data.overlong == "cut" else "left out, being longer than"
        detail = f"{count:,} of {of:,} rows ({percent(share)}) are {verb} {data.max_length:,} tokens."
        severity = "hint" if data.overlong == "drop" and share < HALF else severity
    return _finding(code, count, detail.strip(), gathered.shown.get(code, ()), severity)


def _judge_file(gathered: Gathered) -> Iterator[Finding]:
    if gathered.complete and not gathered.rows and not gathered.counts:
        yield _finding("empty_file", 0)
    if gathered.rows and not gathered.format:
        yield _finding("unknown_format", gathered.rows, gathered.unrecognised)
    if gathered.complete and 0 < gathered.converted < FEW_ROWS:
        yield _finding("few_rows", gathered.converted, f"{gathered.converted:,} rows can be learned from.")


def _judge_model(gathered: Gathered) -> Iterator[Finding]:
    facts, data = gathered.facts, gathered.data
    if facts.template_fault is not None:
        code, why = facts.template_fault
        yield _finding(code, gathered.converted, why)
    if not facts.has_end:
        yield _finding("end_unknown", gathered.converted)
    if facts.pads_with_end:
        yield _finding("pad_is_end", gathered.converted)
    if facts.context is not None and data.max_length > facts.context:
        lengths = gathered.array("lengths")
        beyond = lengths > facts.context
        if data.overlong == "drop":
            beyond &= lengths <= data.max_length
        count = int(np.count_nonzero(beyond))
        detail = f"The model reads {facts.context:,} tokens, data.max_length is {data.max_length:,}; {count:,} rows are longer."
        examples = _examples(
            gathered, np.flatnonzero(beyond)[:MOST_EXAMPLES], lambda index: f"{lengths[index]:,} tokens"
        )
        yield _finding("beyond_context", count, detail, examples, None if count else "hint")


def _examples(gathered: Gathered, indexes: Any, detail: Callable[[int], str]) -> tuple[Shown, ...]:
    return tuple(Shown(gathered.place(int(each)), detail(int(each)), int(each)) for each in indexes)


def _judge_duplicates(gathered: Gathered) -> Iterator[Finding]:
    exact = gathered.array("exact")
    values, firsts, which = np.unique(exact, return_index=True, return_inverse=True)
    repeats = np.flatnonzero(firsts[which] != np.arange(exact.size))
    if repeats.size:
        examples = _examples(
            gathered, repeats[:MOST_EXAMPLES], lambda index: f"the same as {gathered.place(int(firsts[which[index]]))}"
        )
        detail = f"{percent(repeats.size / exact.size)} of the rows; {values.size:,} different ones are left."
        rule = gathered.data.validation
        if rule.kind == "fraction" and rule.key is None and rule.value:
            # A pair is divided when one of the two is drawn and the other is not.
            divided = round(repeats.size * 2 * rule.value * (1 - rule.value))
            if divided:
                detail += f" About {divided:,} of them would stand in training and in validation."
        yield _finding("duplicates", int(repeats.size), detail, examples)
    if not gathered.complete:
        return
    signatures = gathered.array("signatures")
    hashes = exact
    validation = gathered.validation
    if validation is not None:
        hashes = np.concatenate([exact, validation.exact])
        signatures = np.concatenate([signatures, validation.signatures])
    pairs = find_near_duplicates(signatures, hashes)
    near = [(repeat, first) for repeat, first in pairs if repeat < exact.size]
    if near:
        of = dict(near[:MOST_EXAMPLES])
        examples = _examples(gathered, of, lambda index: f"nearly the same as {gathered.place(of[index])}")
        yield _finding("near_duplicates", len(near), f"{percent(len(near) / exact.size)} of the rows.", examples)
    if validation is not None:
        yield from _judge_overlap(gathered, validation, pairs)


def _judge_overlap(gathered: Gathered, validation: OtherRows, pairs: list[tuple[int, int]]) -> Iterator[Finding]:
    """Find the training rows that are rows of the validation file, or nearly so."""
    exact = gathered.array("exact")
    same = np.flatnonzero(np.isin(exact, validation.exact))
    near = sorted({first for repeat, first in pairs if repeat >= exact.size > first} - set(same.tolist()))
    count = int(same.size) + len(near)
    if count:
        shown = [*same[:MOST_EXAMPLES].tolist(), *near][:MOST_EXAMPLES]
        alike = set(near)
        examples = _examples(
            gathered, shown, lambda index: "nearly a validation row" if index in alike else "a validation row too"
        )
        detail = f"{same.size:,} rows are the same, {len(near):,} nearly the same."
        yield _finding("validation_overlap", count, detail, examples)


def _judge_answers(gathered: Gathered) -> Iterator[Finding]:
    answers, prompts = gathered.array("answers"), gathered.array("prompts")
    given = answers[answers != 0]
    if given.size >= FEWEST_ANSWERS:
        values, counts = np.unique(given, return_counts=True)
        most = int(counts.argmax())
        if counts[most] / given.size >= NEARLY_ALL:
            examples = _examples(gathered, np.flatnonzero(answers == values[most])[:1], lambda _: "this answer")
            detail = f"{int(counts[most]):,} of {given.size:,} answers are the same one."
            yield _finding("constant_answer", int(counts[most]), detail, examples)
    yield from _judge_conflicts(gathered, prompts, answers)
    if len(gathered.labels) == 1 and gathered.complete:
        ((label, count),) = gathered.labels.items()
        yield _finding("one_label", count, f"All {count:,} labels are {str(label).lower()}.")


def _judge_conflicts(gathered: Gathered, prompts: NDArray[Any], answers: NDArray[Any]) -> Iterator[Finding]:
    """Find the prompts that have several answers."""
    asked = np.flatnonzero(prompts != 0)
    order = asked[np.lexsort((answers[asked], prompts[asked]))]
    if order.size < 2:
        return
    same_prompt = prompts[order[1:]] == prompts[order[:-1]]
    other_answer = same_prompt & (answers[order[1:]] != answers[order[:-1]])
    if not other_answer.any():
        return
    group = np.concatenate(([0], np.cumsum(~same_prompt)))
    torn = np.zeros(int(group[-1]) + 1, np.bool_)
    torn[group[1:][other_answer]] = True
    rows = np.sort(order[torn[group]])
    detail = f"{int(torn.sum()):,} prompts have several answers."
    yield _finding(
        "conflicting_answers", int(rows.size), detail,
        _examples(gathered, rows[:MOST_EXAMPLES], lambda _: "another row answers this prompt differently"),
    )  # fmt: skip


def _judge_languages(gathered: Gathered) -> Iterator[Finding]:
    known = {name: count for name, count in gathered.languages.items() if name}
    total = sum(known.values())
    if not total:
        return
    ranked = sorted(known.items(), key=lambda each: -each[1])
    second = ranked[1] if len(ranked) > 1 else ("", 0)
    crossed = gathered.crossed / total > CROSSED_SHARE
    if crossed or second[1] / total > SECOND_LANGUAGE_SHARE:
        shares = ", ".join(f"{name} {percent(count / total)}" for name, count in ranked[:4])
        detail = f"Answers: {shares}; {gathered.crossed:,} are in another language than their prompt."
        yield _finding("language_mix", gathered.crossed if crossed else total - ranked[0][1], detail)
