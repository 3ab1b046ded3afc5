"""Equal time: each row of a comparison gets the steps that the slowest row's clock allows."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from segdistill.config import Recipe, to_dict
from segdistill.data.labelled import labelled_samples
from segdistill.names import unknown
from segdistill.run.comparing import set_keys
from segdistill.run.console import quiet
from segdistill.run.contents import read_json
from segdistill.run.environment import describe_environment
from segdistill.run.folder import write_json
from segdistill.run.opening import with_teacher_classes
from segdistill.run.training.train import execute, open_job

_log = logging.getLogger(__name__)

Budget = Literal["steps", "time"]
FILE = "costs.json"
_ROUNDS, _STEPS = 3, 8
_IMAGES = 2
"""Images that a probe is evaluated on, which is not timed."""

_ROUNDING = 1e-6
"""Of a step, so that the slowest row keeps its own steps whatever the rounding."""


@dataclass(frozen=True)
class Cost:
    """What a row costs on the machine that measured it, in seconds.

    Attributes:
        preparation: What its losses do on the teacher before step 1.
        step: One step: data, teacher, student, losses and update.
    """

    preparation: float
    step: float

    def steps_within(self, seconds: float) -> int:
        """Steps that a training of this length has; at least one."""
        return max(1, int((seconds - self.preparation) / self.step + _ROUNDING))


def equal_time(rows: Mapping[str, Recipe], base: Path) -> dict[str, int]:
    """Steps of each row, so that all rows train for as long as the slowest one with the recipe's steps.

    Costs are measured once, in turns, and written to `costs.json`; later calls read them, so that the same
    steps are trained again, on other machines as well. Evaluation, which is the same for all, does not count.

    Args:
        rows: The recipe of one run of each row, by label; of the first fold, where there are several.
        base: Folder of the comparison.

    Raises:
        ValueError: A row has steps of its own, `costs.json` is damaged, of other rows or of other settings that a
            step's time depends on, or costs would be measured by several processes.
    """
    steps = _common_steps(rows)
    known = frozen(base)
    if known is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"budget is time with {os.environ['WORLD_SIZE']} processes and no {base / FILE}; expected costs of one "
            "process. Start the command once without torchrun; it measures them first"
        )
    if known is None:
        measured = _measured(rows)
        known = {
            "steps": steps,
            "rows": {label: vars(cost) for label, cost in measured.items()},
            "settings": {label: _settings(recipe) for label, recipe in rows.items()},
            "environment": describe_environment(torch.device("cpu")),
        }
        write_json(base / FILE, known)
    _check(known, rows, steps, base / FILE)
    costs = {label: Cost(**known["rows"][label]) for label in known["rows"]}
    clock = max(cost.preparation + steps * cost.step for cost in costs.values())
    found = {label: costs[label].steps_within(clock) for label in rows}
    _log.info(
        "equal time: %s (costs of a step in %s)",
        ", ".join(f"{label} {number} steps" for label, number in found.items()),
        base / FILE,
    )
    return found


def frozen(base: Path) -> dict[str, Any] | None:
    """The costs that were measured before; None if there are none.

    Raises:
        ValueError: The file is damaged.
    """
    return read_json(base / FILE)


def _common_steps(rows: Mapping[str, Recipe]) -> int:
    steps = {label: recipe.train.steps for label, recipe in rows.items()}
    if len(set(steps.values())) > 1:
        told = ", ".join(f"{label} {number}" for label, number in steps.items())
        raise ValueError(
            f"compare: rows have steps of their own ({told}); expected one number, as budget time sets the steps. "
            "Remove train.steps of the variants, or use budget steps"
        )
    return next(iter(steps.values()))


def _check(known: Mapping[str, Any], rows: Mapping[str, Recipe], steps: int, path: Path) -> None:
    before, labels = known["steps"], known["rows"]
    missing = [label for label in rows if label not in labels]
    if missing:
        raise ValueError(
            f"{path}: {unknown('row', missing[0], labels)}. Costs are measured side by side: choose another out, or "
            "remove the file and the runs"
        )
    if before != steps:
        raise ValueError(
            f"{path} is of train.steps {before}; expected {steps}. Choose another out, or remove the file and the "
            "runs"
        )
    settings = known.get("settings") or {}
    changed = [
        label for label in rows if label in settings and settings[label] != _settings(rows[label])
    ]
    if changed:
        raise ValueError(
            f"{path} was measured with other settings of {', '.join(changed)}; expected those of the recipe. Choose "
            "another out, or remove the file and the runs"
        )


_FREE = {
    *("steps", "seed", "lr", "weight_decay", "momentum", "power", "warmup", "head_lr_factor"),
    *("val_every", "save_every", "log_every", "hang_after", "skip_nonfinite"),
}
"""Keys of `train` that cost no time in a step."""


def _settings(recipe: Recipe) -> str:
    """A digest of what a step's time depends on, but not of places of files."""
    given = set_keys(recipe, to_dict(recipe))  # a later version's new keys change no digest

    def some(part: str, *keys: str) -> dict[str, Any]:
        return {key: value for key, value in (given.get(part) or {}).items() if key in keys}

    train = {key: v for key, v in given.get("train", {}).items() if key not in _FREE}
    data = some("data", "name", "size", "options", "train_options")
    networks = [some(part, "model", "options") for part in ("student", "teacher")]
    parts = [given.get("method"), given.get("terms"), networks, data, train]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _measured(rows: Mapping[str, Recipe]) -> dict[str, Cost]:
    """Costs from short trainings, row after row and over again, so that a slow minute hits all rows alike."""
    _log.info("equal time: measuring the steps of %d rows side by side", len(rows))
    paces: dict[str, list[float]] = {label: [] for label in rows}
    preparations: dict[str, list[float]] = {label: [] for label in rows}
    for _ in range(_ROUNDS):
        for label, recipe in rows.items():
            pace, preparation = _probe(recipe)
            paces[label] += pace
            preparations[label].append(preparation)
    return {label: Cost(median(preparations[label]), median(paces[label])) for label in rows}


def _probe(recipe: Recipe) -> tuple[list[float], float]:
    """Seconds of each step but the first of a short training, and of its preparation."""
    config = replace(recipe.train, steps=_STEPS, log_every=1, val_every=0, warmup=0)
    teacher = recipe.teacher and replace(recipe.teacher, min_miou=0.0)
    probe = replace(
        recipe, train=config, teacher=teacher, evaluation={}, claims_on=None, observers=[]
    )
    with TemporaryDirectory() as folder, quiet():
        job = open_job(with_teacher_classes(probe), Path(folder))
        job.val_set = _Few(job.val_set)
        run = execute(job, progress=False)
        rows = [row for row in run.metrics() if row["kind"] == "train"]
        paces = [row["seconds_per_step"] for row in rows[1:]]
        return paces, run.model_info()["preparation_seconds"]


class _Few(Dataset[Any]):
    """The first images of a data set, with all that it declares."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return min(_IMAGES, len(self._dataset))

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    @property
    def labelled_samples(self) -> list[bool]:
        """Whether each of the first samples has labels."""
        return labelled_samples(self._dataset)[: len(self)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)
