"""`segdistill demo`: the whole story on synthetic scenes, from nothing to a report."""

import logging
import time
from dataclasses import replace
from pathlib import Path

from segdistill.config import MethodConfig, TeacherConfig
from segdistill.run.compare import conclude, one_run
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import load_recipe, recipes_folder
from segdistill.run.reporting.report import report
from segdistill.run.training.train import train

_log = logging.getLogger(__name__)
METHODS = ("supervised", "kd", "idd")
REMARK = (
    "The scenes are synthetic and were designed to reward knowledge of classes and of places; gains here "
    "say that the toolkit works, not how much distillation brings on photographs."
)


def demo(out: str | Path = "runs/demo", seeds: int = 1, first_seed: int = 0) -> Path:
    """Train a teacher, the control, and students distilled by KD and IDD; print the table, write the report.

    Args:
        out: Folder for the runs and `report.html`. Finished runs in it are not trained again.
        seeds: How many times the students are trained, each from another start; the teacher once.
        first_seed: Seed of the first of them.

    Returns:
        The report's file.
    """
    start = time.perf_counter()
    base = Path(out)
    folder = recipes_folder() / "synthetic"
    teacher_recipe = replace(load_recipe(folder / "teacher.yaml"), out=str(base / "teacher"))
    _log.info("1/3  the teacher")
    teacher = train(teacher_recipe)
    recipe = replace(load_recipe(folder / "idd.yaml"), teacher=TeacherConfig(run=str(teacher.path)))
    runs: list[RunFolder] = [teacher]
    _log.info("2/3  the student alone (control), and distilled with KD and IDD")
    for seed in range(first_seed, first_seed + seeds):
        for name in METHODS:
            runs.append(train(one_run(recipe, MethodConfig(name), seed, base)))
    _log.info("3/3  table and report")
    conclude(runs, base)
    file = report([base], base / "report.html", title="segdistill demo", remark=REMARK)
    _log.info("done in %.0f s; open %s", time.perf_counter() - start, file)
    return file
