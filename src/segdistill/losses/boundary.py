"""Boundary-privileged distillation (BPKD): the teacher's logits at class boundaries and inside the bodies."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from segdistill.geometry import Cells, Line
from segdistill.labels import IGNORED
from segdistill.losses.base import Loss, check_labels, check_pair, one_of, positive
from segdistill.losses.channelwise import channel_kl
from segdistill.losses.pixelwise import pixel_kl

_PARTS = ("edge", "body")
_BITS = 62
"""Classes in a word of a set of classes, below the sign."""


class BoundaryKD(Loss):
    """KL divergence from the teacher's logits near the boundaries of each class, or away from them.

    Liu et al., "BPKD: Boundary Privileged Knowledge Distillation For Semantic Segmentation" (WACV
    2024, https://arxiv.org/abs/2306.08075). The authors released no training code. The equations
    follow a third-party implementation that calls itself faithful to the paper; every constant is
    assumed.

    A pixel is on the edge of class k where a window of `width` pixels around it holds k and not k
    alone (the dilation of k's mask less its erosion). Pixels whose window holds 255 are neither edge
    nor body. E_k and B_k are the fractions of a cell's pixels that are on the edge of k, and that are
    valid and not on it. With z the logits and N_k the number of cells of an image with E_k > 0:

    | part | form | value |
    | --- | --- | --- |
    | `edge` | `default` | T² · mean over images and classes with N_k > 0 of Σ_p E_k(p) D(p) / N_k |
    | `edge` | `paper` | T² · mean over images of Σ over classes of 2 · the same |
    | `body` | both | T² · mean over images and all K classes of the KL between positions |

    D(p) is KL(teacher ‖ student) of softmax(z E / T) over the classes at cell p, each logit weighed by
    the cell's E_k. The body is `channelwise` with z_k B_k for z_k: a softmax over all positions of each
    class's map. So an edge logit is 0 in both networks, and does not leave the distribution.

    What we do differently: `default` takes a mean over the classes of an image, and over images with a
    label: one whose pixels are all ignored does not count, where `paper` counts a zero. The published sum
    is larger the more classes meet in an image. Pixels count for the cell whose centre is nearest; the
    implementation pools averages over equal parts, as `paper` does.

    Args:
        part: `edge` or `body`.
        width: height and width of the window in pixels of the labels, odd.
        temperature: T, which softens both distributions.
        form: `default` or `paper`.

    Raises:
        ValueError: for an unknown part or form, a width that is even or not positive, or a
            temperature that is not positive.
    """

    matches_channels = True
    matches_grid = True
    forms = ("default", "paper")

    def __init__(
        self,
        part: str = "edge",
        width: int = 7,
        temperature: float | int = 1.0,
        form: str = "default",
    ) -> None:
        super().__init__(form)
        self.part = one_of("boundary", "part", part, _PARTS)
        if width < 1 or width % 2 == 0:
            raise ValueError(f"boundary: width is {width}; expected an odd number of pixels")
        self.width = int(width)
        self.temperature = positive("boundary", "temperature", temperature)
        self.averages_ignored = form != "default"

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor | None:
        if self.form != "default":
            return super().denominator(labels, student_shape, teacher_shape)
        return (labels != IGNORED).flatten(1).any(1).sum()

    def forward(
        self,
        student: Float[Tensor, "b k h w"],
        teacher: Float[Tensor, "bt kt ht wt"],
        labels: Int64[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        check_pair("boundary", student, teacher, channels=True, grid=True)
        check_labels("boundary", student, labels, logits=True)
        teacher = teacher.detach()
        cells = self._cells(student, labels)
        edges, valid = class_edges(labels, student.shape[1], cells, self.width)
        edges, valid = edges.to(student), valid.to(student)
        if self.part == "edge":
            each = self._edge(student, teacher, edges)
        else:
            bodies = valid[:, None] - edges
            each = channel_kl(student * bodies, teacher * bodies, self.temperature).mean(1)
        # An image whose pixels are all ignored has the value 0.
        images = self.denominator(labels, student.shape, None)
        assert images is not None
        return each.sum() / images.to(each).clamp_min(1) * self.temperature**2

    def _edge(self, student: Tensor, teacher: Tensor, edges: Tensor) -> Float[Tensor, " b"]:
        divergence = pixel_kl(student * edges, teacher * edges, self.temperature)
        counts = (edges > 0).sum((2, 3))
        each = (edges * divergence[:, None]).sum((2, 3)) / counts.clamp_min(1)
        if self.form == "paper":
            return 2 * each.sum(1)
        return each.sum(1) / (counts > 0).sum(1).clamp_min(1)

    def _cells(self, student: Tensor, labels: Tensor) -> Cells:
        if self.cells is not None:
            return self.cells[0]
        size, image = student.shape[-2:], labels.shape[-2:]
        return Cells.by_corners((size[0], size[1]), (image[0], image[1]), align_corners=False)


@torch.no_grad()
def class_edges(
    labels: Int64[Tensor, "b hl wl"], num_classes: int, cells: Cells, width: int
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b h w"]]:
    """What fraction of each cell is on the edge of each class, and what fraction is valid.

    Args:
        labels: ids below `num_classes`, or 255 for ignored.
        num_classes: k.
        cells: where the cells of the grid lie on the labels; a pixel belongs to the nearest.
        width: of the window that must hold one class alone for its middle not to be an edge; odd.

    Returns:
        Fractions in [0, 1]. A pixel with 255 in its window is not valid, and no edge.

    Example:
        >>> labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
        >>> cells = Cells.by_corners((1, 4), (1, 8), align_corners=False)
        >>> class_edges(labels, 2, cells, width=3)[0].tolist()
        [[[[0.0, 0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5, 0.0]]]]
    """
    # One bit more than classes: that of ignored pixels.
    index = labels.masked_fill(labels == IGNORED, num_classes)
    own = _sets(index, num_classes + 1)
    around = _or_along(_or_along(own, width, 1), width, 2)
    valid = ~_holds(around, torch.tensor([num_classes], device=labels.device))[..., 0]
    row, column = (_cell_of(line, labels.device) for line in (cells.rows, cells.columns))
    rows, columns = cells.size
    cell = row[:, None] * columns + column
    image = torch.arange(len(labels), device=labels.device)[:, None, None]
    place, total = cell + image * (rows * columns), len(labels) * rows * columns

    edge = valid & (around != own).any(3)
    present = index.flatten().bincount(minlength=num_classes)[:num_classes].nonzero()[:, 0]
    members = _holds(around[edge], present)
    counted = members.new_zeros(total, len(present), dtype=torch.float32)
    # Whole numbers, so that the order of the sum does not matter.
    counted.index_add_(0, place[edge], members.float())
    found = counted.new_zeros(total, num_classes)
    found[:, present] = counted
    pixels = cell.flatten().bincount(minlength=rows * columns).clamp_min(1).view(rows, columns)
    edges = found.view(len(labels), rows, columns, num_classes).permute(0, 3, 1, 2) / pixels
    sure = place[valid].bincount(minlength=total).view(len(labels), rows, columns) / pixels
    return edges, sure


def _sets(index: Int64[Tensor, "b hl wl"], count: int) -> Int64[Tensor, "b hl wl words"]:
    """The set of each pixel's class alone, as bits of as many words as `count` classes need."""
    words = torch.arange(-(-count // _BITS), device=index.device)
    bit = torch.ones_like(index) << index % _BITS
    return torch.where((index // _BITS)[..., None] == words, bit[..., None], 0)


def _holds(
    sets: Int64[Tensor, "*places words"], classes: Int64[Tensor, " n"]
) -> Bool[Tensor, "*places n"]:
    """Whether each set holds each class."""
    held: Tensor = sets[..., classes // _BITS] >> classes % _BITS & 1
    return held.bool()


def _or_along(
    sets: Int64[Tensor, "b hl wl words"], width: int, axis: int
) -> Int64[Tensor, "b hl wl words"]:
    """The union of the sets in a window along an axis, cut at the border."""
    size, found = sets.shape[axis], sets.clone()
    for shift in range(1, min(width // 2, size - 1) + 1):
        left, right = sets.narrow(axis, 0, size - shift), sets.narrow(axis, shift, size - shift)
        found.narrow(axis, shift, size - shift).bitwise_or_(left)
        found.narrow(axis, 0, size - shift).bitwise_or_(right)
    return found


def _cell_of(line: Line, device: torch.device) -> Int64[Tensor, " pixels"]:
    """The nearest cell of each pixel along an axis; the right one of two."""
    place = (torch.arange(line.pixels, dtype=torch.float64) - line.offset) / line.stride
    return (place + (0.5 + 1e-9)).floor().long().clamp(0, line.cells - 1).to(device)
