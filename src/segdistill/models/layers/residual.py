"""Stem and residual layers of the two- and three-branch networks: the last sum of a layer has no activation."""

from torch import Tensor, nn

from segdistill.models.layers.convolution import conv_norm_act


class Residual(nn.Module):
    """Convolutions around a shortcut, which is a 1×1 convolution where size or channels change.

    Args:
        body: Ends with a batch norm.
        inside: Channels of the input.
        out: Channels of the sum.
        stride: Of the body.
        relu: Whether the sum has a ReLU. Without one, whatever reads it applies its own.
    """

    def __init__(self, body: nn.Module, inside: int, out: int, stride: int, relu: bool) -> None:
        super().__init__()
        same = (inside, stride) == (out, 1)
        self.body = body
        self.shortcut = nn.Identity() if same else conv_norm_act(inside, out, stride=stride)[:2]
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.shortcut(x)
        return total.relu() if self.relu else total


def basic(inside: int, out: int, stride: int = 1, relu: bool = False) -> Residual:
    """Two 3×3 convolutions."""
    body = nn.Sequential(
        *conv_norm_act(inside, out, kernel=3, stride=stride),
        *conv_norm_act(out, out, kernel=3)[:2],
    )
    return Residual(body, inside, out, stride, relu)


def widening(inside: int, width: int, stride: int = 1) -> Residual:
    """1×1, 3×3 and 1×1 convolution; the sum is twice as wide as inside, without an activation."""
    body = nn.Sequential(
        *conv_norm_act(inside, width),
        *conv_norm_act(width, width, kernel=3, stride=stride),
        *conv_norm_act(width, 2 * width)[:2],
    )
    return Residual(body, inside, 2 * width, stride, relu=False)


def basic_layer(inside: int, out: int, blocks: int = 2, stride: int = 1) -> nn.Sequential:
    """Basic blocks in a row, the first with the stride; all but the last with a ReLU."""
    first = basic(inside, out, stride, relu=blocks > 1)
    rest = (basic(out, out, relu=block < blocks) for block in range(2, blocks + 1))
    return nn.Sequential(first, *rest)


def strided_stem(in_channels: int, width: int) -> nn.Sequential:
    """Two 3×3 convolutions with stride 2, with biases as in the released code."""
    return nn.Sequential(
        conv_norm_act(in_channels, width, kernel=3, stride=2, bias=True),
        conv_norm_act(width, width, kernel=3, stride=2, bias=True),
    )
