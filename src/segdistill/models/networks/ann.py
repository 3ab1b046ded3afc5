"""ANN (Zhu et al., ICCV 2019): non-local attention to few, pooled positions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.input import InputSetting
from segdistill.models.layers.attention import ContextAttention, pyramid_samples
from segdistill.models.layers.convolution import conv_norm_act, initialise
from segdistill.models.layers.dilated import DilatedNetwork, build_dilated


class AsymmetricNonLocal(nn.Module):
    """Fuses two levels (AFNB), reduces, then attends within (APNB); sections 3.2 and 3.3.

    Keys and values are means over grids of 1, 3, 6 and 8 bins. The fused level keeps its channels, as
    released; both attentions start at zero. Convolutions before a batch norm have no bias, which the
    released code gives them to no effect.

    Args:
        low_channels: Of the second-deepest level: keys and values of the fusion.
        high_channels: Of the deepest: its queries.
        out_channels: Of the output; queries, keys and values are half as wide.
        dropout: Share of whole channels dropped after the fusion in training.
    """

    def __init__(
        self, low_channels: int, high_channels: int, out_channels: int, dropout: float = 0.05
    ) -> None:
        super().__init__()
        width = out_channels // 2
        self.fusion = ContextAttention(
            query=conv_norm_act(high_channels, width),
            key=conv_norm_act(low_channels, width),
            value=nn.Conv2d(low_channels, width, 1),
            out=nn.Conv2d(width, high_channels, 1),
            sample=pyramid_samples,
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * high_channels, high_channels, 1, bias=False),
            nn.BatchNorm2d(high_channels),
            nn.Dropout2d(dropout),
        )
        self.reduce = conv_norm_act(high_channels, out_channels, kernel=3)
        self.attention = ContextAttention(
            query=None,
            key=conv_norm_act(out_channels, width),
            value=nn.Conv2d(out_channels, width, 1),
            out=nn.Conv2d(width, out_channels, 1),
            sample=pyramid_samples,
        )
        self.join = conv_norm_act(2 * out_channels, out_channels)
        initialise(self)
        for block in (self.fusion, self.attention):
            nn.init.zeros_(block.out.weight)  # type: ignore[arg-type]

    def forward(
        self, low: Float[Tensor, "b c h w"], high: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b e h w"]:
        x = self.reduce(self.fuse(torch.cat([self.fusion(high, low), high], dim=1)))
        out: Tensor = self.join(torch.cat([self.attention(x, x), x], dim=1))
        return out


def ann_r101(
    num_classes: int,
    *,
    layers: Sequence[int] = (3, 4, 23, 3),
    width: int = 64,
    aux: bool = True,
    dropout: float = 0.05,
    input: InputSetting = None,
    weights: str | None = None,
) -> DilatedNetwork:
    """ANN on ResNet-101.

    Fewer `layers` or a smaller `width` (of the stem) make smaller ones. The rest as for `DilatedNetwork`.
    """

    def head(channels: Sequence[int], features: int) -> nn.Module:
        return AsymmetricNonLocal(channels[-2], channels[-1], features, dropout)

    return build_dilated(head, num_classes, layers, width, aux, dropout, input, weights)
