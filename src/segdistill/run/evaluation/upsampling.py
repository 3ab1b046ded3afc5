"""Logits of tiles brought to the size of the output, a strip of rows at a time.

What `F.interpolate` cannot do: begin in the middle of a grid, as strips and overlapping tiles must.
"""

from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Line:
    """Where an axis of the output meets a tile: positions [start, stop), each between two cells."""

    start: int
    stop: int
    low: Tensor
    high: Tensor
    fraction: Tensor
    share: Tensor | None  # part of the average that is this tile's; None where it is the only one

    def part(self, start: int, stop: int) -> "Line":
        """The positions [start, stop) alone."""
        part = slice(start - self.start, stop - self.start)
        share = None if self.share is None else self.share[part]
        return Line(start, stop, self.low[part], self.high[part], self.fraction[part], share)


@dataclass
class Tile:
    """Logits `k h w` of one window, and the positions of the output that it covers."""

    logits: Tensor
    rows: Line
    columns: Line


class Axis:
    """One axis of a view: where its windows start, and which positions of the output each covers.

    From output to image to cell of the logits by the rule of `align_corners`; without window and
    padding the two steps are one `F.interpolate` from the logits to the output. Logits that have the
    image's own size go back as images are resized, by half pixels, whatever the rule: it says how to
    come to that size, and they are there.

    Args:
        window: Length of a window, in pixels of the image.
        overlap: Share of a window that its neighbour covers too.
        image: Length of the image.
        output: Length of the output.
        align: The rule of `align_corners`.
        mirrored: The image runs against the output.
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
        """How the output meets a window.

        Args:
            index: Of the window, in `starts`.
            padded: Length of the window as the network saw it.
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
        # A tile is padded on the right and below alone, so its last cells may lie outside of it.
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


def strip(tiles: list[Tile], start: int, stop: int, width: int) -> Float[Tensor, "k rows width"]:
    """Rows [start, stop) of the output: the mean over the tiles that cover each position."""
    if len(tiles) == 1:
        return _patch(tiles[0], start, stop)
    first = tiles[0].logits
    total = first.new_zeros(first.shape[0], stop - start, width)
    for tile in tiles:
        columns = tile.columns
        top, bottom = max(start, tile.rows.start), min(stop, tile.rows.stop)
        # A small output may pass over a window altogether.
        if top < bottom and columns.start < columns.stop:
            patch = _patch(tile, top, bottom)
            total[:, top - start : bottom - start, columns.start : columns.stop] += patch
    return total


def _patch(tile: Tile, top: int, bottom: int) -> Tensor:
    """What a tile adds to the rows [top, bottom) of the output."""
    rows, columns = tile.rows.part(top, bottom), tile.columns
    # Only the cells that these rows lie between, so that memory is the strip's and not the tile's.
    first, last = int(rows.low[0]), int(rows.high[-1])
    rows.low, rows.high = rows.low - first, rows.high - first
    # The width first: cheap while the rows are few, and the rows are then gathered whole.
    result = _interpolate(tile.logits[:, first : last + 1], 2, columns)
    result = _interpolate(result, 1, rows)
    if rows.share is not None:
        result = result * rows.share[:, None].to(result.device)
    if columns.share is not None:
        result = result * columns.share.to(result.device)
    return result


def _interpolate(tensor: Tensor, axis: int, line: Line) -> Tensor:
    """Values at all positions of a line, along an axis.

    Each step is an operation of its own on every element: fused forms round differently at the ends
    of a vector, and a strip would no longer equal the same rows of the whole to the bit.
    """
    first, count = int(line.low[0]), len(line.low)
    if torch.equal(line.low, torch.arange(first, first + count)) and not bool(line.fraction.any()):
        return tensor.narrow(axis, first, count)  # every position is a cell
    low = tensor.index_select(axis, line.low.to(tensor.device))
    result = tensor.index_select(axis, line.high.to(tensor.device)).sub_(low)
    fraction = line.fraction.to(tensor.device)
    result.mul_(fraction[:, None] if axis == 1 else fraction)
    return result.add_(low)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixels of the windows along one axis; the last window ends where the image does."""
    if window >= length:
        return [0]
    # Rounded up, as in SKD's released code; a thousandth of a pixel is rounding error, not a pixel.
    stride = max(1, ceil(window * (1 - overlap) - 1e-3))
    return [*range(0, length - window, stride), length - window]


def source(position: Tensor, length: int, source: int, align: bool) -> Tensor:
    """Positions on a grid of `length` points, as positions on a grid of `source` points."""
    if align:
        return position * (source - 1) / max(length - 1, 1)
    return (position + 0.5) * source / length - 0.5
