"""`segdistill suggest`: measure candidates, choose the largest within a budget, write its recipe."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segdistill.config import ModelConfig, Recipe
from segdistill.data.samples import read_sample
from segdistill.run.console import say
from segdistill.run.evaluation import Size
from segdistill.run.folder import write_atomically
from segdistill.run.opening import open_split, resolve_device, with_teacher_classes
from segdistill.run.recipe import parse_recipe, read_recipe
from segdistill.run.suggesting.asked import height_and_width, milliseconds
from segdistill.run.suggesting.candidates import built, listed
from segdistill.run.suggesting.choice import (
    Measured,
    check_any_fits,
    check_out,
    largest_first,
    recipe_text,
    table_of,
)
from segdistill.run.suggesting.probing import MOST, probed
from segdistill.run.suggesting.runtimes import Runtime, check_runtime, timed

_log = logging.getLogger(__name__)

CLASSES = 19
SIZE = (512, 1024)


@dataclass(frozen=True)
class _Task:
    """What the candidates are built for, and where the values of the recipe come from."""

    recipe: Recipe | None
    values: dict[str, Any] | None
    classes: int
    channels: int
    size: Size


def suggest(
    recipe: str | None,
    latency: str,
    *,
    size: str | None = None,
    classes: int | None = None,
    device: str = "cpu",
    runtime: Runtime = "onnxruntime",
    candidates: Sequence[str] = (),
    built_in: bool = True,
    repeats: int = 50,
    probe: int = 0,
    out: str = "suggested.yaml",
    progress: bool = True,
) -> Path:
    """Measure candidates, print their table, and write a recipe with the largest within the budget.

    Args:
        recipe: YAML file that says data, classes, size and the first candidate; None: there is none.
        latency: The budget for the median of one image, as text with a unit.
        size: Height x width in pixels, as text; None: that of the recipe's data, or 512x1024.
        classes: Number of classes where there is no recipe; None: 19.
        device: "cpu" or "cuda".
        runtime: What the candidates run in.
        candidates: Names of further ones.
        built_in: Measure the listed networks, too.
        repeats: Largest number of timed rounds.
        probe: Steps of the short trainings by which candidates are ranked; 0: none.
        out: File of the recipe; its neighbour `STEM-probe` holds the runs of the trainings.
        progress: Show the progress of the trainings.

    Returns:
        The file.

    Raises:
        FileExistsError: `out` exists.
        ValueError: An option does not fit, a package is missing, or nothing is within the budget.
    """
    budget, path = milliseconds(latency), check_out(out)
    check_runtime(runtime, device)
    device = resolve_device(device)
    if repeats < 3 or probe < 0:
        raise ValueError(
            f"--repeats is {repeats} and --probe {probe}; expected at least 3, and 0 or more"
        )
    if probe and recipe is None:
        raise ValueError("--probe trains by a recipe; expected one. Name it after `suggest`")
    task = _task(recipe, size, classes)
    own = None if task.recipe is None else task.recipe.student
    asked = listed(own, candidates, built_in, task.channels)
    _log.info("building %d candidates", len(asked))
    found, times = timed(
        [built(one, task.classes, task.size) for one in asked], runtime, task.size, device, repeats
    )
    rows = [Measured(one, times.get(one.label)) for one in found]
    how = _how(runtime, device, task.size, rows)
    say(f"{table_of(rows, budget)}\n{how}")
    check_any_fits(rows, budget, task.size)
    fitting = largest_first(rows, budget)
    if probe and task.recipe is not None:
        trained = probed(
            fitting[:MOST],
            task.recipe,
            probe,
            path.with_name(f"{path.stem}-probe"),
            progress,
        )
        fitting = [*trained, *fitting[MOST:]]
        say(table_of(fitting, budget))
    _write(path, task, fitting, budget, how, probe)
    return path


def _task(file: str | None, size: str | None, classes: int | None) -> _Task:
    given = None if size is None else height_and_width(size)
    if file is None:
        classes = CLASSES if classes is None else classes
        if classes < 1:
            raise ValueError(f"--classes is {classes}; expected a positive integer")
        return _Task(None, None, classes, 3, given or SIZE)
    if classes is not None:
        raise ValueError(
            f"--classes is {classes} beside {file}, whose data says the classes; expected only one of them"
        )
    values = read_recipe(Path(file))
    recipe = with_teacher_classes(parse_recipe(values, name=file))
    dataset = open_split(recipe.data, "val", labelled=False)
    image = read_sample(dataset, 0)[0]
    given = given or recipe.data.size or (image.shape[-2], image.shape[-1])
    return _Task(recipe, values, len(dataset.classes), image.shape[-3], given)


def _how(runtime: str, device: str, size: Size, rows: Sequence[Measured]) -> str:
    """What the times are of, such as "one image of 512x1024, class ids at its pixels; onnxruntime on cpu, .."."""
    threads = torch.get_num_threads()
    where = f"{runtime} on {device}" + (
        "" if device == "cuda" else f", {threads} thread{'s' * (threads != 1)}"
    )
    rounds = max((row.latency.repeats for row in rows if row.latency), default=0)
    return (
        f"one image of {size[0]}x{size[1]} to class ids at its pixels; {where}; median and p90 of {rounds} rounds "
        "in turns"
    )


def _write(
    path: Path, task: _Task, fitting: Sequence[Measured], budget: float, how: str, probe: int
) -> None:
    """Write the recipe of the first, and say why it was chosen."""
    chosen = fitting[0]
    student, latency = chosen.candidate.config, chosen.latency
    assert latency is not None
    own = task.recipe is not None and student is task.recipe.student
    rule = f"the most parameters within {budget:g} ms"
    if chosen.miou is not None:
        rule = f"the highest mIoU ({chosen.miou:.2f}) after {probe} steps within {budget:g} ms"
    comment = [
        f"Written by segdistill suggest: {student.model} has {rule} (median {latency.median:.2f} ms).",
        f"Measured on {how}.",
    ]
    if task.recipe is None:
        comment.append("There was no recipe: name your data and a teacher. Without, it trains on")
        comment.append("synthetic scenes.")
    elif not own:
        comment.append(_left_out(task.recipe.student))
    write_atomically(path, recipe_text(task.values, student, own, comment))
    say(f"{student.model} has {rule}: median {latency.median:.2f} ms. {path} is its recipe")


def _left_out(before: ModelConfig) -> str:
    """Which settings of the former student do not apply to the new one."""
    keys = [
        key
        for key in ("weights", "options", "taps", "factory")
        if getattr(before, key) != getattr(ModelConfig(), key)
    ]
    gone = f", and its {', '.join(keys)} with it" if keys else ""
    return f"The student of the recipe was {before.model}; it is replaced{gone}."
