"""Cross-entropy with the labels: the task itself."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from segdistill.geometry import to_pixels
from segdistill.labels import IGNORED
from segdistill.losses.base import Loss, check_labels, one_of, positive

_ZOOM = 8
_POWERS = {"none": 0.0, "sqrt": 0.5, "inverse": 1.0}


class CrossEntropy(Loss):
    """Cross-entropy between the student's logits and the labels, at the labels' own size.

    Logits are resized bilinearly to the labels; pixels labelled 255 do not count. The value is the
    mean over valid pixels of the batch, in nats; with class weights the weighted mean, as in
    PyTorch. This is the first term of Liu et al., "Structured Knowledge Distillation for Semantic
    Segmentation" (CVPR 2019, https://arxiv.org/abs/1903.04197), and of every method here; deep
    supervision is a second such term of weight 0.4 on the auxiliary head.

    `ohem=True` keeps the hard pixels only, as the released code of that paper can do (none of its
    scripts does): those whose probability of the right class is at most a threshold, which is
    raised above `threshold` where fewer than `min_kept` pixels would remain. It is found on
    probabilities downsampled to 1/8 (so among `min_kept // 64` pixels) over the whole batch, or over
    each part of one that is split (`train.accumulate`, several processes). What
    we do differently: the released code leaves torch for NumPy and SciPy at each step; here it
    stays in torch and on the device, at the same sampling points, so that only rounding differs.

    `balance` weighs the classes by how seldom they occur in the training labels, `share` being a
    class's fraction of the labelled pixels: `sqrt` by share^(-1/2), `inverse` by 1 / share, divided by
    their mean over the classes that occur. A class that never occurs gets the mean, 1, which no
    training pixel reads. The pixels are counted before the first step (`count_classes`).

    Args:
        weight: one weight per class, in order of the ids; None weighs all pixels equally.
        ohem: keep the hard pixels only.
        threshold: probability (0..1) of the right class up to which a pixel is hard; read by
            `ohem`.
        min_kept: approximate minimum of full-size pixels to keep in the batch, or in each part of
            one that is split; read by `ohem`.
        align_corners: how logits are resized; it should match the network. None: from where the
            network says that its cells lie, or False where nobody says.
        balance: `none`, `sqrt` or `inverse`.

    Raises:
        ValueError: for an unknown `balance`, or one beside `weight`.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Sequence[float | int] | None = None,
        ohem: bool = False,
        threshold: float | int = 0.7,
        min_kept: int = 100_000,
        align_corners: bool | None = None,
        balance: str = "none",
    ) -> None:
        super().__init__()
        self.balance = one_of("cross_entropy", "balance", balance, _POWERS)
        self.wants_class_pixels = balance != "none"
        if self.wants_class_pixels and weight is not None:
            raise ValueError(
                f"cross_entropy: balance is {balance} and weight is given; expected one of them. Set weight "
                "to null, or balance to none"
            )
        values = None if weight is None else torch.tensor(list(weight), dtype=torch.float32)
        # Settings come from the recipe, not from a checkpoint.
        self.register_buffer("weight", values, persistent=False)
        self.ohem = ohem
        self.threshold = positive("cross_entropy", "threshold", threshold)
        self.min_kept = min_kept
        self.align_corners = align_corners
        self._asked = align_corners is not None

    def count_classes(self, pixels: Int64[Tensor, " k"]) -> None:
        if self.wants_class_pixels:
            self.weight = balanced_weights(pixels, _POWERS[self.balance])

    @property
    def statistic(self) -> str:
        return "threshold of ohem" if self.ohem else ""

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor:
        return counted_weights(labels, self.weight).sum()

    def forward(
        self, student: Float[Tensor, "b k h w"], labels: Int64[Tensor, "..."]
    ) -> Float[Tensor, ""]:
        check_labels("cross_entropy", student, labels, logits=True)
        if self.weight is None and self.wants_class_pixels:
            raise ValueError(
                f"cross_entropy: balance is {self.balance}, but the classes are not counted yet; call "
                "count_classes(pixels) first with the pixels of each class"
            )
        if self.weight is not None and len(self.weight) != student.shape[1]:
            raise ValueError(
                f"cross_entropy: weight has {len(self.weight)} entries; expected one weight per "
                f"class, {student.shape[1]}"
            )
        if self.cells is None or self._asked:
            logits = _resized(student, labels.shape[1:], bool(self.align_corners))
        else:
            logits = to_pixels(student, self.cells[0])
        if self.ohem:
            labels = hard_labels(logits.detach(), labels, self.threshold, self.min_kept)
        return mean_cross_entropy(logits, labels, self.weight)


