"""Where teacher and controls stand, and at which input that was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from segdistill.run.reporting.claims.table import comparison_rows
from segdistill.run.reporting.summary import (
    RunSummary,
    claims_on,
    controls,
    judged,
    methods,
    paired_miou,
    points,
    same_view,
    view_of,
)
from segdistill.run.reporting.verdict import image_count, verdicts

_FEW_IMAGES = 10
"""on fewer, a single image moves mIoU by more than methods differ"""


def context(summaries: Sequence[RunSummary]) -> str:
    """The mIoU of teacher and controls, and the part of their gap that each method closes.

    A second sentence warns of fewer than 10 images.
    """
    name = claims_on(summaries)
    where = "" if name is None else f"On {name}: "
    summaries = judged(summaries)
    if folds := {run.fold for run in summaries if run.fold}:
        return where + _over_folds(summaries, len(folds))
    counts = [
        count
        for label in methods(summaries)
        if (count := image_count(summaries, label)) is not None
    ]
    fewest = min(counts, default=_FEW_IMAGES)
    if fewest >= _FEW_IMAGES:
        return where + _standing(summaries)
    measured = "one image" if fewest == 1 else f"{fewest} images"
    return f"{where}{_standing(summaries)} Measured on {measured}: others may rank the methods differently."


def _over_folds(summaries: Sequence[RunSummary], folds: int) -> str:
    """The mean over folds of teachers and controls; a gap is given by each fold."""
    stand = ["teacher", *controls(summaries)]
    known = [
        f"{'the teachers' if row.label == 'teacher' else f'the control {_plain(row.label)}'} {row.miou:.1f}"
        for row in comparison_rows(summaries)
        if row.label in stand and row.miou is not None
    ]
    return f"Mean mIoU of {folds} fold{'s' * (folds != 1)}: {', '.join(known)}."


def _standing(summaries: Sequence[RunSummary]) -> str:
    rows = {row.label: row for row in comparison_rows(summaries)}
    known = {label: miou for label in controls(summaries) if (miou := rows[label].miou) is not None}
    teachers = [run for run in summaries if run.role == "teacher" and run.miou is not None]
    if not known:
        return (
            "These runs have no control. Train the same student with the same seeds and without a teacher "
            "(method: supervised) to see what distillation adds."
        )
    names = {label: f"the control {_plain(label)}" for label in known}
    listed = " and ".join(f"{names[label]} {miou:.1f}" for label, miou in known.items())
    if not teachers:
        (first, miou), *others = known.items()
        rest = "".join(f", {names[label]} {value:.1f}" for label, value in others)
        return f"The control {_plain(first)} reaches {miou:.1f} mIoU{rest}."
    students = [run for run in summaries if run.role != "teacher"]
    stand = f"The teacher reaches {_teacher_figure(teachers, students)} and {listed}"
    if not _one_figure(teachers, students):
        return f"{stand}. The teacher's figure is not of the students' input, so no gap is given."
    strongest = max(known, key=lambda label: known[label])
    gap = (teachers[0].miou or 0.0) - known[strongest]
    if gap <= 0:
        return f"{stand}. The teacher is not better than the control, so it has little to teach."
    closed = _closed(summaries, strongest, gap)
    of = "" if len(known) == 1 else " to the better control"
    if not closed:
        return f"{stand}, a gap{of} of {gap:.1f}."
    return f"{stand}, a gap{of} of {gap:.1f}, of which {', '.join(closed)}."


def _plain(control: str) -> str:
    return "(plain training)" if control == "control" else control


def _closed(summaries: Sequence[RunSummary], control: str, gap: float) -> list[str]:
    """The part of the gap that each method closes, only for clear gains and for single seeds."""
    parts = []
    for verdict in verdicts(summaries):
        clear = verdict.tone == "better" or len(verdict.difference.differences) == 1
        gain = paired_miou(summaries, verdict.label, control)
        if clear and verdict.tests is None and gain is not None and gain.mean > 0:
            parts.append(f"{verdict.label} closes {100 * gain.mean / gap:.0f} %")
    return parts


def _one_figure(teachers: Sequence[RunSummary], students: Sequence[RunSummary]) -> bool:
    """Whether there is one teacher, measured as all students were."""
    alike = all(same_view(teachers[0].view, run.view) for run in students)
    return len(teachers) == 1 and alike


def _teacher_figure(teachers: Sequence[RunSummary], students: Sequence[RunSummary]) -> str:
    """The teacher's mIoU, with the input it was measured at wherever that is not the students'."""
    mious = sorted(run.miou or 0.0 for run in teachers)
    if len(teachers) > 1:
        return f"{mious[0]:.1f} to {mious[-1]:.1f} mIoU ({len(teachers)} teachers)"
    teacher = teachers[0]
    text, theirs = f"{mious[0]:.1f} mIoU", students[0].view
    if not _one_figure(teachers, students):
        return f"{text} at its own input{_size(teacher.view)}, not the students'{_size(theirs)},"
    own = view_of(teacher.own or {})
    if teacher.own is None or same_view(own, theirs) or teacher.own.get("miou") is None:
        return text
    figure = 100 * float(teacher.own["miou"])
    return f"{text} at the students' input{_size(theirs)}, {figure:.1f} at its own{_size(own)},"


def _size(view: Mapping[str, Any]) -> str:
    size = view.get("size")
    return f" of {size[0]} × {size[1]}" if size else ""


def teacher_figures(summaries: Sequence[RunSummary]) -> dict[str, Any] | None:
    """The teacher's mIoU in points and its input, and its own if that is another; None without one teacher."""
    teachers = [run for run in summaries if run.role == "teacher" and run.miou is not None]
    if len(teachers) != 1:
        return None
    students = [run for run in summaries if run.role != "teacher"]
    teacher, own = teachers[0], teachers[0].own or {}
    return {
        "miou": teacher.miou,
        "input": teacher.view.get("size"),
        "at_students_input": _one_figure(teachers, students),
        **(
            {"own_miou": points(own.get("miou")), "own_input": view_of(own).get("size")}
            if own
            else {}
        ),
    }
