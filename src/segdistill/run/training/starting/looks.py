"""What is looked at before step 1: images of both splits, their masks, and what the networks return."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from segdistill.activity import doing
from segdistill.data.dataset import PairDataset
from segdistill.run.auditing import check_masks, judged_outputs, judged_pixels
from segdistill.run.identity.seen import check_seen, warn_of_same_samples
from segdistill.run.progress import counting
from segdistill.run.training.checks import check_seen_sets, other_types
from segdistill.run.training.job import Job

_log = logging.getLogger(__name__)


def check_shared(job: Job) -> None:
    with doing("looking for images in both splits"):
        split = job.recipe.data.val_split
        check_seen(job.recipe, job.train_set, split, job.val_set, further=False)
        check_seen_sets(job)
        identity = job.identity
        alike = identity.train_data is not None and identity.train_data == identity.val_data
        warn_of_same_samples(job.train_set, job.val_set, alike)


def check_pixels(job: Job) -> None:
    for split, dataset in ((job.recipe.data.train_split, job.train_set), *job.measured_on.items()):
        with doing(f"looking at the images of {split}"):
            _refuse_or_warn(*judged_pixels(dataset, split))


def _refuse_or_warn(refused: str, warning: str) -> None:
    if refused:
        raise ValueError(refused)
    if warning:
        _log.warning("%s", warning)


def check_masks_of(job: Job) -> None:
    """Read the masks of all splits; of somebody's own data set only those that are measured on."""
    config, identity = job.recipe.data, job.identity
    opened = (
        (config.train_split, job.train_set, identity.train_data),
        (config.val_split, job.val_set, identity.val_data),
    )
    splits, digests = [], []
    for name, dataset, digest in opened:
        files = isinstance(dataset, PairDataset)
        if getattr(dataset, "labelled", True) and (files or dataset is job.val_set):
            splits.append((name, dataset))
            # A set of somebody's own was told apart by three samples only.
            digests.append(digest if files else None)
    known = " ".join(digest for digest in digests if digest is not None)
    with doing("reading the masks"), counting("masks") as progress:
        check_masks(splits, None if None in digests else known, progress)
        # Each by itself: another data set may have another mapping and other palettes.
        for name, dataset in job.sets.items():
            digest = job.set_digest(name) if isinstance(dataset, PairDataset) else None
            check_masks([(f"evaluation.{name}", dataset)], digest, progress)


def check_outputs(job: Job, images: Tensor) -> None:
    """Refuse networks of somebody's own that return no logits, or others in training than in evaluation."""
    networks: tuple[tuple[Literal["student", "teacher"], nn.Module | None], ...] = (
        ("student", job.student),
        ("teacher", job.teacher),
    )
    for owner, network in networks:
        if network is None:
            continue
        found = judged_outputs(owner, network, images, len(job.classes))
        if found.refused:
            raise ValueError(found.refused)
        for line in found.warnings:
            _log.warning("%s", line)
        for line in found.notes:
            _log.info("%s", line)


@contextmanager
def first_images(job: Job, images: Tensor) -> Iterator[None]:
    """The networks see their first images; an error that one raises becomes one line."""
    try:
        with doing("showing the networks their first images"):
            yield
    except (RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        shape = "x".join(map(str, images.shape))
        remedy = other_types(job) or "Check the options of student and teacher, and train.crop"
        raise ValueError(
            f"a network fails on images of {shape} ({cause:.300}). {remedy}"
        ) from error
