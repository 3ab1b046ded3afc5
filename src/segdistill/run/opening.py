"""What a recipe names, opened: its data, its device."""

from dataclasses import replace
from typing import Any

import torch

from segdistill.config import DataConfig, Recipe
from segdistill.data import build_dataset
from segdistill.data.dataset import require_labels
from segdistill.run.folder import RunFolder


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
