"""Padding for networks that halve the size and double it again."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pad_to_multiple(
    x: Float[Tensor, "b c h w"], multiple: int
) -> Float[Tensor, "b c rows columns"]:
    """Height and width up to a multiple, the last row and column repeated, as evaluation pads.

    Exporters cannot follow it: a network that calls it declares `multiple_of`, and is exported at such sizes.
    """
    below, right = (-side % multiple for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
