"""Resize the logits of tiles to the output, one strip of rows at a time.

`F.interpolate` cannot start in the middle of a grid, as strips and overlapping tiles must.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass
class Line:
    """The positions [start, stop) of an output axis that a tile covers, each between two cells."""

    start: int
    stop: int
    low: Tensor
    high: Tensor
    fraction: Tensor
    share: Tensor | None  # this tile's weight in the average; None if it is the only tile

    def part(self, start: int, stop: int) -> "Line":
        """Only the positions [start, stop)."""
        part = slice(start - self.start, stop - self.start)
        share = None if self.share is None else self.share[part]
        return Line(start, stop, self.low[part], self.high[part], self.fraction[part], share)


@dataclass
class Tile:
    """Logits `k h w` of one window, and the output positions that it covers."""

    logits: Tensor
    rows: Line
    columns: Line


class Axis:
    """One axis of a view: where its windows start, and which output positions each covers.

    Maps output to image to logits cell with `align_corners`; without window and padding the two steps
    equal one `F.interpolate` from the logits to the output. Logits of the image's own size are
    resized like images, with half-pixel centres, whatever `align_corners` is: it describes how to
    reach that size.

    Args:
        window: Length of a window, in pixels of the image.
        overlap: Fraction of a window that overlaps the next.
        image: Length of the image.
        output: Length of the output.
        align: `align_corners` of the network.
        mirrored: The image is mirrored along this axis.
    """

    def __init__(
        self,
        window: int,
        overlap: float,
        image: int,
        output: int,
        align: bool,
        mirrored: bool = False,
    ) -> None:
        self.window, self.image, self.output = window, image, output
        self.align, self.mirrored = align, mirrored
        self.starts = _starts(image, window, overlap)

    def line(self, index: int, padded: int, cells: int) -> Line:
        """Find the output positions of a window.

        Args:
            index: Index of the window in `starts`.
            padded: Length of the window after padding.
            cells: Length of its logits.
        """
        align = self.align and cells != padded
        output = torch.arange(self.output, dtype=torch.float64)
        position = source(output, self.output, self.image, align)
        if self.mirrored:
            position = position.flip(0)
        pixel = position.round().clamp(0, self.image - 1)
        covers = torch.stack([(pixel >= at) & (pixel < at + self.window) for at in self.starts])
        inside = covers[index].nonzero().flatten()
        # A tile is padded only on the right and below, so its last cells may lie outside it.
        cell = source(position[inside] - self.starts[index], padded, cells, align)
        cell = cell.clamp(0, cells - 1)
        low = cell.floor().long()
        counts = covers.sum(0)[inside]
        start = int(inside[0]) if len(inside) else 0
        return Line(
            start,
            start + len(inside),
            low,
            (low + 1).clamp(max=cells - 1),
            (cell - low).float(),
            1 / counts.float() if bool((counts > 1).any()) else None,
        )


class Scratch:
    """Memory of the strips of an image, kept from one to the next.

    A fresh tensor of some MiB costs several times what is computed in it: the system hands it out page by
    page.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def empty(self, use: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor without values, of float32 on the device of `like`; the next one of the same use overwrites it."""
        count = math.prod(shape)
        held = self._held.get(use)
        if held is None or len(held) < count:
            held = self._held[use] = torch.empty(count, device=like.device)
        return held[:count].view(*shape)


def strip(
    tiles: list[Tile], start: int, stop: int, width: int, scratch: Scratch
) -> Float[Tensor, "k rows width"]:
    """Rows [start, stop) of the output: the mean over the tiles that cover each position.

    It may lie in `scratch`, until the next call.
    """
    if len(tiles) == 1:
        return _patch(tiles[0], start, stop, scratch)
    first = tiles[0].logits
    total = scratch.empty("tiles", (len(first), stop - start, width), first).zero_()
    for tile in tiles:
        columns = tile.columns
        top, bottom = max(start, tile.rows.start), min(stop, tile.rows.stop)
        # A small output may skip a window entirely.
        if top < bottom and columns.start < columns.stop:
            patch = _patch(tile, top, bottom, scratch)
            total[:, top - start : bottom - start, columns.start : columns.stop] += patch
    return total


def _patch(tile: Tile, top: int, bottom: int, scratch: Scratch) -> Tensor:
    """The contribution of a tile to the rows [top, bottom) of the output."""
    rows, columns = tile.rows.part(top, bottom), tile.columns
    # Only the cells around these rows, so that memory grows with the strip and not with the tile.
    first, last = int(rows.low[0]), int(rows.high[-1])
    rows.low, rows.high = rows.low - first, rows.high - first
    # Width first: cheap while there are few rows, and rows are then gathered whole.
    result = _interpolate(tile.logits[:, first : last + 1], 2, columns, scratch)
    result = _interpolate(result, 1, rows, scratch)
    if rows.share is not None:
        result = result * rows.share[:, None].to(result.device)
    if columns.share is not None:
        result = result * columns.share.to(result.device)
    return result


def _interpolate(tensor: Tensor, axis: int, line: Line, scratch: Scratch) -> Tensor:
    """Interpolate along an axis at all positions of a line.

    Each step is a separate element-wise operation: fused operations round differently at the ends of a
    vector, and a strip would no longer be bit-identical to the same rows of the whole.
    """
    first, count = int(line.low[0]), len(line.low)
    if torch.equal(line.low, torch.arange(first, first + count)) and not bool(line.fraction.any()):
        return tensor.narrow(axis, first, count)  # every position is a cell
    low = _at(tensor, axis, line.low, scratch, "low")
    result = _at(tensor, axis, line.high, scratch, "high").sub_(low)
    fraction = line.fraction.to(tensor.device)
    result.mul_(fraction[:, None] if axis == 1 else fraction)
    return result.add_(low)


def _at(
    tensor: Float[Tensor, "k h w"],
    axis: int,
    index: Int64[Tensor, " n"],
    scratch: Scratch,
    use: str,
) -> Tensor:
    """The cells of a map at these places of an axis."""
    index = index.to(tensor.device)
    shape = list(tensor.shape)
    shape[axis] = len(index)
    out = scratch.empty(f"{use} {axis}", shape, tensor)
    if axis == 1:
        return torch.index_select(tensor, 1, index, out=out)  # whole rows
    # Along the last axis index_select takes several times as long.
    return torch.gather(tensor, 2, index.expand(shape), out=out)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixel of each window along one axis; the last window ends with the image."""
    if window >= length:
        return [0]
    # Rounded up, as in SKD's released code, except for rounding errors below a thousandth of a pixel.
    stride = max(1, math.ceil(window * (1 - overlap) - 1e-3))
    return [*range(0, length - window, stride), length - window]


def source(position: Tensor, length: int, source: int, align: bool) -> Tensor:
    """Map positions on a grid of `length` points to a grid of `source` points."""
    if align:
        return position * (source - 1) / max(length - 1, 1)
    return (position + 0.5) * source / length - 0.5
