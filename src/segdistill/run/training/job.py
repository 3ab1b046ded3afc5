"""A training with everything built that does not depend on a device, and the device it runs on."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from segdistill.config import Recipe
from segdistill.run.evaluation import Evaluation, Protocol, measure
from segdistill.run.evaluation.agreement import agreement
from segdistill.run.identity import Identity, identify
from segdistill.run.opening import resolve_device


@dataclass
class Job:
    """A training with everything built that does not depend on a device.

    Attributes:
        recipe: What was asked for.
        out: The run's folder.
        student: Network with its initial weights.
        teacher: Frozen network, or None.
        origin: Where the teacher came from, for the record.
        train_set: Samples to learn from.
        val_set: Samples to evaluate on.
        classes: Names of the classes.
        observers: Objects that are shown each row and may stop the training.
    """

    recipe: Recipe
    out: Path
    student: nn.Module
    teacher: nn.Module | None
    origin: dict[str, Any]
    train_set: Any
    val_set: Any
    classes: list[str]
    observers: Sequence[Any] = ()

    @cached_property
    def identity(self) -> Identity:
        """What the training is made of, by content; asked for before the first step."""
        return identify(self.student, self.teacher, self.train_set, self.val_set, self.classes)

    @property
    def val_labelled(self) -> bool:
        """Whether there is something to score against; else the student is compared with its teacher."""
        return bool(getattr(self.val_set, "labelled", True))


def make_fabric(recipe: Recipe, find_unused: bool = False) -> Fabric:
    """Fabric for the recipe's device and precision; `torchrun` decides on the processes."""
    config = recipe.train
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[config.precision]
    strategy = DDPStrategy(find_unused_parameters=find_unused) if world > 1 else "auto"
    fabric = Fabric(
        accelerator=resolve_device(config.device),
        devices=local,
        num_nodes=world // local,
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def sum_over_processes(fabric: Fabric, tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes."""
    total = fabric.all_reduce(tensor, reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    return total


def share_state(fabric: Fabric, module: nn.Module) -> None:
    """Give all processes the first one's buffers and frozen parameters."""
    if fabric.world_size == 1:
        return
    for tensor in [*module.buffers(), *(p for p in module.parameters() if not p.requires_grad)]:
        torch.distributed.broadcast(tensor.detach(), src=0)


def evaluate_with(job: Job, model: nn.Module, fabric: Fabric) -> Evaluation:
    """Evaluate a network on the job's evaluation split, over all processes, in full precision.

    Where the split has no labels, the teacher's classes stand for them.
    """
    many = fabric.world_size > 1
    measured: Callable[..., Evaluation] = measure
    if not job.val_labelled:
        assert job.teacher is not None
        measured = partial(agreement, teacher=job.teacher)
    return measured(
        model,
        job.val_set,
        protocol=Protocol.of(job.recipe),
        absent=job.recipe.evaluate.absent,
        device=str(fabric.device),
        rank=fabric.global_rank,
        world=fabric.world_size,
        all_reduce=partial(sum_over_processes, fabric) if many else None,
    )
