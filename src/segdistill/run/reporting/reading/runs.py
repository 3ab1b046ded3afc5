"""Runs as a report sees them: found in folders, named, and summarised with their roles."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segdistill.config import Recipe
from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.run.folder import RunFolder
from segdistill.run.identity import check_comparable, check_teacher
from segdistill.run.reporting.summary import RunSummary


def find_runs(paths: Iterable[str | Path]) -> list[RunFolder]:
    """The runs at these paths, in order, followed by the runs of their teachers.

    Raises:
        FileNotFoundError: A path is not a run and holds no runs.
    """
    runs: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        is_run = (path / "config.yaml").is_file()
        inside = [] if is_run else sorted(file.parent for file in path.rglob("config.yaml"))
        for folder in inside or [path]:
            runs.setdefault(folder.resolve(), RunFolder(folder))
    for run in list(runs.values()):
        teacher = _teacher_path(run)
        if teacher is not None and (teacher / "config.yaml").is_file():
            runs.setdefault(teacher.resolve(), RunFolder(teacher))
    return list(runs.values())


def _teacher_path(run: RunFolder) -> Path | None:
    teacher = run.recipe().teacher
    return None if teacher is None or teacher.run is None else Path(teacher.run)


def summarise(folders: Sequence[RunFolder]) -> list[RunSummary]:
    """Summarise runs, each with its role.

    Runs named as teacher by another run are teachers; other runs trained without a teacher are
    controls. A teacher that is not a run is summarised from the audit of the first run that used it.
    """
    for run in folders:
        run.check_weights()
        check_teacher(run)
    teachers = {path.resolve() for path in map(_teacher_path, folders) if path is not None}
    stems: dict[str, set[str]] = {}
    for run in folders:
        if run.label is None:
            stems.setdefault(run.method_name, set()).add(_stem(run))
    summaries, compared = [], []
    named = zip(names_of(folders), folders, strict=True)
    for name, run in sorted(named, key=lambda pair: _place(pair[1])):
        evaluation, recipe = run.evaluation() or {}, run.recipe()
        teaches = run.path.resolve() in teachers
        # Runs of one method under several names have different recipes, so they are not seeds of one.
        one_recipe = len(stems.get(run.method_name, ())) == 1
        label = run.label or (run.method_name if one_recipe else _stem(run))
        if not teaches:
            compared.append((label, run))
        summaries.append(
            RunSummary(
                name,
                label,
                "teacher" if teaches else "student" if _is_distilled(recipe) else "control",
                run.seed,
                run.metrics(),
                evaluation,
                evaluation.get("profile"),
                run.preparation() or {},
                recipe,
                run.environment(),
                run.model_info().get("training_seconds"),
            )
        )
    check_comparable(compared)
    audits = [] if teachers else [audit for run in folders if (audit := run.teacher())]
    return [*_audited(audits[:1]), *summaries]


def _is_distilled(recipe: Recipe) -> bool:
    """Whether a run learns from a teacher; a recipe may also name a teacher without using it."""
    method = recipe.chosen_method()
    changed = method.labels == "teacher" or set(recipe.terms) - set(method_terms("supervised"))
    return method.name != "supervised" or (recipe.teacher is not None and bool(changed))


def _audited(audits: Sequence[Mapping[str, Any]]) -> list[RunSummary]:
    return [RunSummary("teacher", "teacher", "teacher", evaluation=audit) for audit in audits]


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
