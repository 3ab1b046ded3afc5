"""The mIoU of a teacher as its students saw it: at their input, under their protocol."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segdistill.run.reporting.summary import RunSummary, points, same_view

_ALIKE = 0.05
"""mIoU points up to which two measurements of one teacher at one input are the same"""
_FIGURES = ("miou", "iou", "pixel_accuracy")

Audited = tuple[RunSummary, Mapping[str, Any]]
"""a student, and what its training measured of the teacher before step 1"""


def at_students_input(teacher: RunSummary, audits: Sequence[Audited]) -> RunSummary:
    """The teacher with the metrics that its students' trainings measured, at their input.

    A training measures its teacher on the student's validation split, size and protocol. The teacher's
    own evaluation is kept beside it. Students with several inputs leave the teacher unchanged, as no one
    figure of it belongs beside theirs.

    Args:
        teacher: The summary of the teacher's own run, or one without an evaluation.
        audits: Students of this teacher with the content of their teacher.json.
    """
    known = [(student, audit) for student, audit in audits if audit.get("miou") is not None]
    if not known:
        return teacher
    first, audit = known[0]
    views = [student.view for student, _ in known]
    differ = _spread([one for _, one in known]) > _ALIKE
    if differ or not all(same_view(views[0], view) for view in views):
        return teacher
    # The size is the student's, also where the recipe leaves images as they are.
    kept = {key: (first.evaluation or {}).get(key) for key in ("protocol", "split", "images")}
    size = (first.evaluation or {}).get("profile", {}).get("size")
    evaluation = {
        **{key: audit.get(key) for key in _FIGURES},
        **{key: value for key, value in kept.items() if value is not None},
        **({"profile": {"size": size}} if size else {}),
    }
    return replace(teacher, evaluation=evaluation, own=teacher.evaluation)


def sets_of(students: Iterable[RunSummary]) -> dict[str, dict[str, Any]]:
    """A teacher's metrics on further sets, as its students' records hold them.

    A set on which they do not all have the same is left out, as no one figure belongs beside theirs.

    Args:
        students: Students of one teacher.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for student in students:
        for name, record in student.sets.items():
            if "teacher" in record:
                found.setdefault(name, []).append(record)
    return {
        name: {
            **{key: records[0]["teacher"].get(key) for key in _FIGURES},
            **{key: records[0][key] for key in ("protocol", "split", "images")},
        }
        for name, records in found.items()
        if _spread([record["teacher"] for record in records]) <= _ALIKE
    }


def _spread(measured: Sequence[Mapping[str, Any]]) -> float:
    """Points between the lowest and the highest mIoU."""
    mious = [points(one["miou"]) or 0.0 for one in measured]
    return max(mious) - min(mious)
