"""`segdistill report`: collect the content of the page from run folders, and write it as one file."""

import datetime
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from segdistill import __version__
from segdistill.run.folder import RunFolder, output_folder, write_atomically
from segdistill.run.lock import writing
from segdistill.run.reporting.claims.gist import gist
from segdistill.run.reporting.page import Report, render
from segdistill.run.reporting.pictures import PictureOptions, measure
from segdistill.run.reporting.reading.classes import left_out_in_words
from segdistill.run.reporting.reading.runs import find_runs, names_of, summarise
from segdistill.run.reporting.summary import (
    RunSummary,
    default_subject,
    teachers_differ,
    with_profiles,
)
from segdistill.trust import trusting

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
    trust: bool = False,
) -> Path:
    """Write a self-contained HTML report on runs: verdict, tables, curves, images, distances.

    The teacher of a distilled run is added automatically. Pictures and class distances are from one
    seed, the lowest shared by control and method. If networks or data cannot be rebuilt, the sections
    that need them are left out, with a note on the page.

    Args:
        runs: Run folders, or folders that hold runs.
        out: File to write; None: `report.html` in the deepest folder common to `runs` (for a single
            run, its own folder).
        focus: Method shown in the pictures; None: idd, or else the last.
        title: Heading; None: data set (your own data: the name of its folder) and student.
        remark: Note on the validation set for the reader.
        panels: Number of images to show.
        images: Largest number of validation images for pictures and distances, evenly spread over the
            set.
        latency: Measure the latency of teacher and student side by side on this machine.
        dataset: The validation set, if the runs were made in Python and do not name it.
        models: Run name -> network, for runs whose network cannot be rebuilt by name.
        device: Device to run networks on.
        trust: Import modules of somebody's code that the runs name, now and from now on (SECURITY.md).
            Without it, networks and data of such modules cannot be built again.

    Returns:
        The file.

    Raises:
        FileNotFoundError: A folder is not a run and holds no runs.
        IdentityDiffers: The weights, data or teacher of a run have changed, or runs are not
            comparable.
        FolderInUse: Another process writes a report there.
        ValueError: No run is finished, two runs are the same method and seed, or `out` cannot be
            written to.
    """
    folders, notes = _finished(find_runs(runs))
    file = Path(out) if out is not None else _common_folder(runs) / "report.html"
    if file.is_dir():
        raise ValueError(f"{file} is a folder; expected a file, such as {file / 'report.html'}")
    options = PictureOptions(panels, images, latency, dataset, models or {}, device)
    with writing(output_folder(file.parent), "report"), trusting(trust):
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
    named = dict(zip(names_of(folders), folders, strict=True))
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
        [
            *filter(None, [remark]),
            *notes,
            *_other_students(summaries),
            *_teachers(summaries),
            *filter(None, [left_out_in_words(summaries)]),
        ],
    )
    write_atomically(file, render(page))
    if (saved := gist(summaries, subject)) is not None:
        _log.info("%s", saved)
    _log.info("report: %s", file)
    return file


def _common_folder(paths: Sequence[str | Path]) -> Path:
    """The deepest folder that contains all paths (or the only path), relative if possible."""
    folder = Path(os.path.commonpath([os.path.abspath(path) for path in paths]))
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _finished(folders: Sequence[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    for run in folders:
        run.refuse_lost()
    finished = [run for run in folders if run.measured]
    left_out = [run.path.name for run in folders if not run.measured]
    if not finished:
        raise ValueError(
            f"no run is finished ({', '.join(left_out)}). Resume with `segdistill train`"
        )
    return finished, [f"Left out, since unfinished: {', '.join(left_out)}."] if left_out else []


def _common_info(folders: Sequence[RunFolder]) -> dict[str, Any]:
    first = folders[0].model_info()
    for run in folders:
        classes = run.model_info()["classes"]
        if classes != first["classes"]:
            raise ValueError(
                f"{folders[0].path} and {run.path} have different classes "
                f"({len(first['classes'])} and {len(classes)}). Write one report per data set"
            )
    return first


def _other_students(summaries: Sequence[RunSummary]) -> list[str]:
    """A warning if the compared runs trained different networks."""
    networks = {
        json.dumps(vars(run.recipe.student), sort_keys=True): run.name
        for run in summaries
        if run.role != "teacher" and run.recipe is not None
    }
    if len(networks) < 2:
        return []
    return [
        f"These runs do not all train the same student ({', '.join(networks.values())} differ), so the "
        "differences are not only due to the methods."
    ]


def _teachers(summaries: Sequence[RunSummary]) -> list[str]:
    """Which seeds had which teacher, where it was not one for all."""
    several = teachers_differ(summaries)
    return (
        [f"{several}. The teacher's own figures are those of the one at hand."] if several else []
    )


def _title(folders: Sequence[RunFolder]) -> str:
    """The data set and the student of the runs, such as "camvid, pspnet_r18_half".

    A custom data set (`folder`, or a class by its dotted path) is named after its folder.
    """
    recipes = [run.recipe() for run in folders]
    recipe = next((r for r in recipes if r.teacher is not None), recipes[0])
    name, root = recipe.data.name, recipe.data.root
    if root is not None and (name == "folder" or "." in name):
        name = Path(root).resolve().name or name
    return f"{name}, {recipe.student.model}"


def _greys(count: int) -> list[list[int]]:
    return [[round(255 * (place + 1) / (count + 1))] * 3 for place in range(count)]
