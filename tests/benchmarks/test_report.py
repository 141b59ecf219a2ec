"""The measured rows, and how far the formulas may be from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HEAVY = ("torch", "transformers", "trl", "peft", "unsloth", "datasets", "bitsandbytes", "scipy", "pandas")
ROWS = {"paths": 22, "sweep": 119, "held_out": 22, "chat_lengths": 12, "headlines": 4, "two_gpus": 2}
SEEN = "seen while the formulas were written"
AS_WRITTEN_DOWN = "predicted before measured, as written down"


def run(program: str) -> str:
    """Return what a program prints that runs beside the benchmarks' modules."""
    start = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
    return subprocess.run([sys.executable, "-c", start + program], stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    printed = subprocess.run(
        [sys.executable, str(BENCHMARKS / "report.py"), "--json", "--worst", "3"],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    return json.loads(printed)


def errors(report: dict[str, Any], of: str, figure: str) -> dict[str, Any]:
    return next(each for each in report["errors"] if (each["of"], each["figure"]) == (of, figure))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_was_measured_or_why_nothing_was(name: str) -> None:
    rows = [json.loads(line) for line in (BENCHMARKS / "rows" / f"{name}.jsonl").open(encoding="utf-8")]
    assert len(rows) >= ROWS[name]
    for row in rows:
        failed = "error" in row or "out_of_memory" in row
        assert failed != ("step_seconds" in row and row["tokens_per_second"] > 0)
        assert "/" not in row.get("error", "").replace("namespace/repo_name", ""), "a path of some machine"
        if "peak_reserved_gib" in row:
            assert row["start_allocated_gib"] < row["peak_allocated_gib"] <= row["peak_reserved_gib"]


def test_memory_is_predicted_within_the_targets(report: dict[str, Any]) -> None:
    seen = errors(report, SEEN, "allocated")
    assert seen["rows"] == 123
    assert seen["median"] <= 1.5
    assert seen["percentile_95"] <= 4
    assert not any(each["dangerous"] for each in report["fits"] if each["of"] == "seen")


def test_predictions_written_down_are_compared_as_they_were(report: dict[str, Any]) -> None:
    """No change of the formulas makes them better afterwards."""
    allocated = errors(report, AS_WRITTEN_DOWN, "allocated")
    assert allocated["rows"] == 20
    assert allocated["worst_under"] == pytest.approx(-9.46, abs=0.01)
    assert errors(report, AS_WRITTEN_DOWN, "step")["median"] == pytest.approx(6.6, abs=0.1)


def test_steps_are_predicted_with_a_busy_host_where_it_was_busy(report: dict[str, Any]) -> None:
    assert errors(report, SEEN, "step")["median"] < 8
    assert errors(report, "measured alone on the host", "step")["median"] < 4


def test_the_plan_for_chats_is_among_the_best_that_were_measured(report: dict[str, Any]) -> None:
    chat = report["chat_lengths"]
    assert len(chat["plans"]) >= 9
    assert chat["share_of_best"] >= 0.9


def test_lists_the_worst_rows(report: dict[str, Any]) -> None:
    assert [each["figure"] for each in report["worst"]] == 3 * ["allocated"] + 3 * ["reserved"] + 3 * ["step"]
    steps = [abs(each["error"]) for each in report["worst"][-3:]]
    assert steps == sorted(steps, reverse=True)


def test_the_report_needs_no_training_stack() -> None:
    printed = run(f"import report; report.main([]); print(sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert "Errors of the predictions" in printed
    assert printed.splitlines()[-1] == "[]"


def test_cases_are_drawn_the_same_again() -> None:
    program = """
from cases import CASES, DEFAULTS
from measured import read_rows
for name, cases in CASES.items():
    drawn = [DEFAULTS | case for case in cases()]
    rows = [row.values for row in read_rows(name) if "error" not in row.values]
    asked = [{key: row[key] for key in [*DEFAULTS, "model", "backend"]} for row in rows]
    print(name, len(drawn), all(any(row.items() <= case.items() for case in drawn) for row in asked))
"""
    counts = {"paths": 22, "sweep": 134, "held_out": 46, "chat_lengths": 14, "headlines": 4}
    assert run(program).splitlines() == [f"{name} {number} True" for name, number in counts.items()]
