"""Prints what the audit finds on its proving ground; `make bench-data` runs it.

`python benchmarks/data_corpus.py [--json] [NAME …]`; it exits with 1 when a planted failure is missed or a clean file
raises more than a hint.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tunewright.engine.data.findings import CATALOGUE, SEVERITIES
from tunewright.foundation.errors import TunewrightError
from tunewright.tests.engine.data.corpus import Case, audit_case, clean_cases, failing_cases, judge

NAME_WIDTH = 52


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the audit said about one data set."""

    name: str
    planted: tuple[str, ...]
    found: tuple[str, ...]
    """Those of the planted codes that it found."""
    worst: str
    """The highest severity of all its findings, planted or not; empty where there are none."""
    problems: tuple[str, ...]
    """What was missed, found too much, or shown in the wrong place."""
    seconds: float


def examine(case: Case, folder: Path) -> Verdict:
    """Return the verdict on one case, written into `folder`."""
    started = time.perf_counter()
    try:
        report = audit_case(case, folder)
    except TunewrightError as error:
        planted = tuple(sorted(case.expects))
        problem = f"refused: {error.title}: {error.message}"
        return Verdict(case.name, planted, (), "", (problem,), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    codes = {finding.code for finding in report.findings}
    severities = {finding.severity for finding in report.findings}
    return Verdict(
        name=case.name,
        planted=tuple(sorted(case.expects)),
        found=tuple(sorted(case.expects & codes)),
        worst=next((severity for severity in SEVERITIES if severity in severities), ""),
        problems=tuple(judge(case, report)),
        seconds=seconds,
    )


def lines_of(verdicts: Iterable[Verdict]) -> Iterable[str]:
    """Yield a line for each planted failure and each clean file, and one for each problem."""
    for verdict in verdicts:
        name = f"{verdict.name:<{NAME_WIDTH}}"
        for code in verdict.planted:
            kind, found = CATALOGUE[code], "found" if code in verdict.found else "MISSED"
            yield f"{name}  {code:<22}  {found:<6}  {kind.severity:<7}  {kind.remedy}"
        if not verdict.planted:
            yield f"{name}  {verdict.worst or 'nothing'}"
        yield from (f"  ! {problem}" for problem in verdict.problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the cases, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only cases with one of these words in their name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    def wanted(case: Case) -> bool:
        return not options.names or any(name in case.name for name in options.names)

    with tempfile.TemporaryDirectory(prefix="tunewright-corpus-") as folder:
        failing = [examine(case, Path(folder)) for case in filter(wanted, failing_cases())]
        clean = [examine(case, Path(folder)) for case in filter(wanted, clean_cases())]
    missed = [verdict for verdict in failing if set(verdict.planted) - set(verdict.found)]
    raised = [verdict for verdict in clean if verdict.worst not in ("", "hint") or verdict.problems]
    doubtful = [verdict for verdict in failing if verdict.problems and verdict not in missed]
    if options.json:
        print(json.dumps({"failing": [asdict(each) for each in failing], "clean": [asdict(each) for each in clean]}))
    else:
        print(f"{'file':<{NAME_WIDTH}}  {'planted failure':<22}  {'found':<6}  severity  remedy")
        print("\n".join(lines_of(failing)))
        print(f"\n{'clean file':<{NAME_WIDTH}}  worst finding")
        print("\n".join(lines_of(clean)))
        seconds = sum(verdict.seconds for verdict in (*failing, *clean))
        print(
            f"\n{len(failing) - len(missed)} of {len(failing)} planted failures named, {len(doubtful)} of them with"
            f" something else wrong; {len(clean) - len(raised)} of {len(clean)} clean files left in peace;"
            f" {seconds:.0f} s"
        )
    return 1 if missed or raised or doubtful else 0


if __name__ == "__main__":
    sys.exit(main())
