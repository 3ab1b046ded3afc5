"""Decoupled distillation (DKD): the target class and the other classes, each with a weight of its own."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from segdistill.labels import IGNORED
from segdistill.losses.base import (
    Loss,
    check_labels,
    check_pair,
    not_negative,
    positive,
)
from segdistill.losses.classwise import sample_labels
from segdistill.losses.cosine import unit_vectors


class DecoupledKD(Loss):
    """KL divergence of the label's class against all others, and of the others among themselves.

    Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022, https://arxiv.org/abs/2203.08679).
    With p = softmax(z / T) at a labelled position of class y,

        T² · mean over labelled positions of
            alpha · KL([p_y, 1 - p_y]) + beta · KL(p_k / (1 - p_y), k ≠ y),   teacher ‖ student

    Plain pixel-wise distillation is alpha = 1 and beta = 1 - p_y of the teacher: where the teacher is
    sure, it hardly teaches how the other classes compare. The released code, for images, has alpha =
    1, beta = 8 and T = 4 by default; 1, 1 and 1 here are assumed. Positions labelled 255 do not count.
    Without labels, see `top` of `pixelwise`.

    Args:
        alpha: factor of the part on the label's class.
        beta: factor of the part on the other classes.
        temperature: T, which softens both distributions.
        standardise: compare the logits' z-scores, as in `pixelwise`.

    Raises:
        ValueError: for a factor below 0 or a temperature that is not positive.
    """

    matches_channels = True
    matches_grid = True

    def __init__(
        self,
        alpha: float | int = 1.0,
        beta: float | int = 1.0,
        temperature: float | int = 1.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = not_negative("decoupled", "alpha", alpha)
        self.beta = not_negative("decoupled", "beta", beta)
        self.temperature = positive("decoupled", "temperature", temperature)
        self.standardise = standardise

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor:
        """The number of labelled positions of the logits' grid."""
        return (self._sampled(labels, student_shape) != IGNORED).sum()

    def forward(
        self,
        student: Float[Tensor, "b k h w"],
        teacher: Float[Tensor, "bt kt ht wt"],
        labels: Int64[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        check_pair("decoupled", student, teacher, channels=True, grid=True)
        check_labels("decoupled", student, labels, logits=True)
        teacher = teacher.detach()
        if self.standardise:
            student, teacher = z_scores(student), z_scores(teacher)
        labels = self._sampled(labels, student.shape)
        classes = torch.arange(student.shape[1], device=labels.device)
        target = labels[:, None] == classes[:, None, None]
        parts = split_kl(student, teacher, target, self.temperature)
        # At an ignored position no class is the target.
        each = (self.alpha * parts[0] + self.beta * parts[2]) * (labels != IGNORED)
        return self.temperature**2 * each.sum() / (labels != IGNORED).sum().clamp_min(1)

    def _sampled(
        self, labels: Int64[Tensor, "b hl wl"], shape: torch.Size
    ) -> Int64[Tensor, "b h w"]:
        cells = None if self.cells is None else self.cells[0]
        return sample_labels(labels, (shape[2], shape[3]), cells=cells)


def split_kl(
    student: Float[Tensor, "b k h w"],
    teacher: Float[Tensor, "b k h w"],
    first: Bool[Tensor, "b k h w"],
    temperature: float,
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """KL(teacher ‖ student) at each position, taken apart by two groups of classes.

    Args:
        student: logits.
        teacher: logits.
        first: the classes of the first group at each position; the others are the second.
        temperature: T, which softens both distributions.

    Returns:
        The divergence between the groups' probabilities, within the first and within the second. The
        whole is the first plus the other two, each times the teacher's probability of its group.
        Where a group is empty, all are 0.
    """
    ours, theirs = (F.log_softmax(logits / temperature, 1) for logits in (student, teacher))
    split = first.any(1, keepdim=True) & ~first.all(1, keepdim=True)
    between, inside = torch.zeros_like(ours[:, 0]), []
    for group in (first, ~first):
        # An empty group is taken for a full one, and left out in the end.
        members = group | ~split
        own, other = (
            torch.logsumexp(logs.masked_fill(~members, -torch.inf), 1, keepdim=True)
            for logs in (ours, theirs)
        )
        between = between + (other.exp() * (other - own))[:, 0]
        logs = theirs - other
        # Outside the group the exponential could overflow, and 0 times infinity is no 0.
        shares = logs.clamp_max(0).exp() * members
        inside.append((shares * (logs - (ours - own))).sum(1))
    kept = split[:, 0]
    return between * kept, inside[0] * kept, inside[1] * kept


def z_scores(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Logits less their mean over the classes, over their standard deviation (of k - 1), per position.

    Where the logits are constant, the scores are 0 without a gradient; the released code adds 1e-7 to
    the standard deviation, which gives a gradient of 1e7 there.
    """
    centred = logits - logits.mean(1, keepdim=True)
    spread = max(logits.shape[1] - 1, 1) ** 0.5
    scores: Tensor = unit_vectors(centred / spread) * spread
    return scores
