"""Runs as a report sees them: found in folders, named, and summarised with their roles."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from segdistill.distillation.catalogue import METHODS
from segdistill.run.comparing import is_distilled, role_of
from segdistill.run.contents import read_json
from segdistill.run.folder import RunFolder
from segdistill.run.identity import FILE, IdentityDiffers, check_comparable, check_teacher
from segdistill.run.reporting.reading.classes import with_labelled_classes
from segdistill.run.reporting.reading.teachers import at_students_input, sets_of
from segdistill.run.reporting.summary import RunSummary, claims_on, set_names

_log = logging.getLogger(__name__)


def find_runs(paths: Iterable[str | Path]) -> list[RunFolder]:
    """The runs at these paths, in order, followed by the runs of their teachers.

    Of the runs inside a folder plain controls come first, as in a comparison: differences are from the first one.

    Raises:
        FileNotFoundError: A path is not a run and holds no runs.
    """
    runs: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        is_run = (path / "config.yaml").is_file()
        inside = [] if is_run else sorted(file.parent for file in path.rglob("config.yaml"))
        found = [RunFolder(folder) for folder in inside or [path]]
        for run in sorted(found, key=lambda run: not _is_plain_control(run)):
            runs.setdefault(run.path.resolve(), run)
    for run in list(runs.values()):
        teacher = _teacher_path(run)
        if teacher is not None and (teacher / "config.yaml").is_file():
            runs.setdefault(teacher.resolve(), RunFolder(teacher))
    return list(runs.values())


def _is_plain_control(run: RunFolder) -> bool:
    recipe = run.recipe()
    return role_of(recipe) == "control" and recipe.label in (None, "control")


def _teacher_path(run: RunFolder) -> Path | None:
    teacher = run.recipe().teacher
    # One with random weights is not the network of its run.
    if teacher is None or teacher.run is None or teacher.random:
        return None
    return Path(teacher.run)


def summarise(folders: Sequence[RunFolder]) -> list[RunSummary]:
    """Summarise runs, each with its role.

    Runs named as teacher by another run are teachers. Other runs have the role of their recipe or, without
    one, are controls if they were trained without a teacher, and methods otherwise. A teacher has the
    metrics measured at its students' input; one that is not a run is summarised from them alone.
    """
    for run in folders:
        run.check_weights()
        check_teacher(run)
    teachers = {path.resolve() for path in map(_teacher_path, folders) if path is not None}
    labels = _labels([run for run in folders if run.path.resolve() not in teachers])
    named = list(zip(names_of(folders), folders, strict=True))
    named.sort(key=lambda pair: _place(pair[1]))
    students = [
        (_summary(name, run, labels[run.path]), run) for name, run in named if run.path in labels
    ]
    check_comparable([(summary.label, run) for summary, run in students])
    alike = _with_one_meaning([summary for summary, _ in students])
    students = [(summary, run) for summary, (_, run) in zip(alike, students, strict=True)]
    summarised = {run.path: summary for summary, run in students}
    summaries = [summarised.get(run.path) or _teacher(name, run, students) for name, run in named]
    return with_labelled_classes(summaries if teachers else [*_audited(students), *summaries])


def _with_one_meaning(students: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs without sets that stand for different data in some of them, which the log names.

    Raises:
        IdentityDiffers: Claims are made on such a set; two runs that differ are named.
    """
    for name in set_names(students):
        measured = [(run.name, run.sets[name]) for run in students if name in run.sets]
        first, one = measured[0]
        for other, two in measured[1:]:
            if (one.get("of") or {}).get("data") == (two.get("of") or {}).get("data"):
                continue
            told = f"{first} and {other} were measured on different data as evaluation set {name!r}"
            if name == claims_on(students):
                raise IdentityDiffers(
                    f"{told}, which claims are made on. Repeat the command that trained them, with the set in its "
                    "recipe, which measures again on the data as it is now"
                )
            _log.warning(
                "%s, so it is left out. Measure both again on the same data, by evaluate --on or as a set of a recipe",
                told,
            )
            students = [_without_set(run, name) for run in students]
            break
    return list(students)


def _without_set(run: RunSummary, name: str) -> RunSummary:
    return replace(run, sets={key: one for key, one in run.sets.items() if key != name})


def _labels(folders: Sequence[RunFolder]) -> dict[Path, str]:
    """The label of each run that is not a teacher: its recipe's, or that of its method."""
    stems: dict[str, set[str]] = {}
    for run in folders:
        if run.label is None:
            stems.setdefault(run.method_name, set()).add(_stem(run))
    labels = {}
    for run in folders:
        # Runs of one method under several names have different recipes, so they are not seeds of one.
        one_recipe = len(stems.get(run.method_name, ())) == 1
        plain = run.method_name if is_distilled(run.recipe()) else "control"
        labels[run.path] = run.label or (plain if one_recipe else _stem(run))
    return labels


def _summary(name: str, run: RunFolder, label: str) -> RunSummary:
    evaluation, recipe = run.evaluation() or {}, run.recipe()
    identity, info = read_json(run.path / FILE) or {}, run.model_info()
    return RunSummary(
        name,
        label,
        role_of(recipe),
        run.seed,
        run.metrics(),
        evaluation,
        evaluation.get("profile"),
        run.preparation() or {},
        recipe,
        run.environment(),
        last_step=info.get("step"),
        wall_seconds=info.get("training_seconds"),
        labels=_labelled_images(info.get("train_labelled"), info.get("train_images")),
        tests=recipe.tests,
        start=identity.get("student_start"),
        sets=run.sets(),
        taught_by=identity.get("teacher"),
        transfer=run.transfer(),
    )


def _labelled_images(labelled: int | None, images: int | None) -> tuple[int, int] | None:
    return None if labelled is None or images is None else (labelled, images)


def _teacher(
    name: str, run: RunFolder, students: Sequence[tuple[RunSummary, RunFolder]]
) -> RunSummary:
    """A run that teaches others, with the metrics measured at their input."""
    own = replace(_summary(name, run, "teacher"), role="teacher", tests=None)
    taught = [
        (summary, student.teacher() or {})
        for summary, student in students
        if (path := _teacher_path(student)) and path.resolve() == run.path.resolve()
    ]
    weights = run.model_info().get("sha256")
    # Those on record may have had another machine's teacher of this name.
    taught = [one for one in taught if one[1].get("sha256") in (None, weights)] or taught
    sets = sets_of(summary for summary, _ in taught)
    return replace(at_students_input(own, taught), sets=sets)


def _audited(students: Sequence[tuple[RunSummary, RunFolder]]) -> list[RunSummary]:
    """The teacher that is not a run, as its first student's training measured it."""
    audits = [
        (summary, audit)
        for summary, run in students
        if (audit := run.teacher()) and not audit.get("random")
    ]
    if not audits:
        return []
    sets = sets_of(summary for summary, _ in audits)
    bare = RunSummary("teacher", "teacher", "teacher", evaluation=audits[0][1], sets=sets)
    return [replace(at_students_input(bare, audits[:1]), own=None)]


def _place(run: RunFolder) -> tuple[int, int]:
    """Sort key of the tables: order of the catalogue, then seed."""
    order, name = list(METHODS), run.method_name.partition(":")[0]
    return order.index(name) if name in order else len(order), run.seed


def names_of(folders: Sequence[RunFolder]) -> list[str]:
    """Names of the folders; whole paths if two have the same name."""
    count = Counter(run.path.name for run in folders)
    return [run.path.name if count[run.path.name] == 1 else str(run.path) for run in folders]


def _stem(run: RunFolder) -> str:
    return re.sub(r"[-_]s\d+$", "", run.path.name)
