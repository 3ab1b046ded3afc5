"""Pooling that exports with free height and width.

torch's own `adaptive_avg_pool2d` is frozen at the traced size by exporters: the file runs at another
size and gives other numbers without a word. Here the averaging matrices are built from the size at
hand. A rounded-up max-pool is refused by exporters; padding first says the same to them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pooling_cells(
    size: int, bins: int, device: torch.device | None = None
) -> tuple[Bool[Tensor, "bins size"], Int[Tensor, " bins"]]:
    """Which positions each of `bins` cells covers, and how many.

    Cell i covers floor(i·size/bins) to ceil((i+1)·size/bins), exclusive: torch's own rule, under
    which neighbouring cells may overlap, and repeat when there are more bins than positions.
    """
    position = torch.arange(size, device=device)
    cell = torch.arange(bins, device=device)
    first = cell * size // bins
    end = ((cell + 1) * size + bins - 1) // bins
    inside = (position >= first[:, None]) & (position < end[:, None])
    return inside, end - first


def adaptive_avg_pool(
    x: Float[Tensor, "b c h w"], bins: int | tuple[int, int]
) -> Float[Tensor, "b c rows columns"]:
    """Equal to `torch.nn.functional.adaptive_avg_pool2d(x, bins)`, for any size, and exportable."""
    down, right = (bins, bins) if isinstance(bins, int) else bins
    rows, heights = pooling_cells(x.shape[-2], down, x.device)
    columns, widths = pooling_cells(x.shape[-1], right, x.device)
    # Sums first, division after: zeros and ones are exact in half precision, 1/65 is not.
    across = F.linear(x, columns.to(x.dtype)) / widths
    # linear, not matmul, which asks exporters for strides that they cannot order.
    return (F.linear(across.mT, rows.to(across.dtype)) / heights).mT


def max_pool_up(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Equal to `max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)`: size // 2 + 1 on each side."""
    return F.max_pool2d(F.pad(x, (1, 2, 1, 2), value=float("-inf")), 3, stride=2)


def adaptive_avg_pool_near(
    x: Float[Tensor, "b c h w"], size: tuple[int, int], widest: int
) -> Float[Tensor, "b c rows columns"]:
    """Equal to `adaptive_avg_pool2d(x, size)` where no cell covers more than `widest` positions.

    For grids of nearly the size of the map, where matrices of averages would cost more than a network.
    """
    for axis, bins in zip((-2, -1), size, strict=True):
        positions = x.shape[axis]
        cell = torch.arange(bins, device=x.device)
        first = cell * positions // bins
        count = ((cell + 1) * positions + bins - 1) // bins - first
        column = (-1, 1) if axis == -2 else (-1,)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for i in range(widest):
            part = x.index_select(axis, (first + i).clamp(max=positions - 1))
            total = total + part * (count > i).to(x.dtype).view(column)
        x = total / count.view(column)
    return x
