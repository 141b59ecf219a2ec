"""The audit of a whole data set: every row as it would be trained, in worker processes, with what is wrong named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...foundation.errors import TunewrightError
from ...foundation.text import one_line
from ...recipes.model import Data
from ..sources import find_model
from .auditing.checks import Found
from .auditing.contamination import EvaluationIndex
from .auditing.contents import divide, hash_texts, row_parts
from .auditing.examination import Evaluation, Examined, Examiner
from .auditing.gathering import Gathering, RowFigures
from .auditing.judging import ModelFacts, OtherRows
from .auditing.measurement import CODES_OF_ERRORS
from .auditing.similarity import PERMUTATIONS, exact_hash
from .detection import Detection, detect, shape_of
from .examples import Example, Fault, Message
from .formats import convert
from .reading import open_source, read_batches, read_records, sample_records
from .reading.batches import Batch
from .rendering import Renderer
from .statistics import AuditRequest, Progress, Report
from .workers import ROWS_AT_ONCE, Cancelled, Workers, count_workers

__all__ = ["AuditRequest", "Report", "RowFigures", "audit", "audit_rows"]

PROGRESS_SECONDS = 0.3
SNAPSHOT_SECONDS = 1.0
SNAPSHOT_SHARE = 0.05
"""Snapshots may take this share of the time."""
MOST_EVALUATION_TEXTS = 1_000_000
FEWEST_PROMPT_WORDS = 4
"""Shorter prompts are the same by chance."""

OnProgress = Callable[[Progress], None]
Cancel = Callable[[], bool]


def audit(request: AuditRequest, on_progress: OnProgress | None = None, cancelled: Cancel = lambda: False) -> Report:
    """Return what is found in every row of a data set; raises TunewrightError when it cannot be opened.

    When it is `cancelled`, the report on what was read until then is returned, and is not complete.
    """
    return audit_rows(request, on_progress, cancelled)[0]


def audit_rows(
    request: AuditRequest, on_progress: OnProgress | None = None, cancelled: Cancel = lambda: False
) -> tuple[Report, RowFigures]:
    """Return the same, and how long every converted row is."""
    started = time.monotonic()
    source = open_source(request.source, request.data.split)
    detection = shape_of(source, request.data)
    try:
        setting = _prepare(request, detection, cancelled)
    except Cancelled:
        gathering = Gathering(request, detection, ModelFacts(), started)
        return gathering.report(complete=False), gathering.figures()
    gathering = Gathering(request, detection, setting.facts, started, setting.validation)
    reporter = _Reporter(gathering, source.total_bytes, on_progress)

    def ask() -> bool:
        reporter.tell()  # also while a single row takes its time
        return cancelled()

    complete = False
    with Workers(
        count_workers(source.total_bytes) if request.workers is None else request.workers, setting.examine, ask
    ) as workers:
        try:
            for batch, answers in workers.examine(read_batches(source)):
                gathering.add(batch, answers)
                reporter.done_bytes = batch.read_bytes
            complete = True
        except Cancelled:
            pass
    return gathering.report(complete), gathering.figures()


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the rows are examined with."""

    examine: Callable[[Batch], Examined]
    facts: ModelFacts
    validation: OtherRows | None


class _Reporter:
    """Tells how far the audit is, often, and what it found so far, not more than once a second."""

    def __init__(self, gathering: Gathering, total_bytes: int, on_progress: OnProgress | None) -> None:
        self.done_bytes = 0
        self._gathering, self._total_bytes, self._on_progress = gathering, total_bytes, on_progress
        self._started = self._told = time.monotonic()
        self._due = self._started

    def tell(self) -> None:
        """Send the progress when it is due."""
        now = time.monotonic()
        snapshot_due = now >= self._due and self._gathering.rows > 0
        first = self._due == self._started and snapshot_due
        if self._on_progress is None or (now - self._told < PROGRESS_SECONDS and not first):
            return
        snapshot = None
        if snapshot_due:
            snapshot = self._gathering.report(complete=False)
            # The more rows there are the longer a snapshot takes.
            self._due = now + max(SNAPSHOT_SECONDS, (time.monotonic() - now) / SNAPSHOT_SHARE)
        self._told = now
        done = min(self.done_bytes, self._total_bytes)
        self._on_progress(Progress(done, self._total_bytes, self._gathering.rows, now - self._started, snapshot))


