"""ESPNetv2 (Mehta et al., CVPR 2019) with the light decoder of its authors' segmentation files."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import gcd
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel
from segdistill.models.files.weights import KeyRules, further_outputs
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.convolution import classifier
from segdistill.models.layers.pooling import adaptive_avg_pool, adaptive_avg_pool_near
from segdistill.names import unknown

# Channels at strides 2, 4, 8, 16.
WIDTHS: dict[float, tuple[int, int, int, int]] = {
    0.5: (16, 32, 64, 128),
    1.0: (32, 64, 128, 256),
    1.5: (32, 96, 192, 384),
    2.0: (32, 128, 256, 512),
}
_DECODER = (64, 48, 32)

# Names in the released files -> ours; see `SegmentationModel.released_keys`.
_KEYS: KeyRules = (
    # A block that halves the size has this activation in the file, and its authors never call it.
    (r"^.*_0\.eesp\.module_act\..*", ""),
    (r"^base_net\.level1\.conv", "stem.0"),
    (r"^base_net\.level1\.bn", "stem.1"),
    (r"^base_net\.level1\.act", "stem.2"),
    (r"^base_net\.level([234])_0\.eesp", r"down\1.context"),
    (r"^base_net\.level([234])_0", r"down\1"),
    (r"^base_net\.", ""),
    (r"inp_reinf\.0\.conv", "image.0"),
    (r"inp_reinf\.0\.bn", "image.1"),
    (r"inp_reinf\.0\.act", "image.2"),
    (r"inp_reinf\.1\.conv", "image.3"),
    (r"inp_reinf\.1\.bn", "image.4"),
    (r"proj_1x1\.conv", "reduce.0"),
    (r"proj_1x1\.bn", "reduce.1"),
    (r"proj_1x1\.act", "reduce.2"),
    (r"spp_dw\.(\d)\.conv", r"branches.\1"),
    (r"br_after_cat\.bn", "norm.0"),
    (r"br_after_cat\.act", "norm.1"),
    (r"conv_1x1_exp\.conv", "expand.0"),
    (r"conv_1x1_exp\.bn", "expand.1"),
    (r"module_act", "act"),
    (r"^bu_dec_l4\.merge_layer\.3", "classifier"),
    (r"^bu_dec_l([1234])", r"pyramid\1"),
    (r"projection_layer\.cbr", "reduce"),
    (r"merge_layer\.0\.br", "norm"),
    (r"merge_layer\.2\.cbr", "merge"),
    (r"merge_layer\.3", "expand.0"),
    (r"\bbr\.br\.0", "expand.1"),
    (r"\bbr\.br\.1", "expand.2"),
    (r"^merge_enc_dec_l([234])\.wt_layer\.1", r"skip\1.gate"),
    (r"^merge_enc_dec_l([234])\.expansion_layer\.cbr", r"skip\1.expand"),
    (r"^bu_br_l([234])", r"join\1"),
)


def _norm_act(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.PReLU(channels)]


def _conv(
    inside: int, out: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inside, out, kernel, stride, padding, dilation, groups, bias=False)


def _half(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1)


class DepthwisePyramid(nn.Module):
    """EESP unit: reduce to a quarter, four depthwise 3×3, running sums, join, expand.

    Args:
        in_channels: Channels.
        out_channels: A multiple of 4.
        dilations: Of the four branches.
        stride: With 1 the input is added and an activation follows; with 2 neither.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilations: Sequence[int], stride: int = 1
    ) -> None:
        super().__init__()
        width = out_channels // 4
        self.reduce = nn.Sequential(_conv(in_channels, width, groups=4), *_norm_act(width))
        self.branches = nn.ModuleList(
            _conv(width, width, 3, stride, dilation, groups=width) for dilation in dilations
        )
        self.norm = nn.Sequential(*_norm_act(out_channels))
        self.expand = nn.Sequential(
            _conv(out_channels, out_channels, groups=4), nn.BatchNorm2d(out_channels)
        )
        self.act = nn.PReLU(out_channels) if stride == 1 else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        reduced = self.reduce(x)
        joined = torch.cat(list(accumulate(branch(reduced) for branch in self.branches)), dim=1)
        out: Tensor = self.expand(self.norm(joined))
        return out if self.act is None else self.act(out + x)


