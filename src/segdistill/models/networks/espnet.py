"""ESPNet and its encoder, ESPNet-C (Mehta et al., ECCV 2018)."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel
from segdistill.models.files.weights import KeyRules, further_outputs
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.padding import pad_to_multiple

# Names in the released files -> ours; see `SegmentationModel.released_keys`.
_ENCODER_KEYS: KeyRules = (
    (r"\blevel1\.conv", "stem.0"),
    (r"\blevel1\.bn", "stem.1"),
    (r"\blevel1\.act", "stem.2"),
    (r"\bb([123])\.bn", r"join\1.0"),
    (r"\bb([123])\.act", r"join\1.1"),
    (r"\blevel([23])_0\.bn", r"down\1.norm"),
    (r"\blevel([23])_0\.", r"down\1."),
    (r"\bc1\.conv", "reduce"),
    *((rf"\bd{2**i}\.conv", f"branches.{i}") for i in range(5)),
    (r"\bbn\.bn", "norm"),
    (r"\bbn\.act", "act"),
    (r"classifier\.conv", "classifier"),
)
_DECODER_KEYS: KeyRules = (
    (r"^br\.", "up3.0."),
    (r"^up_l3\.0", "up3.1"),
    (r"^level3_C\.conv", "skip"),
    (r"^combine_l2_l3\.0\.bn", "merge.0"),
    (r"^combine_l2_l3\.0\.act", "merge.1"),
    (r"^combine_l2_l3\.1\.", "merge.2."),
    (r"^up_l2\.0", "up2.0"),
    (r"^up_l2\.1\.bn", "up2.1"),
    (r"^up_l2\.1\.act", "up2.2"),
    (r"^conv\.conv", "fuse.0"),
    (r"^conv\.bn", "fuse.1"),
    (r"^conv\.act", "fuse.2"),
)


def _conv(inside: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inside, out, kernel, stride, padding, dilation, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _norm_act(channels: int) -> list[nn.Module]:
    return [_norm(channels), nn.PReLU(channels)]


def _double(inside: int, out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inside, out, 2, stride=2, bias=False)


class SpatialPyramid(nn.Module):
    """ESP block: reduce to a fifth, five 3×3 of dilation 1 to 16, sums over the dilated ones, join.

    Args:
        in_channels: Channels.
        out_channels: At least 5.
        stride: 2 reduces with a strided 3×3, 1 with a 1×1.
        residual: Add the input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, residual: bool = True
    ) -> None:
        super().__init__()
        width = out_channels // 5
        self.residual = residual
        self.reduce = _conv(in_channels, width, 3 if stride == 2 else 1, stride)
        self.branches = nn.ModuleList(
            _conv(width, out_channels - 4 * width if i == 0 else width, 3, dilation=2**i)
            for i in range(5)
        )
        self.norm, self.act = _norm(out_channels), nn.PReLU(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        reduced = self.reduce(x)
        first, *dilated = (branch(reduced) for branch in self.branches)
        # The running sums are what keeps dilated convolutions from leaving a grid.
        joined = torch.cat([first, *accumulate(dilated)], dim=1)
        out: Tensor = self.act(self.norm(x + joined if self.residual else joined))
        return out


class ESPNetEncoder(nn.Module):
    """Strides 2, 4, 8, the shrunken image joined in at 2 and 4; then a 1×1 classifier.

    Args:
        outputs: Channels of the classifier.
        depth: ESP blocks at stride 4 and at stride 8.
    """

    def __init__(self, outputs: int, depth: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, 3, stride=2), *_norm_act(16))
        self.join1 = nn.Sequential(*_norm_act(16 + 3))
        self.down2 = SpatialPyramid(16 + 3, 64, stride=2, residual=False)
        self.level2 = nn.Sequential(*(SpatialPyramid(64, 64) for _ in range(depth[0])))
        self.join2 = nn.Sequential(*_norm_act(128 + 3))
        self.down3 = SpatialPyramid(128 + 3, 128, stride=2, residual=False)
        self.level3 = nn.Sequential(*(SpatialPyramid(128, 128) for _ in range(depth[1])))
        self.join3 = nn.Sequential(*_norm_act(256))
        self.classifier = nn.Conv2d(256, outputs, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stride 2 without and with the image (16, 19 channels), stride 4 (131), scores at stride 8."""
        half = F.avg_pool2d(x, 3, stride=2, padding=1)
        quarter = F.avg_pool2d(half, 3, stride=2, padding=1)
        stem = self.stem(x)
        level1 = self.join1(torch.cat([stem, half], dim=1))
        level2 = self.down2(level1)
        level2 = self.join2(torch.cat([self.level2(level2), level2, quarter], dim=1))
        level3 = self.down3(level2)
        level3 = self.join3(torch.cat([level3, self.level3(level3)], dim=1))
        return stem, level1, level2, self.classifier(level3)


class ESPNet(SegmentationModel):
    """ESPNet; logits at the size of the image.

    As released by its authors, default initialisation of torch included. As in the released code of
    SKD, which the paper's figures stem from, a student learns from its teacher at the encoder's
    classifier, at stride 8 (`logits_distilled`), and from the labels at its output.

    Taps: `logits`; `logits_distilled`; `features`, the 256 channels at stride 8 before the encoder's
    classifier (no dropout: `features_released` is the same).

    Any height and width: what is no multiple of 8 is padded inside, and the logits are cut back.

    Args:
        num_classes: Channels of the logits.
        depth: ESP blocks at strides 4 and 8: the paper's p and q.
        image_skip: Join the image at stride 2 into the last fusion, too (the code as released, which the
            published counts fit); the authors' Cityscapes files are without.
        extra_outputs: Channels that the weights have after the classes, for void or background; computed,
            and cut off from all logits.
        input: First operation.
    """

    released_keys = (*_ENCODER_KEYS, *_DECODER_KEYS)

    def __init__(
        self,
        num_classes: int,
        depth: tuple[int, int] = (2, 8),
        image_skip: bool = True,
        extra_outputs: int = 0,
        input: InputSetting = None,
    ) -> None:
        super().__init__()
        outputs = num_classes + extra_outputs
        # An ESP block cannot be narrower than its five branches.
        width = max(outputs, 5)
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 8
        self.input = make_input("imagenet" if input is None else input)
        self.image_skip = image_skip
        self.encoder = ESPNetEncoder(outputs, depth)
        self.stride8 = nn.Identity()
        self.up3 = nn.Sequential(_norm(outputs), _double(outputs, width))
        self.skip = _conv(128 + 3, width, 1)
        self.merge = nn.Sequential(
            *_norm_act(2 * width), SpatialPyramid(2 * width, width, residual=False)
        )
        self.up2 = nn.Sequential(_double(width, width), *_norm_act(width))
        self.fuse = nn.Sequential(
            _conv(width + 16 + (3 if image_skip else 0), width, 3), *_norm_act(width)
        )
        self.classifier = _double(width, outputs)
        self.taps = {
            "logits": "",
            "logits_distilled": "stride8",
            "features": "encoder.join3",
            "features_released": "encoder.join3",
        }
        self.cells = {tap: (8, 0) for tap in self.taps if tap != "logits"}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        height, width = images.shape[-2:]
        x = pad_to_multiple(self.input(images), 8)
        stem, level1, level2, scores = self.encoder(x)
        self.stride8(scores[:, : self.num_classes])  # read by a hook on it
        x = torch.cat([self.skip(level2), self.up3(scores)], dim=1)
        x = torch.cat([self.up2(self.merge(x)), level1 if self.image_skip else stem], dim=1)
        logits: Tensor = self.classifier(self.fuse(x))
        return logits[:, : self.num_classes, :height, :width]


class ESPNetC(SegmentationModel):
    """ESPNet's encoder with its own classifier; logits at stride 8.

    Taps: `logits`; `features`, the 256 channels before the classifier (no dropout:
    `features_released` is the same). Any height and width.

    Args:
        num_classes, depth, extra_outputs, input: See `ESPNet`.
    """

    released_keys = (*_ENCODER_KEYS, (r"^", "encoder."))

    def __init__(
        self,
        num_classes: int,
        depth: tuple[int, int] = (2, 8),
        extra_outputs: int = 0,
        input: InputSetting = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 1
        self.input = make_input("imagenet" if input is None else input)
        self.encoder = ESPNetEncoder(num_classes + extra_outputs, depth)
        self.taps = {
            "logits": "",
            "features": "encoder.join3",
            "features_released": "encoder.join3",
        }
        self.cells = {tap: (8, 0) for tap in self.taps if tap != "logits"}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        logits: Tensor = self.encoder(self.input(images))[-1]
        return logits[:, : self.num_classes]


def espnet(
    num_classes: int,
    *,
    depth: Sequence[int] = (2, 8),
    image_skip: bool = True,
    extra_outputs: int = 0,
    input: InputSetting = None,
) -> ESPNet:
    """The paper's ESPNet student.

    363,462 parameters at 19 classes, 4.422 G multiply-adds at 512×1024.
    """
    return ESPNet(num_classes, _pair(depth), image_skip, extra_outputs, input)


def espnet_c(
    num_classes: int,
    *,
    depth: Sequence[int] = (2, 8),
    extra_outputs: int = 0,
    input: InputSetting = None,
) -> ESPNetC:
    """ESPNet's encoder alone.

    349,193 parameters at 19 classes, 3.468 G multiply-adds at 512×1024.
    """
    return ESPNetC(num_classes, _pair(depth), extra_outputs, input)


def _pair(depth: Sequence[int]) -> tuple[int, int]:
    if len(depth) != 2 or min(depth) < 1:
        raise ValueError(f"depth is {depth!r}; expected two positive integers, such as [2, 8]")
    return depth[0], depth[1]


def released_options(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Any]:
    """What a file of the authors settles: depth, last layer, further outputs, normalisation.

    Nothing for a file in other names. 12 outputs are CamVid's file, the others are Cityscapes'; both
    read BGR, (255 x - mean) / std / 255, each with the statistics of its own training images.

    Raises:
        ValueError: The file has another number of classes.
    """
    prefix = "encoder." if "encoder.level1.conv.weight" in state else ""
    if f"{prefix}level1.conv.weight" not in state:
        return {}
    outputs = len(state[f"{prefix}classifier.conv.weight"])
    options: dict[str, Any] = {
        "depth": [
            sum(key.startswith(f"{prefix}level{level}.") and "c1." in key for key in state)
            for level in (2, 3)
        ],
        "extra_outputs": further_outputs(outputs, num_classes),
        "input": "espnet_camvid" if outputs == 12 else "espnet_cityscapes",
    }
    if prefix:
        options["image_skip"] = state["conv.conv.weight"].shape[1] == outputs + 19
    return options
