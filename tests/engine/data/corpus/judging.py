"""The audit's word on a case, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cases import Case
from .models import build_model


def audit_case(case: Case, folder: Path) -> Any:
    """Return the audit's report on a case that is written into `folder`; the models are built beside it."""
    from tunewright.engine.data.audit import AuditRequest, audit
    from tunewright.recipes.model import Data, Validation

    place, beside = (folder / re.sub(r"\W+", "-", case.name) / name for name in ("data", "beside"))
    place.mkdir(parents=True)
    beside.mkdir()
    source = case.write(place)
    validation = Validation(kind="none")
    if case.validation:
        validation = Validation(kind="file", value=0, source=str(case.validation(beside)))
    against = (str(case.against(beside)),) if case.against else ()
    model = build_model(case.model, folder / "models") if case.model else None

    def cancelled() -> bool:
        if case.meanwhile:
            case.meanwhile(source)
        return False

    data = Data(source=str(source), validation=validation, **case.data)
    return audit(AuditRequest(source=str(source), data=data, model=model, against=against, workers=0), None, cancelled)


def judge(case: Case, report: Any) -> list[str]:
    """Return what is wrong with a report on a case: what was missed, what was found too much, and wrong places."""
    found = {finding.code: finding for finding in report.findings}
    problems = [f"{code} was not found" for code in sorted(case.expects - set(found))]
    for code, finding in found.items():
        if finding.severity != "hint" and code not in case.expects | case.allows:
            shown = "; ".join(f"{each.place}: {each.detail}" for each in finding.examples[:2])
            problems.append(
                f"{code} ({finding.severity}, {finding.count} rows) was found too: {finding.detail} {shown}"
            )
    for code in sorted(case.expects & set(found)):
        problems += _misplaced(case, found[code])
    return problems


def _misplaced(case: Case, finding: Any) -> Iterator[str]:
    """Yield what is wrong with the count and the places of a finding."""
    if not case.at:
        return
    if finding.count != len(case.at):
        yield f"{finding.code} counts {finding.count} rows, and there are {len(case.at)}"
    shown = {each.place for each in finding.examples}
    right = {f"{unit} {number + (unit == 'line' and case.header)}" for number in case.at for unit in ("line", "row")}
    if not shown:
        yield f"{finding.code} shows no row"
    if wrong := {place for place in shown if not any(place.endswith(each) for each in right)}:
        yield f"{finding.code} shows {', '.join(sorted(wrong))} and not {', '.join(map(str, case.at))}"
