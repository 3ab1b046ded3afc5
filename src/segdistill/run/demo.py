"""`segdistill demo`: training, comparison and report on synthetic scenes."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from segdistill.config import MethodConfig, Recipe, TeacherConfig
from segdistill.run.compare import one_run, tabulate
from segdistill.run.console import quiet
from segdistill.run.folder import RunFolder
from segdistill.run.progress import duration
from segdistill.run.recipe import load_recipe, recipes_folder
from segdistill.run.reporting.report import report
from segdistill.run.training.train import train

_log = logging.getLogger(__name__)
METHODS = ("supervised", "kd", "idd")
REMARK = (
    "The scenes are synthetic and were designed to reward knowledge of classes and positions. Gains here "
    "show that the toolkit works, not how much distillation gains on photographs."
)
_PROBE_STEPS = 4
_REPORT = 30.0
"""Seconds for table and report, as measured on a slow two-core machine; only trainings are probed."""


def demo(out: str | Path = "runs/demo", seeds: int = 1, first_seed: int = 0) -> Path:
    """Train a teacher, the control, and students distilled with KD and IDD; log a table, write a report.

    A few steps of each training are timed first, to estimate how long each part takes on this machine.

    Args:
        out: Folder for the runs and `report.html`. Finished runs in it are reused.
        seeds: Number of seeds; the students are trained once per seed, the teacher once.
        first_seed: First of the seeds.

    Returns:
        Path of the report.

    Raises:
        ValueError: `seeds` is below 1, or a folder holds another run.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; expected a positive integer")
    start = time.perf_counter()
    base = Path(out)
    teacher, recipes = _recipes(base, range(first_seed, first_seed + seeds))
    clock = _Countdown(_missing({"teacher": teacher, **recipes}))
    _log.info("1/3  the teacher%s", clock.about(["teacher"]))
    runs = [train(teacher)]
    clock.done("teacher")
    _log.info(
        "2/3  the student without a teacher (control), with KD and with IDD%s", clock.about(recipes)
    )
    for name, recipe in recipes.items():
        runs.append(train(recipe))
        clock.done(name)
    _log.info("3/3  table and report")
    tabulate(runs, base)
    file = report([base], base / "report.html", title="segdistill demo", remark=REMARK)
    _log.info("finished in %s; open %s", duration(time.perf_counter() - start), file)
    return file


def _recipes(base: Path, seeds: range) -> tuple[Recipe, dict[str, Recipe]]:
    """The teacher's recipe, and the students' recipes by run name."""
    folder = recipes_folder() / "synthetic"
    teacher = replace(load_recipe(folder / "teacher.yaml"), out=str(base / "teacher"))
    recipe = replace(load_recipe(folder / "idd.yaml"), teacher=TeacherConfig(run=teacher.out))
    return teacher, {
        f"{name}-s{seed}": one_run(recipe, MethodConfig(name), seed, base)
        for seed in seeds
        for name in METHODS
    }


def _missing(recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Recipes without a finished run."""

    def finished(recipe: Recipe) -> bool:
        try:
            return RunFolder(str(recipe.out)).finished
        except FileNotFoundError:
            return False

    return {name: recipe for name, recipe in recipes.items() if not finished(recipe)}


class _Countdown:
    """Estimates the remaining time from a few steps, and corrects the estimate as runs finish.

    Args:
        recipes: Recipes to train, by name.
    """

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self.expected: dict[str, float] = {}
        if recipes:
            _log.info("timing %d steps of each training on this machine", _PROBE_STEPS)
            self.expected = _measured(recipes)
            parts = ", ".join(f"{name} {duration(s)}" for name, s in self.expected.items())
            whole = duration(sum(self.expected.values()) + _REPORT)
            _log.info("about %s in total: %s, report %s", whole, parts, duration(_REPORT))
        self.began = time.perf_counter()
        self.past = 0.0

    def about(self, names: Mapping[str, Recipe] | list[str]) -> str:
        """Estimated duration of some of the runs, to append to a message."""
        seconds = sum(self.expected.get(name, 0.0) for name in names)
        return f", about {duration(seconds)}" if seconds else ""

    def done(self, name: str) -> None:
        """Mark a run as finished, and log the remaining time."""
        if name not in self.expected:
            return
        self.past += self.expected.pop(name)
        pace = (time.perf_counter() - self.began) / self.past
        left = pace * (sum(self.expected.values()) + _REPORT)
        _log.info("%s is finished; about %s left", name, duration(left))


def _measured(recipes: Mapping[str, Recipe]) -> dict[str, float]:
    """Estimated seconds per training; one seed of each kind is timed."""
    kinds = {name: name.rpartition("-s")[0] or name for name in recipes}
    seconds: dict[str, float] = {}
    with TemporaryDirectory() as folder, quiet():
        for name, recipe in recipes.items():
            if kinds[name] not in seconds:
                seconds[kinds[name]] = _seconds_of(recipe, Path(folder))
    return {name: seconds[kind] for name, kind in kinds.items()}


def _seconds_of(recipe: Recipe, folder: Path) -> float:
    """Estimated seconds of a training: all steps at the pace of the first few, plus the overhead."""
    steps = min(_PROBE_STEPS, recipe.train.steps)
    short = replace(recipe.train, steps=steps, log_every=1)
    probe = replace(recipe, train=short, out=str(folder / Path(str(recipe.out)).name))
    if recipe.teacher is not None:
        # The probe's teacher is as slow as the trained one, which may not exist yet.
        known = folder / "teacher"
        run = str(known) if known.is_dir() else recipe.teacher.run
        probe = replace(probe, teacher=replace(recipe.teacher, run=run, min_miou=0.0))
    start = time.perf_counter()
    rows = train(probe, progress=False).metrics()
    whole = time.perf_counter() - start
    paces: list[float] = [row["seconds_per_step"] for row in rows if row["kind"] == "train"]
    return whole - sum(paces) + recipe.train.steps * median(paces[1:] or paces)
