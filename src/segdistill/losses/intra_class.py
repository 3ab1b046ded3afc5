"""Intra-class feature variation (IFV): pixels resemble their class as the teacher's do."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from segdistill.labels import IGNORED
from segdistill.losses.base import Loss, check_labels, check_pair
from segdistill.losses.classwise import class_sums, one_hot, present_classes, sample_labels
from segdistill.losses.cosine import unit_vectors


class IntraClassVariation(Loss):
    """Mean squared difference between the cosines of each pixel with the centre of its class.

    Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation" (ECCV 2020,
    https://www.ecva.net/papers/eccv_2020/papers_ECCV/papers/123520341.pdf). The centre of a class
    is the mean feature of its pixels, by label and in each image; the variation map holds, at each
    pixel, the cosine of its feature and its class's centre; the loss compares the two networks'
    maps, in 0..4. Gradient also passes through the student's centres. Cosines are numbers, so the
    networks' widths may differ.

    | form | mean over | labels read at | centre |
    | --- | --- | --- | --- |
    | `default` | pixels with a class | the cell's centre | Σf / n |
    | `ifvd`, `cirkd` | all pixels | `floor(i · pixels / cells)` | Σf / (n + 1e-6) |

    The centre is where the networks say that the cell lies (`cells`), or where nobody says at
    `stride · i`; the released forms keep their rule whatever the networks say.

    In the released form an ignored pixel is its own centre: it adds nothing but stays in the mean,
    so the value falls with the share of ignored pixels. CIRKD's code is the same; they differ in
    the weight, 200 in IFVD and 20 in CIRKD, both of which carry over where all pixels have a class.

    Args:
        form: `default`, `ifvd` or `cirkd`.

    Raises:
        ValueError: for an unknown form.
    """

    matches_grid = True
    forms = ("default", "ifvd", "cirkd")

    def __init__(self, form: str = "default") -> None:
        super().__init__(form)
        self.averages_ignored = form != "default"

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor | None:
        if self.form != "default":
            return super().denominator(labels, student_shape, teacher_shape)
        return (self._sampled(labels, student_shape) != IGNORED).sum()

    def forward(
        self,
        student: Float[Tensor, "b c h w"],
        teacher: Float[Tensor, "bt ct ht wt"],
        labels: Int64[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        check_pair("intra_class", student, teacher, grid=True)
        check_labels("intra_class", student, labels)
        labels = self._sampled(labels, student.shape)
        published = self.form != "default"
        members = one_hot(labels, present_classes(labels))
        extra = 1e-6 if published else 0.0
        ours = variation(student, members, extra)
        theirs = variation(teacher.detach(), members, extra)
        # Positions without a class are 0 in both maps.
        wrong = (ours - theirs).square().sum()
        return wrong / (labels.numel() if published else (labels != IGNORED).sum().clamp_min(1))

    def _sampled(
        self, labels: Int64[Tensor, "b hl wl"], shape: torch.Size
    ) -> Int64[Tensor, "b h w"]:
        size = (shape[2], shape[3])
        if self.form != "default":
            return sample_labels(labels, size, "legacy")
        return sample_labels(labels, size, cells=None if self.cells is None else self.cells[0])


def variation(
    features: Float[Tensor, "b c h w"], members: Bool[Tensor, "b k p"], extra: float = 0.0
) -> Float[Tensor, "b p"]:
    """Cosine of each position's feature and the mean feature of its class; 0 where it has no class.

    Args:
        features: the tapped tensor.
        members: which class each position belongs to.
        extra: added to the number of positions, as the released codes do.
    """
    sums, counts = class_sums(features, members)
    centres = sums / (counts.clamp_min(1) + extra)[..., None]
    # Each position takes its class's row: b k p, b k c -> b c p, a second matmul and no gather.
    spread = centres.transpose(1, 2) @ members.to(features)
    return (unit_vectors(features.flatten(2)) * unit_vectors(spread)).sum(1)
