"""What the wizard knows of a data set and a model together: what it is, what the audit found, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.anatomy import Anatomy
from ..foundation.errors import TunewrightError

if TYPE_CHECKING:
    from ..engine.data.findings import Finding
    from ..engine.data.preview import Inspection
    from ..engine.data.statistics import Report
    from ..engine.hub.needs import Need
    from ..recipes.model import Data


@dataclass(frozen=True, slots=True)
class DataReport:
    """A data set as it is named in the wizard; a problem says what stands in the way."""

    source: str
    model: str
    data: Data | None = None
    """The recipe's section as it would be trained."""
    against: tuple[str, ...] = ()
    """Evaluation files of which no row may stand in the data."""
    inspection: Inspection | None = None
    audit: Report | None = None
    """What the audit found so far; None before its first figures."""
    anatomy: Anatomy | None = None
    data_problem: TunewrightError | None = None
    model_problem: TunewrightError | None = None
    needs: tuple[Need, ...] = ()
    """What is on the Hub and not whole here."""

    @property
    def rows(self) -> int:
        """The rows that can be trained on; before an audit has counted them, all there are."""
        if self.audit is not None and self.audit.complete:
            return self.audit.converted
        return self.inspection.rows if self.inspection else 0

    @property
    def tokens(self) -> int | None:
        """The tokens of all rows; while the audit goes on, as many as the rows so far suggest."""
        audit = self.audit
        if audit is None or audit.tokens is None or not audit.converted:
            return None
        return audit.tokens.total if audit.complete else audit.tokens.total * self.rows // audit.converted

    @property
    def longest(self) -> int | None:
        """The tokens of the longest row; None until every row was counted."""
        audit = self.audit
        return audit.tokens.most if audit is not None and audit.complete and audit.tokens else None

    def obstacle(self) -> str | None:
        """Return why one cannot go on with this data, None when one can."""
        problem = self.data_problem or self.model_problem
        if problem is not None and self.needs:
            return f"{problem.title}: press g to fetch {' and '.join(each.name for each in self.needs)} from the Hub."
        if problem is not None:
            return f"{problem.title}: {problem.remedy}"
        if self.inspection is None or self.data is None:
            return "Still reading the data."
        if self.inspection.format is None:
            return "The format was not recognised: press c to map its columns, or f to name it."
        dropping = self.data.faulty == "drop"
        if self.audit is None or not self.audit.rows:
            faults = self.inspection.faults
            if faults and not dropping:
                return f"Not every row can be read, such as {faults[0].place}. Press d to leave such rows out, or mend them."
            return None
        if self.audit.complete and not self.audit.converted:
            return f"Not one row can be read as {self.inspection.format}: press c to map its columns, or f for another format."
        for finding in self.audit.findings:
            if finding.severity == "error" and not (dropping and is_of_rows(finding)):
                said = f"{finding.kind.title} ({finding.count:,})."
                way = (
                    "Press d to leave these rows out, or x to mend them."
                    if is_of_rows(finding)
                    else finding.kind.remedy
                )
                return f"{said} {way}"
        if self.audit.complete and not self.audit.supervised_tokens:
            return "Not one token would be learned: press o to change what the loss is taken on."
        return None


def is_of_rows(finding: Finding) -> bool:
    """Tell whether a finding is about rows that can be left out, and not about the whole."""
    return finding.kind.fix == "drop rows"
