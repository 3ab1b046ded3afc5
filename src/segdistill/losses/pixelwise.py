"""Pixel-wise distillation: each pixel's class probabilities follow the teacher's."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, not_negative, positive
from segdistill.losses.decoupled import split_kl, z_scores


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

    The forms that take T² · mean can be changed in three ways, separately or together:

    - `standardise` compares the logits' z-scores, z ← (z - mean over classes) / standard deviation
      (Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024,
      https://arxiv.org/abs/2403.01427): which class exceeds which and by how much, not the length of
      the logits, which a small student need not reach.
    - `top` splits the divergence at the teacher's classes of largest logit (GDKD, Zheng and Cheng,
      2025, https://arxiv.org/abs/2512.04625): alpha · KL between the two groups + gamma · KL within
      the top + beta · KL within the rest. Unsplit, the two within count by the teacher's
      probability of their group. The split at the label's class is the loss `decoupled`.
    - `confidence` counts a position only where the teacher's largest probability (at T = 1) reaches
      it, and divides by all positions, as UniMatch V2 (Yang et al., 2024,
      https://arxiv.org/abs/2410.10777) does with hard labels, at 0.95.

    Args:
        temperature: T, which softens both distributions.
        form: `default`, `skd`, `ifvd` or `cirkd`.
        standardise: compare z-scores of the logits.
        top: number of classes in the teacher's top group; None: no split. At least one class is left
            to the other group.
        alpha: factor of the part between the groups; read by `top`.
        beta: factor of the part within the rest; read by `top`.
        gamma: factor of the part within the top; read by `top`.
        confidence: probability (0..1) from which a position counts; 0: all count.

    Raises:
        ValueError: for an unknown form, a temperature or top that is not positive, a factor below 0, a
            confidence outside 0..1, `form="skd"` with a temperature other than 1, or `skd` or `ifvd`
            with one of the three changes.
    """

    matches_channels = True
    matches_grid = True
    forms = ("default", "skd", "ifvd", "cirkd")

    def __init__(
        self,
        temperature: float | int = 1.0,
        form: str = "default",
        standardise: bool = False,
        top: int | None = None,
        alpha: float | int = 1.0,
        beta: float | int = 1.0,
        gamma: float | int = 1.0,
        confidence: float | int = 0.0,
    ) -> None:
        super().__init__(form)
        self.temperature = positive("pixelwise", "temperature", temperature)
        if form == "skd" and temperature != 1:
            raise ValueError(
                f"pixelwise: temperature is {temperature}; expected 1, as form='skd' has none. "
                "Leave the temperature out, or use form='default'"
            )
        self.standardise = standardise
        self.top = None if top is None else int(positive("pixelwise", "top", top))
        factors = {"alpha": alpha, "beta": beta, "gamma": gamma}
        self.factors = {n: not_negative("pixelwise", n, value) for n, value in factors.items()}
        if not 0 <= confidence <= 1:
            raise ValueError(
                f"pixelwise: confidence is {confidence}; expected a probability in [0, 1]"
            )
        self.confidence = float(confidence)
        self._check_changes()

    def _check_changes(self) -> None:
        changes = {"standardise": self.standardise, "top": self.top, "confidence": self.confidence}
        asked = [name for name, value in changes.items() if value]
        if asked and self.form in ("skd", "ifvd"):
            raise ValueError(
                f"pixelwise: {asked[0]} is {changes[asked[0]]} with form={self.form!r}, which has no "
                f"such option; expected it left out. Use form='default', or leave {asked[0]} out"
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
        teacher = teacher.detach()
        if self.form in _SUMS:
            return _SUMS[self.form](student, teacher, self.temperature)
        counted = confident(teacher, self.confidence)
        if self.standardise:
            student, teacher = z_scores(student), z_scores(teacher)
        return (self._divergence(student, teacher) * counted).mean() * self.temperature**2

    def _divergence(self, student: Tensor, teacher: Tensor) -> Float[Tensor, "b h w"]:
        if self.top is None:
            return pixel_kl(student, teacher, self.temperature)
        first = top_classes(teacher, self.top)
        between, top, rest = split_kl(student, teacher, first, self.temperature)
        factors = self.factors
        return factors["alpha"] * between + factors["gamma"] * top + factors["beta"] * rest


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


def top_classes(teacher: Float[Tensor, "b k h w"], count: int) -> Bool[Tensor, "b k h w"]:
    """True at the `count` classes of largest logit of each position, all but one at most."""
    count = min(count, teacher.shape[1] - 1)
    first = torch.zeros_like(teacher, dtype=torch.bool)
    return first.scatter_(1, teacher.topk(count, 1).indices, True) if count else first


def confident(teacher: Float[Tensor, "b k h w"], least: float) -> Bool[Tensor, "b h w"]:
    """True where the largest class probability is at least `least`."""
    if least == 0:
        return torch.ones_like(teacher[:, 0], dtype=torch.bool)
    # By the difference of two maps and not a whole log-softmax, as this is asked at full size, too.
    return teacher.amax(1) - teacher.logsumexp(1) >= math.log(least)


def _skd_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    positions = student.shape[2] * student.shape[3]
    return pixel_cross_entropy(student, teacher).sum() / positions


def _ifvd_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return pixel_kl(student, teacher, temperature).mean() / student.shape[1]


_SUMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"skd": _skd_form, "ifvd": _ifvd_form}
"""The forms that are no mean of divergences over the positions times T²."""