def _prepare(request: AuditRequest, detection: Detection, cancelled: Cancel) -> _Setting:
    """Read the model, the evaluation files and the validation file; raises TunewrightError, and Cancelled."""
    data = request.data
    renderer, facts = _read_model(request.model, data, detection)
    evaluation = _read_evaluation(request.against, data, cancelled) if request.against else None
    examiner = Examiner(detection.shape, data, renderer, evaluation)
    validation = None
    if data.validation.source is not None and detection.shape is not None:
        validation = _read_validation(data.validation.source, data, cancelled)
    return _Setting(examiner.examine, facts, validation)


def _read_validation(name: str, data: Data, cancelled: Cancel) -> OtherRows:
    """Return what tells whether a row is one of the validation file's."""
    opened = open_source(name, data.split)
    examiner = Examiner(shape_of(opened, data).shape, data, None, None)
    exact: list[NDArray[np.uint64]] = []
    signatures: list[NDArray[np.uint32]] = []
    with Workers(0, examiner.examine, cancelled) as here:
        for _, answers in here.examine(read_batches(opened)):
            for answer in answers:
                assert isinstance(answer, Examined), "no process is there to be lost"
                exact.append(answer.exact)
                signatures.append(answer.signatures)
    if not exact:
        return OtherRows(np.empty(0, np.uint64), np.empty((0, PERMUTATIONS), np.uint32))
    return OtherRows(np.concatenate(exact), np.concatenate(signatures))


def _read_model(model: str | None, data: Data, detection: Detection) -> tuple[Renderer, ModelFacts]:
    """Return what renders the rows, roughly where a chat template is needed and there is none; raises TunewrightError."""
    if model is None:
        return Renderer(None, data), ModelFacts()
    folder = find_model(model)
    renderer = Renderer(folder, data)
    fault = None
    if data.template != "none" and detection.shape is not None and detection.shape.format != "text":
        fault = _template_fault(renderer)
    facts = ModelFacts(
        exact=fault is None,
        context=_context(folder),
        has_end=bool(renderer.end_tokens),
        pads_with_end=renderer.pad is not None and renderer.pad in (*renderer.end_tokens, renderer.eos),
        template_fault=fault,
    )
    if fault is not None:
        renderer = Renderer(None, data.model_copy(update={"template": "chatml"}))
    return renderer, facts


def _template_fault(renderer: Renderer) -> Found | None:
    """Return why no conversation can be rendered, None when some can."""
    try:
        if not renderer.has_template:
            return "no_chat_template", "The tokenizer comes without one, as those of base models often do."
    except TunewrightError as error:
        return "no_chat_template", f"{error.title}: {error.message}"
    try:
        renderer.render((Message("user", "Hello"), Message("assistant", "Hello")))
    except TunewrightError as error:
        if CODES_OF_ERRORS.get(error.title) == "template_too_slow":
            return "template_too_slow", error.message
    return None


def _context(folder: Path) -> int | None:
    """Return the longest sequence that the model takes, None where its config.json does not say."""
    from ..anatomy import read_anatomy
    from ..configuration import read_configuration

    try:
        return read_anatomy(folder).context
    except TunewrightError:
        pass
    try:
        value = read_configuration(folder).values.get("max_position_embeddings")
    except TunewrightError:
        return None
    return value if isinstance(value, int) and value > 0 else None


def _read_evaluation(files: Sequence[str], data: Data, cancelled: Cancel) -> Evaluation:
    """Return the texts of evaluation files: prompts and whole rows, or every long text where the format is not known."""
    texts: list[str] = []
    hashes: set[int] = set()
    for name in files:
        opened = open_source(name, data.split)
        shape = detect(sample_records(opened)).shape
        for number, record in enumerate(read_records(opened)):
            if not number % ROWS_AT_ONCE and cancelled():
                raise Cancelled
            if isinstance(record, Fault):
                continue
            if len(texts) > MOST_EVALUATION_TEXTS:
                raise TunewrightError(
                    "Evaluation too large",
                    f"{one_line(name, 200)} holds more than {MOST_EVALUATION_TEXTS:,} texts.",
                    "Give a part of it.",
                )
            example = None if shape is None else convert(record, shape)
            if isinstance(example, Example):
                hashes |= _hashes_of(example)
                texts += [each.content for each in example.messages if each.role != "system"] + [example.text]
            else:
                texts += _texts_in(record.value)
    return Evaluation(EvaluationIndex([each for each in texts if each]), frozenset(hashes))


def _hashes_of(example: Example) -> set[int]:
    """Return the hashes of a whole row and, unless it is a mere greeting, of its prompt."""
    prompt, _ = divide(example)
    told = sum(len(each.split()) for each in prompt[1::2])
    return {exact_hash(row_parts(example))} | ({hash_texts(prompt)} if told >= FEWEST_PROMPT_WORDS else set[int]())


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
        for each in inner:
            yield from _texts_in(each)
