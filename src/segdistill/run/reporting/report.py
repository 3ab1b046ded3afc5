"""`segdistill report`: gathers from run folders what the page shows, and writes it as one file."""

import datetime
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from segdistill import __version__
from segdistill.config import Recipe
from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.run.folder import RunFolder, output_folder, write_atomically
from segdistill.run.identity import check_comparable, check_teacher
from segdistill.run.lock import writing
from segdistill.run.reporting.page import Report, render
from segdistill.run.reporting.pictures import PictureOptions, measure
from segdistill.run.reporting.summary import RunSummary, default_subject, with_profiles
from segdistill.run.reporting.verdict import gist

_log = logging.getLogger(__name__)


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    focus: str | None = None,
    title: str | None = None,
    remark: str = "",
    panels: int = 4,
    images: int = 100,
    latency: bool = True,
    dataset: Any = None,
    models: Mapping[str, nn.Module] | None = None,
    device: str = "cpu",
) -> Path:
    """Write one self-contained HTML file about runs: verdict, tables, curves, images, distances.

    The teacher of a distilled run is added by itself. Pictures and class distances are of one seed,
    the lowest that control and method share. Where networks or data cannot be built again, what
    needs them is left out and the page says so.

    Args:
        runs: Run folders; a folder that holds runs stands for all of them.
        out: The file; None: `report.html` in the deepest folder common to `runs`, which is the run's
            own folder where there is one run.
        focus: Method that the pictures are about; None: idd, or else the last.
        title: Heading; None: data set and student.
        remark: What the reader should know of the validation set.
        panels: How many images are shown.
        images: How many validation images pictures and distances are chosen and averaged from, at
            most, evenly spread over the set.
        latency: Measure the latency of teacher and student here and now, side by side.
        dataset: The validation set, where the runs came from Python and cannot name it.
        models: Run name -> network, for runs whose network cannot be rebuilt by name.
        device: Where networks run.

    Returns:
        The file.

    Raises:
        FileNotFoundError: A folder is no run and holds none.
        IdentityDiffers: Weights, data or teacher of a run are not those that made it, or runs differ in
            what a comparison needs to share.
        FolderInUse: Another process writes a report there.
        ValueError: No run is finished, two runs are the same method and seed, or `out` cannot be
            written to.
    """
    folders, notes = _finished(find_runs(runs))
    file = Path(out) if out is not None else _common_folder(runs) / "report.html"
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a file, such as {file / 'report.html'}")
    options = PictureOptions(panels, images, latency, dataset, models or {}, device)
    with writing(output_folder(file.parent), "report"):
        return _write(file, folders, notes, focus, title, remark, options)


def _write(
    file: Path,
    folders: Sequence[RunFolder],
    notes: Sequence[str],
    focus: str | None,
    title: str | None,
    remark: str | None,
    options: PictureOptions,
) -> Path:
    summaries = summarise(folders)
    info = _common_info(folders)
    subject = focus or default_subject(summaries)
    named = dict(zip(_names(folders), folders, strict=True))
    findings = measure(summaries, named, info["classes"], subject, options)
    summaries = with_profiles(summaries, findings.profiles)
    page = Report(
        summaries,
        info["classes"],
        info.get("palette") or _greys(len(info["classes"])),
        findings,
        title or _title(folders),
        f"{datetime.date.today():%d %B %Y} · segdistill {__version__}",
        subject,
        [*filter(None, [remark]), *notes, *_other_students(summaries)],
    )
    write_atomically(file, render(page))
    if (saved := gist(summaries, subject)) is not None:
        _log.info("%s", saved)
    _log.info("report: %s", file)
    return file


