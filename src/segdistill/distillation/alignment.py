"""Brings a student's tensor to the channels and grid of the teacher's, for losses that need it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.losses.base import raised


class Alignment(nn.Module):
    """Brings the student's tensor to the teacher's channels, and both to one grid.

    The projection is a 1×1 convolution without bias on the *student's* side: on the teacher's side it
    could map both to zero. It belongs to the term, is trained with the student, and is discarded with
    the term. The grid is the smaller of the two in each direction; resizing is bilinear (antialiased),
    as for images. Both are computed in at least float32, as the losses are.

    Args:
        student_channels: Channels of the student's tensor.
        teacher_channels: Channels of the teacher's tensor.
        channels: Whether the loss needs equal channels.
        grid: Whether the loss needs equal grids.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, *, channels: bool, grid: bool
    ) -> None:
        super().__init__()
        self.grid = grid
        self.project: nn.Module = nn.Identity()
        if channels and student_channels != teacher_channels:
            self.project = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)

    def forward(
        self, student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b d i j"]
    ) -> tuple[Float[Tensor, "b e p q"], Float[Tensor, "b d r s"]]:
        """The two tensors as the loss takes them."""
        with torch.autocast(student.device.type, enabled=False):
            return self._aligned(raised(student), raised(teacher))

    def _aligned(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student = self.project(student)
        if self.grid and student.shape[-2:] != teacher.shape[-2:]:
            pairs = zip(student.shape[-2:], teacher.shape[-2:], strict=True)
            size = [min(pair) for pair in pairs]
            student, teacher = (
                F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
                for x in (student, teacher)
            )
        return student, teacher

    def describe(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> str:
        """What is done to tensors of these shapes, as text for the tap table."""
        steps = []
        if isinstance(self.project, nn.Conv2d):
            steps.append(f"project {student[1]} -> {teacher[1]}")
        if self.grid and student[-2:] != teacher[-2:]:
            height, width = (min(pair) for pair in zip(student[-2:], teacher[-2:], strict=True))
            steps.append(f"resize to {height}x{width}")
        return ", ".join(steps) or "none"
