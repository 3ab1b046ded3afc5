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


def adaptive_avg_pool(x: Float[Tensor, "b c h w"], bins: int) -> Float[Tensor, "b c bins bins"]:
    """Equal to `torch.nn.functional.adaptive_avg_pool2d(x, bins)`, for any size, and exportable."""
    rows, heights = pooling_cells(x.shape[-2], bins, x.device)
    columns, widths = pooling_cells(x.shape[-1], bins, x.device)
    # Sums first, division after: zeros and ones are exact in half precision, 1/65 is not.
    across = x @ columns.to(x.dtype).T / widths
    return rows.to(across.dtype) @ across / heights[:, None]


def max_pool_up(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Equal to `max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)`: size // 2 + 1 on each side."""
    return F.max_pool2d(F.pad(x, (1, 2, 1, 2), value=float("-inf")), 3, stride=2)
