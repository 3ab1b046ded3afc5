"""PSPNet (Zhao et al., CVPR 2017), as the distillation papers use it and on any timm encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import (
    SegmentationModel,
    aux_is_wanted,
    check_training_batch,
    convolved_cells,
    level_taps,
)
from segdistill.models.files.released import PSPNET_KEYS, fold_inplace_abn
from segdistill.models.input import InputNormalisation, InputSetting, make_input
from segdistill.models.layers.auxiliary import AuxiliaryHead
from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise
from segdistill.models.layers.encoders import build_encoder
from segdistill.models.layers.pooling import adaptive_avg_pool
from segdistill.models.layers.resnet import BasicBlock, Bottleneck, DeepStemResNet, load_deep_stem
from segdistill.names import unknown

FORMS = ("skd", "mmseg")


class PyramidPooling(nn.Module):
    """Context from four grids: pool to 1, 2, 3, 6 bins, 1×1, resize back, join, 3×3 convolution.

    Section 3.2 of the paper. Every branch is as wide as the output (`PSPModule` of SKD), not a
    quarter of the input. In-place ABN with leaky ReLU 0.01 is written as batch norm and leaky ReLU.
    The form "mmseg" is mmsegmentation's: plain ReLU, the input joined before the branches, corners not
    aligned.

    Args:
        in_channels: Of the encoder's deepest level.
        out_channels: Of each branch and of the output.
        bins: Grid sizes.
        form: The released code that is followed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        form: str = "skd",
    ) -> None:
        super().__init__()
        self.bins, self.form = tuple(bins), form
        leaky = 0.01 if form == "skd" else 0.0
        self.priors = nn.ModuleList(
            conv_norm_act(in_channels, out_channels, leaky=leaky) for _ in self.bins
        )
        joined = in_channels + len(self.bins) * out_channels
        self.bottleneck = conv_norm_act(joined, out_channels, kernel=3, leaky=leaky)
        initialise(self)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        size = x.shape[-2:]
        maps = [
            F.interpolate(
                prior(adaptive_avg_pool(x, bins)),
                size,
                mode="bilinear",
                align_corners=self.form == "skd",
            )
            for bins, prior in zip(self.bins, self.priors, strict=True)
        ]
        joined = [*maps, x] if self.form == "skd" else [x, *maps]
        out: Tensor = self.bottleneck(torch.cat(joined, dim=1))
        return out


