"""The rows of a comparison: which seeds, and each one trained or taken over."""

from segdistill.run.rows.seeds import complete_seeds
from segdistill.run.rows.taking import measured_run, obtain

__all__ = ["complete_seeds", "measured_run", "obtain"]
