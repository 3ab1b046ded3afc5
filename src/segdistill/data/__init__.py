"""Data sets by name, and the loaders that feed training and evaluation."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from segdistill.data.dataset import Sample, SegmentationDataset
from segdistill.data.folder import Folder
from segdistill.data.label_map import IGNORED, LabelMap
from segdistill.data.labelled import Labelled, keep_labels
from segdistill.data.loader import Batch, evaluation_loader, training_loader
from segdistill.data.published.ade20k import ADE20K
from segdistill.data.published.camvid import CamVid
from segdistill.data.published.cityscapes import Cityscapes
from segdistill.data.published.cocostuff import COCOStuff
from segdistill.data.published.voc import PascalVOC
from segdistill.data.samples import Indexed
from segdistill.data.synthetic.dataset import Synthetic
from segdistill.data.transforms import Augment
from segdistill.dotted import import_class
from segdistill.names import check_options, made, unknown

DATASETS: dict[str, type[SegmentationDataset]] = {
    "ade20k": ADE20K,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "cocostuff": COCOStuff,
    "folder": Folder,
    "synthetic": Synthetic,
    "voc": PascalVOC,
}

__all__ = [
    "ADE20K",
    "DATASETS",
    "IGNORED",
    "Augment",
    "Batch",
    "COCOStuff",
    "CamVid",
    "Cityscapes",
    "Folder",
    "LabelMap",
    "PascalVOC",
    "Sample",
    "SegmentationDataset",
    "Synthetic",
    "build_dataset",
    "evaluation_loader",
    "training_loader",
]


def build_dataset(
    name: str,
    root: str | Path | None = None,
    split: str = "train",
    *,
    labelled: Labelled | None = None,
    labelled_seed: int = 0,
    **options: Any,
) -> Indexed:
    """A data set by its name.

    Args:
        name: A key of `DATASETS`, or the dotted path of your own class (`package.module.Class`), a
            subclass of `torch.utils.data.Dataset` or a class with `__len__`, `__getitem__` and
            `classes`. It is called with the options, and with `root` and `split` if it accepts them.
        root: Folder of the files; required by all but `synthetic`, which takes none.
        split: `train`, `val`, or any other split of the data set.
        labelled: Samples that keep their labels: a number, a fraction, names, or a file of names relative
            to `root` (`segdistill.data.labelled.keep_labels`); None: all. For the data sets of this
            package; your own declares `labelled_samples`.
        labelled_seed: Selects the samples of a number or fraction.
        **options: Options of the data set; see its class.

    Raises:
        ValueError: The name or an option is unknown (the nearest one is suggested), or a file is bad.
        FileNotFoundError: `root` does not have the expected layout.

    Example:
        >>> len(build_dataset("synthetic", split="val", count=3))
        3
    """
    if name not in DATASETS and "." not in name:
        raise ValueError(unknown("data set", name, DATASETS))
    builder: Callable[..., Any] = DATASETS.get(name) or import_class(
        name, "data set", "a subclass of torch.utils.data.Dataset", _is_dataset
    )
    parameters = inspect.signature(builder).parameters
    if "labelled" in parameters:  # a class of somebody's own may read it itself
        options, labelled = {**options, "labelled": labelled}, None
    owner, common = f"the data set {name!r}", {"labelled": labelled, "labelled_seed": labelled_seed}
    check_options(owner, options, builder, besides=("root", "split"), also=common)
    check_options(owner, common, build_dataset)
    given = {"root": root, "split": split}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {key: value for key, value in given.items() if key in parameters}
    dataset = _called(builder, name, {**given, **options})
    if labelled is not None:
        if not isinstance(dataset, SegmentationDataset):
            raise ValueError(
                f"labelled is set for {name}, which is not a data set of this package; expected its own "
                "attribute labelled_samples, one truth value per sample"
            )
        keep_labels(dataset, labelled, labelled_seed, root)
    return dataset


def takes_root(name: str) -> bool:
    """Whether a data set reads a folder `root`; true for one that does not exist, which opening it reports."""
    if name == "synthetic" or (name not in DATASETS and "." not in name):
        return name != "synthetic"
    builder = DATASETS.get(name) or import_class(
        name, "data set", "a subclass of torch.utils.data.Dataset", _is_dataset
    )
    parameters = inspect.signature(builder).parameters.values()
    return any(p.name == "root" or p.kind is p.VAR_KEYWORD for p in parameters)


def _is_dataset(kind: type) -> bool:
    """Whether instances may be data; `classes` sets a data set apart from other containers."""
    own = all(hasattr(kind, name) for name in ("__len__", "__getitem__", "classes"))
    return own or issubclass(kind, Dataset)


def _called(builder: Any, name: str, options: dict[str, Any]) -> Indexed:
    dataset = made(f"the data set {name!r}", builder, **options)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"{name} is of type {type(dataset).__name__}; expected a data set with __len__ and __getitem__"
        )
    return dataset  # type: ignore[no-any-return]
