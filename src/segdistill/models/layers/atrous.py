"""Context from dilated (atrous) convolutions: the pyramid that the DeepLab networks share."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.layers.convolution import conv_norm_act, separable


class AtrousPyramid(nn.Module):
    """Context from dilated convolutions (ASPP).

    1×1, three dilated 3×3 and the image's mean, joined by a 1×1.

    Args:
        in_channels: Of the encoder's deepest level.
        width: Of each branch and of the output.
        rates: Dilations of the 3×3 branches, in positions of this level.
        separable_convs: Depthwise separable 3×3 (as DeepLabV3+), else full ones (as DeepLabV3).
    """

    def __init__(
        self, in_channels: int, width: int, rates: Sequence[int], separable_convs: bool
    ) -> None:
        super().__init__()
        self.point = conv_norm_act(in_channels, width)
        self.dilated = nn.ModuleList(
            separable(in_channels, width, rate)
            if separable_convs
            else conv_norm_act(in_channels, width, kernel=3, dilation=rate)
            for rate in rates
        )
        self.image = conv_norm_act(in_channels, width)
        self.project = conv_norm_act((2 + len(rates)) * width, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        image = self.image(x.mean((-2, -1), keepdim=True))
        maps = [self.point(x), *(branch(x) for branch in self.dilated)]
        out: Tensor = self.project(torch.cat([*maps, image.expand_as(maps[0])], dim=1))
        return out
