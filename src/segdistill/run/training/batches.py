"""The training crops, starting at any step."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lightning_fabric import Fabric

from segdistill.data.loader import Batch, training_loader
from segdistill.data.transforms import Augment
from segdistill.run.training.job import Job


def make_loader(job: Job, fabric: Fabric) -> Any:
    """Return a function that yields the batches of this process, starting at a step."""
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
