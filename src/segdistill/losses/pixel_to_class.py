"""Pixel-to-class distances: each pixel lies as far from every class as in the teacher."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from segdistill.labels import IGNORED
from segdistill.losses.base import Loss, check_labels, check_pair, positive
from segdistill.losses.classwise import one_hot, sample_labels
from segdistill.losses.prototypes import Prototypes

_FAR = -1e9


class PixelToClass(Loss):
    """KL divergence of the classes that each pixel is near to, by its distances to the classes' prototypes.

    Ours; it joins the distances of Zhang et al., "Distilling Inter-Class Distance for Semantic
    Segmentation" (IJCAI 2022, https://arxiv.org/abs/2205.03650), which are between classes, to the
    pixels of Wang et al., "Intra-class Feature Variation Distillation" (ECCV 2020,
    https://www.ecva.net/papers/eccv_2020/papers_ECCV/papers/123520341.pdf), which are compared with
    their own class alone. Near to it is the pixel-to-region relation of Yang et al., "Cross-Image
    Relational Knowledge Distillation" (CVPR 2022, https://arxiv.org/abs/2204.06986), which compares
    angles with a queue of region means.

    Each network has a prototype m_c of each class, the running mean of its features by label
    (`momentum`), through which no gradient passes. With d_pc = ‖f_p - m_c‖ and ē the mean of d over all
    positions and known classes of the batch, pixel p is near to class c by

        q_p = softmax over c of (-d_pc / (τ ē))

    and the loss is the mean over all positions, labelled or not, of KL(q_teacher ‖ q_student). There is no
    factor τ². Distances relative to their mean are numbers without a unit: the networks' widths and scales may
    differ, nothing is projected, and classes that an image does not show count as well. A class counts
    from the first batch that shows it. Where none is known yet, the loss is 0.

    Where a batch is split (`train.accumulate`), each part has its own ē and moves the prototypes; over several
    processes they are the first one's.

    Args:
        num_classes: classes of the task; None: any id up to 254.
        temperature: τ, relative to the mean distance.
        momentum: share that a prototype keeps of itself at each batch which shows its class.

    Raises:
        ValueError: for a temperature that is not positive, a momentum outside 0 to below 1, or fewer than 2
            classes.
    """

    matches_grid = True

    def __init__(
        self,
        num_classes: int | None = None,
        temperature: float | int = 0.1,
        momentum: float | int = 0.9,
    ) -> None:
        super().__init__()
        self.temperature = positive("pixel_to_class", "temperature", temperature)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"pixel_to_class: momentum is {momentum}; expected 0 (the batch alone) to below 1"
            )
        if num_classes is not None and num_classes < 2:
            raise ValueError(
                f"pixel_to_class: num_classes is {num_classes}; expected 2 or more, as a pixel is near "
                "to one class rather than another"
            )
        self.momentum, self.num_classes = float(momentum), num_classes or IGNORED
        self.ours: Prototypes | None = None
        self.theirs: Prototypes | None = None

    @property
    def statistic(self) -> str:
        return "mean distance and prototypes"

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        if teacher_shape is None:
            raise ValueError("pixel_to_class: the teacher is missing; expected one. Add a teacher")
        self.ours, self.theirs = (
            Prototypes(self.num_classes, shape[1], self.momentum)
            for shape in (student_shape, teacher_shape)
        )

    def forward(
        self,
        student: Float[Tensor, "b cs h w"],
        teacher: Float[Tensor, "bt ct ht wt"],
        labels: Int64[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        check_pair("pixel_to_class", student, teacher, grid=True)
        check_labels("pixel_to_class", student, labels)
        if self.ours is None or self.theirs is None:
            raise ValueError(
                "pixel_to_class: there are no prototypes yet; call build(student_shape, teacher_shape) first"
            )
        size = (student.shape[2], student.shape[3])
        cells = None if self.cells is None else self.cells[0]
        ids = torch.arange(self.num_classes, device=labels.device)
        members = one_hot(sample_labels(labels, size, cells=cells), ids)
        values, known = self.ours(student.detach(), members)
        their_values, _ = self.theirs(teacher.detach(), members)
        # Before any class is known all count: every prototype is zero, and every pixel as near to each.
        counted = known | ~known.any()
        near = log_nearness(student, values, counted, self.temperature)
        with torch.no_grad():
            their_near = log_nearness(teacher, their_values, counted, self.temperature)
        return F.kl_div(near, their_near, reduction="none", log_target=True).sum(2).mean()


def log_nearness(
    features: Float[Tensor, "b c h w"],
    prototypes: Float[Tensor, "k c"],
    counted: Bool[Tensor, " k"],
    temperature: float,
) -> Float[Tensor, "b p k"]:
    """log of the softmax over the counted classes of -distance / (temperature · mean distance).

    It is about -1e9 for the others, whose probability is 0.
    """
    # About the prototypes' mean: distances are taken by inner products, where a common offset would take
    # the digits that tell classes apart.
    centre = (prototypes * counted[:, None]).sum(0) / counted.sum()
    distance = distances(features.flatten(2).mT - centre, prototypes - centre)
    cells = counted.sum() * distance.shape[0] * distance.shape[1]
    scale = ((distance * counted).sum() / cells).clamp_min(1e-6)
    # A mask and no index: how many are known would have to be waited for on a GPU.
    return F.log_softmax(torch.where(counted, -distance / (temperature * scale), _FAR), 2)


def distances(
    points: Float[Tensor, "b p c"], targets: Float[Tensor, "k c"]
) -> Float[Tensor, "b p k"]:
    """Euclidean distance of each point to each target; without gradient at 0."""
    squares = points.square().sum(2)[..., None] + targets.square().sum(1)
    squares = squares - 2 * points @ targets.mT
    apart = squares > 1e-12
    # The inner `where` keeps the root's gradient finite in the branch that is thrown away.
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
