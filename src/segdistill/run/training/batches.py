"""The training crops, starting at any step."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lightning_fabric import Fabric

from segdistill.data.loader import Batch, training_loader
from segdistill.data.strong import Strong
from segdistill.data.transforms import Augment
from segdistill.distillation.method import Method
from segdistill.run.training.job import Job


def labelled_images(job: Job, method: Method) -> int | None:
    """Number of images of each batch that have labels; None if all of the training split have, or none.

    It is `train.labelled_share` of the batch, rounded, and at least one. By default it is the share in the
    split, or the whole batch where no term learns from an image without labels. With a share below 1 at
    least one image of a batch has no labels.

    Args:
        job: The training.
        method: Its terms.
    """
    share, batch = labelled_share(job, method), job.recipe.train.batch
    if share is None or share == 1:
        return None if share is None else batch
    return max(1, min(round(share * batch), batch - 1))


def labelled_share(job: Job, method: Method) -> float | None:
    """The share of a batch that has labels, as stated or by default; None where all images have them, or none."""
    flags, stated = job.labelled_samples, job.recipe.train.labelled_share
    if all(flags) or not any(flags):
        return None
    if stated is not None:
        return stated
    return sum(flags) / len(flags) if _learns_without_labels(job, method) else 1.0


def _learns_without_labels(job: Job, method: Method) -> bool:
    if job.recipe.chosen_method().labels != "data":
        return True
    return any(not term.needs_labels for term in method.terms.values())


def make_loader(job: Job, fabric: Fabric, labelled: int | None = None) -> Any:
    """Return a function that yields the batches of this process, starting at a step.

    Args:
        job: The training.
        fabric: The processes.
        labelled: Images with labels in each batch; see `labelled_images`.
    """
    config, augment = job.recipe.train, augmentation(job)

    def batches(start: int) -> Iterator[Any]:
        return iter(
            training_loader(
                job.train_set,
                augment,
                batch=config.batch,
                seed=config.seed,
                start_step=start,
                steps=config.steps,
                rank=fabric.global_rank,
                world=fabric.world_size,
                workers=config.workers,
                num_classes=len(job.classes),
                labelled=labelled,
                strong=Strong(config.strong_photometric, config.cutmix),
            )
        )

    return batches


def augmentation(job: Job) -> Augment:
    """The augmentation of the recipe: crop, scale, flip, colour."""
    config = job.recipe.train
    size = job.recipe.data.size
    return Augment(config.crop, config.scale, config.flip, config.photometric, base=size)


def probe_batch(job: Job) -> Batch:
    """Two training crops for the dry pass."""
    augment = replace(augmentation(job), flip=0.0, photometric=0.0)
    loader = training_loader(
        job.train_set,
        augment,
        batch=2,
        seed=0,
        start_step=0,
        steps=1,
        num_classes=len(job.classes),
    )
    return next(iter(loader))
