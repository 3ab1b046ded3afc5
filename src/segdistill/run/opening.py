"""Open what a recipe names: data, device and precision."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from segdistill.config import DataConfig, EvaluationSetConfig, Recipe
from segdistill.data import build_dataset, takes_root
from segdistill.data.dataset import list_names, require_labels
from segdistill.data.labelled import labelled_samples
from segdistill.data.samples import require_indexed
from segdistill.names import unknown
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import joined

_log = logging.getLogger(__name__)
_CPU_FACTS = Path("/proc/cpuinfo")


def open_split(config: DataConfig, split: str, labelled: bool = True) -> Any:
    """Open a split of the recipe's data: `train` or `val`.

    Raises:
        ValueError: An option has its own key in the recipe or does not exist, or the split has no labels
            and `labelled` is True, or is to be evaluated on and has labels for some images only.
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
    if split == "val":
        require_all_labels(dataset, f"{config.name}, split {name!r},")
    return dataset


def refuse_unread_root(config: DataConfig) -> None:
    """Refuse a folder for a data set that reads none: something else would be trained on than is meant.

    Runs that were trained before it was refused can still be opened.

    Raises:
        ValueError: The data set takes no `root`, and no list of labelled samples is read from it either.
    """
    listed = any(
        isinstance(split_options(config, split).get("labelled"), str) for split in ("train", "val")
    )
    if config.root is not None and not listed and not takes_root(config.name):
        raise ValueError(
            f"data.root is {config.root}, which the data set {config.name!r} does not read; expected null. Remove "
            "root, or set data.name to another data set, such as folder"
        )


def require_all_labels(dataset: Any, name: str) -> None:
    """Refuse to measure on a split of which only some images have labels.

    Raises:
        ValueError: The message begins with `name` and has both numbers.
    """
    require_indexed(dataset, name)
    flags = labelled_samples(dataset)
    if any(flags) and not all(flags):
        raise ValueError(
            f"{name} has labels for {sum(flags)} of its {len(flags)} images; expected labels for all that are "
            "measured on, or for none. Move `labelled` and `missing` to data.train_options"
        )


def split_options(config: DataConfig, split: str) -> dict[str, Any]:
    """The data set's options for a split, which override those of both splits."""
    return {
        **config.options,
        **(config.train_options if split == "train" else config.val_options),
    }


def set_data(data: DataConfig, one: EvaluationSetConfig) -> DataConfig:
    """The data of an evaluation set: the recipe's with the set's changes, to be opened as its `val` split.

    The size is the recipe's, since a set is measured under the recipe's protocol.
    """
    other = one.name is not None and one.name != data.name
    return replace(
        data,
        name=one.name or data.name,
        root=one.root if other or one.root is not None else data.root,
        val_split=one.split or data.val_split,
        options=dict(one.options) if other else joined(data.options, one.options),
        train_options={},
        val_options={},
    )


def open_sets(recipe: Recipe, classes: Sequence[str]) -> dict[str, Any]:
    """Open every evaluation set of a recipe, by name.

    Args:
        recipe: The recipe.
        classes: Names of the classes that the networks predict.

    Raises:
        ValueError: A name is not a file's name, or a set cannot be opened, has no labels or other classes.
    """
    return {name: open_set(recipe, name, classes) for name in recipe.evaluation}


def open_set(recipe: Recipe, name: str, classes: Sequence[str] | None) -> Any:
    """Open one evaluation set of a recipe; arguments and errors are those of `open_sets`.

    Without `classes` those of the set are not checked.
    """
    if name not in recipe.evaluation:
        raise ValueError(unknown("evaluation set", name, recipe.evaluation))
    check_set_name(name)
    if name == recipe.data.val_split:
        raise ValueError(
            f"evaluation.{name} has the name of data.val_split; expected another, as both are columns. Rename it"
        )
    try:
        dataset = open_split(set_data(recipe.data, recipe.evaluation[name]), "val")
    except (ValueError, OSError) as error:
        raise ValueError(f"evaluation.{name}: {error}") from None
    if classes is not None:
        check_set_classes(dataset, classes, f"evaluation.{name}")
    return dataset


def check_set_name(name: str, key: str = "evaluation") -> None:
    """Refuse a name of an evaluation set or fold that cannot name a file or folder.

    Raises:
        ValueError: The name holds other characters than letters, digits, '_', '+', '.' and '-'.
    """
    if not re.fullmatch(r"[\w+-][\w+.-]*", name):
        raise ValueError(
            f"{key}: {name!r} names a file; use only letters, digits, '_', '+', '.' and '-'"
        )


def check_set_classes(dataset: Any, classes: Sequence[str], what: str) -> None:
    """Refuse data whose classes are not those that the networks predict.

    Raises:
        ValueError: The classes differ.
    """
    found = [str(name) for name in dataset.classes]
    if found != list(classes):
        raise ValueError(
            f"{what} has the classes {list_names(found)}; expected those of data, {list_names(classes)}. "
            "Set `classes` in its options to these, and map its other labels"
        )


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


def with_precision(recipe: Recipe) -> Recipe:
    """The recipe with the precision that `auto` is here, which the log tells; any other as it is.

    So a run's files name a precision, and a run that was begun in one is not resumed in another.
    """
    if recipe.train.precision != "auto":
        return recipe
    found, why = _best(resolve_device(recipe.train.device))
    _log.info("train.precision is auto: %s, as %s", found, why)
    return replace(recipe, train=replace(recipe.train, precision=found))


def _best(device: str) -> tuple[Literal["32", "bf16"], str]:
    """bf16 where it is fast, and the reason. Without matrix units it takes up to three times as long as 32."""
    gpu = device == "cuda"
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else _has_matrix_units()
    units = f"this {'GPU' if gpu else 'processor'} has {'' if fast else 'no '}matrix units for bf16"
    return ("bf16" if fast else "32"), units


def _has_matrix_units() -> bool:
    """Whether Linux lists AMX for bf16; elsewhere nothing tells, so no."""
    try:
        text = _CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in text.split()
