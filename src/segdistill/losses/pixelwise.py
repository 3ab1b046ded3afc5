"""Pixel-wise distillation: each pixel's class probabilities follow the teacher's."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, positive


class PixelwiseKD(Loss):
    """Kullback-Leibler divergence of each pixel's class probabilities from the teacher's.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (2015,
    https://arxiv.org/abs/1503.02531), applied to each pixel as in the pixel-wise term of Liu et
    al., "Structured Knowledge Distillation for Semantic Segmentation" (CVPR 2019,
    https://arxiv.org/abs/1903.04197). It compares raw logits on their own grid and counts every
    pixel, labelled or not, as all released codes do.

    With p = softmax(z / T) over the K classes, B images and H·W positions:

    | form | value |
    | --- | --- |
    | `default` | T² · mean over B·H·W of KL(p_teacher ‖ p_student) |
    | `cirkd` | the same: CIRKD's code reduces as we do |
    | `skd` | cross-entropy -Σ p_teacher log p_student, summed over all, over H·W; T = 1 |
    | `ifvd` | mean over B·K·H·W of the terms of the divergence; no T² |

    So `skd` = B · (mean cross-entropy), which grows with the batch (B is that of all parts and
    processes together) and, in value but not in
    gradient, contains the teacher's entropy, and `ifvd` = `cirkd` / K at T = 1. A published
    weight of 10 in SKD's form at batch 8 is a weight of 80 in ours; 10 in IFVD's form at 19 classes
    is 0.53.

    Args:
        temperature: T, which softens both distributions.
        form: `default`, `skd`, `ifvd` or `cirkd`.

    Raises:
        ValueError: for an unknown form, a temperature that is not positive, or `form="skd"` with a
            temperature other than 1.
    """

    matches_channels = True
    matches_grid = True
    forms = ("default", "skd", "ifvd", "cirkd")

    def __init__(self, temperature: float | int = 1.0, form: str = "default") -> None:
        super().__init__(form)
        self.temperature = positive("pixelwise", "temperature", temperature)
        if form == "skd" and temperature != 1:
            raise ValueError(
                f"pixelwise: temperature is {temperature}; expected 1, as form='skd' has none. "
                "Leave the temperature out, or use form='default'"
            )

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor | None:
        # SKD's form is a sum over the images.
        if self.form == "skd":
            return None
        return super().denominator(labels, student_shape, teacher_shape)

    def forward(
        self, student: Float[Tensor, "b k h w"], teacher: Float[Tensor, "bt kt ht wt"]
    ) -> Float[Tensor, ""]:
        check_pair("pixelwise", student, teacher, channels=True, grid=True)
        return _FORMS[self.form](student, teacher.detach(), self.temperature)


def pixel_kl(
    student: Float[Tensor, "b k h w"], teacher: Float[Tensor, "b k h w"], temperature: float
) -> Float[Tensor, "b h w"]:
    """KL(teacher ‖ student) of the class probabilities at each position, in nats."""
    # The logarithm of both sides: where a probability underflows to 0 it stays finite.
    return F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        reduction="none",
        log_target=True,
    ).sum(1)


def pixel_cross_entropy(
    student: Float[Tensor, "b k h w"], teacher: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b h w"]:
    """Cross-entropy of the student's class probabilities under the teacher's at each position."""
    return -(F.softmax(teacher, 1) * F.log_softmax(student, 1)).sum(1)


def _mean_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return pixel_kl(student, teacher, temperature).mean() * temperature**2


def _skd_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    positions = student.shape[2] * student.shape[3]
    return pixel_cross_entropy(student, teacher).sum() / positions


def _ifvd_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return pixel_kl(student, teacher, temperature).mean() / student.shape[1]


_FORMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "default": _mean_form,
    "skd": _skd_form,
    "ifvd": _ifvd_form,
    "cirkd": _mean_form,
}
