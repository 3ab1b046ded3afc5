"""Where the cells of a network's maps lie on the image, and all resampling that follows from it.

A network says it once: by `align_corners`, the rule its logits are upsampled by, or for a tap by a
stride and an offset in pixels (`cells`). Maps of two networks are brought to the same places, labels
are read and coordinates are told at the centres of the cells, and logits go back to the pixels, all
by the functions here.

Centres of pixels are whole numbers: an image of 512 pixels spans -0.5 to 511.5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]

_SAME = 0.01
"""Cells that lie closer than this share of their stride are the same place."""


@dataclass(frozen=True)
class Line:
    """The cells of a map along one axis of an image: cell i is centred on pixel `offset + stride · i`."""

    cells: int
    pixels: int
    stride: float
    offset: float

    def centres(self) -> Float[Tensor, " cells"]:
        """Positions of the centres in pixels, float64 on the CPU; some may lie off the image."""
        return self.offset + self.stride * torch.arange(self.cells, dtype=torch.float64)

    def meets(self, other: "Line") -> bool:
        """Whether the cells of both lie in the same places, to a hundredth of a cell."""
        last = max(self.cells - 1, 0)
        ends = (self.offset - other.offset, (self.stride - other.stride) * last)
        off = max(abs(ends[0]), abs(ends[0] + ends[1]))
        return self.cells == other.cells and off <= _SAME * self.stride

    @property
    def on_corners(self) -> bool:
        """Whether the outer cells lie on the outer pixels, the last to within a pixel.

        A pooling that rounds up gives 65 cells at stride 8 on 512 pixels, the last a pixel past the image.
        """
        last = self.offset + self.stride * (self.cells - 1)
        return self.offset == 0 and abs(last - (self.pixels - 1)) <= 1


@dataclass(frozen=True)
class Cells:
    """Where the cells of a map lie on an image.

    Example:
        >>> Cells.by_corners((65, 65), (513, 513)) == Cells.at((65, 65), (513, 513), stride=8)
        True
        >>> Cells.by_corners((64, 64), (512, 512), align_corners=False).rows
        Line(cells=64, pixels=512, stride=8.0, offset=3.5)
    """

    rows: Line
    columns: Line

    @classmethod
    def by_corners(cls, size: Size, image: Size, align_corners: bool = True) -> "Cells":
        """Cells that `F.interpolate(.., align_corners=..)` brings to the pixels of an image.

        Args:
            size: height and width of the map.
            image: height and width of the image.
            align_corners: the first and last cells lie on the first and last pixels; if False, cells
                divide the image into equal parts.
        """
        rule = _on_corners if align_corners else _in_parts
        return cls(*(rule(n, pixels) for n, pixels in zip(size, image, strict=True)))

    @classmethod
    def at(cls, size: Size, image: Size, stride: float, offset: float = 0.0) -> "Cells":
        """Cells `offset + stride · i`: where strided convolutions centre what they read."""
        sides = zip(size, image, strict=True)
        return cls(*(Line(n, pixels, float(stride), float(offset)) for n, pixels in sides))

    @classmethod
    def by_stride(cls, size: Size, image: Size) -> "Cells":
        """The best guess where nobody says: `stride · i`, as odd kernels centre what they read.

        The stride is the power of two that leads from the image to a map of this size, rounded up; where
        none does, cells divide the image into equal parts.
        """
        return cls(*(_by_stride(n, pixels) for n, pixels in zip(size, image, strict=True)))

    @classmethod
    def of_pixels(cls, image: Size) -> "Cells":
        """The pixels of an image themselves."""
        return cls.at(image, image, 1)

    @property
    def size(self) -> Size:
        """Height and width of the map."""
        return self.rows.cells, self.columns.cells

    @property
    def image(self) -> Size:
        """Height and width of the image."""
        return self.rows.pixels, self.columns.pixels

    @property
    def on_corners(self) -> bool:
        """Whether the outer cells lie on the outer pixels, to within a pixel."""
        return self.rows.on_corners and self.columns.on_corners

    def meets(self, other: "Cells") -> bool:
        """Whether the cells of both lie in the same places, to a hundredth of a cell."""
        return self.rows.meets(other.rows) and self.columns.meets(other.columns)


def tap_cells(network: Any, tap: str, size: Size, image: Size) -> Cells:
    """Where the cells of a network's tap lie.

    Asks the network's own `cells_of(tap, size, image)` where it has one. Any other module may
    declare `cells`, tap name -> (stride, offset) in pixels; what it does not declare follows from
    its `align_corners`. Without either its logits divide the image, as evaluation resizes them, and
    other taps are taken to lie at `stride · i` (`Cells.by_stride`).

    Args:
        network: any module.
        tap: name of the tap.
        size: height and width of the tapped map.
        image: height and width of the image that it was made from.
    """
    own = getattr(network, "cells_of", None)
    if own is not None:
        found: Cells = own(tap, size, image)
        return found
    return declared_cells(network, tap, size, image)


def declared_cells(network: Any, tap: str, size: Size, image: Size) -> Cells:
    """The same by the attributes `cells` and `align_corners` alone.

    Logits, auxiliary ones too, go to the pixels by `align_corners`, and so lie where it puts them; what
    is declared for them holds only where that is the same to within a pixel (65 cells at stride 8 on
    512 pixels).
    """
    declared = declaration(network)
    corners = getattr(network, "align_corners", None)
    if tap in declared and size != image:
        found = Cells.at(size, image, *declared[tap])
        if found.on_corners or not _upsampled(tap):
            return found
    if corners is None and not _upsampled(tap):
        return Cells.by_stride(size, image)
    return Cells.by_corners(size, image, bool(corners))


def declaration(network: Any) -> Mapping[str, Any]:
    """What a network declares as `cells`; nothing where it keeps something else by that name."""
    cells = getattr(network, "cells", None)
    return cells if isinstance(cells, Mapping) else {}


def check_cells(
    cells: Any, taps: Mapping[str, str], align_corners: bool
) -> dict[str, tuple[float, float]]:
    """What a network declares as `cells`, as numbers.

    Args:
        cells: tap name -> (stride, offset) in pixels.
        taps: the network's taps.
        align_corners: how its logits are resized.

    Raises:
        ValueError: no mapping, a tap that does not exist, values that are not two numbers, a stride
            that is not positive, or logits elsewhere than `align_corners` puts them.
    """
    if not isinstance(cells, Mapping):
        raise ValueError(
            f"cells is {cells!r}; expected a mapping of taps to [stride, offset] in pixels"
        )
    for tap, pair in cells.items():
        if tap not in taps:
            raise ValueError(
                f"cells names {tap!r}; expected a tap of the network: {', '.join(taps)}"
            )
        if not _is_place(pair):
            raise ValueError(
                f"cells.{tap} is {pair!r}; expected [stride, offset] in pixels, with a positive stride"
            )
        if _upsampled(tap) and not (align_corners and pair[1] == 0):
            raise ValueError(
                f"cells.{tap} is {pair!r} with align_corners {align_corners}; expected no entry, since "
                "logits lie where align_corners puts them. Leave it out, or set align_corners to true"
            )
    return {tap: (float(pair[0]), float(pair[1])) for tap, pair in cells.items()}


def coarser(one: Cells, other: Cells) -> Cells:
    """Along each axis the cells of the map that has fewer; the first one's where both have as many."""
    rows = min(one.rows, other.rows, key=lambda line: line.cells)
    columns = min(one.columns, other.columns, key=lambda line: line.cells)
    return Cells(rows, columns)