def mean_cross_entropy(
    logits: Float[Tensor, "b k h w"],
    labels: Int64[Tensor, "b h w"],
    weight: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, ""]:
    """The (weighted) mean cross-entropy over pixels that are not 255; zero where all are."""
    weight = None if weight is None else weight.to(logits)
    total = F.cross_entropy(logits, labels, weight, ignore_index=IGNORED, reduction="sum")
    counted = counted_weights(labels, weight).sum()
    return total / counted.to(logits).clamp_min(torch.finfo(logits.dtype).tiny)


def balanced_weights(pixels: Int64[Tensor, " k"], power: float) -> Float[Tensor, " k"]:
    """Class weights share^(-power) with a mean of 1 over the classes that occur; 1 for the others.

    Example:
        >>> balanced_weights(torch.tensor([900, 100, 0]), power=0.5)  # 1 and 3, over their mean
        tensor([0.5000, 1.5000, 1.0000])
    """
    occurs = pixels > 0
    share = pixels.double() / pixels.sum().clamp_min(1)
    raw = torch.where(occurs, share, 1.0).pow(-power) * occurs
    mean = raw.sum() / occurs.sum().clamp_min(1)
    return torch.where(occurs, raw / mean, 1.0).float()


def counted_weights(
    labels: Int64[Tensor, "b h w"], weight: Float[Tensor, " k"] | None
) -> Shaped[Tensor, "b h w"]:
    """How much each pixel counts in the mean: its class's weight, or 1; an ignored pixel 0."""
    valid = labels != IGNORED
    return valid if weight is None else weight[labels.masked_fill(~valid, 0)] * valid


@torch.no_grad()
def hard_labels(
    logits: Float[Tensor, "b k h w"],
    labels: Int64[Tensor, "b h w"],
    threshold: float,
    min_kept: int,
) -> Int64[Tensor, "b h w"]:
    """Labels in which all but the hard pixels are ignored; see `CrossEntropy`.

    Args:
        logits: at the labels' size.
        labels: ids, 255 ignored.
        threshold: probability of the right class up to which a pixel is hard.
        min_kept: approximate minimum of full-size pixels to keep.
    """
    probabilities = logits.softmax(1)
    right, valid = _right_class(probabilities, labels)
    few, few_valid = _right_class(*_zoomed(probabilities, labels))
    seen = few[few_valid]
    kept = min_kept // _ZOOM**2
    if kept >= seen.numel():
        # Probabilities end at 1: everything is kept.
        return labels
    if kept > 0:
        threshold = max(threshold, float(seen.kthvalue(kept).values))
    return labels.masked_fill(valid & (right > threshold), IGNORED)


def _right_class(
    probabilities: Float[Tensor, "b k h w"], labels: Int64[Tensor, "b h w"]
) -> tuple[Float[Tensor, "b h w"], Bool[Tensor, "b h w"]]:
    valid = labels != IGNORED
    index = labels.masked_fill(~valid, 0)
    return probabilities.gather(1, index[:, None]).squeeze(1), valid


def _zoomed(
    probabilities: Float[Tensor, "b k h w"], labels: Int64[Tensor, "b h w"]
) -> tuple[Float[Tensor, "b k hz wz"], Int64[Tensor, "b hz wz"]]:
    """Both at 1/8 of the size, on the points of `scipy.ndimage.zoom`: corners on corners."""
    rows, columns = (max(1, round(side / _ZOOM)) for side in labels.shape[1:])
    small = F.interpolate(probabilities, (rows, columns), mode="bilinear", align_corners=True)
    row = _corner_index(labels.shape[1], rows, labels.device)
    column = _corner_index(labels.shape[2], columns, labels.device)
    return small, labels[:, row[:, None], column]


def _corner_index(size: int, points: int, device: torch.device) -> Int64[Tensor, " points"]:
    step = (size - 1) / max(points - 1, 1)
    return (torch.arange(points, dtype=torch.float64) * step + 0.5).long().to(device)


def _resized(
    logits: Float[Tensor, "b k h w"], size: torch.Size, align_corners: bool
) -> Float[Tensor, "b k hl wl"]:
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
