"""Measure a network on a labelled data set, from a single confusion matrix."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int, Int64
from torch import Tensor, nn

from segdistill.activity import get_on
from segdistill.data.dataset import require_labels
from segdistill.data.label_map import IGNORED
from segdistill.data.loader import evaluation_loader
from segdistill.data.samples import Indexed
from segdistill.escaping import terminal_line
from segdistill.models.contract import device_of
from segdistill.run.evaluation.by_image import ByImage, Entry, entry_of
from segdistill.run.evaluation.protocol import Protocol, Size, evaluating
from segdistill.run.evaluation.showing import segment

Absent = Literal["undefined", "zero"]


@dataclass(eq=False)
class Evaluation:
    """The metrics of a network on labelled images, as fractions between 0 and 1.

    With n_ij the number of pixels labelled i and predicted j over the whole set, the IoU of class i
    is n_ii / (Σ_j n_ij + Σ_j n_ji − n_ii) and its accuracy (recall) n_ii / Σ_j n_ij.

    Attributes:
        miou: Mean of the defined IoUs.
        iou: IoU of each class; None if a class occurs neither in the labels nor in the predictions
            (0 with `absent="zero"`). A class that is predicted but never labelled counts as 0.
        accuracy: Fraction of each class's labelled pixels that are predicted correctly; None if the
            class is never labelled.
        pixel_accuracy: Fraction of all labelled pixels that are predicted correctly.
        classes_counted: Number of classes in the mean.
        classes: Names of the classes.
        confusion: Pixel counts, rows labels, columns predictions; int64.
        images: Number of images.
        protocol: How images were shown to the network, and the rule for absent classes.
        by_image: The confusion matrix of each image, if asked for.
    """

    score: ClassVar[tuple[str, str]] = ("miou", "mIoU")
    """key in `figures` that networks are ranked by, and its title"""

    miou: float
    iou: list[float | None]
    accuracy: list[float | None]
    pixel_accuracy: float
    classes_counted: int
    classes: list[str]
    confusion: Tensor
    images: int
    protocol: dict[str, Any]
    by_image: ByImage | None = None

    @classmethod
    def from_confusion(
        cls,
        confusion: Int64[Tensor, "k k"],
        *,
        classes: list[str] | None = None,
        absent: Absent = "undefined",
        images: int = 0,
        protocol: dict[str, Any] | None = None,
    ) -> "Evaluation":
        """Compute the metrics from a confusion matrix.

        Raises:
            ValueError: The matrix holds no labelled pixel.
        """
        total = int(confusion.sum())
        if not total:
            raise ValueError(
                f"{images} images have no labelled pixel (all are {IGNORED}); expected at least one"
            )
        iou = class_iou(confusion, absent)
        defined = [value for value in iou if value is not None]
        hits, labelled = confusion.diagonal().tolist(), confusion.sum(1).tolist()
        return cls(
            miou=sum(defined) / len(defined),
            iou=iou,
            accuracy=[
                hit / count if count else None for hit, count in zip(hits, labelled, strict=True)
            ],
            pixel_accuracy=sum(hits) / total,
            classes_counted=len(defined),
            classes=classes or [f"class {index}" for index in range(len(iou))],
            confusion=confusion.cpu(),
            images=images,
            protocol={**(protocol or {}), "absent": absent},
        )

    def figures(self) -> dict[str, Any]:
        """The metrics of a row of metrics.jsonl, under the names of `to_json`."""
        return {"miou": self.miou, "iou": self.iou, "pixel_accuracy": self.pixel_accuracy}

    def headline(self) -> str:
        """The main metric in a few words."""
        return f"{100 * self.miou:.2f} mIoU over {self.classes_counted} classes"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_json` reads them back."""
        values = {key: value for key, value in vars(self).items() if key != "by_image"}
        values["confusion"] = self.confusion.tolist()
        if self.by_image is not None:
            values["by_image"] = self.by_image.to_json()
        return deepcopy(values)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Evaluation":
        """Read the values of `to_json`; other keys are ignored.

        Raises:
            ValueError: A key is missing.
        """
        names = [field.name for field in fields(cls) if field.name != "by_image"]
        if missing := [name for name in names if name not in values]:
            raise ValueError(f"the evaluation lacks {', '.join(missing)}. Run `evaluate` again")
        known = {name: values[name] for name in names}
        known["confusion"] = torch.tensor(values["confusion"], dtype=torch.int64)
        single = values.get("by_image")
        return cls(**known, by_image=None if single is None else ByImage.from_json(single))

    def table(self) -> str:
        """The metrics in per cent as aligned plain text, one line per class."""
        names = [terminal_line(name) for name in self.classes]
        width = max(5, *(len(name) for name in names))
        shares = (self.confusion.sum(1).double() / self.confusion.sum()).tolist()
        lines = [f"{'class':<{width}}  {'IoU %':>8}  {'recall %':>8}  {'pixels %':>8}"]
        for name, iou, recall, share in zip(names, self.iou, self.accuracy, shares, strict=True):
            cells = "  ".join(f"{_percent(value):>8}" for value in (iou, recall, share))
            lines.append(f"{name:<{width}}  {cells}")
        lines.append(
            f"mIoU {100 * self.miou:.2f} over {self.classes_counted} of {len(self.classes)} "
            f"classes, pixel accuracy {100 * self.pixel_accuracy:.2f}, {self.images} images"
        )
        return "\n".join(lines)


