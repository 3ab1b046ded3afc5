"""A training before it runs: recipe, networks and data, and the device to run on."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from segdistill.config import Recipe, code_names
from segdistill.data.labelled import labelled_samples
from segdistill.run.evaluation import Evaluation, Protocol, measure
from segdistill.run.evaluation.agreement import agreement
from segdistill.run.identity import Identity, identify
from segdistill.run.identity.data import data_digest
from segdistill.run.opening import resolve_device


@dataclass
class Job:
    """A training, with everything built that does not depend on a device.

    Attributes:
        recipe: The recipe.
        out: The run's folder.
        student: Network with its initial weights.
        teacher: Frozen network, or None.
        origin: Source of the teacher, as recorded in the run.
        train_set: Samples to train on.
        val_set: Samples to evaluate on.
        classes: Names of the classes.
        observers: Objects that receive each row and may stop the training.
        sets: Further sets to measure on, by name.
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
    sets: Mapping[str, Any] = field(default_factory=dict)
    _set_digests: dict[str, str | None] = field(default_factory=dict)

    @property
    def measured_on(self) -> dict[str, Any]:
        """The evaluation split, under its split's name, and the further sets, each as `evaluation.NAME`."""
        further = {f"evaluation.{name}": dataset for name, dataset in self.sets.items()}
        return {self.recipe.data.val_split: self.val_set, **further}

    @cached_property
    def labelled_samples(self) -> list[bool]:
        """Whether each training image has labels."""
        return labelled_samples(self.train_set)

    @cached_property
    def identity(self) -> Identity:
        """Digests of student, teacher and data, computed before the first step."""
        return identify(
            self.student,
            self.teacher,
            self.train_set,
            self.val_set,
            self.classes,
            code_names(self.recipe),
        )

    def set_digest(self, name: str) -> str | None:
        """Digest of a further set; None where it could not be checked."""
        if name not in self._set_digests:
            self._set_digests[name] = data_digest(self.sets[name], f"evaluation.{name}")
        return self._set_digests[name]

    @property
    def val_labelled(self) -> bool:
        """Whether the evaluation split has labels; otherwise agreement with the teacher is measured."""
        return bool(getattr(self.val_set, "labelled", True))


def make_fabric(recipe: Recipe, find_unused: bool = False) -> Fabric:
    """Fabric for the recipe's device and precision; `torchrun` sets the number of processes."""
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
    """Broadcast buffers and frozen parameters of the first process to all."""
    if fabric.world_size == 1:
        return
    for tensor in [*module.buffers(), *(p for p in module.parameters() if not p.requires_grad)]:
        torch.distributed.broadcast(tensor.detach(), src=0)


def evaluate_with(job: Job, model: nn.Module, fabric: Fabric, dataset: Any = None) -> Evaluation:
    """Evaluate a network over all processes, in full precision, and keep the counts of single images.

    Args:
        job: The training. If its evaluation split has no labels, the teacher's predictions are used.
        model: The network.
        fabric: Device and processes.
        dataset: Labelled images; None: the evaluation split.
    """
    many = fabric.world_size > 1
    measured: Callable[..., Evaluation] = measure
    if dataset is None and not job.val_labelled:
        assert job.teacher is not None
        measured = partial(agreement, teacher=job.teacher)
    return measured(
        model,
        job.val_set if dataset is None else dataset,
        protocol=Protocol.of(job.recipe),
        absent=job.recipe.evaluate.absent,
        device=str(fabric.device),
        rank=fabric.global_rank,
        world=fabric.world_size,
        all_reduce=partial(sum_over_processes, fabric) if many else None,
        gather=_from_all_processes if many else list,
    )


def _from_all_processes(entries: list[Any]) -> list[Any]:
    found: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, entries)
    return [entry for part in found for entry in part]
