"""A training with everything built that does not depend on a device, and the device it runs on."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from segdistill.config import DataConfig, Recipe, to_dict
from segdistill.data import build_dataset
from segdistill.data.dataset import require_labels
from segdistill.run.evaluation.agreement import agreement
from segdistill.run.evaluation.evaluate import Evaluation, evaluate
from segdistill.run.folder import RunFolder


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
    """

    recipe: Recipe
    out: Path
    student: nn.Module
    teacher: nn.Module | None
    origin: dict[str, Any]
    train_set: Any
    val_set: Any
    classes: list[str]

    @property
    def val_labelled(self) -> bool:
        """Whether there is something to score against; else the student is compared with its teacher."""
        return bool(getattr(self.val_set, "labelled", True))


def open_split(config: DataConfig, split: str, labelled: bool = True) -> Any:
    """A split of the recipe's data: `train` or `val`.

    Raises:
        ValueError: An option that has a key of its own in the recipe, or that the data set lacks; or
            the split has no labels, and is not said to do without (`labelled=False`).
    """
    name = config.train_split if split == "train" else config.val_split
    options = split_options(config, split)
    for key, place in (("split", f"data.{split}_split"), ("root", "data.root")):
        if key in options:
            raise ValueError(
                f"data options: {key} {options[key]!r} is not set there; write it as {place}"
            )
    dataset = build_dataset(config.name, config.root, name, **options)
    if labelled:
        require_labels(dataset, f"{config.name}, split {name!r},")
    return dataset


def split_options(config: DataConfig, split: str) -> dict[str, Any]:
    """The data set's options for a split: those of both, and its own over them."""
    return {
        **config.options,
        **(config.train_options if split == "train" else config.val_options),
    }


def with_teacher_classes(recipe: Recipe) -> Recipe:
    """Give a folder of images alone the classes and colours of the teacher's run, where it names none.

    Raises:
        FileNotFoundError: There is no such run, or it is not finished.
    """
    data, teacher = recipe.data, recipe.teacher
    alone = data.name == "folder" and data.options.get("mask_dir", "") is None
    if not alone or "classes" in data.options or teacher is None or teacher.run is None:
        return recipe
    info = RunFolder(teacher.run).model_info()
    known = {key: info[key] for key in ("classes", "palette") if info.get(key)}
    return replace(recipe, data=replace(data, options={**known, **data.options}))


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where there is one, else `cpu`.

    Raises:
        ValueError: A GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: this machine has no usable GPU; use auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


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
    options = to_dict(job.recipe)["evaluate"]
    measure: Callable[..., Evaluation] = evaluate
    if not job.val_labelled:
        assert job.teacher is not None
        measure = partial(agreement, teacher=job.teacher)
    return measure(
        model,
        job.val_set,
        size=job.recipe.data.size,
        **options,
        device=str(fabric.device),
        rank=fabric.global_rank,
        world=fabric.world_size,
        all_reduce=partial(sum_over_processes, fabric) if many else None,
    )
