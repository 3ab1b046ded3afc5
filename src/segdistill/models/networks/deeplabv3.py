"""DeepLabV3 (Chen et al., 2017) on the dilated deep-stem ResNet."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import (
    SegmentationModel,
    aux_is_wanted,
    check_training_batch,
    convolved_cells,
    level_taps,
)
from segdistill.models.files.released import DEEPLABV3_KEYS
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.atrous import AtrousPyramid
from segdistill.models.layers.auxiliary import AuxiliaryHead
from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise
from segdistill.models.layers.resnet import BasicBlock, Bottleneck, DeepStemResNet, load_deep_stem
from segdistill.names import unknown

FORMS = ("cirkd", "mmseg")
RATES = (12, 24, 36)


class JoinedPyramid(AtrousPyramid):
    """The pyramid of mmsegmentation (`ASPPHead`): the image's mean comes first, and a 3×3 joins."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__(in_channels, width, RATES, separable_convs=False)
        self.project = conv_norm_act((2 + len(RATES)) * width, width, kernel=3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        image = self.image(x.mean((-2, -1), keepdim=True))
        maps = [self.point(x), *(branch(x) for branch in self.dilated)]
        out: Tensor = self.project(torch.cat([image.expand_as(maps[0]), *maps], dim=1))
        return out


class DeepLabV3(SegmentationModel):
    """Encoder at stride 8, ASPP 512 wide with rates 12, 24, 36, a 3×3, classifier.

    The distillation papers train this network without defining it. This is the one that CIRKD released
    and DIST, MasKD and Af-DCD compare on: 512 channels (the paper by Chen has 256), dropout 0.5 after the
    pyramid, and an auxiliary head a quarter as wide as its level.

    Taps: `logits`; `features`, the 3×3's output; `features_released`, the same after the dropout;
    `context`, the pyramid's output; `aux`, the auxiliary logits; `layer1`..`layer4`.

    The form "mmseg" is mmsegmentation's: one 3×3 joins the pyramid's branches (a quarter as wide as the
    encoder, 512 or 128 channels), so that `context` is `features`; logits are to be resized with
    `align_corners=False`.

    Any height and width. Logits are to be resized with `align_corners=True`.

    Args:
        encoder: The deep-stem ResNet, whose form is the network's: "cirkd" or "mmseg".
        num_classes: Channels of the logits.
        aux: Whether there is an auxiliary head. It runs in training, or when its tap is open.
        input: First operation.
    """

    released_keys = DEEPLABV3_KEYS

    def __init__(
        self,
        encoder: DeepStemResNet,
        num_classes: int,
        aux: bool = True,
        input: InputSetting = None,
    ) -> None:
        super().__init__()
        if encoder.form not in FORMS:
            raise ValueError(unknown("form of DeepLabV3", encoder.form, FORMS))
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = encoder.form == "cirkd", 1
        self.input = make_input("imagenet" if input is None else input)
        self.encoder = encoder
        width = 512 if encoder.form == "cirkd" else encoder.channels[-1] // 4
        self.aspp: nn.Module
        self.block: nn.Module
        if encoder.form == "cirkd":
            self.aspp = AtrousPyramid(encoder.channels[-1], width, RATES, separable_convs=False)
            self.context_dropout: nn.Module = nn.Dropout(0.5)
            self.block = conv_norm_act(width, width, kernel=3)
        else:
            self.aspp = JoinedPyramid(encoder.channels[-1], width)
            self.context_dropout, self.block = nn.Identity(), nn.Identity()
        for part in (self.aspp, self.block):
            initialise(part)
        self.dropout = nn.Dropout(0.1)
        self.classifier = classifier(width, num_classes)
        self.aux = AuxiliaryHead(encoder.channels[-2], num_classes, form="cirkd") if aux else None
        self.taps = {
            "logits": "",
            "features": "block",
            "features_released": "dropout",
            "context": "aspp",
        }
        if aux:
            self.taps["aux"] = "aux"
        self.taps |= level_taps(encoder.levels)
        if self.align_corners:
            self.cells = convolved_cells(self.taps, encoder.reductions)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        levels = self.encoder(self.input(images))
        if self.aux is not None and aux_is_wanted(self, self.aux):
            self.aux(levels[-2])  # read by a hook on it
        features = self.block(self.context_dropout(self.aspp(levels[-1])))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


def deeplabv3_r18(
    num_classes: int,
    *,
    aux: bool = True,
    input: InputSetting = None,
    weights: str | None = None,
    form: str = "cirkd",
) -> DeepLabV3:
    """DeepLabV3 on ResNet-18: CIRKD's student.

    22,762,918 parameters at 19 classes, 202.7 G multiply-adds at 512×1024.
    """
    return _on_resnet(BasicBlock, (2, 2, 2, 2), None, num_classes, aux, input, weights, form)


def deeplabv3_r50(
    num_classes: int,
    *,
    aux: bool = True,
    input: InputSetting = None,
    weights: str | None = None,
    form: str = "cirkd",
) -> DeepLabV3:
    """DeepLabV3 on ResNet-50, in CIRKD's form or, for its files, mmsegmentation's."""
    return _on_resnet(Bottleneck, (3, 4, 6, 3), "resnet50s", num_classes, aux, input, weights, form)


def deeplabv3_r101(
    num_classes: int,
    *,
    aux: bool = True,
    input: InputSetting = None,
    weights: str | None = None,
    form: str = "cirkd",
) -> DeepLabV3:
    """DeepLabV3 on ResNet-101: CIRKD's teacher.

    79,084,262 parameters at 19 classes, 658.7 G multiply-adds at 512×1024.
    """
    return _on_resnet(
        Bottleneck, (3, 4, 23, 3), "resnet101s", num_classes, aux, input, weights, form
    )


def _on_resnet(
    block: type[BasicBlock] | type[Bottleneck],
    layers: Sequence[int],
    published: str | None,
    num_classes: int,
    aux: bool,
    input: InputSetting,
    weights: str | None,
    form: str,
) -> DeepLabV3:
    encoder = DeepStemResNet(block, layers, form=form)
    report = load_deep_stem(encoder, weights, published if form == "cirkd" else None)
    model = DeepLabV3(encoder, num_classes, aux, input)
    model.weights_report = report
    return model
