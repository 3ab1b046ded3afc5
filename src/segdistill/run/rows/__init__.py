"""The rows of a comparison: their checks, seeds and steps, and each one trained or taken over."""

from segdistill.run.rows.budget import Budget, equal_time, frozen
from segdistill.run.rows.checks import check_runs, check_semantics, checked_entries
from segdistill.run.rows.seeds import complete_seeds
from segdistill.run.rows.taking import measured_run, obtain

__all__ = [
    "Budget",
    "check_runs",
    "check_semantics",
    "checked_entries",
    "complete_seeds",
    "equal_time",
    "frozen",
    "measured_run",
    "obtain",
]
