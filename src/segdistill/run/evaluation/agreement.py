"""Measure a network on images without labels: its agreement with the teacher."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.utils.data import Dataset

from segdistill.data.samples import read_sample
from segdistill.run.evaluation.evaluate import Evaluation, measure
from segdistill.run.evaluation.protocol import Protocol, evaluating
from segdistill.run.evaluation.showing import segment

_RENAMED = {
    "pixel_accuracy": "teacher_agreement",
    "miou": "teacher_miou",
    "iou": "teacher_iou",
    "accuracy": "teacher_found",
    "confusion": "teacher_confusion",
}


class Agreement(Evaluation):
    """An evaluation that uses the teacher's predictions as labels.

    It measures how well a student copies its teacher, not how often it is right: a student that makes
    every mistake of its teacher agrees with it fully. The metrics are those of `Evaluation`, with the
    teacher's class in place of the label; every pixel counts. In JSON they have different names, so
    that none is mistaken for an accuracy: `teacher_agreement` (fraction of pixels with the teacher's
    class), `teacher_miou` and `teacher_iou` (intersection over union of the two networks' classes),
    `teacher_found` (recall), `teacher_confusion` (rows: the teacher's class).
    """

    score = ("teacher_miou", "mIoU with the teacher's classes")

    def figures(self) -> dict[str, Any]:
        """The metrics of a row of metrics.jsonl, under the names of this class."""
        return _renamed(super().figures())

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, under the names of this class."""
        return _renamed(super().to_json())

    def headline(self) -> str:
        """The main metrics in one line."""
        return (
            f"{100 * self.pixel_accuracy:.2f} % of the pixels agree with the teacher, "
            f"{100 * self.miou:.2f} mIoU with its classes"
        )

    def table(self) -> str:
        """The metrics in per cent as aligned plain text, one line per class."""
        *rows, _ = super().table().splitlines()
        return "\n".join(
            [
                "against the teacher's predictions, since there are no labels:",
                *rows,
                f"{self.headline()}, {self.classes_counted} of {len(self.classes)} classes, "
                f"{self.images} images",
            ]
        )


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(key, key): value for key, value in values.items()}


def agreement(
    model: nn.Module,
    dataset: Any,
    teacher: nn.Module,
    protocol: Protocol | None = None,
    **options: Any,
) -> Agreement:
    """Measure a network's agreement with its teacher on images; labels are not read.

    Both networks see each image in the same way; their classes are compared at the image's own size.

    Args:
        model: The network; see `evaluate`.
        dataset: Images, with or without labels, and `classes`.
        teacher: The network to compare with; moved to `device`.
        protocol: How images are shown to both networks; None: whole, at their own size.
        **options: Options of `measure`, such as `device`.

    Raises:
        ValueError: As for `evaluate`.
    """
    if options.get("device") is not None:
        teacher.to(options["device"])
    protocol = protocol or Protocol()
    labelled = _TeacherLabels(dataset, teacher, protocol)
    return Agreement(**vars(measure(model, labelled, protocol, **options)))


def predicted_pixels(
    teacher: nn.Module, dataset: Any, protocol: Protocol, most: int = 16
) -> Int64[Tensor, "k"]:
    """How many pixels a network gives each class, on up to `most` images evenly spread over the data set.

    Args:
        teacher: The network, on its device.
        dataset: Images, with or without labels, and `classes`.
        protocol: How images are shown to it.
        most: Largest number of images.
    """
    images = _TeacherLabels(dataset, teacher, protocol)
    step = max(1, -(-len(images) // most))
    counts = [
        torch.bincount(images[place]["label"].flatten().long(), minlength=len(images.classes))
        for place in range(0, len(images), step)
    ]
    return torch.stack(counts).sum(0)


class _TeacherLabels(Dataset[Any]):
    """Images with a network's predictions as labels, computed on access."""

    def __init__(self, dataset: Any, teacher: nn.Module, protocol: Protocol) -> None:
        self.dataset, self.teacher, self.protocol = dataset, teacher, protocol
        self.classes = [str(name) for name in dataset.classes]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, _, name = read_sample(self.dataset, index)
        with evaluating(self.teacher):
            predicted = segment(self.teacher, {"image": image}, self.protocol, len(self.classes))
        return {"image": image, "label": predicted.cpu(), "name": name}
