"""Measure a network on images without labels: how far it agrees with its teacher."""

from typing import Any

from torch import nn
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
    """An evaluation in which the teacher's classes stand for the labels.

    It says how well a student copies, not how often it is right: a student that makes every mistake of
    its teacher agrees with it wholly. The figures are those of `Evaluation` with "labelled" read as
    "so classified by the teacher"; every pixel counts. As plain values they bear names of their own, so
    that none is taken for an accuracy: `teacher_agreement` (share of the pixels with the teacher's
    class), `teacher_miou` and `teacher_iou` (intersection over union of the two networks' classes),
    `teacher_found`, `teacher_confusion` (rows the teacher's class).
    """

    score = ("teacher_miou", "mIoU with the teacher's classes")

    def figures(self) -> dict[str, Any]:
        """The figures of a row of metrics, under their own names."""
        return _renamed(super().figures())

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, under their own names."""
        return _renamed(super().to_json())

    def headline(self) -> str:
        """The figures in one line."""
        return (
            f"{100 * self.pixel_accuracy:.2f} % of the pixels as the teacher, "
            f"{100 * self.miou:.2f} mIoU with its classes"
        )

    def table(self) -> str:
        """The figures in per cent as aligned plain text, one line a class."""
        *rows, _ = super().table().splitlines()
        return "\n".join(
            [
                "against the teacher's classes, as there are no labels:",
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
    """Measure how far a network agrees with its teacher on images, whose labels are not read.

    Both are shown each image in the same way, and their classes are compared at the image's own size.

    Args:
        model: The network; see `evaluate`.
        dataset: Images, with labels or without, and `classes`.
        teacher: The network that it is compared with; moved to `device`.
        protocol: How both are shown an image; None: as it is.
        **options: Those of `measure`, such as `device`.

    Raises:
        ValueError: As for `evaluate`.
    """
    if options.get("device") is not None:
        teacher.to(options["device"])
    protocol = protocol or Protocol()
    labelled = _TeacherLabels(dataset, teacher, protocol)
    return Agreement(**vars(measure(model, labelled, protocol, **options)))


class _TeacherLabels(Dataset[Any]):
    """Images with the classes that a network gives their pixels, worked out as they are asked for."""

    def __init__(self, dataset: Any, teacher: nn.Module, protocol: Protocol) -> None:
        self.dataset, self.teacher, self.protocol = dataset, teacher, protocol
        self.classes = [str(name) for name in dataset.classes]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, _, name = read_sample(self.dataset, index)
        with evaluating(self.teacher):
            found = segment(self.teacher, {"image": image}, self.protocol, len(self.classes))
        return {"image": image, "label": found.cpu(), "name": name}