def _common_folder(paths: Sequence[str | Path]) -> Path:
    """The deepest folder that holds all of the paths, or is the only one; relative where it can be."""
    folder = Path(os.path.commonpath([os.path.abspath(path) for path in paths]))
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def find_runs(paths: Iterable[str | Path]) -> list[RunFolder]:
    """The runs at these paths, in this order, and the teachers' runs that they name.

    Raises:
        FileNotFoundError: A path is no run and holds none.
    """
    found: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        is_run = (path / "config.yaml").is_file()
        inside = [] if is_run else sorted(file.parent for file in path.rglob("config.yaml"))
        for folder in inside or [path]:
            found.setdefault(folder.resolve(), RunFolder(folder))
    for run in list(found.values()):
        teacher = _teacher_path(run)
        if teacher is not None and (teacher / "config.yaml").is_file():
            found.setdefault(teacher.resolve(), RunFolder(teacher))
    return list(found.values())


def _teacher_path(run: RunFolder) -> Path | None:
    teacher = run.recipe().teacher
    return None if teacher is None or teacher.run is None else Path(teacher.run)


def _finished(folders: Sequence[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    finished = [run for run in folders if run.finished]
    left_out = [run.path.name for run in folders if not run.finished]
    if not finished:
        raise ValueError(f"not finished: {', '.join(left_out)}; resume with `segdistill train`")
    return finished, [f"Left out, being unfinished: {', '.join(left_out)}."] if left_out else []


def summarise(folders: Sequence[RunFolder]) -> list[RunSummary]:
    """The figures of runs, each with its role.

    Teachers are those that another run names, controls the others that were trained alone. A
    teacher that is no run of its own is known by the audit of the first run that used it.
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
    named = zip(_names(folders), folders, strict=True)
    for name, run in sorted(named, key=lambda pair: _place(pair[1])):
        evaluation, recipe = run.evaluation() or {}, run.recipe()
        teaches = run.path.resolve() in teachers
        # Runs of one method under several names differ in their recipe: no seeds of each other.
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
    """Whether a run learns from a teacher, which a recipe may also name for nothing."""
    method = recipe.chosen_method()
    changed = method.labels == "teacher" or set(recipe.terms) - set(method_terms("supervised"))
    return method.name != "supervised" or (recipe.teacher is not None and bool(changed))


def _audited(audits: Sequence[Mapping[str, Any]]) -> list[RunSummary]:
    return [RunSummary("teacher", "teacher", "teacher", evaluation=audit) for audit in audits]


def _place(run: RunFolder) -> tuple[int, int]:
    """Order of the tables: that of the catalogue, then seeds."""
    order, name = list(METHODS), run.method_name.partition(":")[0]
    return order.index(name) if name in order else len(order), run.seed


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Names of the folders; whole paths where two have the same name."""
    count = Counter(run.path.name for run in folders)
    return [run.path.name if count[run.path.name] == 1 else str(run.path) for run in folders]


def _stem(run: RunFolder) -> str:
    return re.sub(r"[-_]s\d+$", "", run.path.name)


def _common_info(folders: Sequence[RunFolder]) -> dict[str, Any]:
    first = folders[0].model_info()
    for run in folders:
        classes = run.model_info()["classes"]
        if classes != first["classes"]:
            raise ValueError(
                f"{folders[0].path} and {run.path} do not have the same classes "
                f"({len(first['classes'])} and {len(classes)}): make a report for each data set"
            )
    return first


def _other_students(summaries: Sequence[RunSummary]) -> list[str]:
    """A warning where runs that are compared did not train the same network."""
    networks = {
        json.dumps(vars(run.recipe.student), sort_keys=True): run.name
        for run in summaries
        if run.role != "teacher" and run.recipe is not None
    }
    if len(networks) < 2:
        return []
    return [
        f"Not all of these runs train the same student ({', '.join(networks.values())} differ), so "
        "that the differences are not the methods' alone."
    ]


def _title(folders: Sequence[RunFolder]) -> str:
    recipes = [run.recipe() for run in folders]
    recipe = next((r for r in recipes if r.teacher is not None), recipes[0])
    return f"{recipe.data.name}, {recipe.student.model}"


def _greys(count: int) -> list[list[int]]:
    return [[round(255 * (place + 1) / (count + 1))] * 3 for place in range(count)]