def evaluate(
    model: nn.Module,
    dataset: Indexed,
    *,
    size: Size | None = None,
    window: Size | None = None,
    overlap: float = 1 / 3,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    average: Literal["logits", "probabilities"] = "logits",
    absent: Absent = "undefined",
    device: str | torch.device | None = None,
    precision: str = "32",
    channels_last: bool = False,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a network's mIoU, per-class IoU and pixel accuracy on a labelled data set.

    One int64 confusion matrix over the whole set, at each label's own size. Pixels are ignored only by
    their label (255), whatever is predicted there. Predictions are not kept, so memory does not
    grow with the number of images. The training mode of each module is restored.

    The released code of SKD, IFVD and CIRKD counts a class that occurs nowhere as 0, as does
    `absent="zero"`.

    Args:
        model: Network with the model contract, or any module that returns one tensor.
        dataset: Samples {"image": RGB `3 h w` in 0..1, "label": class ids `h w`, "name"}, or pairs
            (image, label). Its `classes` name the classes.
        size, window, overlap, flip, scales, average, precision: See `Protocol`.
        absent: Rule for a class in neither labels nor predictions: "undefined" leaves it out of the
            mean, "zero" counts it as 0.
        device: Device to run on; the network is moved there. None: the network's.
        channels_last: Memory format of images and network (the network's is changed permanently; its
            values are not).
        workers: Processes that load data.
        rank, world: This process evaluates every `world`-th image, starting at image `rank`.
        all_reduce: Sums an int64 tensor over the processes; called once, at the end. Needed if
            `world` is above 1, unless the result of one process suffices.
        progress: Called with (images done, images of this process) after each image.

    Raises:
        ValueError: The set is empty or has no labelled pixel, its number of classes differs from the
            network's, 255 is a class id, or a label is out of range (the message names the image
            and the value).

    Example:
        >>> network = nn.Conv2d(3, 2, 1)
        >>> network.num_classes = 2
        >>> pairs = [(torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.int64))]
        >>> evaluate(network, pairs).images
        1
    """
    protocol = Protocol(
        size, window, overlap, flip, tuple(scales), average, precision, channels_last
    )
    return measure(
        model,
        dataset,
        protocol,
        absent=absent,
        device=device,
        workers=workers,
        rank=rank,
        world=world,
        all_reduce=all_reduce,
        progress=progress,
    )


def measure(
    model: nn.Module,
    dataset: Indexed,
    protocol: Protocol,
    *,
    absent: Absent = "undefined",
    device: str | torch.device | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
    gather: Callable[[list[Entry]], list[Entry]] | None = None,
) -> Evaluation:
    """`evaluate` with a given protocol; other arguments and errors are those of `evaluate`.

    Args:
        gather: Gives the entries of all processes for those of this one. None: the confusion matrices of
            single images are not kept.
    """
    if absent not in ("undefined", "zero"):
        raise ValueError(f"absent is {absent!r}; expected 'undefined' or 'zero'")
    require_labels(dataset)
    classes = _class_names(model, dataset)
    device = device_of(model) if device is None else torch.device(device)
    model.to(device)
    if protocol.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # The last entry counts images, so that one reduction suffices.
    sums = torch.zeros(len(classes) ** 2 + 1, dtype=torch.int64, device=device)
    loader = evaluation_loader(dataset, rank, world, workers)
    todo = len(range(rank, len(dataset), world))  # type: ignore[arg-type]
    entries: list[Entry] = []
    with evaluating(model):
        for done, batch in enumerate(loader, 1):
            image, labels = batch["image"][0], batch["label"][0]
            check_labels(labels, len(classes), name=batch["name"][0])
            sample = {"image": image, "label": labels}
            predictions = segment(model, sample, protocol, len(classes)).to(device)
            confusion = confusion_matrix(labels.to(device), predictions, len(classes))
            sums[:-1] += confusion.flatten()
            sums[-1] += 1
            if gather is not None:
                entries.append(entry_of(rank + (done - 1) * world, batch["name"][0], confusion))
            get_on(f"image {done} of {todo}")
            if progress is not None:
                progress(done, todo)
    if all_reduce is not None:
        sums = all_reduce(sums)
    result = Evaluation.from_confusion(
        sums[:-1].view(len(classes), len(classes)),
        classes=classes,
        absent=absent,
        images=int(sums[-1]),
        protocol=protocol.describe(model),
    )
    if gather is not None:
        groups = getattr(dataset, "groups", ())
        result.by_image = ByImage.of(gather(entries), len(classes), groups)
    return result


def confusion_matrix(
    labels: Int[Tensor, "*pixels"],
    predictions: Int[Tensor, "*pixels"],
    num_classes: int,
    ignore: int = IGNORED,
) -> Int64[Tensor, "k k"]:
    """Count pixels by label (row) and prediction (column).

    Only the label decides whether a pixel is ignored. Counts of several images add up to those of the set.

    Args:
        labels: Class ids, or `ignore`; see `check_labels`.
        predictions: Class ids below `num_classes`.
        num_classes: Number of classes, k.
        ignore: Label of ignored pixels.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1, 255]), torch.tensor([0, 0, 1, 1]), 2)
        tensor([[1, 0],
                [1, 1]])
    """
    valid = labels != ignore
    cells = labels[valid].long() * num_classes + predictions[valid]
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def check_labels(
    labels: Int[Tensor, "*pixels"],
    num_classes: int,
    ignore: int = IGNORED,
    name: str = "the label map",
) -> None:
    """Refuse labels that are neither class ids nor `ignore`.

    Raises:
        ValueError: `ignore` is itself a class id, or a label is out of range.
    """
    if 0 <= ignore < num_classes:
        raise ValueError(
            f"label {ignore} marks ignored pixels and cannot be one of {num_classes} class ids. "
            f"Map the labels to at most {ignore} classes"
        )
    wrong = (labels != ignore) & ((labels < 0) | (labels >= num_classes))
    if bool(wrong.any()):
        raise ValueError(
            f"{name}: label {int(labels[wrong][0])} is not a class id; expected 0 to {num_classes - 1}, or "
            f"{ignore} for ignored. Declare a mapping from the raw ids"
        )


def class_iou(confusion: Int64[Tensor, "k k"], absent: Absent = "undefined") -> list[float | None]:
    """Intersection over union of each class, 0 to 1.

    None (or 0 with `absent="zero"`) if a class is neither labelled nor predicted.

    Example:
        >>> class_iou(torch.tensor([[2, 1, 0], [0, 3, 0], [0, 0, 0]]))
        [0.6666666666666666, 0.75, None]
    """
    hits = confusion.diagonal().tolist()
    unions = (confusion.sum(0) + confusion.sum(1) - confusion.diagonal()).tolist()
    nothing = 0.0 if absent == "zero" else None
    return [hit / union if union else nothing for hit, union in zip(hits, unions, strict=True)]


def _class_names(model: nn.Module, dataset: Any) -> list[str]:
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset  # a torch.utils.data.Subset has no classes
    names = list(getattr(dataset, "classes", []))
    in_data = len(names) or getattr(dataset, "num_classes", None)
    in_model = getattr(model, "num_classes", None)
    if in_data and in_model and in_data != in_model:
        raise ValueError(
            f"the network predicts {in_model} classes and the data set has {in_data}. Evaluate on "
            "the data set the network was trained for, or map the labels to its classes"
        )
    count = in_data or in_model
    if not count:
        raise ValueError(
            "the number of classes is unknown. Give the data set `classes`, or the network "
            "`num_classes`"
        )
    return names or [f"class {index}" for index in range(count)]


def _percent(share: float | None) -> str:
    return f"{'-':>6}" if share is None else f"{100 * share:6.2f}"