def resample(x: Float[Tensor, "b c h w"], source: Cells, target: Cells) -> Float[Tensor, "b c i j"]:
    """A map at the places of other cells: linear along each axis, blurred where those lie wider apart.

    Between its centres the map is linear, beyond the outer ones constant. At cells that are s > 1
    times as far apart each takes a mean over a triangle of half-width s, as PyTorch's antialiased
    resize does, whose centre is corrected so that a linear ramp stays one; where the triangle
    reaches beyond the border, it is cut there. An axis along which the cells lie in the same places
    is left as it is.

    Args:
        x: the map, float32 or float64.
        source: where its cells lie.
        target: where they are wanted.

    Example:
        >>> x = torch.arange(0, 33.0, 8).view(1, 1, 1, 5)
        >>> source, target = (Cells.at((1, n), (1, 33), 8, offset) for n, offset in ((5, 0), (4, 3.5)))
        >>> resample(x, source, target).flatten().tolist()
        [3.5, 11.5, 19.5, 27.5]
    """
    if not source.columns.meets(target.columns):
        x = F.linear(x, _matrix(source.columns, target.columns, x.dtype, x.device))
    if not source.rows.meets(target.rows):
        x = F.linear(x.mT, _matrix(source.rows, target.rows, x.dtype, x.device)).mT
    return x


