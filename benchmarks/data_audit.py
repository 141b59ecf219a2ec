"""Measures the audit of a large data set: `python benchmarks/data_audit.py [--rows N] [--json]`.

A file of chat rows of about 1 KB each is made from a seed in a temporary folder, with a few findings planted; it is
audited with the built-in model's tokenizer as the interface does it, in a process of its own. Nothing else is written.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tunewright.engine.data.child import DataProcess
from tunewright.engine.data.detection import shape_of
from tunewright.engine.data.reading import open_source
from tunewright.engine.data.statistics import AuditRequest, Progress, Report
from tunewright.recipes.model import Data

ROWS = 1_000_000
SEED = 20_261
MODEL = "tunewright/starter"
COMMON = (
    "the of and to in is that it for was with as be this have from or by not but what all were when your can said there "
    "use an each which she do how their if will about many then them these some her would make like him into time has "
    "two more could see my than been who its now people did get come made may part over new"
)
SYLLABLES = (
    "ba be bi bo bra cha con cre da de dis dra en er ex fa fer flo gan gle gra hal hin hor in ja kar ker la len lin lo ma "
    "men mi mon na ner ni nor o pa per pla po qua ra ren ri ro sa sen shi so sta ta ter ti ton tra u va ver vi wen yo zen"
)
CONTENT_WORDS = 20_000
PLANTED = {"secrets": 20, "duplicates": 100, "empty_answer": 10, "not_json": 5, "control_characters": 10}
"""Rows with each finding, in a file of any size."""
PSS_SECONDS = 0.5
LATE_SHARE = 0.3
"""The audit is cancelled when this share of the bytes was read."""


def make_rows(path: Path, rows: int) -> None:
    """Write `rows` conversations of about 1 KB each, with the findings in PLANTED spread over the file."""
    chance = np.random.default_rng(SEED)
    common, syllables = COMMON.split(), SYLLABLES.split()
    made = ["".join(chance.choice(syllables, chance.integers(2, 5))) for _ in range(CONTENT_WORDS)]
    words = np.array(common + made, dtype=object)
    # Common words first, the others rarer and rarer, as Zipf found it in every language.
    weights = np.concatenate([np.full(len(common), 0.45 / len(common)), _zipf(CONTENT_WORDS) * 0.55])
    edges = np.cumsum(weights)
    planted = _plant(rows, chance)
    before = ""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 4096 == 0:
                block = words[np.searchsorted(edges, chance.random((4096, 140)) * edges[-1])].tolist()
            drawn = block[number % 4096]  # pyright: ignore[reportPossiblyUnboundVariable]
            question = " ".join(drawn[:45]).capitalize() + "?"
            answer = " ".join(drawn[45:]).capitalize() + "."
            line = _line(question, answer)
            match planted.get(number):
                case "secrets":
                    line = _line(question, f"{answer} The key is AKIA{_letters(chance, 15)}7.")
                case "duplicates":
                    line = before or line
                case "empty_answer":
                    line = _line(question, "")
                case "not_json":
                    line = line[:-3]
                case "control_characters":
                    line = _line(question, answer + "\x1b[31m")
                case _:
                    before = line
            file.write(line + "\n")


def _zipf(count: int) -> Any:
    weights = 1 / np.arange(8, count + 8)
    return weights / weights.sum()


def _letters(chance: np.random.Generator, count: int) -> str:
    return "".join(chance.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), count))


def _plant(rows: int, chance: np.random.Generator) -> dict[int, str]:
    codes = [code for code, count in PLANTED.items() for _ in range(count)]
    places = chance.choice(np.arange(1, rows), min(len(codes), rows // 2), replace=False)
    return {int(place): code for place, code in zip(places, codes, strict=False)}


def _line(question: str, answer: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns})


class _Memory(threading.Thread):
    """Watches the proportional set size of all children of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.processes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(PSS_SECONDS):
            children = own.children(recursive=True)
            sizes = [_pss_bytes(each.pid) for each in children]
            self.peak_bytes = max(self.peak_bytes, sum(sizes))
            self.processes = max(self.processes, len(children))

    def end(self) -> None:
        self._ended.set()
        self.join()


def _pss_bytes(process_id: int) -> int:
    try:
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def measure(path: Path) -> dict[str, Any]:
    """Return the figures of detecting, auditing and cancelling the audit of the file at `path`."""
    data = Data(source=str(path), max_length=512)
    started = time.perf_counter()
    detection = shape_of(open_source(str(path)), data)
    detected = time.perf_counter() - started
    request = AuditRequest(str(path), data, MODEL)
    firsts: dict[str, float] = {}
    gaps: list[float] = []
    started = heard = time.perf_counter()

    def note(progress: Progress) -> None:
        nonlocal heard
        now = time.perf_counter()
        firsts.setdefault("progress", now - started)
        gaps.append(now - heard)
        heard = now
        if progress.report is not None:
            firsts.setdefault("snapshot", now - started)
            if progress.report.findings:
                firsts.setdefault("finding", now - started)

    memory = _Memory()
    memory.start()
    busy = _processor_seconds()
    with DataProcess() as process:
        report = process.audit(request, note, lambda: False)
        elapsed = time.perf_counter() - started
    memory.end()
    busy = _processor_seconds() - busy
    assert report is not None
    return {
        "rows": report.rows,
        "bytes": path.stat().st_size,
        "format": detection.shape.format if detection.shape else None,
        "detection_seconds": round(detected, 3),
        "audit_seconds": round(elapsed, 1),
        "processor_seconds": round(busy, 1),
        "microseconds_a_row": round(elapsed / report.rows * 1e6, 1),
        "peak_pss_mib": round(memory.peak_bytes / 2**20),
        "processes": memory.processes,
        "first_progress_seconds": round(firsts.get("progress", elapsed), 2),
        "first_snapshot_seconds": round(firsts.get("snapshot", elapsed), 2),
        "first_finding_seconds": round(firsts.get("finding", elapsed), 2),
        "longest_silence_seconds": round(max(gaps, default=0.0), 2),
        "cancel_seconds": round(_cancel(request), 3),
        "tokens": report.tokens.total if report.tokens else 0,
        "findings": _counts(report),
        "planted": PLANTED,
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "processors": len(os.sched_getaffinity(0)),
    }


def _processor_seconds() -> float:
    """Return the processor time of all children that have ended: it tells a busy machine from a slow program."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cancel(request: AuditRequest) -> float:
    """Return the seconds from cancelling an audit in the middle until its processes are gone."""
    reached = threading.Event()
    cancelled_at = 0.0

    def note(progress: Progress) -> None:
        if progress.done_bytes > LATE_SHARE * progress.total_bytes:
            reached.set()

    def cancelled() -> bool:
        nonlocal cancelled_at
        if reached.is_set() and not cancelled_at:
            cancelled_at = time.perf_counter()
        return reached.is_set()

    with DataProcess() as process:
        report = process.audit(request, note, cancelled)
    ended = time.perf_counter()
    return ended - cancelled_at if report is None else 0.0


def _counts(report: Report) -> dict[str, int]:
    return {each.code: each.count for each in report.findings}


def main() -> None:
    """Make the file, measure, print, and remove the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the file ({ROWS:,})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tunewright-audit-"))
    try:
        path = folder / "chat.jsonl"
        make_rows(path, arguments.rows)
        figures = measure(path)
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(
            f"{name.replace('_', ' '):26} {value:,}"
            if isinstance(value, int)
            else f"{name.replace('_', ' '):26} {value}"
        )


if __name__ == "__main__":
    main()
