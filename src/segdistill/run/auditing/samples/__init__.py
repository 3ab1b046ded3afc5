"""The page of samples that `segdistill check` writes on request."""

from segdistill.run.auditing.samples.page import write_samples

__all__ = ["write_samples"]
