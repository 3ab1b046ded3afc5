"""Brings a student's tensor to the channels and grid of the teacher's, for losses that need it."""

from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.geometry import Cells, coarser, resample
from segdistill.losses.base import raised

CellPair = tuple[Cells, Cells]


class Once:
    """Keeps what was computed from a tensor, so that several terms of one step share it.

    It belongs to one pass over the terms and goes with it: what it keeps holds the pass's graph.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def __call__(
        self, function: Callable[..., Tensor], tensor: Tensor, *arguments: Hashable
    ) -> Tensor:
        """`function(tensor, *arguments)`, computed at the first call with the same tensor and arguments."""
        key = (function, id(tensor), arguments)
        if key not in self._kept:
            # The tensor is kept too, since its id may be another's as soon as it is gone.
            self._kept[key] = tensor, function(tensor, *arguments)
        return self._kept[key][1]


class Alignment(nn.Module):
    """Brings the student's tensor to the teacher's channels, and both to one grid.

    The projection is a 1×1 convolution without bias on the *student's* side: on the teacher's side it
    could map both to zero. It belongs to the term, is trained with the student, and is discarded with
    the term. The common cells are, in each direction, those of the map that has fewer, the student's
    where both have as many; the other map is resampled at their places (`segdistill.geometry`). Both
    are computed in at least float32, as the losses are.

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
        self,
        student: Float[Tensor, "b c h w"],
        teacher: Float[Tensor, "b d i j"],
        cells: CellPair | None = None,
        once: Once | None = None,
    ) -> tuple[Float[Tensor, "b e p q"], Float[Tensor, "b d r s"]]:
        """The two tensors as the loss takes them.

        Args:
            student: The student's tensor.
            teacher: The teacher's tensor.
            cells: Where the cells of both lie. None for the rule of released codes: whatever the
                networks say, maps of different size are resized by half pixels (antialiased).
            once: What terms of the same step have computed already.
        """
        once = once or Once()
        with torch.autocast(student.device.type, enabled=False):
            return self._aligned(once(raised, student), once(raised, teacher), cells, once)

    def common(self, cells: CellPair) -> CellPair:
        """Where the cells lie of what the loss takes."""
        if not self.grid:
            return cells
        meeting = coarser(*cells)
        return meeting, meeting

    def _aligned(
        self, student: Tensor, teacher: Tensor, cells: CellPair | None, once: Once
    ) -> tuple[Tensor, Tensor]:
        # A projection is the term's own, and so is what is made of it: there is nothing to share.
        ours = once if isinstance(self.project, nn.Identity) else Once()
        student = self.project(student)
        if self.grid and cells is not None:
            own, other = self.common(cells)
            return ours(resample, student, cells[0], own), once(resample, teacher, cells[1], other)
        if self.grid and student.shape[-2:] != teacher.shape[-2:]:
            pairs = zip(student.shape[-2:], teacher.shape[-2:], strict=True)
            size = tuple(min(pair) for pair in pairs)
            return ours(_resized, student, size), once(_resized, teacher, size)
        return student, teacher

    def describe(
        self,
        student: tuple[int, ...],
        teacher: tuple[int, ...],
        cells: CellPair | None = None,
    ) -> str:
        """What is done to tensors of these shapes, as text for the tap table."""
        steps = []
        if isinstance(self.project, nn.Conv2d):
            steps.append(f"project {student[1]} -> {teacher[1]}")
        if self.grid and student[-2:] != teacher[-2:]:
            height, width = (min(pair) for pair in zip(student[-2:], teacher[-2:], strict=True))
            steps.append(f"resize to {height}x{width}")
        elif self.grid and cells is not None and not cells[0].meets(cells[1]):
            steps.append("move to the student's cells")
        return ", ".join(steps) or "none"


def _resized(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c i j"]:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
