"""Convolution with batch norm and activation, and how new layers start."""

from torch import nn


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    dilation: int = 1,
    bias: bool = False,
    leaky: float = 0.0,
    stride: int = 1,
) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), batch norm, ReLU (leaky with slope `leaky`, if not 0)."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(leaky, inplace=True) if leaky else nn.ReLU(inplace=True),
    )


def separable(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """3×3 depthwise, then 1×1, batch norm and ReLU.

    The reference code of DeepLabV3+ also normalises between the two; left out, for it costs a CPU
    as much as the depthwise convolution itself.
    """
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        *conv_norm_act(in_channels, out_channels),
    )


def initialise(module: nn.Module) -> None:
    """Starts all layers below `module` as for training from scratch.

    Convolutions: Kaiming normal over the fan-in (which suits depthwise ones, too), bias 0. Batch
    norm: weight 1, bias 0. A `classifier` is made after
    it, by its own rule.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def classifier(in_channels: int, num_classes: int, kernel: int = 1) -> nn.Conv2d:
    """Convolution with bias that starts level; see `level`."""
    layer = nn.Conv2d(in_channels, num_classes, kernel, padding=kernel // 2)
    level(layer)
    return layer


def level(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Starts a classifier from N(0, 0.01²), its bias from 0: all classes are nearly equal at first."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
