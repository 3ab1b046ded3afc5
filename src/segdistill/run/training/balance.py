"""How often each class occurs in the training labels, for losses that weigh classes by it."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from segdistill.activity import doing
from segdistill.data.dataset import PairDataset
from segdistill.distillation.method import Method
from segdistill.run.auditing import class_pixels
from segdistill.run.contents import read_json
from segdistill.run.folder import write_json
from segdistill.run.progress import counting
from segdistill.run.training.checkpoint import has_checkpoint
from segdistill.run.training.job import Job

_log = logging.getLogger(__name__)
CLASS_PIXELS = "class_pixels.json"


def losses_to_balance(method: Method) -> dict[str, Any]:
    """The losses that weigh classes by how often they occur, by the names of their terms."""
    losses = {name: term.loss for name, term in method.terms.items()}
    return {n: one for n, one in losses.items() if getattr(one, "wants_class_pixels", False)}


def balance_classes(job: Job, method: Method, fabric: Fabric) -> None:
    """Tell the losses that want it how often each class occurs in the training labels.

    The first process counts, before step 1, and keeps the numbers in the run; a run that resumes reads them
    there.

    Args:
        job: The training.
        method: Its terms.
        fabric: The processes.

    Raises:
        ValueError: Labels of the training split are bad, or none has a class.
    """
    losses = losses_to_balance(method)
    if not losses:
        return
    with doing("counting the pixels of each class"):
        pixels: list[int] = fabric.broadcast(_counted(job) if fabric.is_global_zero else [])
    for name, loss in losses.items():
        loss.count_classes(torch.tensor(pixels))
        if fabric.is_global_zero and isinstance(loss.weight, Tensor):
            _log.info("%s: %s", name, _in_words(loss.weight, pixels, job))


def _counted(job: Job) -> list[int]:
    path = job.out / CLASS_PIXELS
    # Without a checkpoint, it may be of another training that never came to its first step.
    known = read_json(path) if has_checkpoint(job.out) else None
    if known is not None:
        return list(known["pixels"])
    # A set of somebody's own was told apart by three samples only.
    digest = job.identity.train_data if isinstance(job.train_set, PairDataset) else None
    split = job.recipe.data.train_split
    with counting("labels") as progress:
        pixels = class_pixels(split, job.train_set, digest, progress)
    values = {"split": split, "classes": job.classes, "pixels": pixels, "total": sum(pixels)}
    write_json(path, values)
    return pixels


def _in_words(weight: Tensor, pixels: Sequence[int], job: Job) -> str:
    """The lowest and the highest of class weights, in one line."""
    shown = sorted((float(weight[c]), job.classes[c]) for c, count in enumerate(pixels) if count)
    (low, commonest), (high, rarest) = shown[0], shown[-1]
    absent = len(pixels) - len(shown)
    return (
        f"class weights from the labels of {job.recipe.data.train_split}, mean 1: {low:.3g} ({commonest}) to "
        f"{high:.3g} ({rarest})" + (f"; {absent} without a pixel" if absent else "")
    )