class Down(nn.Module):
    """Halves the size: the mean and an EESP unit side by side, the shrunken image added."""

    def __init__(self, in_channels: int, out_channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.context = DepthwisePyramid(in_channels, out_channels - in_channels, dilations, 2)
        self.image = nn.Sequential(
            _conv(3, 3, 3), *_norm_act(3), _conv(3, out_channels), nn.BatchNorm2d(out_channels)
        )
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        joined = torch.cat([_half(x), self.context(x)], dim=1)
        out: Tensor = self.act(joined + self.image(image))
        return out


class ScalePyramid(nn.Module):
    """Efficient pyramid pooling: depthwise 3×3 on the map at 2, 1.5, 1, 0.5 and 0.1 of its size.

    Args:
        in_channels: Channels.
        width: To which the map is reduced first; all five branches have it.
        out_channels: Of a last 1×1; None to leave that to a classifier.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int | None) -> None:
        super().__init__()
        self.width = width
        self.reduce = nn.Sequential(_conv(in_channels, width), *_norm_act(width))
        self.stages = nn.ModuleList(_conv(width, width, 3, groups=width) for _ in range(5))
        self.norm = nn.Sequential(*_norm_act(5 * width))
        self.merge = nn.Sequential(_conv(5 * width, width, 3, groups=width), *_norm_act(width))
        self.expand: nn.Module = nn.Identity()
        if out_channels is not None:
            self.expand = nn.Sequential(_conv(width, out_channels), *_norm_act(out_channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        x = self.reduce(x)
        height, width = x.shape[-2:]
        size = (height, width)
        double, more, same, half, tenth = self.stages
        # Sizes are rounded up, in whole numbers: an exporter follows those.
        larger = _resize(x, ((3 * height + 1) // 2, (3 * width + 1) // 2))
        smaller = (_at_least_5((height + 1) // 2), _at_least_5((width + 1) // 2))
        smallest = (_at_least_5((height + 9) // 10), _at_least_5((width + 9) // 10))
        maps = [
            F.avg_pool2d(double(_resize(x, (2 * height, 2 * width))), 2),
            adaptive_avg_pool_near(more(larger), size, widest=3),
            same(x),
            _resize(half(adaptive_avg_pool_near(x, smaller, widest=3)), size),
            _resize(tenth(adaptive_avg_pool(x, smallest)), size),
        ]
        joined = self.norm(torch.cat(maps, dim=1))
        # Channel by channel, so that a group of the next convolution has one of each scale.
        shuffled = joined.unflatten(1, (5, self.width)).transpose(1, 2).flatten(1, 2)
        out: Tensor = self.expand(self.merge(shuffled))
        return out


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _at_least_5(size: int) -> int:
    return cast(int, torch.sym_max(size, 5))


class GatedSkip(nn.Module):
    """A grouped 3×3 on an encoder level, each channel weighed by the level's mean."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate = _conv(in_channels, out_channels)
        self.expand = nn.Sequential(
            _conv(in_channels, out_channels, 3, groups=gcd(in_channels, out_channels)),
            *_norm_act(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x.mean((-2, -1), keepdim=True)))
        out: Tensor = self.expand(x) * gate
        return out


class ESPNetv2(SegmentationModel):
    """ESPNetv2; logits at stride 2.

    As in the authors' EdgeNets: the encoder up to stride 16, then pyramid pooling at strides 16, 8, 4
    and 2. They resize the logits to the image inside, which is left to the reader of the logits here.
    Convolutions start from Kaiming's normal over the fan-out, as there, but for the classifier (N(0,
    0.01²)). Three activations that their code builds and never calls are left out. The pyramids work on
    half as many channels as there are outputs, at most 16, as there, and on 4 at least, not on one.

    Taps: `logits`; `features`, the last pyramid's output at stride 2 (no dropout: `features_released`
    is the same); `context`, the encoder's output at stride 16.

    Any height and width. Logits are to be resized with `align_corners=True`.

    Args:
        num_classes: Channels of the logits.
        width: 0.5, 1.0, 1.5 or 2.0.
        extra_outputs: Channels that the weights have after the classes, for void or background; computed,
            and cut off from the logits.
        input: First operation.
    """

    released_keys = _KEYS

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        extra_outputs: int = 0,
        input: InputSetting = None,
    ) -> None:
        super().__init__()
        if width not in WIDTHS:
            raise ValueError(unknown("width of espnetv2", str(width), [str(w) for w in WIDTHS]))
        c2, c4, c8, c16 = WIDTHS[width]
        d16, d8, d4 = _DECODER
        outputs = num_classes + extra_outputs
        narrow = max(4, min(outputs // 2, 16))
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 1
        self.input = make_input("imagenet" if input is None else input)
        wide, middle = (1, 2, 3, 4), (1, 1, 2, 3)
        self.stem = nn.Sequential(_conv(3, c2, 3, stride=2), *_norm_act(c2))
        self.down2 = Down(c2, c4, wide)
        self.down3 = Down(c4, c8, wide)
        self.level3 = nn.Sequential(*(DepthwisePyramid(c8, c8, wide) for _ in range(3)))
        self.down4 = Down(c8, c16, wide)
        self.level4 = nn.Sequential(*(DepthwisePyramid(c16, c16, middle) for _ in range(7)))
        self.pyramid1 = ScalePyramid(c16, narrow, d16)
        self.skip2, self.join2 = GatedSkip(c8, d16), nn.Sequential(*_norm_act(d16))
        self.pyramid2 = ScalePyramid(d16, narrow, d8)
        self.skip3, self.join3 = GatedSkip(c4, d8), nn.Sequential(*_norm_act(d8))
        self.pyramid3 = ScalePyramid(d8, narrow, d4)
        self.skip4, self.join4 = GatedSkip(c2, d4), nn.Sequential(*_norm_act(d4))
        self.pyramid4 = ScalePyramid(d4, narrow, None)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        self.classifier = classifier(narrow, outputs)
        self.taps = {
            "logits": "",
            "features": "pyramid4",
            "features_released": "pyramid4",
            "context": "level4",
        }

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        image = self.input(images)
        x2 = self.stem(image)
        image = _half(_half(image))
        x4 = self.down2(x2, image)
        image = _half(image)
        x8 = self.level3(self.down3(x4, image))
        x16 = self.level4(self.down4(x8, _half(image)))
        x = self._joined(self.pyramid1(x16), self.skip2(x8), self.join2)
        x = self._joined(self.pyramid2(x), self.skip3(x4), self.join3)
        x = self._joined(self.pyramid3(x), self.skip4(x2), self.join4)
        logits: Tensor = self.classifier(self.pyramid4(x))
        return logits[:, : self.num_classes]

    def _joined(self, deep: Tensor, skip: Tensor, join: nn.Module) -> Tensor:
        out: Tensor = join(skip + _resize(deep, (skip.shape[-2], skip.shape[-1])))
        return out


def espnetv2(
    num_classes: int,
    *,
    width: float = 1.0,
    extra_outputs: int = 0,
    input: InputSetting = None,
) -> ESPNetv2:
    """ESPNetv2 at one of its four widths.

    Not in the paper; its trained files make real teacher and student pairs.
    """
    return ESPNetv2(num_classes, width, extra_outputs, input)


def released_options(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Any]:
    """What a file of the authors settles: width, further outputs. Nothing for a file in other names.

    Raises:
        ValueError: The file has another number of classes.
    """
    if "bu_dec_l4.merge_layer.3.bias" not in state:
        return {}
    channels = len(state["base_net.level2_0.act.weight"])
    return {
        "width": next(width for width, levels in WIDTHS.items() if levels[1] == channels),
        "extra_outputs": further_outputs(len(state["bu_dec_l4.merge_layer.3.bias"]), num_classes),
    }
