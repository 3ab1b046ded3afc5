"""Measure a network: how images reach it, its metrics, and its cost."""

from segdistill.run.evaluation.agreement import Agreement, predicted_pixels
from segdistill.run.evaluation.evaluate import Evaluation, measure
from segdistill.run.evaluation.protocol import (
    Protocol,
    Size,
    align_corners,
    check_size,
    evaluating,
    in_channels,
    multiple_of,
    padded,
)
from segdistill.run.evaluation.showing import segment, shown
from segdistill.run.evaluation.upsampling import source

__all__ = [
    "Agreement",
    "Evaluation",
    "Protocol",
    "Size",
    "align_corners",
    "check_size",
    "evaluating",
    "in_channels",
    "measure",
    "multiple_of",
    "padded",
    "predicted_pixels",
    "segment",
    "shown",
    "source",
]
