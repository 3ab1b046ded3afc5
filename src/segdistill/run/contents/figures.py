"""Metrics that contradict the counts that they were computed from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_ROUNDING = 1e-9
_AGAINST_TEACHER = {
    "miou": "teacher_miou",
    "iou": "teacher_iou",
    "pixel_accuracy": "teacher_agreement",
    "confusion": "teacher_confusion",
}
"""Names of the same metrics where a teacher's classes stand in for labels."""


def inconsistency(values: Mapping[str, Any]) -> str:
    """Which metric differs from the confusion matrix beside it; "" if none does, or without a matrix.

    A digit that a disk or an editor changed is found in this way: the figures are computed twice.

    Args:
        values: Content of an `evaluation.json`, of the right types. IoU, mIoU and accuracy are fractions.
    """
    against_teacher = "teacher_miou" in values
    names = _AGAINST_TEACHER if against_teacher else {name: name for name in _AGAINST_TEACHER}
    confusion, classes = values.get(names["confusion"]), values.get("classes")
    tables = [values.get(names["iou"]), confusion]
    single = values.get("by_image")
    if single is not None and values.get("images") != len(single["names"]):
        return "images differs from the number of names in by_image"
    if classes is not None and any(len(one) != len(classes) for one in tables if one is not None):
        return "there are more or fewer figures than classes"
    if confusion is None:
        return ""
    nothing = 0.0 if (values.get("protocol") or {}).get("absent") == "zero" else None
    computed = _metrics(confusion, nothing)
    for name, expected in computed.items():
        key = names[name]
        if key in values and not _same(values[key], expected):
            return f"{key} differs from what {names['confusion']} gives"
    return ""


def _metrics(confusion: Sequence[Sequence[int]], nothing: float | None) -> dict[str, Any]:
    hits = [row[place] for place, row in enumerate(confusion)]
    labelled, predicted = (
        [sum(row) for row in confusion],
        [sum(c) for c in zip(*confusion, strict=True)],
    )
    iou = [
        hit / union if (union := one + other - hit) else nothing
        for hit, one, other in zip(hits, labelled, predicted, strict=True)
    ]
    known = [value for value in iou if value is not None]
    total = sum(labelled)
    return {
        "iou": iou,
        "miou": sum(known) / len(known) if known else math.nan,
        "pixel_accuracy": sum(hits) / total if total else math.nan,
    }


def _same(one: Any, other: Any) -> bool:
    if isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if one is None or other is None:
        return one is other
    return bool(abs(one - other) <= _ROUNDING)
