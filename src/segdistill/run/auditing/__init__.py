"""Checks of data and teacher before any long work."""

from segdistill.run.auditing.data_audit import (
    missing_labels,
    refuse_unclear_orientation,
)
from segdistill.run.auditing.masks import check_masks, class_pixels
from segdistill.run.auditing.outputs import judged_outputs
from segdistill.run.auditing.pixels import judged_pixels
from segdistill.run.auditing.suspects import Cause, suspect
from segdistill.run.auditing.teacher import judged, one_sided, unmeasurable

__all__ = [
    "Cause",
    "check_masks",
    "class_pixels",
    "judged",
    "judged_outputs",
    "judged_pixels",
    "missing_labels",
    "one_sided",
    "refuse_unclear_orientation",
    "suspect",
    "unmeasurable",
]
