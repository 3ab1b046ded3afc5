"""Recipes that train in a second or two."""

from pathlib import Path
from typing import Any

import yaml

from segdistill.config import Recipe
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import parse_recipe
from segdistill.run.training.train import train

MODEL = "tests.distillation.networks.Tiny"
CLASSES = 11


def values(**changes: Any) -> dict[str, Any]:
    """A small recipe as plain values; `train` changes single keys of `train`."""
    base: dict[str, Any] = {
        "data": {"name": "synthetic", "options": {"size": [32, 48], "count": 6}},
        "student": {"model": MODEL, "options": {"width": 8}},
        "train": {
            "steps": 6,
            "batch": 2,
            "crop": [32, 48],
            "log_every": 2,
            "save_every": 2,
            "lr": 0.05,
            "device": "cpu",
        },
    }
    base["train"].update(changes.pop("train", {}))
    return {**base, **changes}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(values(**changes))


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(values(**changes)))
    return path


def teacher(folder: Path, **options: Any) -> RunFolder:
    """A briefly trained teacher."""
    return train(
        recipe(
            student={"model": MODEL, "options": {"width": 12, **options}},
            train={"steps": 8, "seed": 9},
            out=str(folder),
        ),
        progress=False,
    )


def distilled(teacher_folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "teacher": {"run": str(teacher_folder), "min_miou": 0.0},
        "method": "idd",
        **changes,
    }


FINE = {"stride": 2}
"""Options of networks with logits (16x24) that are large enough for a critic."""


def released(teacher_folder: Path, **changes: Any) -> dict[str, Any]:
    """A method's `paper` preset on fine logits; the teacher's run needs the options `FINE`."""
    taps = {"features_released": "module.body"}
    method = changes.pop("method", "skd")
    return {
        "student": {"model": MODEL, "options": {"width": 8, **FINE}, "taps": taps},
        "teacher": {"run": str(teacher_folder), "min_miou": 0.0, "taps": taps},
        "method": {"name": method, "preset": changes.pop("preset", "paper")},
        **changes,
    }
