"""DeepLabV3+ (Chen et al., ECCV 2018) on any timm encoder: a teacher that sees thin classes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import (
    SegmentationModel,
    aux_is_wanted,
    check_training_batch,
    level_taps,
)
from segdistill.models.input import InputNormalisation, InputSetting
from segdistill.models.layers.atrous import AtrousPyramid
from segdistill.models.layers.auxiliary import AuxiliaryHead
from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise, separable
from segdistill.models.layers.encoders import TimmEncoder, build_encoder


class DeepLabV3Plus(SegmentationModel):
    """Encoder, ASPP, and a decoder that joins the encoder's stride-4 level; logits at stride 4.

    Taps: `logits`; `features`, the decoder's output before dropout and classifier; `context`, the
    pyramid's output; `layer1`..`layer4`, the encoder's levels; `aux` where asked for.

    Any height and width. Logits are to be resized with `align_corners=False`, as the decoder does
    inside. The paper drops out after the pyramid, too; here only before the classifier.

    Args:
        encoder: A timm encoder with a level at stride 4.
        num_classes: Channels of the logits.
        head_width: Of the pyramid and of the decoder (`features`).
        skip_width: To which the stride-4 level is reduced.
        rates: Dilations of the pyramid; None for 6, 12, 18 at output stride 16, and in proportion
            at 8 and 32.
        separable_convs: Depthwise separable 3×3 convolutions in pyramid and decoder.
        aux: Whether there is an auxiliary head on the second-deepest level.
        dropout: Share of whole channels dropped before the classifier in training.
        input: First operation.
    """

    def __init__(
        self,
        encoder: TimmEncoder,
        num_classes: int,
        input: InputNormalisation,
        head_width: int = 256,
        skip_width: int = 48,
        rates: Sequence[int] | None = None,
        separable_convs: bool = True,
        aux: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if 4 not in encoder.reductions:
            raise ValueError(
                f"encoder {encoder.name!r} has strides "
                f"{encoder.reductions}; expected a level at stride 4. Use pspnet with it, or another encoder"
            )
        if rates is None:
            rates = [rate * 16 // encoder.reductions[-1] for rate in (6, 12, 18)]
        channels = encoder.channels
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = False, 1
        self.input = input
        self.encoder = encoder
        self._skip_level = encoder.reductions.index(4)
        self.aspp = AtrousPyramid(channels[-1], head_width, rates, separable_convs)
        self.skip = conv_norm_act(channels[self._skip_level], skip_width)
        first, second = head_width + skip_width, head_width
        self.decoder = nn.Sequential(
            *(
                separable(inside, head_width)
                if separable_convs
                else conv_norm_act(inside, head_width, kernel=3)
                for inside in (first, second)
            )
        )
        for part in (self.aspp, self.skip, self.decoder):
            initialise(part)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(head_width, num_classes)
        self.aux = AuxiliaryHead(channels[-2], num_classes, dropout) if aux else None
        self.taps = {
            "logits": "",
            "features": "decoder",
            "features_released": "dropout",
            "context": "aspp",
        }
        if aux:
            self.taps["aux"] = "aux"
        self.taps |= level_taps(encoder.levels)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        levels: list[Any] = self.encoder(self.input(images))
        if self.aux is not None and aux_is_wanted(self, self.aux):
            self.aux(levels[-2])  # read by a hook on it
        skip = self.skip(levels[self._skip_level])
        context = F.interpolate(
            self.aspp(levels[-1]), skip.shape[-2:], mode="bilinear", align_corners=False
        )
        features = self.decoder(torch.cat([context, skip], dim=1))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


def deeplabv3plus(
    num_classes: int,
    *,
    encoder: str | None = None,
    output_stride: int = 16,
    head_width: int = 256,
    skip_width: int = 48,
    rates: Sequence[int] | None = None,
    separable_convs: bool = True,
    aux: bool = False,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
    in_channels: int = 3,
) -> DeepLabV3Plus:
    """DeepLabV3+ on a timm encoder.

    `weights`, `input` and `in_channels` as for `build_encoder`, the rest as for `DeepLabV3Plus`.
    """
    if encoder is None:
        raise ValueError(
            "deeplabv3plus has no encoder; expected one of timm's, as in deeplabv3plus:resnet18"
        )
    net, normalisation, report = build_encoder(encoder, output_stride, weights, input, in_channels)
    model = DeepLabV3Plus(
        net,
        num_classes,
        normalisation,
        head_width,
        skip_width,
        rates,
        separable_convs,
        aux,
        dropout,
    )
    model.weights_report = report
    return model
