"""STDC-Seg (Fan et al., CVPR 2021, https://arxiv.org/abs/2104.13188): dense concatenations, decoder of BiSeNet."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel, aux_is_wanted, check_training_batch
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.aggregation import GlobalMean
from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise


def _nearest(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="nearest")


class DenseConcatenation(nn.Module):
    """Four convolutions in a row, each half as wide as the one before, side by side.

    Args:
        in_channels: Of the input.
        out_channels: Of the concatenation: a half, a quarter and two eighths.
        stride: 2: the first map is halved by a depthwise 3×3 for the others, and by a mean for itself.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.first = conv_norm_act(in_channels, half)
        self.halve: nn.Module = nn.Identity()
        self.mean: nn.Module = nn.Identity()
        if stride == 2:
            depthwise = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
            self.halve = nn.Sequential(depthwise, nn.BatchNorm2d(half))
            self.mean = nn.AvgPool2d(3, stride=2, padding=1)
        self.rest = nn.ModuleList(
            [
                conv_norm_act(half, half // 2, kernel=3),
                conv_norm_act(half // 2, half // 4, kernel=3),
                conv_norm_act(half // 4, half // 4, kernel=3),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        found, x = [self.mean(first)], self.halve(first)
        for convolution in self.rest:
            x = convolution(x)
            found.append(x)
        return torch.cat(found, 1)


class AttentionRefinement(nn.Module):
    """3×3 convolution, whose channels are weighed by what the whole map has of them (as in BiSeNet)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolve = conv_norm_act(in_channels, out_channels, kernel=3)
        self.weigh = nn.Sequential(
            GlobalMean(), *conv_norm_act(out_channels, out_channels)[:2], nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolve(x)
        weighed: Tensor = x * self.weigh(x)
        return weighed


class FeatureFusion(nn.Module):
    """Two maps side by side, joined by a 1×1; then more of the channels that the whole map has (as in BiSeNet)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.join = conv_norm_act(in_channels, out_channels)
        self.weigh = nn.Sequential(
            GlobalMean(),
            nn.Conv2d(out_channels, out_channels // 4, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels // 4, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = self.join(torch.cat([fine, coarse], 1))
        weighed: Tensor = x + x * self.weigh(x)
        return weighed


class STDC(SegmentationModel):
    """STDC-Seg as deployed by the authors; logits at stride 8.

    Their detail head, whose loss reads the edges of labels, is left out. Logits are to be resized with
    `align_corners=True`.

    Taps: `logits`; `features`, what the classifier reads, and `features_released`, the same, since there
    is no dropout; `context`, the joined context at stride 8; `layer1` to `layer3`, the levels at strides 8
    to 32; `aux` and `aux_coarse`, heads at strides 8 and 16, whose losses have the weights of the method
    (0.4; in the released code 1). Any height and width.

    Args:
        num_classes: Channels of the logits.
        layers: Modules at strides 8, 16 and 32; 2, 2, 2 is STDC1, and 4, 5, 3 is STDC2.
        width: Of the second convolution; 64 in the paper. The head and the context grow with it.
        aux: Whether there are auxiliary heads. They run in training, or when their taps are open.
        input: First operation.
    """

    def __init__(
        self, num_classes: int, layers: Sequence[int], width: int, aux: bool, input: InputSetting
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 1
        self.input = make_input("imagenet" if input is None else input)
        self.stem = nn.Sequential(
            conv_norm_act(self.in_channels, width // 2, kernel=3, stride=2),
            conv_norm_act(width // 2, width, kernel=3, stride=2),
        )
        channels = [width, 4 * width, 8 * width, 16 * width]
        self.layer1, self.layer2, self.layer3 = (
            _level(inside, out, count)
            for inside, out, count in zip(channels, channels[1:], layers, strict=False)
        )
        context = 2 * width
        self.whole = nn.Sequential(GlobalMean(), conv_norm_act(16 * width, context))
        self.refine16 = AttentionRefinement(8 * width, context)
        self.refine32 = AttentionRefinement(16 * width, context)
        self.smooth16 = conv_norm_act(context, context, kernel=3)
        self.context = conv_norm_act(context, context, kernel=3)
        self.fuse = FeatureFusion(4 * width + context, 4 * width)
        self.features = conv_norm_act(4 * width, 4 * width, kernel=3)
        initialise(self)
        self.classifier = _classifier(4 * width, num_classes)
        self.aux = _head(context, width, num_classes) if aux else None
        self.aux_coarse = _head(context, width, num_classes) if aux else None
        self.taps = {
            "logits": "",
            "features": "features",
            "features_released": "features",
            "context": "context",
            "layer1": "layer1",
            "layer2": "layer2",
            "layer3": "layer3",
        } | ({"aux": "aux", "aux_coarse": "aux_coarse"} if aux else {})
        # The nearest-neighbour steps after the third level leave cell i of stride 8 on its own pixels.
        self.cells = {tap: (8, 0) for tap in ("features", "features_released")}
        self.cells |= {f"layer{level}": (2 ** (level + 2), 0) for level in (1, 2, 3)}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        level8 = self.layer1(self.stem(self.input(images)))
        level16 = self.layer2(level8)
        level32 = self.layer3(level16)
        deep = self.refine32(level32) + self.whole(level32)
        deep = self.smooth16(_nearest(deep, level16))
        context = self.context(_nearest(self.refine16(level16) + deep, level8))
        for head, branch in ((self.aux, context), (self.aux_coarse, deep)):
            if head is not None and aux_is_wanted(self, head):
                head(branch)  # read by a hook on it
        logits: Tensor = self.classifier(self.features(self.fuse(level8, context)))
        return logits


def _level(inside: int, out: int, modules: int) -> nn.Sequential:
    first = DenseConcatenation(inside, out, stride=2)
    return nn.Sequential(first, *(DenseConcatenation(out, out, 1) for _ in range(modules - 1)))


def _head(channels: int, width: int, num_classes: int) -> nn.Sequential:
    features = conv_norm_act(channels, width, kernel=3)
    initialise(features)
    return nn.Sequential(features, _classifier(width, num_classes))


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """As `classifier`, without bias, as released."""
    layer = classifier(channels, num_classes)
    layer.bias = None
    return layer


def stdc1(
    num_classes: int,
    *,
    layers: Sequence[int] = (2, 2, 2),
    width: int = 64,
    aux: bool = True,
    input: InputSetting = None,
) -> STDC:
    """STDC1-Seg; `layers=(4, 5, 3)` makes it STDC2-Seg. Without pretrained weights."""
    return STDC(num_classes, layers, width, aux, input)
