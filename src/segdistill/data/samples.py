"""Samples of any data set that the loaders accept: ours or the user's."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor
from torch.utils.data import Subset

from segdistill.data.dataset import SegmentationDataset
from segdistill.data.label_map import IGNORED


@runtime_checkable
class Indexed(Protocol):
    """A data set as far as its type goes: samples by index, from torch, a list or your own class.

    Whoever goes through the samples asks for the length, which torch's `Dataset` does not declare.
    """

    def __getitem__(self, index: int, /) -> Any: ...


def read_sample(dataset: Any, index: int) -> tuple[Num[Tensor, "c h w"], Num[Tensor, "h w"], str]:
    """Image, label and name of a sample of any data set that the loaders accept.

    Raises:
        ValueError: The sample is malformed, or its image and label differ in size.
    """
    while isinstance(dataset, Subset) and hands_on(dataset):  # a Subset hides `labelled`
        dataset, index = dataset.dataset, dataset.indices[index]
    if isinstance(dataset, SegmentationDataset) and hands_on(dataset):
        return *dataset.read(index), dataset.names[index]
    flags = getattr(dataset, "labelled_samples", None)
    labelled = getattr(dataset, "labelled", True) and (flags is None or bool(flags[index]))
    return _foreign_sample(dataset[index], index, labelled)


def hands_on(dataset: Any) -> bool:
    """Whether a data set gives the samples that it holds: torch's `Subset`, or one of this package.

    A subclass of theirs with a `__getitem__` of its own may change them, and so may any other class.
    """
    bases = [base for base in (Subset, SegmentationDataset) if isinstance(dataset, base)]
    return any(type(dataset).__getitem__ is base.__getitem__ for base in bases)


def require_indexed(dataset: Any, name: str = "the data set") -> None:
    """Refuse what has no samples by number, or none at all.

    Args:
        dataset: Any data set.
        name: What messages call it.

    Raises:
        ValueError: It has no length or no samples by index, as DataLoaders and iterable data sets, or it
            is empty.
    """
    methods = [method for method in ("__len__", "__getitem__") if not hasattr(dataset, method)]
    if methods:
        raise ValueError(
            f"{name} is a {type(dataset).__name__}, which has no {' and no '.join(methods)}; expected a data "
            "set with both (DataLoaders and iterable data sets have no order to resume from). Pass the data "
            "set itself"
        )
    if not len(dataset):
        raise ValueError(f"{name} is empty; expected samples. Check its root and split")


def _foreign_sample(item: Any, index: int, labelled: bool) -> tuple[Tensor, Tensor, str]:
    """Image, label and name of a sample of the user's own data set."""
    if isinstance(item, (tuple, list)) and item and not labelled:
        item = {"image": item[0]}
    if isinstance(item, dict) and "image" in item and not labelled:
        image = _as_tensor(item["image"], "image", str(index))
        item = {**item, "label": torch.full(image.shape[-2:], IGNORED)}
    if isinstance(item, dict):
        missing = [key for key in ("image", "label") if key not in item]
        if missing:
            raise ValueError(
                f"sample {index} has no {missing[0]!r} among {', '.join(map(str, item))}; "
                "expected {'image', 'label'} or (image, label)"
            )
        image, label, name = item["image"], item["label"], str(item.get("name", index))
    elif isinstance(item, (tuple, list)) and len(item) >= 2:
        image, label, name = item[0], item[1], str(index)
    else:
        raise ValueError(
            f"sample {index} is a {type(item).__name__}; "
            "expected {'image', 'label'} or (image, label)"
        )
    image, label = _as_tensor(image, "image", name), _as_tensor(label, "label", name)
    if image.ndim != 3 or label.ndim != 2 or image.shape[-2:] != label.shape:
        raise ValueError(
            f"sample {name}: image is {_shape(image)} and label {_shape(label)}; "
            "expected channels x height x width and height x width, of the same size"
        )
    if label.is_floating_point() or label.is_complex():
        raise ValueError(
            f"sample {name}: label is {label.dtype}; expected an integer type. Convert class numbers with "
            ".long()"
        )
    return _checked_image(image, name), label.long(), name


def _checked_image(image: Tensor, name: str) -> Tensor:
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise ValueError(
            f"sample {name}: image is {image.dtype}; expected uint8, or floating point in 0..1. Convert it, by "
            "image.float() / 65535 for 16 bits"
        )
    # Normalised images stay below 8, and photographs in 0..255 do not.
    high = float(image.max())
    if 8 < high < torch.inf:
        low = float(image.min())
        remedy = "Divide it by 255" if low >= 0 else "Add what was subtracted, and divide it by 255"
        raise ValueError(
            f"sample {name}: image is {image.dtype} with values from {low:g} to {high:g}; "
            f"expected uint8, or floating point in 0..1. {remedy}"
        )
    return image.float()


def _as_tensor(value: Any, kind: str, name: str) -> Tensor:
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Tensor):
        raise ValueError(f"sample {name}: {kind} is sparse; expected a dense tensor")
    raise ValueError(
        f"sample {name}: {kind} is a {type(value).__name__}; expected a tensor. Convert it, a PIL image with "
        "torchvision.transforms.v2.functional.pil_to_tensor"
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def check_label(label: Num[Tensor, "h w"], num_classes: int | None, name: str) -> None:
    """Refuse labels that are not class numbers, naming the sample and the first bad id."""
    limit = min(num_classes or IGNORED, IGNORED)
    if int(label.min()) >= 0 and int(label.max()) < limit:
        return
    bad = (label < 0) | ((label >= limit) & (label != IGNORED))
    if bad.any():
        raise ValueError(
            f"sample {name}: label id is {int(label[bad][0])}; expected 0..{limit - 1}, "
            f"or {IGNORED} for ignored. Map the ids, or declare more classes"
        )
