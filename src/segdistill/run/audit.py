"""The teacher is measured before step 1: a weak or half-loaded teacher has nothing to teach."""

import logging
from typing import Any

from lightning_fabric import Fabric

from segdistill.config import to_dict
from segdistill.run.folder import RunFolder, write_json
from segdistill.run.job import Job, evaluate_with

_log = logging.getLogger(__name__)
CHANCE = 5.0
"""Below this mIoU in per cent, and below one over the number of classes, a teacher knows nothing."""


def audit_teacher(job: Job, fabric: Fabric, write: bool = True) -> dict[str, Any]:
    """Measure the teacher on the evaluation split and record it.

    A teacher that is a finished run, measured on the same data in the same way, is not measured again.

    Args:
        job: The training that is about to begin.
        fabric: Where it runs.
        write: Whether this process writes `teacher.json`.

    Returns:
        Origin, load report, `miou` (0 to 1) and per-class IoU.

    Raises:
        ValueError: The teacher measures less than `teacher.min_miou`, or no better than chance.
    """
    config = job.recipe.teacher
    figures = _measured(job) or _measure(job, fabric)
    record = {**job.origin, **figures}
    percent = 100 * figures["miou"]
    if write:
        write_json(job.out / "teacher.json", record)
        _log.info(
            "teacher: %.2f mIoU on %s (%s)", percent, job.recipe.data.val_split, _where(job.origin)
        )
    least = config.min_miou if config is not None else None
    chance = 100 / len(job.classes)
    if least is not None and percent < least:
        raise ValueError(
            f"the teacher measures {percent:.2f} mIoU, under teacher.min_miou {least}: look at its weights, "
            "the order of its channels and classes, and its normalisation"
        )
    if least is None and percent < min(chance, CHANCE):
        raise ValueError(
            f"the teacher measures {percent:.2f} mIoU, no better than chance: its weights, class order or "
            "input normalisation do not belong to this data (teacher.min_miou 0 goes on all the same)"
        )
    return record


def _where(origin: dict[str, Any]) -> str:
    return str(origin.get("run") or origin.get("model") or "given module")


def _measure(job: Job, fabric: Fabric) -> dict[str, Any]:
    assert job.teacher is not None
    result = evaluate_with(job, job.teacher, fabric)
    return {"miou": result.miou, "iou": result.iou, "pixel_accuracy": result.pixel_accuracy}


def _measured(job: Job) -> dict[str, Any] | None:
    if "run" not in job.origin:
        return None
    run = RunFolder(job.origin["run"])
    figures = run.evaluation()
    if figures is None:
        return None
    asked = to_dict(job.recipe)
    theirs = run.config()
    keys = ("name", "root", "size", "val_split", "options", "val_options")
    same_data = all(theirs["data"].get(k) == asked["data"].get(k) for k in keys)
    if not same_data or theirs.get("evaluate") != asked["evaluate"]:
        return None
    return {k: figures[k] for k in ("miou", "iou", "pixel_accuracy")}
