"""Checks of data and teacher before any long work."""

from segdistill.run.auditing.data_audit import (
    missing_labels,
    refuse_unclear_orientation,
    shared_files,
)
from segdistill.run.auditing.suspects import suspect
from segdistill.run.auditing.teacher import explained, refusal, unmeasurable

__all__ = [
    "explained",
    "missing_labels",
    "refusal",
    "refuse_unclear_orientation",
    "shared_files",
    "suspect",
    "unmeasurable",
]
