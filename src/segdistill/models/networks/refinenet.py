"""RefineNet (Lin et al., CVPR 2017) on any timm encoder: coarse levels refined step by step by finer ones."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel, level_taps
from segdistill.models.input import InputNormalisation, InputSetting
from segdistill.models.layers.convolution import classifier
from segdistill.models.layers.encoders import TimmEncoder, build_encoder


def _conv(in_channels: int, out_channels: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


class ResidualUnit(nn.Module):
    """Residual convolution unit (RCU): x + conv(relu(conv(relu(x)))), without batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, bias=True)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = x + self.conv2(self.conv1(x.relu()).relu())
        return out


class ChainedPooling(nn.Module):
    """Chained residual pooling (CRP): 5×5 maximum and 3×3 convolution in a chain, all of it summed."""

    def __init__(self, channels: int, links: int = 4) -> None:
        super().__init__()
        self.links = nn.ModuleList(_conv(channels, channels) for _ in range(links))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        total = link = x
        for conv in self.links:
            link = conv(F.max_pool2d(link, 5, stride=1, padding=2))
            total = total + link
        return total


class RefineBlock(nn.Module):
    """Adapts a level, adds what comes from the coarser ones, pools it in a chain; section 3.2.

    Args:
        in_channels: Of the level.
        channels: Inside and of the output.
        coarse_channels: Of what comes from the coarser block; None for the first.
    """

    def __init__(self, in_channels: int, channels: int, coarse_channels: int | None) -> None:
        super().__init__()
        self.adapt = nn.Sequential(
            _conv(in_channels, channels), ResidualUnit(channels), ResidualUnit(channels)
        )
        fuses = coarse_channels is not None
        self.level = _conv(channels, channels) if fuses else nn.Identity()
        self.coarse = _conv(coarse_channels, channels) if coarse_channels is not None else None
        self.pool = ChainedPooling(channels)
        self.refine = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))

    def forward(
        self, level: Float[Tensor, "b c h w"], coarse: Float[Tensor, "b d i j"] | None
    ) -> Float[Tensor, "b e h w"]:
        x = self.level(self.adapt(level))
        if self.coarse is not None and coarse is not None:
            x = x + F.interpolate(
                self.coarse(coarse), x.shape[-2:], mode="bilinear", align_corners=True
            )
        out: Tensor = self.refine(self.pool(x.relu()))
        return out


class RefineNet(SegmentationModel):
    """Four cascaded blocks on the encoder's levels at strides 32 to 4; logits at stride 4.

    As released: two residual units before and three after each fusion, four links in the chain,
    dropout of single values on the two deepest levels and before the 3×3 classifier. The blocks have
    no batch norm and start as PyTorch starts convolutions: with a start that keeps the variance, each
    residual sum would add to it.

    Taps: `logits`; `features`, the last block's output; `features_released`, the same after dropout;
    `layer1`..`layer4`, the encoder's levels. Any height and width. Logits are to be resized with
    `align_corners=True`.

    Args:
        encoder: A timm encoder with four levels.
        num_classes: Channels of the logits.
        input: First operation.
        head_width: Channels of the blocks; the deepest is twice as wide.
        dropout: Share of values dropped in training.
    """

    def __init__(
        self,
        encoder: TimmEncoder,
        num_classes: int,
        input: InputNormalisation,
        head_width: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if encoder.levels < 4:
            raise ValueError(
                f"encoder {encoder.name!r} has {encoder.levels} levels; expected four. "
                "Use another, such as 'resnet18'"
            )
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 1
        self.input = input
        self.encoder = encoder
        fine, middle, coarse, deepest = encoder.channels[-4:]
        self.refine4 = RefineBlock(deepest, 2 * head_width, None)
        self.refine3 = RefineBlock(coarse, head_width, 2 * head_width)
        self.refine2 = RefineBlock(middle, head_width, head_width)
        self.refine1 = RefineBlock(fine, head_width, head_width)
        self.dropout = nn.Dropout(dropout)
        self.drop_level = nn.Dropout(dropout)
        self.classifier = classifier(head_width, num_classes, kernel=3)
        self.taps = {"logits": "", "features": "refine1", "features_released": "dropout"}
        self.taps |= level_taps(encoder.levels)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        levels: list[Any] = self.encoder(self.input(images))
        fine, middle, coarse, deepest = levels[-4:]
        x = self.refine4(self.drop_level(deepest), None)
        x = self.refine3(self.drop_level(coarse), x)
        x = self.refine1(fine, self.refine2(middle, x))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


def refinenet(
    num_classes: int,
    *,
    encoder: str | None = None,
    head_width: int = 256,
    dropout: float = 0.5,
    input: InputSetting = None,
    weights: str | None = None,
    in_channels: int = 3,
) -> RefineNet:
    """RefineNet on a timm encoder.

    `weights`, `input` and `in_channels` as for `build_encoder`, the rest as for `RefineNet`.
    """
    if encoder is None:
        raise ValueError(
            "refinenet has no encoder; expected one of timm's, as in refinenet:resnet18"
        )
    net, normalisation, report = build_encoder(encoder, 32, weights, input, in_channels)
    model = RefineNet(net, num_classes, normalisation, head_width, dropout)
    model.weights_report = report
    return model


def refinenet_r101(
    num_classes: int,
    *,
    head_width: int = 256,
    dropout: float = 0.5,
    input: InputSetting = None,
    weights: str | None = None,
) -> RefineNet:
    """RefineNet on ResNet-101, as published."""
    return refinenet(
        num_classes,
        encoder="resnet101",
        head_width=head_width,
        dropout=dropout,
        input=input,
        weights=weights,
    )
