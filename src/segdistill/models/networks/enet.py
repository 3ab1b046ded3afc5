"""ENet (Paszke et al., 2016)."""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.padding import pad_to_multiple

_ROUNDING = 1e-5


def pool_places(
    x: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c h2 w2"], Int64[Tensor, "b c h2 w2"]]:
    """The greatest value of each 2×2 cell and its place in it, 0 to 3; height and width are even.

    Values that rounding alone tells apart count as equal, and the first of them as the greatest. The
    overlapping max-pool before it makes such ties common, and left to rounding they would put 2 % of
    the labels elsewhere in another runtime or precision.
    """
    batch, channels, height, width = x.shape
    cells = F.pixel_unshuffle(x, 2).view(batch, channels, 4, height // 2, width // 2)
    values = cells.amax(2)
    greatest = cells >= (values - _ROUNDING * (1 + values.abs())).unsqueeze(2)
    return values, greatest.to(torch.uint8).argmax(2)


def unpool(
    x: Float[Tensor, "b c h w"], places: Int64[Tensor, "b c h w"]
) -> Float[Tensor, "b c h2 w2"]:
    """Each value at its place in a 2×2 cell of zeros: `max_unpool2d`, which exporters refuse."""
    cells = torch.zeros_like(x).unsqueeze(2).repeat(1, 1, 4, 1, 1)
    cells = cells.scatter(2, places.unsqueeze(2), x.unsqueeze(2))
    return F.pixel_shuffle(cells.flatten(1, 2), 2)


class Bottleneck(nn.Module):
    """Convolutions in a row, added to a shortcut; batch norm and an activation after each.

    Args:
        convolutions: The first reduces the channels, the last expands them.
        dropout: Share of whole channels dropped before the sum.
        relu: ReLU, as in the decoder; else PReLU of one slope, here and after the sum.
    """

    def __init__(
        self,
        convolutions: Sequence[nn.Conv2d | nn.ConvTranspose2d],
        dropout: float,
        relu: bool = False,
    ) -> None:
        super().__init__()
        act: type[nn.Module] = nn.ReLU if relu else nn.PReLU
        steps = [[conv, nn.BatchNorm2d(conv.out_channels), act()] for conv in convolutions]
        self.body = nn.Sequential(*chain(*steps), nn.Dropout2d(dropout))
        self.act = act()

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        out: Tensor = self.act(shortcut + self.body(x))
        return out


def _conv(inside: int, out: int, kernel: int | tuple[int, int] = 1, dilation: int = 1) -> nn.Conv2d:
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (rows // 2), dilation * (columns // 2))
    return nn.Conv2d(inside, out, (rows, columns), padding=padding, dilation=dilation, bias=False)


class Regular(nn.Module):
    """A bottleneck that keeps size and channels: 3×3, dilated 3×3, or 5×1 and 1×5."""

    def __init__(
        self,
        channels: int,
        dropout: float,
        dilation: int = 1,
        asymmetric: bool = False,
        relu: bool = False,
    ) -> None:
        super().__init__()
        width = channels // 4
        middle = (
            [_conv(width, width, (5, 1)), _conv(width, width, (1, 5))]
            if asymmetric
            else [_conv(width, width, 3, dilation)]
        )
        layers = [_conv(channels, width), *middle, _conv(width, channels)]
        self.block = Bottleneck(layers, dropout, relu)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x, x)
        return out


class Down(nn.Module):
    """Halves the size; the shortcut is max-pooled and filled up with channels of zeros."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        width = in_channels // 4
        self.missing = out_channels - in_channels
        shrink = nn.Conv2d(in_channels, width, 2, stride=2, bias=False)
        layers = [shrink, _conv(width, width, 3), _conv(width, out_channels)]
        self.block = Bottleneck(layers, dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, places = pool_places(x)
        return self.block(x, F.pad(values, (0, 0, 0, 0, 0, self.missing))), places


class Up(nn.Module):
    """Doubles the size; the shortcut goes back to the places that `Down` took its values from."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        width = in_channels // 4
        self.shortcut = nn.Sequential(
            _conv(in_channels, out_channels), nn.BatchNorm2d(out_channels)
        )
        grow = nn.ConvTranspose2d(width, width, 2, stride=2, bias=False)
        layers: list[nn.Conv2d | nn.ConvTranspose2d] = [_conv(in_channels, width), grow]
        layers.append(_conv(width, out_channels))
        self.block = Bottleneck(layers, dropout, relu=True)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        out: Tensor = self.block(x, unpool(self.shortcut(x), places))
        return out


def _context() -> list[nn.Module]:
    """Stages 2 and 3 of the paper's table, without the downsampling."""
    blocks: list[nn.Module] = []
    for dilation in (2, 8):
        blocks += [
            Regular(128, 0.1),
            Regular(128, 0.1, dilation=dilation),
            Regular(128, 0.1, asymmetric=True),
            Regular(128, 0.1, dilation=2 * dilation),
        ]
    return blocks


class ENet(SegmentationModel):
    """ENet; logits at the size of the image.

    In the form of PyTorch-ENet (davidtvs), which the published multiply-adds fit: PReLU in the encoder,
    ReLU in the decoder, an activation after the expansion, 3×3 max-pool in the first block. Default
    initialisation of torch, as there.

    Taps: `logits`; `features`, the 16 channels at stride 2 before the last transposed convolution (no
    dropout between them: `features_released` is the same); `context`, the encoder's output at stride 8.

    Any height and width: what is no multiple of 8 is padded inside, and the logits are cut back.

    Args:
        num_classes: Channels of the logits.
        input: First operation.
    """

    def __init__(self, num_classes: int, input: InputSetting = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 8
        self.input = make_input("imagenet" if input is None else input)
        self.stem = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.stem_norm, self.stem_act = nn.BatchNorm2d(16), nn.PReLU()
        self.down1 = Down(16, 64, 0.01)
        self.stage1 = nn.Sequential(*(Regular(64, 0.01) for _ in range(4)))
        self.down2 = Down(64, 128, 0.1)
        self.context = nn.Sequential(*_context(), *_context())
        self.up2 = Up(128, 64, 0.1)
        self.stage4 = nn.Sequential(*(Regular(64, 0.1, relu=True) for _ in range(2)))
        self.up1 = Up(64, 16, 0.1)
        self.stage5 = Regular(16, 0.1, relu=True)
        self.classifier = nn.ConvTranspose2d(
            16, num_classes, 3, stride=2, padding=1, output_padding=1, bias=False
        )
        self.taps = {
            "logits": "",
            "features": "stage5",
            "features_released": "stage5",
            "context": "context",
        }
        # A 3×3 at stride 2 is centred on even pixels, each 2×2 at stride 2 between two of its input.
        self.cells = {"features": (2, 0), "features_released": (2, 0), "context": (8, 3)}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        height, width = images.shape[-2:]
        x = pad_to_multiple(self.input(images), 8)
        x = torch.cat([self.stem(x), F.max_pool2d(x, 3, stride=2, padding=1)], dim=1)
        x, places1 = self.down1(self.stem_act(self.stem_norm(x)))
        x, places2 = self.down2(self.stage1(x))
        x = self.stage4(self.up2(self.context(x), places2))
        logits: Tensor = self.classifier(self.stage5(self.up1(x, places1)))
        return logits[..., :height, :width]


def enet(num_classes: int, *, input: InputSetting = None) -> ENet:
    """ENet.

    351,660 parameters at 19 classes, 3.612 G multiply-adds at 512×1024.
    """
    return ENet(num_classes, input)
