"""The advice that a data set's own figures give: how long rows should be, what packing saves, whether more rows help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ....recipes.model import Data
from ..statistics import MAXIMUM_LENGTHS, UNPACKED_BATCH, Report, percent

SMALL_SET = 5_000
"""Below so many rows a learning curve costs little and tells whether more of them would help."""
CURVE = (0.1, 0.25, 0.5, 1.0)
WORTH_PACKING = 0.1
"""The share of padding that packing has to save to be worth a sentence."""
LONG_TAIL = 4
"""The longest row is worth a sentence when it is so many times as long as nearly all."""


def advise(report: Report, data: Data) -> Report:
    """Return `report` with sentences of advice."""
    return replace(report, advice=tuple(_sentences(report, data)))


def _sentences(report: Report, data: Data) -> Iterator[str]:
    if report.tokens is None:
        return
    yield from _curve(report.converted)
    yield from _length(report, data)
    yield from _packing(report, data)


def _curve(rows: int) -> Iterator[str]:
    if not 20 <= rows < SMALL_SET:
        return
    *parts, whole = (f"{round(rows * share):,}" for share in CURVE)
    yield (
        f"The set is small: train on 10, 25, 50 and 100 % of it ({', '.join(parts)} and {whole} rows) and compare the "
        f"validation losses; if the last step still lowers it, more rows will help."
    )


def _length(report: Report, data: Data) -> Iterator[str]:
    tokens = report.tokens
    assert tokens is not None
    chosen = next(each for each in report.lengths if each.max_length == data.max_length)
    enough = report.length_for_99
    if tokens.most <= data.max_length:
        tight = next((each for each in MAXIMUM_LENGTHS if each >= tokens.most), None)
        if tight is not None and tight < data.max_length:
            yield f"The longest row has {tokens.most:,} tokens: a max_length of {tight:,} keeps every row whole too."
        return
    share = 1 - chosen.cut_rows / _rendered(report)
    sentence = (
        f"A max_length of {data.max_length:,} keeps {percent(share)} of the rows whole and {percent(chosen.kept_tokens_share)} of "
        f"the tokens"
    )
    if enough > data.max_length:
        sentence += (
            f"; {enough:,} would keep 99 % whole, and its longest rows take {enough / data.max_length:.1f} times the "
            f"memory of activations"
        )
    yield sentence + "."
    if tokens.most > LONG_TAIL * enough:
        yield (
            f"Few rows are far longer than the rest: {enough:,} tokens keep 99 % of the rows whole, the longest has "
            f"{tokens.most:,}."
        )


def _rendered(report: Report) -> int:
    assert report.tokens is not None
    return max(1, sum(report.tokens.histogram))


def _packing(report: Report, data: Data) -> Iterator[str]:
    packing = report.packing
    if packing is None or packing.padded_share - packing.packed_share < WORTH_PACKING:
        return
    rows = _rendered(report) / packing.sequences
    verb = "saves" if data.packing else "would save"
    yield (
        f"Packing {verb} padding: {percent(packing.padded_share)} of the tokens of {UNPACKED_BATCH} random rows are padding, packed "
        f"{percent(packing.packed_share)}. {packing.sequences:,} sequences of {data.max_length:,} tokens hold {rows:.1f} rows "
        f"each, so a step of as many sequences learns from {rows:.1f} times the rows."
    )
