"""OCNet (Yuan & Wang, arXiv 1809.00916, 2018): self-attention as context, beside dilated convolutions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.input import InputSetting
from segdistill.models.layers.attention import ContextAttention
from segdistill.models.layers.convolution import conv_norm_act, initialise
from segdistill.models.layers.dilated import DilatedNetwork, build_dilated


class ObjectContextPyramid(nn.Module):
    """ASP-OC: the pyramid of DeepLabV3 with self-attention in the place of the image's mean.

    A 3×3 convolution first, as released; then 3×3 and attention, 1×1, and three dilated 3×3, joined
    by 1×1. Query and key share one transform. Attention is on positions pooled by 2 (maximum) and
    starts at zero, as released. In-place ABN with leaky ReLU 0.01 is written as batch norm and leaky
    ReLU, without the biases that batch norm undoes.

    Args:
        in_channels: Of the encoder's deepest level.
        out_channels: Of the output; each branch is half as wide.
        rates: Dilations of the 3×3 branches, in positions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: Sequence[int] = (12, 24, 36)
    ) -> None:
        super().__init__()
        width = out_channels // 2
        self.reduce = conv_norm_act(in_channels, out_channels, kernel=3, leaky=0.01)
        self.before = conv_norm_act(out_channels, width, kernel=3, leaky=0.01)
        self.attention = ContextAttention(
            query=None,
            key=conv_norm_act(width, width // 2, leaky=0.01),
            value=nn.Conv2d(width, width, 1),
            out=nn.Conv2d(width, width, 1),
        )
        self.after = conv_norm_act(width, width, leaky=0.01)
        self.point = conv_norm_act(out_channels, width, leaky=0.01)
        self.dilated = nn.ModuleList(
            conv_norm_act(out_channels, width, kernel=3, dilation=rate, leaky=0.01)
            for rate in rates
        )
        joined = (2 + len(rates)) * width
        self.project = conv_norm_act(joined, out_channels, leaky=0.01)
        initialise(self)
        nn.init.zeros_(self.attention.out.weight)  # type: ignore[arg-type]

    def forward(self, _: Tensor, deep: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        x = self.reduce(deep)
        branch = self.before(x)
        pooled = F.max_pool2d(branch, 2)
        context = F.interpolate(
            self.attention(pooled, pooled), x.shape[-2:], mode="bilinear", align_corners=True
        )
        maps = [self.after(context), self.point(x), *(dilated(x) for dilated in self.dilated)]
        out: Tensor = self.project(torch.cat(maps, dim=1))
        return out


def ocnet_r101(
    num_classes: int,
    *,
    layers: Sequence[int] = (3, 4, 23, 3),
    width: int = 64,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
) -> DilatedNetwork:
    """OCNet with ASP-OC on ResNet-101.

    Fewer `layers` or a smaller `width` (of the stem) make smaller ones. The rest as for `DilatedNetwork`.
    """

    def head(channels: Sequence[int], features: int) -> nn.Module:
        return ObjectContextPyramid(channels[-1], features)

    return build_dilated(head, num_classes, layers, width, aux, dropout, input, weights)
