"""What a student has of its teacher, measured on labelled images after the training.

Whether a method transfers what it promises does not show in mIoU: a student may be better and no nearer to
its teacher. So the same figures are measured for the control, against the teacher that it never saw.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from segdistill.activity import get_on
from segdistill.data.samples import Indexed, read_sample
from segdistill.labels import IGNORED
from segdistill.run.evaluation.distances import (
    ClassStatistics,
    edge_correlation,
    mapped,
    with_cells,
)
from segdistill.run.evaluation.evaluate import class_iou, confusion_matrix
from segdistill.run.evaluation.positions import PositionProbe
from segdistill.run.evaluation.protocol import Protocol, evaluating
from segdistill.run.evaluation.showing import segment_surely

REACH = 3
"""Pixels from another class within which a pixel is on a boundary."""
BINS = 15
TAP = "features"


@dataclass(frozen=True)
class NetworkFigures:
    """One network on the set; a figure that is undefined there is None.

    Attributes:
        boundary_miou: mIoU (0 to 1) over the pixels at most 3 pixels, in rows and in columns, from a pixel
            that is labelled as another class. A class that labels none of them is left out, whether it is
            predicted or not, so that the means of all networks are over the same classes.
        interior_miou: The same over all other labelled pixels.
        ece: Expected calibration error (Guo et al., 2017, https://arxiv.org/abs/1706.04599): the mean over
            labelled pixels of |accuracy − mean confidence| of a pixel's bin; 15 bins of equal width, the
            confidence being the probability of the predicted class.
        within_between: Variance of the features within classes by that between them; see `ClassStatistics`.
        position: How well the features tell where a cell lies: R² in x and in y of a fresh linear probe, at the
            `border` and in the `interior`; see `PositionProbe`.
    """

    boundary_miou: float | None
    interior_miou: float | None
    ece: float
    within_between: float | None
    position: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class Transfer:
    """A student beside its teacher on one labelled set; what needs a teacher is None without one.

    Attributes:
        images: Number of images.
        student: The student's figures.
        teacher: The teacher's.
        edge_correlation: Correlation of the two networks' distances between class tokens, the mean features
            of a class over the whole set, over all pairs of classes with at least 16 cells in both.
        agreement: Fraction of the labelled pixels where both predict one class.
        agreement_where_right: The same of the pixels where the teacher is right.
        agreement_where_wrong: The same of those where it is wrong.
        teacher_right: Fraction of the labelled pixels where the teacher is right.
    """

    images: int
    student: NetworkFigures
    teacher: NetworkFigures | None = None
    edge_correlation: float | None = None
    agreement: float | None = None
    agreement_where_right: float | None = None
    agreement_where_wrong: float | None = None
    teacher_right: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def transfer_table(values: Mapping[str, Any]) -> str:
    """The values of `Transfer.to_json` as aligned plain text."""
    student, teacher = values["student"], values["teacher"] or {}
    lines = [f"{'':<34}{'student':>9}{'teacher':>9}"]
    for key, title, scale, digits in _ROWS:
        cells = (_text(one.get(key), scale, digits) for one in (student, teacher))
        lines.append(f"{title:<34}" + "".join(f"{cell:>9}" for cell in cells))
    for zone in ("border", "interior"):
        for axis, name in enumerate("xy"):
            cells = (_place(one, zone, axis) for one in (student, teacher))
            title = f"R² of position, {name}, {zone}"
            lines.append(f"{title:<34}" + "".join(f"{cell:>9}" for cell in cells))
    for key, title, scale, digits in _SHARED:
        lines.append(f"{title:<34}{_text(values[key], scale, digits):>9}")
    return "\n".join(lines)


_ROWS = (
    ("boundary_miou", "mIoU at boundaries", 100, 2),
    ("interior_miou", "mIoU of interiors", 100, 2),
    ("ece", "calibration error (ECE), points", 100, 2),
    ("within_between", "variance within / between classes", 1, 3),
)
_SHARED = (
    ("edge_correlation", "correlation of class distances", 1, 3),
    ("agreement", "agrees with the teacher, %", 100, 2),
    ("agreement_where_right", "  where the teacher is right", 100, 2),
    ("agreement_where_wrong", "  where it is wrong", 100, 2),
    ("teacher_right", "pixels where the teacher is right", 100, 2),
)


def _place(figures: Mapping[str, Any], zone: str, axis: int) -> str:
    position = figures.get("position")
    return _text(None if position is None else position[zone][axis], 1, 2)


def _text(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


@torch.no_grad()
def measure_transfer(
    student: nn.Module,
    teacher: nn.Module | None,
    dataset: Indexed,
    num_classes: int,
    protocol: Protocol | None = None,
    device: str | torch.device = "cpu",
) -> Transfer:
    """Measure what a student has of its teacher.

    Each network passes over the images twice: as in evaluation, and whole for its features. Both see the
    images as the protocol says; features are of its size only, without windows, flip and scales.

    Args:
        student: The network.
        teacher: The network to compare it with; None: only the student's own figures.
        dataset: Labelled images, as for `evaluate`.
        num_classes: Number of classes, k.
        protocol: How images are shown; None: whole, at their own size.
        device: Device to run on; both networks are moved there.

    Raises:
        ValueError: The set is empty or has no labelled pixel, or a network does not predict k classes.
    """
    protocol = protocol or Protocol()
    networks = [network for network in (student, teacher) if network is not None]
    pixels = [_Pixels(num_classes, device) for _ in networks]
    pairs = torch.zeros(4, dtype=torch.int64, device=device)
    for network in networks:
        network.to(device)
    length = len(dataset)  # type: ignore[arg-type]
    for index in range(length):
        image, label, _ = read_sample(dataset, index)
        sample, label = {"image": image, "label": label}, label.long().to(device)
        near, predicted = on_boundary(label), []
        for network, sums in zip(networks, pixels, strict=True):
            with evaluating(network):
                classes, confidence = segment_surely(network, sample, protocol, num_classes)
            sums.add(label, near, classes, confidence)
            predicted.append(classes[label != IGNORED])
        if teacher is not None:
            right = predicted[1] == label[label != IGNORED]
            pairs += (2 * right + (predicted[0] == predicted[1])).bincount(minlength=4)
        get_on(f"image {index + 1} of {length}")
    if not length or not pixels[0].bins[:, 0].sum():
        raise ValueError("the images have no labelled pixel; expected at least one")
    spaces = [_space(network, dataset, num_classes, protocol, device) for network in networks]
    figures = [sums.figures(space) for sums, space in zip(pixels, spaces, strict=True)]
    if teacher is None:
        return Transfer(length, figures[0])
    known = None not in spaces
    tables = [space.statistics.distances() for space in spaces if space is not None]
    return Transfer(
        length,
        figures[0],
        figures[1],
        edge_correlation(tables[0], tables[1]) if known else None,
        **_agreement(pairs),
    )


def _agreement(pairs: Int64[Tensor, "4"]) -> dict[str, float | None]:
    """Fractions from the pixels where the teacher is wrong and right, and the student differs and agrees."""
    differs, agrees, differs_right, agrees_right = pairs.tolist()
    wrong, right = differs + agrees, differs_right + agrees_right
    return {
        "agreement": (agrees + agrees_right) / (wrong + right),
        "agreement_where_right": agrees_right / right if right else None,
        "agreement_where_wrong": agrees / wrong if wrong else None,
        "teacher_right": right / (wrong + right),
    }


@dataclass(frozen=True)
class _Space:
    """A network's feature space on the set."""

    statistics: ClassStatistics
    position: dict[str, list[float]] | None


def _space(
    network: nn.Module,
    dataset: Indexed,
    num_classes: int,
    protocol: Protocol,
    device: str | torch.device,
) -> _Space | None:
    """The features of each class and of each place; None for a network that has no such tap."""
    if TAP not in getattr(network, "taps", {}):
        return None
    probe = PositionProbe(len(dataset))  # type: ignore[arg-type]
    found: ClassStatistics | None = None
    for one in mapped(network, dataset, TAP, protocol=protocol, device=device):
        found = with_cells(found, one, num_classes)
        probe.add(one.features, one.cells, one.image)
    return None if found is None else _Space(found, probe.r2())


class _Pixels:
    """Sums over the labelled pixels of a set, of one network."""

    def __init__(self, num_classes: int, device: str | torch.device) -> None:
        shape = (num_classes, num_classes)
        self.near = torch.zeros(shape, dtype=torch.int64, device=device)
        self.inside = torch.zeros_like(self.near)
        self.bins = torch.zeros(BINS, 3, dtype=torch.float64, device=device)
        """pixels, their confidence and their hits"""

    def add(
        self,
        label: Int64[Tensor, "h w"],
        near: Bool[Tensor, "h w"],
        classes: Int64[Tensor, "h w"],
        confidence: Float[Tensor, "h w"],
    ) -> None:
        for sums, others in ((self.near, ~near), (self.inside, near)):
            sums += confusion_matrix(label.masked_fill(others, IGNORED), classes, len(sums))
        valid = label != IGNORED
        self.bins += binned(confidence[valid], (classes == label)[valid])

    def figures(self, space: _Space | None) -> NetworkFigures:
        return NetworkFigures(
            _miou(self.near),
            _miou(self.inside),
            calibration_error(self.bins),
            None if space is None else space.statistics.within_between(),
            None if space is None else space.position,
        )


def _miou(confusion: Int64[Tensor, "k k"]) -> float | None:
    """mIoU over the classes that have a label."""
    labelled = confusion.sum(1).tolist()
    known = [
        value
        for value, count in zip(class_iou(confusion), labelled, strict=True)
        if value is not None and count
    ]
    return sum(known) / len(known) if known else None


def on_boundary(label: Int64[Tensor, "h w"], reach: int = REACH) -> Bool[Tensor, "h w"]:
    """Labelled pixels with a pixel of another class at most `reach` rows and columns away; 255 is no class.

    Example:
        >>> on_boundary(torch.tensor([[0, 0, 255, 1, 1]]), reach=2).tolist()
        [[False, True, False, True, False]]
    """
    ignored, numbers = label == IGNORED, label.float()[None, None]
    # Ignored pixels are neither the largest nor the least of a window.
    largest, least = (
        F.max_pool2d(sign * numbers.masked_fill(ignored, -sign * 1e6), 2 * reach + 1, 1, reach)
        for sign in (1, -1)
    )
    return ((largest != numbers) | (-least != numbers))[0, 0] & ~ignored


def binned(confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> Float[Tensor, "bins 3"]:
    """Number of pixels, sum of the confidence and number of hits of each bin, float64.

    Bin i of 15, counted from 0, holds confidences in (i/15, (i + 1)/15].
    """
    place = ((confidence.double() * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    rows = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence)], 1)
    return rows.new_zeros(BINS, 3, dtype=torch.float64).index_add_(0, place, rows.double())


def calibration_error(bins: Float[Tensor, "bins 3"]) -> float:
    """Mean over the pixels of |accuracy − mean confidence| of their bin, from the sums of `binned`."""
    pixels, confidence, hits = bins.T
    return float((hits - confidence).abs().sum() / pixels.sum())
