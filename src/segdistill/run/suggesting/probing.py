"""Short trainings of the largest candidates within the budget, to rank them by mIoU."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segdistill.config import ModelConfig, Recipe
from segdistill.run.comparing import entry_of
from segdistill.run.rows import obtain
from segdistill.run.suggesting.candidates import PRETRAINED
from segdistill.run.suggesting.choice import Measured
from segdistill.run.training.updates.finite import NonFiniteLoss

_log = logging.getLogger(__name__)

MOST = 3
"""Number of candidates that are trained."""


def probed(
    rows: Sequence[Measured], recipe: Recipe, steps: int, folder: Path, progress: bool = True
) -> list[Measured]:
    """Train each candidate as the recipe's control for some steps; the highest mIoU comes first.

    Those that diverge come last.

    Args:
        rows: What is trained.
        recipe: Data and training; no teacher is needed.
        steps: Steps of each training.
        folder: Folder of the runs; finished ones of the same recipe are reused.
        progress: Show progress.
    """
    _tell_unequal_starts(rows)
    found = [
        replace(row, miou=_miou(_recipe_of(row, recipe, steps, folder), progress)) for row in rows
    ]
    return sorted(found, key=lambda row: -1.0 if row.miou is None else row.miou, reverse=True)


def _tell_unequal_starts(rows: Sequence[Measured]) -> None:
    """Warn where only some candidates start from weights: a short training cannot make up for that."""
    starts = {row.candidate.label: _has_weights(row.candidate.config) for row in rows}
    if any(starts.values()) and not all(starts.values()):
        _log.warning(
            "suggest: only %s starts from weights, as the recipe says; the others start from scratch, which a short "
            "training does not make up for. For equal starts remove the student's weights from the recipe",
            ", ".join(name for name, ready in starts.items() if ready),
        )


def _has_weights(config: ModelConfig) -> bool:
    return bool(config.weights or any(config.options.get(key) for key in PRETRAINED))


def _recipe_of(row: Measured, recipe: Recipe, steps: int, folder: Path) -> Recipe:
    config = row.candidate.config
    control = entry_of(replace(recipe, variants={}, evaluation={}), "supervised").recipe
    name = re.sub(r"[^\w+.-]+", "-", row.candidate.label).strip("-")
    return replace(
        control,
        student=config,
        train=replace(recipe.train, steps=steps),
        out=str(folder / f"{name}-{steps}"),
    )


def _miou(recipe: Recipe, progress: bool) -> float | None:
    try:
        figures = obtain(recipe, progress).evaluation()
    except NonFiniteLoss as error:
        _log.warning("%s diverged: %s", recipe.out, error)
        return None
    assert figures is not None
    return 100 * float(figures["miou"])
