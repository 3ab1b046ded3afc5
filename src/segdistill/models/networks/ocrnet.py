"""OCRNet (Yuan et al., ECCV 2020): attention of positions to the regions of the classes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.input import InputSetting
from segdistill.models.layers.attention import ContextAttention, object_regions
from segdistill.models.layers.auxiliary import AuxiliaryHead
from segdistill.models.layers.convolution import conv_norm_act, initialise
from segdistill.models.layers.dilated import DilatedNetwork, build_dilated


class ObjectContext(nn.Module):
    """Object-contextual representations, section 3.2.

    Logits of the second-deepest level weigh the positions into one mean a class; each position
    attends to those and is joined with what it finds. The logits pass through `aux`, an identity that
    exists to be tapped: they are deep supervision and part of every forward pass at once. Their
    head is the auxiliary one of the other networks (leaky ReLU 0.01, the paper's has ReLU).

    Args:
        low_channels: Of the second-deepest level.
        high_channels: Of the deepest.
        out_channels: Of the output; queries, keys and values are half as wide.
        num_classes: How many regions.
        dropout: Share of whole channels dropped before the regions' classifier in training.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        out_channels: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        width = out_channels // 2
        self.reduce = conv_norm_act(high_channels, out_channels, kernel=3)
        self.attention = ContextAttention(
            query=nn.Sequential(conv_norm_act(out_channels, width), conv_norm_act(width, width)),
            key=nn.Sequential(conv_norm_act(out_channels, width), conv_norm_act(width, width)),
            value=conv_norm_act(out_channels, width),
            out=conv_norm_act(width, out_channels),
        )
        self.join = conv_norm_act(2 * out_channels, out_channels)
        initialise(self)
        self.regions = AuxiliaryHead(low_channels, num_classes, dropout)
        self.aux = nn.Identity()

    def forward(
        self, low: Float[Tensor, "b c h w"], high: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b e h w"]:
        x = self.reduce(high)
        regions = object_regions(x, self.aux(self.regions(low)))
        out: Tensor = self.join(torch.cat([self.attention(x, regions), x], dim=1))
        return out


def ocrnet_r101(
    num_classes: int,
    *,
    layers: Sequence[int] = (3, 4, 23, 3),
    width: int = 64,
    dropout: float = 0.05,
    input: InputSetting = None,
    weights: str | None = None,
) -> DilatedNetwork:
    """OCRNet on ResNet-101.

    Fewer `layers` or a smaller `width` (of the stem) make smaller ones. The rest as for `DilatedNetwork`.
    """

    def head(channels: Sequence[int], features: int) -> nn.Module:
        return ObjectContext(channels[-2], channels[-1], features, num_classes, dropout)

    model = build_dilated(head, num_classes, layers, width, False, dropout, input, weights)
    model.taps["aux"] = "context.aux"
    return model