def to_pixels(logits: Float[Tensor, "b k h w"], cells: Cells) -> Float[Tensor, "b k rows columns"]:
    """A map at the pixels of its image.

    By `F.interpolate`, to the bit, where the cells lie as `align_corners` says.
    """
    size, image = cells.size, cells.image
    if size == image:
        return logits
    for corners in (True, False):
        if cells == Cells.by_corners(size, image, corners) or (corners and cells.on_corners):
            return F.interpolate(logits, image, mode="bilinear", align_corners=corners)
    return resample(logits, cells, Cells.of_pixels(image))


def labels_at(labels: Int64[Tensor, "b hl wl"], cells: Cells) -> Int64[Tensor, "b h w"]:
    """The label of each cell: that of the pixel at its centre, or of the nearest one on the image.

    Example:
        >>> labels_at(torch.arange(10).view(1, 1, 10), Cells.at((1, 3), (1, 10), 4)).tolist()
        [[[0, 4, 8]]]
    """
    if labels.shape[1:] != cells.image:
        raise ValueError(
            f"the labels are {labels.shape[1]}x{labels.shape[2]}; expected the image's size, "
            f"{cells.image[0]}x{cells.image[1]}"
        )
    row, column = (_nearest(line, labels.device) for line in (cells.rows, cells.columns))
    sampled: Tensor = labels[:, row[:, None], column]
    return sampled


def _on_corners(cells: int, pixels: int) -> Line:
    if cells == 1:
        return _in_parts(cells, pixels)
    return Line(cells, pixels, (pixels - 1) / (cells - 1), 0.0)


def _in_parts(cells: int, pixels: int) -> Line:
    stride = pixels / cells
    return Line(cells, pixels, stride, (stride - 1) / 2)


def _by_stride(cells: int, pixels: int) -> Line:
    powers = [2**exponent for exponent in range(8)]
    fits = [s for s in powers if cells == -(-pixels // s)]
    # One cell more where a pooling rounds up once more (512 -> 65).
    fits += [s for s in powers if cells == pixels // s + 1]
    return Line(cells, pixels, float(fits[0]), 0.0) if fits else _in_parts(cells, pixels)


def _upsampled(tap: str) -> bool:
    """Whether a tap's map is resized to the pixels: those that learn from labels there."""
    return tap == "logits" or tap.startswith("aux")


def _is_place(pair: Any) -> bool:
    if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 2:
        return False
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in pair)
    return numbers and all(math.isfinite(n) for n in pair) and pair[0] > 0


def _nearest(line: Line, device: torch.device) -> Int64[Tensor, " cells"]:
    # A centre between two pixels goes to the right one; the rest is rounding error in the stride.
    nearest = (line.centres() + (0.5 + 1e-6)).floor().long()
    return nearest.clamp(0, line.pixels - 1).to(device)


@lru_cache(maxsize=64)
def _matrix(
    source: Line, target: Line, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "target source"]:
    # Kept between steps: one that was made in inference mode could not take part in a backward pass.
    with torch.inference_mode(False), torch.no_grad():
        return interpolation(source, target).to(device, dtype)


def interpolation(source: Line, target: Line) -> Float[Tensor, "target source"]:
    """The matrix that brings values at the cells of one line to those of another, float64.

    Rows sum to 1. See `resample`.
    """
    last = source.cells - 1
    place = ((target.centres() - source.offset) / source.stride).clamp(0, last)
    wider = max(target.stride / source.stride, 1.0)
    cell = torch.arange(source.cells, dtype=torch.float64)
    weights = (1 - (place[:, None] - cell).abs() / wider).clamp_min(0)
    weights = weights / weights.sum(1, keepdim=True)
    # Sampled at whole cells the triangle leans to the nearer one. What a ramp lacks moves between the two.
    # Rounding must not decide whether a triangle that just reaches the last centre is cut.
    least = wider - 1 - 1e-9
    whole = (place >= least) & (last - place >= least)
    lacking = torch.where(whole, place - weights @ cell, 0)[:, None]
    low = place.floor().long()[:, None]
    weights.scatter_add_(1, low, -lacking)
    return weights.scatter_add_(1, (low + 1).clamp_max(last), lacking)
