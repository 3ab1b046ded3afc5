"""The rows of a comparison: which seeds, how many steps, and each one trained or taken over."""

from segdistill.run.rows.budget import Budget, equal_time, frozen
from segdistill.run.rows.seeds import complete_seeds
from segdistill.run.rows.taking import measured_run, obtain

__all__ = ["Budget", "complete_seeds", "equal_time", "frozen", "measured_run", "obtain"]
