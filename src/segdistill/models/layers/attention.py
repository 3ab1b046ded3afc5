"""Attention of positions to a context: the block that OCNet, OCRNet and ANN share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.layers.pooling import adaptive_avg_pool


class ContextAttention(nn.Module):
    """A mean of the context for every position, weighted by similarity (scaled dot product).

    softmax(query · key / √d) · value over the context's n tokens, d channels of query and key; then
    `out`. Where PyTorch has a fused kernel, the h·w × n similarities are never held in memory.

    Args:
        query: On the map that asks; None where it is the key (the map is then its own context).
        key: On the context.
        value: On the context.
        out: On the result.
        sample: Of key and value before they are compared: b c h w -> b c n; None for all positions.
    """

    def __init__(
        self,
        query: nn.Module | None,
        key: nn.Module,
        value: nn.Module,
        out: nn.Module,
        sample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = query, key, value, out
        self.sample = sample

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b d i j"]
    ) -> Float[Tensor, "b e h w"]:
        key, value = self.key(context), self.value(context)
        query = key if self.query is None else self.query(x)
        if self.sample is not None:
            key, value = self.sample(key), self.sample(value)
        mixed = F.scaled_dot_product_attention(tokens(query), tokens(key), tokens(value))
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[-2:]))
        return out


def tokens(x: Float[Tensor, "b c *positions"]) -> Float[Tensor, "b n c"]:
    """Positions as a sequence."""
    return x.flatten(2).transpose(1, 2)


def pyramid_samples(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 110"]:
    """Means over grids of 1, 3, 6 and 8 bins: 110 tokens for a map of any size (ANN, section 3.2)."""
    return torch.cat([adaptive_avg_pool(x, bins).flatten(2) for bins in (1, 3, 6, 8)], dim=-1)


def object_regions(
    features: Float[Tensor, "b c h w"], logits: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b c k 1"]:
    """Mean features of each class, its logits' softmax over positions as weights (OCRNet, eq. 6)."""
    regions = logits.flatten(2).softmax(-1) @ tokens(features)
    return regions.transpose(1, 2).unsqueeze(-1)
