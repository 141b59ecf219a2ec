"""The gathering of what the workers found: every batch's arrays, in order, and the report that they make."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....foundation.text import one_line
from ..detection import Detection
from ..examples import Fault, Place
from ..findings import MOST_EXAMPLES, SEVERITIES, Finding, Shown
from ..reading.batches import Batch, Unit
from ..statistics import (
    KEPT_SHARE,
    AuditRequest,
    Report,
    figures_of_lengths,
    figures_of_packing,
    figures_of_tokens,
    share_of,
)
from ..workers import Lost
from .advising import advise
from .examination import Examined, Hit
from .judging import Gathered, ModelFacts, OtherRows, judge

SHOWN_ROWS = 20
"""So many of the longest and worst rows are named."""
ARRAYS = (
    "numbers", "gravity", "lengths", "first_learned", "supervised", "exact", "prompts", "answers", "signatures",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowFigures:
    """How long every converted row is, in the order of the data."""

    lengths: NDArray[np.uint32]
    """Tokens before any cut; 0 where the row could not be rendered."""
    supervised: NDArray[np.uint32]
    """Learned tokens after the cut."""


class Gathering:
    """Everything that is known so far of the rows of a data set, about 200 bytes a row."""

    def __init__(
        self,
        request: AuditRequest,
        detection: Detection,
        facts: ModelFacts,
        started: float,
        validation: OtherRows | None = None,
    ) -> None:
        """Begin with no rows; `started` is on the monotonic clock, and `validation` are the rows of the validation file, where the data has one."""
        self._request, self._detection, self._facts, self._validation = request, detection, facts, validation
        self._started = started
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ARRAYS}
        self._batches: list[tuple[int, str, Unit]] = []
        self._counts: Counter[str] = Counter()
        self._shown: dict[str, list[Shown]] = {}
        self._by_role: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._labels: Counter[bool] = Counter()
        self._crossed = 0
        self.rows = 0
        self.converted = 0

    def add(self, batch: Batch, answers: Sequence[Examined | Lost]) -> None:
        """Add what was found in a batch; batches come in the order of the data."""
        for answer in answers:
            if isinstance(answer, Lost):
                self.rows += 1
                self._note(Hit("worker_ended", answer.place, answer.problem, None), 1)
            else:
                self._add(batch, answer)
        for fault in batch.faults:
            self.add_fault(fault)

    def add_fault(self, fault: Fault) -> None:
        """Add what is wrong with a file."""
        self._note(Hit(fault.code, fault.place, fault.problem, None), 1)

    def _add(self, batch: Batch, examined: Examined) -> None:
        counts = dict(examined.counts)
        for hit in examined.hits:
            self._note(hit, counts.pop(hit.code, 0))
        self._batches.append((self.converted, batch.file, batch.unit))
        for name in ARRAYS:
            self._parts[name].append(getattr(examined, name))
        self._by_role.update(examined.by_role)
        self._languages.update(examined.languages)
        self._labels.update(examined.labels)
        self._crossed += examined.crossed
        self.rows += examined.rows
        self.converted += len(examined.numbers)

    def _note(self, hit: Hit, count: int) -> None:
        self._counts[hit.code] += count
        shown = self._shown.setdefault(hit.code, [])
        if len(shown) < MOST_EXAMPLES:
            index = None if hit.index is None else self.converted + hit.index
            shown.append(Shown(one_line(str(hit.place), 300), hit.detail, index))

    def array(self, name: str) -> NDArray[Any]:
        """Return one of ARRAYS for all converted rows so far."""
        parts = self._parts[name]
        if len(parts) != 1:
            empty = np.empty((0, 32) if name == "signatures" else 0, np.uint32)
            self._parts[name] = parts = [np.concatenate(parts) if parts else empty]
        return parts[0]

    def place(self, index: int) -> str:
        """Return where a converted row stands."""
        low, high = 0, len(self._batches)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._batches[middle][0] <= index else (low, middle)
        _, file, unit = self._batches[low]
        return one_line(str(Place(int(self.array("numbers")[index]), unit, file)), 300)

    def figures(self) -> RowFigures:
        """Return the lengths of all converted rows."""
        return RowFigures(self.array("lengths"), self.array("supervised"))

    def report(self, complete: bool) -> Report:
        """Return what is known so far; near-duplicates are looked for in the end only."""
        data = self._request.data
        lengths, first = self.array("lengths"), self.array("first_learned")
        supervised = self.array("supervised")
        rendered = lengths > 0
        whole, learned_from = lengths[rendered], first[rendered]
        kept = whole if data.overlong == "cut" else whole[whole <= data.max_length]
        total_kept = int(np.minimum(kept, data.max_length).sum(dtype=np.uint64))
        supervised_tokens = int(supervised.sum(dtype=np.uint64))
        tokens = packing = None
        for_99 = 0
        if whole.size:
            tokens = figures_of_tokens(whole, self._by_role, self._facts.exact)
            for_99 = share_of(np.sort(whole), KEPT_SHARE)
            if kept.size:
                packing = figures_of_packing(kept, data.max_length)
        lengths_figures = figures_of_lengths(whole, learned_from, data.max_length) if whole.size else ()
        findings = self._findings(complete, supervised_tokens)
        spoken = sum(self._languages.values())
        languages = {name or "unknown": count / spoken for name, count in self._languages.most_common()}
        shape = self._detection.shape
        report = Report(
            source=one_line(self._request.source, 500),
            model=self._request.model and one_line(self._request.model, 500),
            format=shape.format if shape else "",
            dialect=shape.dialect if shape else "",
            rows=self.rows,
            converted=self.converted,
            tokens=tokens,
            supervised_tokens=supervised_tokens,
            supervised_share=supervised_tokens / total_kept if total_kept else 0.0,
            findings=findings,
            lengths=lengths_figures,
            length_for_99=for_99,
            packing=packing,
            languages=languages,
            longest=_first(-lengths.astype(np.int64)),
            worst=self._worst(),
            advice=(),
            seconds=time.monotonic() - self._started,
            complete=complete,
        )
        return advise(report, data)

    def _worst(self) -> tuple[int, ...]:
        """Return the rows with the gravest findings, of them the ones of whose tokens the fewest are learned."""
        lengths, supervised = self.array("lengths"), self.array("supervised")
        shares = supervised / np.maximum(lengths, 1)
        return _first(shares - self.array("gravity").astype(np.float64))

    def _findings(self, complete: bool, supervised_tokens: int) -> tuple[Finding, ...]:
        shape = self._detection.shape
        judged = judge(
            Gathered(
                data=self._request.data,
                format=shape.format if shape else "",
                unrecognised=" ".join(self._detection.evidence),
                facts=self._facts,
                rows=self.rows,
                converted=self.converted,
                rendered=int(np.count_nonzero(self.array("lengths"))),
                supervised_tokens=supervised_tokens,
                counts=self._counts,
                shown={code: tuple(shown) for code, shown in self._shown.items()},
                languages=self._languages,
                crossed=self._crossed,
                labels=self._labels,
                complete=complete,
                array=self.array,
                place=self.place,
                validation=self._validation,
            )
        )
        order = {severity: rank for rank, severity in enumerate(SEVERITIES)}
        return tuple(sorted(judged, key=lambda each: (order[each.severity], -each.count, each.code)))


def _first(ranks: NDArray[Any]) -> tuple[int, ...]:
    """Return the indexes of the smallest, in order."""
    if ranks.size > SHOWN_ROWS:
        candidates = np.argpartition(ranks, SHOWN_ROWS)[:SHOWN_ROWS]
        candidates = candidates[np.argsort(ranks[candidates], kind="stable")]
    else:
        candidates = np.argsort(ranks, kind="stable")
    return tuple(int(each) for each in candidates)
