"""The proving ground of the audit: files with one known failure each among good rows, and files with none.

Every case is data.
"""

from .cases import Case
from .clean import clean_cases
from .containers import CONTAINERS
from .failing import failing_cases
from .judging import audit_case, judge
from .models import TEMPLATES, build_model
from .rows import SHAPES, good_rows

__all__ = [
    "CONTAINERS",
    "SHAPES",
    "TEMPLATES",
    "Case",
    "audit_case",
    "build_model",
    "clean_cases",
    "failing_cases",
    "good_rows",
    "judge",
]
