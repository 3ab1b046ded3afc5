"""A linear map from one network's features to another's: least squares, never trained."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.losses.base import precise


class RidgeMap(nn.Module):
    """The 1x1 map A, without bias, that brings student features closest to the teacher's.

    A = E[t sᵀ] (E[s sᵀ] + λ)⁻¹ from running second moments, which are buffers. A is a constant: gradient
    passes through it to the features, none reaches it. It is only ever followed by a convolution, so it is
    applied to that convolution's kernel (`folded`) and not to the features.

    Args:
        width: channels of the student.
        teacher_width: channels of the teacher.
        momentum: fraction of the moments replaced by each `renew`.
        ridge: λ as a fraction of the mean diagonal of E[s sᵀ].
    """

    student_moment: Tensor
    cross_moment: Tensor

    def __init__(self, width: int, teacher_width: int, momentum: float, ridge: float) -> None:
        super().__init__()
        self.momentum, self.ridge = momentum, ridge
        self.register_buffer("student_moment", torch.zeros(width, width))
        self.register_buffer("cross_moment", torch.zeros(teacher_width, width))

    @torch.no_grad()
    def folded(self, kernel: Float[Tensor, "o ct kh kw"]) -> Float[Tensor, "o cs kh kw"]:
        """The kernel on the student's features that equals `kernel` on the mapped ones, as `precise`.

        A is linear in E[t sᵀ], so the kernel is applied to that moment, and the system is solved for the
        kernel's few rows in place of one row per channel of the teacher.
        """
        rows = precise(kernel).movedim(1, -1)
        cross = rows.flatten(0, -2) @ precise(self.cross_moment)
        solved = ridge_map(self.student_moment, cross, self.ridge)
        return solved.reshape(*rows.shape[:-1], -1).movedim(-1, 1)

    @torch.no_grad()
    def fill(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Set the moments to the mean over (student, teacher) batches."""
        moments = [second_moments(student, teacher) for student, teacher in pairs]
        self.student_moment.copy_(torch.stack([own for own, _ in moments]).mean(0))
        self.cross_moment.copy_(torch.stack([cross for _, cross in moments]).mean(0))

    @torch.no_grad()
    def renew(self, student: Float[Tensor, "b cs h w"], teacher: Float[Tensor, "b ct h w"]) -> None:
        """Move the moments a little towards those of one batch."""
        own, cross = second_moments(student, teacher)
        self.student_moment.lerp_(own.to(self.student_moment), self.momentum)
        self.cross_moment.lerp_(cross.to(self.cross_moment), self.momentum)


def second_moments(
    student: Float[Tensor, "b cs h w"], teacher: Float[Tensor, "b ct h w"]
) -> tuple[Float[Tensor, "cs cs"], Float[Tensor, "ct cs"]]:
    """E[s sᵀ] and E[t sᵀ] over images and positions, not centred: their map has no bias."""
    ours, theirs = student.flatten(2), teacher.flatten(2)
    count = ours.shape[0] * ours.shape[2]
    # Image by image: a single product over the batch would copy both maps first.
    return (ours @ ours.mT).sum(0) / count, (theirs @ ours.mT).sum(0) / count


def ridge_map(
    own: Float[Tensor, "cs cs"], cross: Float[Tensor, "ct cs"], ridge: float
) -> Float[Tensor, "ct cs"]:
    """The A that minimises E‖A s - t‖² + λ‖A‖², with λ = ridge · the mean diagonal of E[s sᵀ]."""
    own, cross = precise(own), precise(cross)
    # A minimum λ keeps the system solvable where the student's features are all zero: A is then zero.
    level = (own.diagonal().mean() * ridge).clamp_min(1e-12)
    regular = own + level * torch.eye(len(own), dtype=own.dtype, device=own.device)
    solution: Tensor = torch.linalg.solve(regular, cross.T)
    return solution.T
