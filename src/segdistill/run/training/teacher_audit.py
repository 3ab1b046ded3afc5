"""Measure the teacher before step 1: a weak or partly loaded teacher has nothing to teach."""

import logging
from typing import Any

import torch
from lightning_fabric import Fabric

from segdistill.run.auditing import Cause, judged, suspect, unmeasurable
from segdistill.run.evaluation import Protocol
from segdistill.run.folder import RunFolder, recorded_miou, write_json
from segdistill.run.training.job import Job, evaluate_with
from segdistill.run.training.starting.remembered import keep, question, recall

_FIGURES = ("miou", "iou", "pixel_accuracy", "confusion")
_log = logging.getLogger(__name__)


def audit_teacher(job: Job, fabric: Fabric, write: bool = True) -> dict[str, Any]:
    """Measure the teacher on the evaluation split and record it.

    If the teacher is a finished run, measured on the same data with the same protocol, its result is
    reused, and so is that of an earlier start with the same teacher, data and protocol. Without labels it
    cannot be measured, and one with random weights is not; `miou` is then None.

    Args:
        job: The training.
        fabric: Device, precision and processes.
        write: Whether this process writes `teacher.json`.

    Returns:
        Origin, load report, `miou` (a fraction) and per-class IoU.

    Raises:
        ValueError: The teacher's mIoU is below `teacher.min_miou` or no better than chance; the message
            names the reading of its classes or input that would be clearly better, if any. Or
            `teacher.min_miou` is set for images without labels, or their only measure would be agreement
            with a teacher of random weights.
    """
    config = job.recipe.teacher
    if job.recipe.random_teacher:
        return _unmeasurable_random(job, write)
    if not job.val_labelled:
        return _unmeasured(job, write)
    figures = _measured(job) or _measure(job, fabric)
    confusion = figures.pop("confusion", None)
    record = {**job.origin, **figures}
    percent = 100 * figures["miou"]
    if write:
        write_json(job.out / "teacher.json", record)
        _log.info(
            "teacher: %.2f mIoU on %s (%s)", percent, job.recipe.data.val_split, _where(job.origin)
        )
    refused, warning = judged(
        percent,
        config.min_miou if config is not None else None,
        None if confusion is None else torch.tensor(confusion),
        recorded_miou(job.origin.get("run")),
        lambda: _suspected(job, fabric),
    )
    if refused:
        raise ValueError(refused)
    if warning and write:
        _log.warning("%s", warning)
    return record


def _suspected(job: Job, fabric: Fabric) -> Cause | None:
    assert job.teacher is not None
    return suspect(
        job.teacher,
        job.val_set,
        Protocol.of(job.recipe),
        device=str(fabric.device),
        absent=job.recipe.evaluate.absent,
    )


def _unmeasured(job: Job, write: bool) -> dict[str, Any]:
    config, split = job.recipe.teacher, job.recipe.data.val_split
    if refused := unmeasurable(config.min_miou if config is not None else None, split):
        raise ValueError(refused)
    record = {**job.origin, "miou": None, "unmeasured": f"{split} has no labels"}
    if write:
        write_json(job.out / "teacher.json", record)
        _log.info("teacher: not measured, since %s has no labels (%s)", split, _where(job.origin))
    return record


def _unmeasurable_random(job: Job, write: bool) -> dict[str, Any]:
    """Record a teacher of random weights, whose mIoU says nothing."""
    if not job.val_labelled:
        raise ValueError(
            f"teacher.random is true, but {job.recipe.data.val_split} has no labels; expected some, as "
            "agreement with random weights is not informative. Name a labelled data.val_split"
        )
    record = {**job.origin, "miou": None, "unmeasured": "its weights are random"}
    if write:
        write_json(job.out / "teacher.json", record)
        _log.info("teacher: %s with random weights, as a placebo; not measured", _where(job.origin))
    return record


def _where(origin: dict[str, Any]) -> str:
    return str(origin.get("run") or origin.get("model") or "given module")


def _measure(job: Job, fabric: Fabric) -> dict[str, Any]:
    assert job.teacher is not None
    protocol = repr((Protocol.of(job.recipe), job.recipe.evaluate))
    asked = question(job, fabric, "teacher", ("teacher",), ("val",), protocol=protocol)
    if (earlier := recall(asked)) is not None and earlier[1].keys() == set(_FIGURES):
        _log.info("teacher: measured as by an earlier start with the same teacher and data")
        return earlier[1]
    result = evaluate_with(job, job.teacher, fabric)
    values = result.to_json()
    figures = {key: values.get(key) for key in _FIGURES}
    keep(asked, {}, figures)
    return figures


def _measured(job: Job) -> dict[str, Any] | None:
    if "run" not in job.origin or {"labels", "shown"} & job.origin.keys():
        return None
    run = RunFolder(job.origin["run"])
    figures = run.evaluation()
    if figures is None:
        return None
    asked, theirs = job.recipe, run.recipe()
    # The run's weights were checked on loading; a run without digests is measured again.
    same_data = None is not figures.get("val_data") == job.identity.val_data
    same_view = theirs.data.size == asked.data.size and theirs.evaluate == asked.evaluate
    if not (same_data and same_view and figures.get("weights_sha256")):
        return None
    return {key: figures.get(key) for key in _FIGURES}
