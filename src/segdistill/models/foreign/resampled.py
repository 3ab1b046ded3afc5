"""A trained network that is shown each image in its own way: larger or smaller, some channels of it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.geometry import Cells, Line, Size, tap_cells
from segdistill.models.contract import SegmentationModel, inner_taps


class ResampledInput(SegmentationModel):
    """A network that reads some channels of the images, at another scale.

    The image is resized as a whole (bilinear, antialiased), to the nearest size that the network's
    `multiple_of` allows from the scaled one on, so that its maps cover what the unscaled image shows.

    Args:
        module: The network, with the model contract.
        channels: Numbers of the image's channels that it reads, in its order; None: all.
        scale: Factor of height and width.

    Raises:
        ValueError: A channel is negative, there are more or fewer than the network reads, or the
            scale is not above 0.
    """

    picked: Tensor | None

    def __init__(
        self, module: nn.Module, channels: Sequence[int] | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        if channels is not None and (not channels or min(channels) < 0):
            raise ValueError(
                f"teacher.channels is {list(channels)}; expected channel numbers, 0 or above"
            )
        if not scale > 0:
            raise ValueError(f"teacher.scale is {scale}; expected a factor above 0")
        own: Any = module
        reads = getattr(own, "in_channels", None)
        if channels is not None and reads not in (None, len(channels)):
            raise ValueError(
                f"teacher.channels picks {len(channels)} channels, the teacher reads {reads}: name {reads}"
            )
        self.module, self.scale = module, scale
        self.num_classes, self.align_corners = own.num_classes, own.align_corners
        # Where the size is its own it takes any.
        self.multiple_of = own.multiple_of if scale == 1 else 1
        self.taps = inner_taps(own.taps)
        picked = None if channels is None else torch.tensor(channels)
        self.register_buffer("picked", picked, persistent=False)

    @property
    def in_channels(self) -> int:
        """Channels that the network inside reads, of those that are picked."""
        own: Any = self.module
        channels: int = own.in_channels
        return channels

    def cells_of(self, tap: str, size: Size, image: Size) -> Cells:
        """Where they lie on the image as it is given, not as the network inside sees it."""
        if tap == "logits":
            return super().cells_of(tap, size, image)
        seen = self._seen(image)
        inner = tap_cells(self.module, tap, size, seen)
        return Cells(
            *(_resized(line, n) for line, n in zip((inner.rows, inner.columns), image, strict=True))
        )

    def _seen(self, image: Size) -> Size:
        if self.scale == 1:
            return image
        own: Any = self.module
        unit: int = own.multiple_of
        rows, columns = (max(unit, -(-round(side * self.scale) // unit) * unit) for side in image)
        return rows, columns

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        if self.picked is not None:
            last = max(self.picked.tolist())
            if last >= images.shape[1]:
                raise ValueError(
                    f"teacher.channels: the images have {images.shape[1]} channels, so none is number {last}"
                )
            images = images[:, self.picked]
        if self.scale != 1:
            size = self._seen((images.shape[-2], images.shape[-1]))
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        logits: Tensor = self.module(images)
        return logits


def _resized(line: Line, pixels: int) -> Line:
    """The same cells on an image of another length, resized by half pixels."""
    factor = pixels / line.pixels
    return Line(line.cells, pixels, line.stride * factor, (line.offset + 0.5) * factor - 0.5)