class PSPNet(SegmentationModel):
    """Encoder, pyramid pooling, classifier; deep supervision from the second-deepest level.

    Taps: `logits`; `features`, the pyramid's output; `features_released`, the same after the
    channel dropout, where the released code of SKD and IFVD reads it (in training it shifts
    distances between classes by several per cent, so it is not ours); `aux`, the auxiliary logits;
    `layer1`..`layer4`, the encoder's levels.

    Any height and width: maps are rounded up, so 512 gives 65 positions on the deep-stem ResNets.
    Logits are to be resized with `align_corners=True`.

    Args:
        encoder: Gives a list of levels and has `channels`, `reductions`, `levels`.
        num_classes: Channels of the logits.
        head_width: Of the pyramid's output (`features`); None for a quarter of the encoder's
            channels, at least 32.
        aux: Whether there is an auxiliary head. It runs in training, or when its tap is open.
        dropout: Share of whole channels dropped before the classifier in training.
        input: First operation.
        aux_width: Channels inside the auxiliary head; None for half of what it reads.
        form: The released code that pyramid and auxiliary head follow. With "mmseg" logits are to be resized
            with `align_corners=False`, and the auxiliary head is a quarter as wide as what it reads.
    """

    released_keys = PSPNET_KEYS

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int,
        head_width: int | None = None,
        aux: bool = True,
        dropout: float = 0.1,
        input: InputNormalisation | None = None,
        aux_width: int | None = None,
        form: str = "skd",
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(unknown("form of PSPNet", form, FORMS))
        channels: Any = encoder.channels
        width = max(32, channels[-1] // 4) if head_width is None else head_width
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = form == "skd", 1
        self.input = make_input("imagenet") if input is None else input
        self.encoder = encoder
        self.psp = PyramidPooling(channels[-1], width, form=form)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(width, num_classes)
        self.aux: nn.Module | None = None
        if aux:
            self.aux = AuxiliaryHead(channels[-2], num_classes, dropout, aux_width, form)
        self.taps = {"logits": "", "features": "psp", "features_released": "dropout"}
        if aux:
            self.taps["aux"] = "aux"
        levels: Any = encoder.levels
        self.taps |= level_taps(levels)
        if self.align_corners and getattr(encoder, "centred", False):
            reductions: Any = encoder.reductions
            self.cells = convolved_cells(self.taps, reductions)
            if aux:
                self.cells["aux"] = self.cells[f"layer{levels - 1}"]

    def released_values(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return fold_inplace_abn(state)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        levels = self.encoder(self.input(images))
        if self.aux is not None and aux_is_wanted(self, self.aux):
            self.aux(levels[-2])  # read by a hook on it
        logits: Tensor = self.classifier(self.dropout(self.psp(levels[-1])))
        return logits


def pspnet(
    num_classes: int,
    *,
    encoder: str | None = None,
    output_stride: int = 8,
    head_width: int | None = None,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
    in_channels: int = 3,
) -> PSPNet:
    """PSPNet on a timm encoder.

    `weights`, `input` and `in_channels` as for `build_encoder`, the rest as for `PSPNet`.
    """
    if encoder is None:
        raise ValueError("pspnet has no encoder; expected one of timm's, as in pspnet:resnet18")
    net, normalisation, report = build_encoder(encoder, output_stride, weights, input, in_channels)
    model = PSPNet(net, num_classes, head_width, aux, dropout, normalisation)
    model.weights_report = report
    return model


def pspnet_mobilenet_v2(
    num_classes: int,
    *,
    head_width: int = 48,
    aux_width: int = 64,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
) -> PSPNet:
    """PSPNet on MobileNetV2, output stride 8.

    2,152,470 parameters at 19 classes. The paper prints 2.15 M, and no source says how wide its heads
    are: the two widths here are one choice of many that come to that figure.
    """
    net, normalisation, report = build_encoder("mobilenetv2_100", 8, weights, input)
    model = PSPNet(net, num_classes, head_width, aux, dropout, normalisation, aux_width)
    model.weights_report = report
    return model


def pspnet_r18(
    num_classes: int,
    *,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
    form: str = "skd",
) -> PSPNet:
    """PSPNet on ResNet-18: the paper's student.

    13,068,262 parameters at 19 classes, 125.8 G multiply-adds at 512×1024.
    """
    encoder = DeepStemResNet(BasicBlock, (2, 2, 2, 2), form=form)
    return _paper_form(encoder, None, num_classes, aux, dropout, input, weights)


def pspnet_r18_half(
    num_classes: int,
    *,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
) -> PSPNet:
    """PSPNet on ResNet-18, every width halved: the paper's small student.

    3,271,686 parameters at 19 classes, 31.5 G multiply-adds at 512×1024.
    """
    encoder = DeepStemResNet(BasicBlock, (2, 2, 2, 2), width=32)
    return _paper_form(encoder, None, num_classes, aux, dropout, input, weights)


def pspnet_r50(
    num_classes: int,
    *,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
    form: str = "skd",
) -> PSPNet:
    """PSPNet on ResNet-50; not in the paper."""
    encoder = DeepStemResNet(Bottleneck, (3, 4, 6, 3), form=form)
    return _paper_form(encoder, "resnet50s", num_classes, aux, dropout, input, weights)


def pspnet_r101(
    num_classes: int,
    *,
    aux: bool = True,
    dropout: float = 0.1,
    input: InputSetting = None,
    weights: str | None = None,
    form: str = "skd",
) -> PSPNet:
    """PSPNet on ResNet-101: the paper's teacher.

    70,437,350 parameters at 19 classes, 574.9 G multiply-adds at 512×1024.
    """
    encoder = DeepStemResNet(Bottleneck, (3, 4, 23, 3), form=form)
    return _paper_form(encoder, "resnet101s", num_classes, aux, dropout, input, weights)


def _paper_form(
    encoder: DeepStemResNet,
    published: str | None,
    num_classes: int,
    aux: bool,
    dropout: float,
    input: InputSetting,
    weights: str | None,
) -> PSPNet:
    report = load_deep_stem(encoder, weights, published if encoder.form == "skd" else None)
    normalisation = make_input("imagenet" if input is None else input)
    model = PSPNet(encoder, num_classes, None, aux, dropout, normalisation, form=encoder.form)
    model.weights_report = report
    return model
