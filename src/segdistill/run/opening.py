"""Open what a recipe names: data and device."""

from dataclasses import replace
from typing import Any

import torch

from segdistill.config import DataConfig, Recipe
from segdistill.data import build_dataset
from segdistill.data.dataset import require_labels
from segdistill.run.folder import RunFolder


def open_split(config: DataConfig, split: str, labelled: bool = True) -> Any:
    """Open a split of the recipe's data: `train` or `val`.

    Raises:
        ValueError: An option has its own key in the recipe or does not exist, or the split has no labels
            and `labelled` is True.
    """
    name = config.train_split if split == "train" else config.val_split
    options = split_options(config, split)
    for key, place in (("split", f"data.{split}_split"), ("root", "data.root")):
        if key in options:
            raise ValueError(
                f"{key} cannot be set in the options of data. Set {place} to {options[key]!r} instead"
            )
    dataset = build_dataset(config.name, config.root, name, **options)
    if labelled:
        require_labels(dataset, f"{config.name}, split {name!r},")
    return dataset


def split_options(config: DataConfig, split: str) -> dict[str, Any]:
    """The data set's options for a split, which override those of both splits."""
    return {
        **config.options,
        **(config.train_options if split == "train" else config.val_options),
    }


def with_teacher_classes(recipe: Recipe) -> Recipe:
    """Give a folder without masks the classes and colours of the teacher's run, unless it names classes.

    Raises:
        FileNotFoundError: The run does not exist or is not finished.
    """
    data, teacher = recipe.data, recipe.teacher
    unmasked = data.name == "folder" and data.options.get("mask_dir", "") is None
    if not unmasked or "classes" in data.options or teacher is None or teacher.run is None:
        return recipe
    info = RunFolder(teacher.run).model_info()
    known = {key: info[key] for key in ("classes", "palette") if info.get(key)}
    return replace(recipe, data=replace(data, options={**known, **data.options}))


def resolve_device(device: str) -> str:
    """Resolve `auto` to `cuda` if a GPU is usable, otherwise `cpu`.

    Raises:
        ValueError: The device is `cuda`, but no GPU is usable.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device is cuda; expected auto or cpu, since this machine has no usable GPU"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
